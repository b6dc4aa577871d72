"""`labcore bench weight_only`: what narrow weights alone are worth, from one row to sixty-four.

`cpu.weight_only.bNN`: the matrices of all blocks times NN rows, computed from the file's 4-bit blocks as they are
stored, beside fp32 weights that torch packed ahead. The prediction is the roofline's time for those bytes and FLOP, as
if unpacking were free and the arithmetic were the fp32 one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.core.errors import InputError
from labcore.formats.blocks import dequantize
from labcore.formulas import formula
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.bench import MODEL
from labcore.model.checkpoints import fetch
from labcore.model.loader import GGUFCheckpoint, open_checkpoint

BATCHES = (1, 2, 4, 8, 16, 32, 64)
MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
BAR = 2e-3  # of the largest entry: activations are rounded to 16-bit integers


def suite(run: RunBuilder) -> None:
    """One row for each of BATCHES."""
    if reason := why_unavailable():
        raise InputError(f"the compiled kernel cannot run here: {reason}")
    checkpoint = open_checkpoint(fetch(MODEL))
    wide, narrow = matrices(checkpoint)
    for batch in BATCHES:
        run.add(row(run, wide, narrow, batch))


def matrices(checkpoint: GGUFCheckpoint) -> tuple[list[Tensor], list[BlockLinear]]:
    """Every matrix of every block, in the order of a pass: fp32 [out, in], and as a layer over the stored blocks."""
    names = [f"layers.{i}.{name}.weight" for i in range(checkpoint.config.n_layers) for name in MATRICES]
    stored = [checkpoint.blocks(name) for name in names]
    return [torch.from_numpy(dequantize(*one)) for one in stored], [BlockLinear(*one) for one in stored]


@torch.inference_mode()
def row(run: RunBuilder, wide: list[Tensor], narrow: list[BlockLinear], batch: int) -> Row:
    """All matrices times `batch` rows, both ways in turns."""
    generator = torch.Generator().manual_seed(batch)
    rows = {width: torch.randn(batch, width, generator=generator) for width in sorted({w.shape[1] for w in wide})}
    packed = [torch.ops.mkldnn._reorder_linear_weight(w, batch) for w in wide]
    product = lambda w, tiles: torch.ops.mkldnn._linear_pointwise(rows[w.shape[1]], tiles, None, "none", [], "")  # noqa: E731
    programs = {
        "narrow": lambda: [layer(rows[layer.width]) for layer in narrow],
        "wide": lambda: [product(*pair) for pair in zip(wide, packed, strict=True)],
    }
    took = alternate(programs, rounds=5, per_round=2, min_time=0)
    exact, found = programs["wide"](), programs["narrow"]()
    error = max(((a - b).abs().max() / a.abs().max()).item() for a, b in zip(exact, found, strict=True))
    parameters, stored = sum(w.numel() for w in wide), sum(layer.panels.nbytes for layer in narrow)
    beta, rate = run.ceiling("read_bandwidth"), run.ceiling("matmul.fp32")
    width = stored / parameters
    seconds = formula["roofline.pass_time"](F=rate, beta=beta, b_w=width, P=parameters, T=batch)
    return Row(
        key=f"cpu.weight_only.b{batch:02d}",
        what=f"all {len(wide)} block matrices times {batch} row{'s' * (batch > 1)}, from stored 4-bit blocks",
        ours=took["narrow"],
        baseline=took["wide"],
        baseline_name="fp32 weights packed ahead, oneDNN",
        unit="s",
        kind="speedup",
        floor=stored / beta,
        floor_formula="stored bytes / read_bandwidth",
        predicted=seconds,
        predicted_by="roofline.pass_time",
        dtype="int16 × Q4_1",
        threads=run.threads,
        flops=float(2 * batch * parameters),
        bytes=float(stored),
        shape={"model": MODEL, "batch": batch, "matrices": len(wide)},
        config={
            "bits": 8 * width,
            "bound": formula["quant.weight_only_speedup"](B=batch, R=rate / beta, b_w=4, b_bar=8 * width),
        },
        correct={"pass": error < BAR, "error": error, "bar": f"{BAR:g} of the largest entry, against fp32"},
    )
