"""`labcore bench kv_quality`: what each registered cache costs in quality, on the real model in fp32, one thread.

A row's value is a perplexity; nothing in it depends on the clock.
"""

from __future__ import annotations

from dataclasses import asdict

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import pinned_threads
from labcore.model.cache_quality import compare, haystack, prose, recall, texts
from labcore.model.cache_variants import VARIANTS, exact
from labcore.model.cache_variants_lossy import LOSSY, low_rank
from labcore.model.checkpoints import fetch
from labcore.model.loader import load_model, open_checkpoint

MODEL = "smollm2-135m"
FIRST = 256  # tokens before this one are read but not scored: most budgets have room for them
METHOD = f"token by token, teacher forced, one text; exp of the mean -ln p of its tokens from {FIRST} on"


def suite(run: RunBuilder) -> None:
    """Perplexity, KL, top-1 agreement and needle recall of every registered cache, all decoded side by side."""
    checkpoint = open_checkpoint(fetch(MODEL))
    model, tokenizer = load_model(checkpoint), checkpoint.tokenizer()
    ids, hay = prose(tokenizer), haystack(tokenizer)
    variants = VARIANTS | LOSSY | low_rank(model, tokenizer.encode(texts()["calibration"]))
    capacity = max(len(ids), len(hay.ids))
    with pinned_threads(1):
        caches = {name: variant.make(model, capacity) for name, variant in variants.items()}
        qualities = compare(model, exact(model, capacity), caches, ids, first=FIRST, say=run.say)
        recalls = recall(model, caches, hay, run.say)
    for name, variant in variants.items():
        quality, needles = qualities[name], recalls[name]
        held, predicted = caches[name].nbytes, variant.nbytes(model, capacity)
        run.add(
            Row(
                key=f"cpu.kv_quality.{name}",
                what=variant.what,
                ours=[[quality.perplexity]],
                unit="1",
                kind="value",
                dtype="fp32",
                threads=1,
                bytes=float(held),
                shape={"model": MODEL, "tokens": len(ids), "capacity": capacity},
                config=asdict(quality) | {"needles": [asdict(one) for one in needles]},
                correct={"pass": held == predicted, "how": f"{held} bytes reserved, {predicted:.0f} by formula"},
                method=METHOD,
            )
        )
