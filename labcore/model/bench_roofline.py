"""`labcore bench roofline`: the exact path on this machine's own roofline, and where a decode step's time goes.

| rows | measure |
|---|---|
| cpu.roofline.bNN | one decode step of NN sequences; `config` splits it into linear layers, attention and the rest |
| cpu.roofline.prefill | one pass over a prompt |
| cpu.product.bNN | the weight matrices alone times NN rows, as torch multiplies them and with weights packed ahead |
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate, measure
from labcore.model.bench import MODEL, PROMPT, Decoder, new_cache, prefill, prompt_ids
from labcore.model.checkpoints import fetch
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.parts import count_operators, step_parts
from labcore.model.stats import kv_bytes_per_token, layer_parameters, weight_bytes_per_pass

BATCHES = (1, 2, 4, 8, 16, 32, 64)
STEPS, SAMPLES = 4, 7
CONTEXT = PROMPT + STEPS // 2  # cached tokens that the steps of one sample read on average
PREFILL = 256


def suite(run: RunBuilder) -> None:
    """Decode over the batch, one prefill, and the products alone: fp32 weights make this CPU cross its own ridge."""
    path = fetch(MODEL)
    model = load_model(open_checkpoint(path))
    ids = prompt_ids(PROMPT, path)
    single = Decoder(model, ids, 1, PROMPT + STEPS)
    single.run(STEPS)
    for batch in BATCHES:
        run.add(step_row(run, model, ids, batch, single.tokens))
    run.add(prefill_row(run, model, prompt_ids(PREFILL, path)))
    if not torch.backends.mkldnn.is_available():
        return run.skip("cpu.product", "this torch has no oneDNN to pack weights with")
    for batch in BATCHES:
        run.add(product_row(run, model, batch))


def attention_flops(model: Llama, context: float) -> float:
    """FLOP of one token's attention over `context` cached tokens in all layers: scores and weighted sum."""
    config = model.config
    return 4 * config.n_layers * config.n_heads * config.head_dim * context


def product_flops(model: Llama) -> float:
    """FLOP of one token in all linear layers, head included."""
    return 2 * (layer_parameters(model) + model.config.vocab * model.config.hidden)


def step_row(run: RunBuilder, model: Llama, ids: Sequence[int], batch: int, alone: Tensor) -> Row:
    """One decode step of `batch` sequences that are copies of one, whose last token alone is `alone`."""
    decoder = Decoder(model, ids, batch, PROMPT + STEPS)
    seconds = measure(lambda: decoder.run(STEPS), rounds=SAMPLES, min_time=0)
    beta, rate = run.ceiling("read_bandwidth"), run.ceiling("matmul.fp32")
    weights, cache = weight_bytes_per_pass(model), batch * CONTEXT * kv_bytes_per_token(model)
    products = batch * product_flops(model)
    flops = products + batch * attention_flops(model, CONTEXT)
    return Row(
        key=f"cpu.roofline.b{batch:02d}",
        what=f"one decode step of {batch} sequence{'s' * (batch > 1)}, fp32",
        ours=[[one / STEPS for one in seconds]],
        unit="s",
        kind="fraction_of_ceiling",
        floor=max((weights + cache) / beta, flops / rate),
        floor_formula="max(bytes / read_bandwidth, FLOP / matmul.fp32)",
        predicted=max(weights / beta, products / rate) + cache / beta,
        predicted_by="decode.step_time",
        dtype="fp32",
        threads=run.threads,
        flops=float(flops),
        bytes=float(weights + cache),
        shape={"model": MODEL, "batch": batch, "context": CONTEXT},
        config={
            "weights": weights,
            "cache": cache,
            "seconds": step_parts(model, ids, batch, STEPS, SAMPLES),
            "operators": count_operators(model, ids, batch),
        },
        correct={
            "pass": bool((decoder.tokens == alone).all()),
            "how": "every sequence ends on the token it gets alone",
        },
        method=f"{STEPS} steps from the same position, {SAMPLES} samples; config: the same steps with timers in them",
    )


