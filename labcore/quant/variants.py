"""The rows of the comparison: every method with every number of bits it is worth trying at, by name.

A variant changes the model it is given. Groups are of 64 weights along a row unless the name says otherwise: 64 divides
the rows of both models here, 128 does not divide SmolLM2's 576.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labcore.formats import blocks, fp8, microscaling, nf4, scaled_fp8
from labcore.formats.block_encode import quantize as encode
from labcore.model.llama import Llama
from labcore.quant import methods
from labcore.quant.llm_int8 import quantize_rows
from labcore.quant.spec import QuantSpec
from labcore.quant.squeezellm import OUTLIERS, SENSITIVE

GROUP = 64


@dataclass(frozen=True)
class Variant:
    """apply(model, calibration windows [windows, length + 1])."""

    name: str  # "method.bits"
    what: str
    apply: Callable[[Llama, Tensor], object]


@dataclass(frozen=True)
class BlockWeight:
    """A weight as the bytes of a ggml block format: raw uint8 [out, bytes per row]."""

    raw: np.ndarray
    format: blocks.BlockFormat

    @property
    def nbytes(self) -> int:
        return self.raw.nbytes

    def dequantize(self) -> Tensor:
        """float32 [out, in]."""
        return torch.from_numpy(blocks.dequantize(self.raw, self.format))


def ggml(name: str) -> Callable[[Tensor], BlockWeight]:
    """The rounding that llama.cpp's quantizer does without an importance matrix."""
    format = blocks.named(name)
    return lambda w: BlockWeight(encode(w.numpy(), format), format)


def variants() -> dict[str, Variant]:
    """All of them, in the order of the table."""
    every = [*_integers(), *_calibrated(), *_floats(), *_ggml(), *_with_activations()]
    return {one.name: one for one in every}


def _rounding(name: str, what: str, quantize: Callable) -> Variant:
    return Variant(name, what, lambda model, rows: methods.round_to_nearest(model, quantize))


def _integers() -> list[Variant]:
    found = [_rounding("int8-channel.8", "int8, one scale a row, -127 to 127", quantize_rows)]
    for bits in (8, 4, 3, 2):
        found.append(_rtn(f"rtn.{bits}", "round to nearest, asymmetric, groups of 64", QuantSpec(bits, GROUP)))
    found.append(_rtn("rtn-symmetric.4", "round to nearest, symmetric, groups of 64", QuantSpec(4, GROUP, True)))
    for bits in (4, 3):
        found.append(_rtn(f"rtn-channel.{bits}", "round to nearest, asymmetric, one scale a row", QuantSpec(bits)))
    return found


def _rtn(name: str, what: str, spec: QuantSpec) -> Variant:
    return Variant(name, what, lambda model, rows: methods.rtn(model, spec))


def _calibrated() -> list[Variant]:
    found = []
    for bits in (4, 3, 2):
        spec = QuantSpec(bits, GROUP)
        found += [
            _gptq(f"gptq.{bits}", "GPTQ, columns in order", spec),
            _gptq(f"gptq-act.{bits}", "GPTQ, act-order, static groups", spec, order="act", groups="static"),
            _awq(f"awq.{bits}", "AWQ: scales and clipping", spec, clipping=True),
        ]
    found.append(_awq("awq-scale.4", "AWQ: scales only", QuantSpec(4, GROUP), clipping=False))
    found.append(_gptq("gptq-channel.4", "GPTQ, columns in order, one scale a row", QuantSpec(4)))
    for bits in (4, 3):
        found.append(_squeeze(f"squeezellm.{bits}", "SqueezeLLM: sensitivity-weighted levels a row", bits))
        found.append(
            _squeeze(
                f"squeezellm-sparse.{bits}",
                "SqueezeLLM: levels, 0.45 % of the weights sparse",
                bits,
                outliers=OUTLIERS,
                sensitive=SENSITIVE,
            )
        )
    return found


def _gptq(name: str, what: str, spec: QuantSpec, **options) -> Variant:
    return Variant(name, what, lambda model, rows: methods.gptq_model(model, rows, spec, **options))


def _awq(name: str, what: str, spec: QuantSpec, clipping: bool) -> Variant:
    return Variant(name, what, lambda model, rows: methods.awq_model(model, rows, spec, clipping=clipping))


def _squeeze(name: str, what: str, bits: int, **shares) -> Variant:
    return Variant(name, what, lambda model, rows: methods.squeezellm_model(model, rows, bits, **shares))


def _floats() -> list[Variant]:
    return [
        _rounding("nf4.4", "NF4, blocks of 64", nf4.quantize),
        _rounding("nf4-double.4", "NF4, double quantization", lambda w: nf4.quantize(w, double=True)),
        _rounding("fp4.4", "FP4, blocks of 64", lambda w: nf4.quantize(w, "fp4")),
        _rounding("mxfp4.4", "MXFP4", microscaling.mxfp4),
        _rounding("nvfp4.4", "NVFP4", microscaling.nvfp4),
        _rounding("e4m3-channel.8", "FP8 E4M3, one scale a row", scaled_fp8.quantize),
        _rounding("e4m3-tensor.8", "FP8 E4M3, one scale", lambda w: scaled_fp8.quantize(w, scaled_fp8.TENSOR)),
        _rounding("e5m2-channel.8", "FP8 E5M2, one scale a row",
                  lambda w: scaled_fp8.quantize(w, format=fp8.E5M2)),
    ]  # fmt: skip


def _ggml() -> list[Variant]:
    names = ("Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "Q3_K", "Q2_K")
    return [_rounding(f"{name.lower()}.{name[1]}", f"ggml {name}", ggml(name)) for name in names]


def _with_activations() -> list[Variant]:
    spec, w4 = QuantSpec(4, GROUP), "4-bit groups of 64"
    return [
        Variant("w8a8-token.8", "W8A8, a scale per token", lambda m, rows: methods.int8_model(m)),
        Variant("w8a8-static.8", "W8A8, static scales", lambda m, rows: methods.int8_model(m, rows, static=True)),
        Variant("llm-int8.8", "LLM.int8(), threshold 6", lambda m, rows: methods.llm_int8_model(m)),
        Variant("smoothquant.8", "SmoothQuant α = 0.5, a scale per token",
                lambda m, rows: methods.smoothquant_model(m, rows)),
        Variant("smoothquant-static.8", "SmoothQuant α = 0.5, static scales",
                lambda m, rows: methods.smoothquant_model(m, rows, static=True)),
        Variant("w4a8-token.4", f"W4A8: {w4}, a scale per token", lambda m, rows: methods.w4a8(m, rows, spec)),
        Variant("fptq.4", f"FPTQ: {w4}, its plan for LLaMA", lambda m, rows: methods.fptq_model(m, rows, spec)),
        Variant("fptq-range.4", f"FPTQ: {w4}, by range",
                lambda m, rows: methods.fptq_model(m, rows, spec, by_range=True)),
    ]  # fmt: skip
