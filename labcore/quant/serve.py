"""Quantized weights computed from their codes: what makes decoding faster, beside what makes a file smaller.

Codes of four bits in groups of a multiple of 32 are the content of ggml's blocks: a symmetric grid is Q4_0 exactly, an
integer zero becomes Q4_1's minimum, -scale · zero, in fp16. So whatever chose the codes (GPTQ, AWQ, rounding), the
compiled kernels that serve GGUF files serve them, too. Everything else runs through torch's int4 and int8 products, or
dequantized where those have no kernel (`formats.group_linear`). On a GPU codes of up to four bits are repacked for the
Triton kernels (`kernels.w4a16`), wherever they came from: a method here, a GPTQ or AWQ folder, the Q4_0 blocks of a
GGUF file.
"""

from collections import Counter

import numpy as np
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.formats.blocks import BlockFormat, named, pack_codes, record
from labcore.formats.group_linear import GroupLinear
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import PANEL, BlockLinear
from labcore.kernels.w4_weight import obstacle, repack, repack_gguf_q4_0
from labcore.model.llama import Llama
from labcore.model.loader import Checkpoint, GGUFCheckpoint, replace_module
from labcore.quant.calibrate import linears
from labcore.quant.spec import QuantizedWeight

BLOCK = 32


def serve(model: Llama, backend: str = "auto") -> Counter:
    """Swap the model's QuantizedLinear layers whose weights are integer codes for layers that compute from the codes.

    backend: "cpu"; "triton" (a GPU, or the interpreter); "auto": Triton if the model is on a GPU. New layers are put
    where the model is. Returns how many of them run on which path: "blocks" (compiled), "int4", "int8", "w4a16" or
    "dequantized". Layers that round their activations stay as they are.
    """
    if backend not in ("auto", "cpu", "triton"):
        raise InputError(f"backend={backend!r}: choose 'auto', 'cpu' or 'triton'")
    like = next(model.parameters())
    on_gpu = like.is_cuda if backend == "auto" else backend == "triton"
    paths: Counter = Counter()
    for name, layer in linears(model).items():
        if isinstance(getattr(layer, "stored", None), QuantizedWeight) and getattr(layer, "round_input", None) is None:
            served = gpu_layer(layer.stored, layer.bias, like) if on_gpu else served_layer(layer.stored, layer.bias)
            paths[getattr(served, "path", "blocks")] += 1
            replace_module(model, name, served)
    return paths


def served_layer(weight: QuantizedWeight, bias: Tensor | None = None) -> nn.Module:
    """The fastest layer there is for these codes on this machine."""
    if bias is None and _are_blocks(weight) and len(weight.codes) % PANEL == 0 and why_unavailable() is None:
        return BlockLinear(*blocks(weight))
    return GroupLinear(weight.group_codes(), bias)


def gpu_layer(weight: QuantizedWeight, bias: Tensor | None, like: Tensor) -> nn.Module:
    """The layer for a GPU, on the device of `like`: from the codes if `repack` takes them, else a plain linear in the
    type of `like` with the dequantized weight."""
    from labcore.kernels.w4_linear import W4Linear  # needs Triton

    codes = weight.group_codes()
    if obstacle(codes) is None:
        return W4Linear(repack(codes), bias).to(like.device)
    plain = nn.Linear(*reversed(weight.codes.shape), bias=bias is not None, device=like.device, dtype=like.dtype)
    plain.requires_grad_(False).weight.copy_(weight.dequantize())
    if bias is not None:
        plain.bias.copy_(bias)
    plain.path = "dequantized"
    return plain


def serve_q4_0(model: Llama, checkpoint: Checkpoint) -> None:
    """A `loader.load_model` transform for a GPU: the projections that a GGUF file stores as Q4_0 stay 4-bit codes.

    What the file keeps in other types is loaded as floats. InputError for a checkpoint that is no GGUF file, or whose
    projections are none of them Q4_0. The layers are made on the CPU: load_model(...).to(device) moves them.
    """
    from labcore.kernels.w4_linear import W4Linear  # needs Triton

    if not isinstance(checkpoint, GGUFCheckpoint):
        raise InputError("serve_q4_0 reads a GGUF file; load a GPTQ or AWQ folder with load_quantized, then serve it")
    found = {name: checkpoint.blocks(f"{name}.weight") for name in linears(model)}
    if not any(format.name == "Q4_0" for _, format in found.values()):
        kinds = sorted({format.name for _, format in found.values()})
        raise InputError(f"the file stores its projections as {', '.join(kinds)}; the 4-bit GPU layer reads Q4_0")
    for name, (raw, format) in found.items():
        if format.name == "Q4_0":
            bias = model.get_submodule(name).bias
            bias = None if bias is None else checkpoint.tensor(f"{name}.bias")
            replace_module(model, name, W4Linear(repack_gguf_q4_0(raw), bias))


def blocks(weight: QuantizedWeight) -> tuple[np.ndarray, BlockFormat]:
    """The weight as Q4_0 or Q4_1 blocks: raw uint8 [out, bytes per row] and the format.

    InputError for codes of other widths, groups that 32 does not divide, or columns out of their groups' order.
    """
    if not _are_blocks(weight):
        raise InputError(
            f"codes of {weight.spec.bits} bits in groups of {_group(weight)}"
            f"{'' if weight.g_idx is None else ', in act-order'}: blocks hold 4 bits and 32 neighbours"
        )
    scale, zero = (
        one.float().repeat_interleave(_group(weight) // BLOCK, dim=1).reshape(-1).numpy()
        for one in (weight.scale, weight.zero)
    )
    packed = pack_codes(weight.codes.reshape(-1, BLOCK).numpy(), bits=4, run=16)
    if weight.spec.symmetric:
        name, structs = "Q4_0", record("Q4_0", d=scale, qs=packed)
    else:
        name, structs = "Q4_1", record("Q4_1", d=scale, m=-scale * zero, qs=packed)
    return structs.view(np.uint8).reshape(len(weight.codes), -1), named(name)


def _are_blocks(weight: QuantizedWeight) -> bool:
    return weight.spec.bits == 4 and _group(weight) % BLOCK == 0 and weight.g_idx is None


def _group(weight: QuantizedWeight) -> int:
    return weight.codes.shape[1] // weight.scale.shape[1]