@torch.inference_mode()
def prefill_row(run: RunBuilder, model: Llama, ids: list[int]) -> Row:
    """One pass over the prompt `ids` that computes the logits of its last token."""
    seconds = measure(lambda: prefill(model, ids), rounds=5, min_time=0)
    cache, logits = new_cache(model, 1, len(ids)), None
    for piece in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
        attend = cache.extend([(0, len(piece))])
        logits = model(torch.tensor(piece), attend.positions, attend, wanted=attend.last)
    error = (prefill(model, ids) - logits).abs().max().item()
    beta, rate = run.ceiling("read_bandwidth"), run.ceiling("matmul.fp32")
    head = 2 * model.config.vocab * model.config.hidden
    products = len(ids) * (product_flops(model) - head) + head
    flops = products + len(ids) * attention_flops(model, (len(ids) + 1) / 2)
    read = weight_bytes_per_pass(model)
    return Row(
        key="cpu.roofline.prefill",
        what=f"one pass over a prompt of {len(ids)} tokens, fp32",
        ours=[seconds],
        unit="s",
        kind="fraction_of_ceiling",
        floor=max(read / beta, flops / rate),
        floor_formula="max(bytes / read_bandwidth, FLOP / matmul.fp32)",
        predicted=max(read / beta, products / rate),
        predicted_by="roofline.pass_time",
        dtype="fp32",
        threads=run.threads,
        flops=float(flops),
        bytes=float(read),
        shape={"model": MODEL, "tokens": len(ids)},
        correct={"pass": error < 1e-3, "error": error, "bar": "1e-3 in the logits of a prompt fed in two halves"},
        method="5 samples",
    )


@torch.inference_mode()
def product_row(run: RunBuilder, model: Llama, batch: int) -> Row:
    """Every weight matrix once, in the order of a pass, times `batch` rows: packed ahead beside nn.Linear's own way.

    Packed is in the order of tiles in which the kernel of oneDNN reads; nn.Linear hands over rows at each call.
    """
    weights = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    packed = [torch.ops.mkldnn._reorder_linear_weight(weight.detach(), batch) for weight in weights]
    rows = {width: torch.randn(batch, width) for width in {weight.shape[1] for weight in weights}}

    def plain(weight: Tensor) -> Tensor:
        return F.linear(rows[weight.shape[1]], weight)

    def ahead(weight: Tensor, tiles: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows[weight.shape[1]], tiles, None, "none", [], "")

    programs = {
        "ahead": lambda: [ahead(*pair) for pair in zip(weights, packed, strict=True)],
        "plain": lambda: [plain(weight) for weight in weights],
    }
    took = alternate(programs, rounds=5, per_round=2, min_time=0)
    error = max(
        ((ahead(w, t) - plain(w)).abs().max() / plain(w).abs().max()).item()
        for w, t in zip(weights, packed, strict=True)
    )
    size, flops = sum(weight.nbytes for weight in weights), batch * product_flops(model)
    beta, rate = run.ceiling("read_bandwidth"), run.ceiling("matmul.fp32")
    return Row(
        key=f"cpu.product.b{batch:02d}",
        what=f"all {len(weights)} weight matrices times {batch} row{'s' * (batch > 1)}, fp32, packed ahead",
        ours=took["ahead"],
        baseline=took["plain"],
        baseline_name="torch.nn.Linear, from the plain matrix",
        unit="s",
        kind="speedup",
        floor=max(size / beta, flops / rate),
        floor_formula="max(bytes / read_bandwidth, FLOP / matmul.fp32)",
        dtype="fp32",
        threads=run.threads,
        flops=float(flops),
        bytes=float(size),
        shape={"model": MODEL, "batch": batch, "matrices": len(weights)},
        correct={"pass": error < 1e-4, "error": error, "bar": "1e-4 of the largest entry, against nn.Linear"},
    )
