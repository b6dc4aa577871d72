"""SwiGLU of the joint gate and up product: silu(gate) · up in one pass, three tensors moved instead of five.

Rounding follows Llama's code: silu in float32 and rounded to the model's dtype, then the product, rounded again.
Sources: SwiGLU, arXiv:2002.05202; transformers, models/llama/modeling_llama.py, LlamaMLP; vLLM's silu_and_mul.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose
from labcore.kernels._compile import Variant, half
from labcore.kernels._config import pick, rules


def silu_mul_reference(gate_up: Tensor) -> Tensor:
    """The specification."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


# [book: silu-mul]
@triton.jit
def _silu_mul_kernel(gate_up_ptr, out_ptr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Program (row, block) makes BLOCK columns of a row; row [gate | up] is 2 · WIDTH long."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = column < WIDTH
    gate = tl.load(gate_up_ptr + row * (2 * WIDTH) + column, mask=here, other=0.0)
    up = tl.load(gate_up_ptr + row * (2 * WIDTH) + WIDTH + column, mask=here, other=0.0)
    wide = gate.to(tl.float32)
    silu = (wide * tl.sigmoid(wide)).to(gate.dtype)
    tl.store(out_ptr + row * WIDTH + column, (silu.to(tl.float32) * up.to(tl.float32)).to(gate.dtype), mask=here)


# [/book]


def silu_mul(gate_up: Tensor, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """silu(gate) · up, [..., I], of gate_up [..., 2 · I], contiguous: the gate in the first half of each row."""
    if gate_up.shape[-1] % 2 or not gate_up.is_contiguous():
        raise InputError(f"gate_up is {tuple(gate_up.shape)}: make it contiguous, with rows of gate and then up")
    shape = (*gate_up.shape[:-1], gate_up.shape[-1] // 2)
    if out is not None:
        check_tensor("out", out, gate_up.dtype, shape)
    if choose(backend, gate_up, what="silu_mul") == "torch":
        result = silu_mul_reference(gate_up)
        return result if out is None else out.copy_(result)
    out = torch.empty(shape, dtype=gate_up.dtype, device=gate_up.device) if out is None else out
    if out.numel():
        launch = pick("silu_mul", capability(gate_up.device))
        grid = (out.numel() // shape[-1], triton.cdiv(shape[-1], launch["BLOCK"]))
        _silu_mul_kernel[grid](gate_up, out, WIDTH=shape[-1], **launch)
    return out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc."""
    kind = f"*{half(cc)}"
    for _, launch in rules("silu_mul", cc):
        types = {"gate_up_ptr": kind, "out_ptr": kind}
        yield Variant.of(f"block {launch['BLOCK']}", _silu_mul_kernel, types, launch, WIDTH=14336)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying."""
    for block, warps in ((1024, 2), (1024, 4), (2048, 4), (2048, 8), (4096, 4), (4096, 8), (8192, 8)):
        yield {"BLOCK": block, "num_warps": warps, "num_stages": 1}
