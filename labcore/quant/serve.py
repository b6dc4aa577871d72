"""Quantized weights computed from their codes: what makes decoding faster, beside what makes a file smaller.

Codes of four bits in groups of a multiple of 32 are the content of ggml's blocks: a symmetric grid is Q4_0 exactly, an
integer zero becomes Q4_1's minimum, -scale · zero, in fp16. So whatever chose the codes (GPTQ, AWQ, rounding), the
compiled kernels that serve GGUF files serve them, too. Everything else runs through torch's int4 and int8 products, or
dequantized where those have no kernel (`formats.group_linear`).
"""

from collections import Counter

import numpy as np
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.formats.blocks import BlockFormat, named, pack_codes, record
from labcore.formats.group_linear import GroupLinear
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import PANEL, BlockLinear
from labcore.model.llama import Llama
from labcore.model.loader import replace_module
from labcore.quant.calibrate import linears
from labcore.quant.spec import QuantizedWeight

BLOCK = 32


def serve(model: Llama) -> Counter:
    """Swap the model's QuantizedLinear layers whose weights are integer codes for layers that compute from the codes.

    Returns how many of them run on which path: "blocks" (compiled), "int4", "int8" or "dequantized". Layers that round
    their activations stay as they are.
    """
    paths: Counter = Counter()
    for name, layer in linears(model).items():
        if isinstance(getattr(layer, "stored", None), QuantizedWeight) and getattr(layer, "round_input", None) is None:
            served = served_layer(layer.stored, layer.bias)
            paths[getattr(served, "path", "blocks")] += 1
            replace_module(model, name, served)
    return paths


def served_layer(weight: QuantizedWeight, bias: Tensor | None = None) -> nn.Module:
    """The fastest layer there is for these codes on this machine."""
    if bias is None and _are_blocks(weight) and len(weight.codes) % PANEL == 0 and why_unavailable() is None:
        return BlockLinear(*blocks(weight))
    return GroupLinear(weight.group_codes(), bias)


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
