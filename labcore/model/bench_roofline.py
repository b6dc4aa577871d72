"""`labcore bench roofline`: the decode step of the exact path over the batch, on this machine's own roofline."""

from __future__ import annotations

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import measure
from labcore.model.bench import MODEL, PROMPT, Decoder, layer_parameters, prompt_ids
from labcore.model.checkpoints import fetch
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.stats import kv_bytes_per_token, weight_bytes_per_pass

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def suite(run: RunBuilder) -> None:
    """The exact path's decode step over the batch: fp32 weights make this CPU cross its own ridge."""
    path = fetch(MODEL)
    model = load_model(open_checkpoint(path))
    ids = prompt_ids(PROMPT, path)
    weights, kv = weight_bytes_per_pass(model), kv_bytes_per_token(model)
    beta, rate = run.ceiling("read_bandwidth"), run.ceiling("matmul.fp32")
    single = Decoder(model, ids, 1, PROMPT + 8)
    single.run(8)
    alone = single.tokens
    for batch in BATCHES:
        decoder = Decoder(model, ids, batch, PROMPT + 8)
        seconds = measure(lambda d=decoder: d.run(8), rounds=9, min_time=0)
        flops = 2 * batch * (layer_parameters(model) + model.config.vocab * model.config.hidden)
        read = weights + batch * (PROMPT + 4) * kv
        linear, cache = max(weights / beta, flops / rate), batch * (PROMPT + 4) * kv / beta
        run.add(
            Row(
                key=f"cpu.roofline.b{batch:02d}",
                what=f"one decode step of {batch} sequences, fp32",
                ours=[[one / 8 for one in seconds]],
                unit="s",
                kind="fraction_of_ceiling",
                floor=max(read / beta, flops / rate),
                floor_formula="max(bytes / read_bandwidth, FLOP / matmul.fp32)",
                predicted=linear + cache,
                predicted_by="decode.step_time",
                dtype="fp32",
                threads=run.threads,
                flops=float(flops),
                bytes=float(read),
                shape={"model": MODEL, "batch": batch, "context": PROMPT + 4},
                correct={
                    "pass": bool((decoder.tokens == alone).all()),
                    "how": "every sequence's eighth token is the one it gets alone",
                },
                method="8 steps from the same position, 9 samples",
            )
        )
