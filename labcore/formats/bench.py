"""`labcore bench formats`: how fast weights become blocks, and what a product from integer codes costs.

Encoding is measured in bytes of fp32 read, beside gguf-py where it can write the type (it writes no k-quants). The
product is one decode step of a 4096 × 4096 layer, whose fp32 weight no cache holds, beside torch's own fp32 product.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate, measure
from labcore.formats.block_encode import quantize
from labcore.formats.blocks import dequantize, named
from labcore.formats.group_codes import GroupCodes
from labcore.formats.group_linear import GroupLinear

ROWS, COLUMNS = 512, 2048  # 4 MiB of fp32
LEGACY, KQUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"), ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
WIDE, GROUP = 4096, 128


def suite(run: RunBuilder) -> None:
    """Rows `cpu.formats.encode.*` (B/s) and `cpu.formats.linear.*` (s)."""
    x = np.random.default_rng(0).normal(0, 0.03, (ROWS, COLUMNS)).astype(np.float32)
    encode_legacy(run, x)
    encode_kquants(run, x)
    for bits in (4, 8):
        linear_row(run, bits)


def encode_legacy(run: RunBuilder, x: np.ndarray) -> None:
    """x, fp32 [ROWS, COLUMNS], to each 32-wide type, beside gguf-py, whose bytes it must be."""
    try:
        import gguf
    except ModuleNotFoundError:
        return run.skip("cpu.formats.encode", "gguf is not installed")
    run.add_version("gguf")
    for name in LEGACY:
        format, theirs = named(name), gguf.GGMLQuantizationType[name]

        def peer(theirs=theirs) -> np.ndarray:
            return gguf.quants.quantize(x, theirs)

        took = alternate(
            {"ours": lambda format=format: quantize(x, format), "gguf": peer}, rounds=5, per_round=1, min_time=0
        )
        run.add(
            Row(
                key=f"cpu.formats.encode.{name.lower()}",
                what=f"fp32 weights to {name}",
                ours=_rates(took["ours"], x.nbytes),
                baseline=_rates(took["gguf"], x.nbytes),
                baseline_name="gguf-py",
                unit="B/s",
                kind="speedup",
                correct={"pass": quantize(x, format).tobytes() == peer().tobytes(), "bar": "the bytes of gguf-py"},
                **_common(x),
            )
        )


def encode_kquants(run: RunBuilder, x: np.ndarray) -> None:
    """x to each k-quant, which must err by less than a share of the mean magnitude that halves with every bit."""
    for name in KQUANTS:
        format = named(name)
        error = float(np.abs(dequantize(quantize(x, format), format) - x).mean() / np.abs(x).mean())
        bar = 2.0 ** (1 - int(name[1]))
        seconds = measure(lambda format=format: quantize(x, format), rounds=3, min_time=0)
        run.add(
            Row(
                key=f"cpu.formats.encode.{name.lower()}",
                what=f"fp32 weights to {name}",
                ours=_rates([seconds], x.nbytes),
                unit="B/s",
                kind="value",
                correct={"pass": error < bar, "error": error, "bar": f"{bar} of the mean magnitude"},
                **_common(x) | {"method": "3 samples, warm"},
            )
        )


@torch.inference_mode()
def linear_row(run: RunBuilder, bits: int) -> None:
    """One decode step from codes of `bits` bits, 4 or 8, in groups of GROUP."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2**bits, (WIDE, WIDE), generator=generator).to(torch.uint8)
    groups = WIDE // GROUP
    zero = torch.randint(0, 2**bits, (WIDE, groups), generator=generator).float()
    weight = GroupCodes(codes, torch.full((WIDE, groups), 0.01), zero, bits)
    layer, floats = GroupLinear(weight), weight.dequantize()
    x = torch.randn(1, WIDE, generator=generator)
    expected = F.linear(x.double(), floats.double())
    error = ((layer(x) - expected).abs().max() / expected.abs().max()).item()
    took = alternate({"ours": lambda: layer(x), "fp32": lambda: F.linear(x, floats)}, rounds=5, per_round=3)
    run.add(
        Row(
            key=f"cpu.formats.linear.{layer.path}",
            what=f"one row times a {WIDE} x {WIDE} weight of {bits}-bit codes",
            ours=took["ours"],
            baseline=took["fp32"],
            baseline_name="torch fp32 product",
            unit="s",
            kind="speedup",
            ideal=floats.nbytes / sum(buffer.nbytes for buffer in layer.buffers()),
            correct={"pass": error < 2e-2, "error": error, "bar": "2e-2 of the largest output: x is rounded to bf16"},
            dtype=f"int{bits}",
            threads=run.threads,
            bytes=float(sum(buffer.nbytes for buffer in layer.buffers())),
            shape={"out": WIDE, "in": WIDE, "group": GROUP},
        )
    )


def _common(x: np.ndarray) -> dict:
    return {"dtype": "fp32", "threads": 1, "bytes": float(x.nbytes), "shape": {"rows": ROWS, "columns": COLUMNS}}


def _rates(rounds: list[list[float]], size: int) -> list[list[float]]:
    return [[size / seconds for seconds in samples] for samples in rounds]
