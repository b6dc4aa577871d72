"""`labcore bench quant_decode`: what 4-bit weights are worth to one token, module against module."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.core.errors import InputError
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.loader import load_model, open_checkpoint
from labcore.quant.calibrate import linears
from labcore.quant.rtn import quantize_weight
from labcore.quant.serve import served_layer
from labcore.quant.spec import QuantSpec
from labcore.quant.table import SUBJECTS


@torch.inference_mode()
def suite(run: RunBuilder) -> None:
    """One token through every linear of the real model: 4-bit codes in compiled kernels beside fp32 weights in torch.

    The kernels' peer ought to be bf16, which a CPU without bf16 instructions multiplies an order of magnitude slower
    than fp32: so the bytes are compared with those of fp32.
    """
    if why := why_unavailable():
        raise InputError(why)
    model = load_model(open_checkpoint(SUBJECTS["smollm2-135m"].path()))
    modules = list(linears(model).values())
    floats = [one.weight for one in modules]
    rounded = [quantize_weight(w, QuantSpec(4, 32, symmetric=True)).stored() for w in floats]
    codes = [served_layer(weight) for weight in rounded]
    inputs = [torch.randn(1, w.shape[1], generator=torch.Generator().manual_seed(0)) for w in floats]
    took = alternate(
        {
            "ours": lambda: [linear(x) for linear, x in zip(codes, inputs, strict=True)],
            "fp32": lambda: [linear(x) for linear, x in zip(modules, inputs, strict=True)],
        },
        rounds=7,
    )
    small, large = sum(linear.panels.nbytes for linear in codes), sum(w.nbytes for w in floats)
    errors = []
    for weight, linear, x in zip(rounded, codes, inputs, strict=True):
        exact = F.linear(x, weight.dequantize())
        errors.append(((linear(x) - exact).abs().max() / exact.abs().max()).item())
    run.add(
        Row(
            key="quant.int4.decode",
            what="one token through all 210 linears of SmolLM2-135M, 4 bits in groups of 32, in compiled kernels",
            ours=took["ours"],
            baseline=took["fp32"],
            baseline_name="torch.nn.Linear, fp32 weights",
            unit="s",
            kind="speedup",
            target={"must": 0.75 * large / small},  # no `ideal`: 66 MB may lie in a cache that 425 MB does not fit into
            dtype="int4",
            threads=run.threads,
            bytes=float(small),
            shape={"linears": len(floats), "bytes_fp32": large, "bytes_int4": small, "rows": 1},
            correct={
                "pass": max(errors) < 1e-3 and all(isinstance(one, BlockLinear) for one in codes),
                "error": max(errors),
                "bar": "1e-3 of the largest output, against the dequantized weights",
            },
            notes="fp32 weights, not bf16, so that no bf16 instructions are needed; the bar: 0.75 of the bytes' ratio",
        )
    )
