"""Where quantized weights enter a model: the linear layers of its blocks are swapped, everything else stays.

A stored weight is any object with `dequantize()`, float32 [out, in], and `nbytes`, what it occupies: QuantizedWeight,
CodebookWeight, Int8Rows, and those of labcore.formats.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.model.llama import Llama
from labcore.model.loader import replace_module
from labcore.quant.calibrate import linears

FLOAT_BYTES = 2  # of a parameter that is not quantized: checkpoints keep those in 16 bits


class StoredWeight(Protocol):
    nbytes: int

    def dequantize(self) -> Tensor: ...


class QuantizedLinear(nn.Module):
    """y = round_input(x) Ŵᵀ + b: computes with the numbers that `stored` stands for, in float32.

    The accuracy of the format, not its speed: see `serve` for layers that read the codes. round_input: what the format
    does to activations [tokens, in]; None: nothing (weight-only).
    """

    def __init__(
        self, stored: StoredWeight, bias: Tensor | None = None, round_input: Callable[[Tensor], Tensor] | None = None
    ):
        super().__init__()
        self.stored, self.bias, self.round_input = stored, bias, round_input
        self.weight = stored.dequantize().float()
        if not self.weight.isfinite().all():
            raise InputError("a quantized weight holds numbers that are not finite; nothing was swapped")

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x if self.round_input is None else self.round_input(x), self.weight, self.bias)


def install(
    model: Llama,
    weights: Mapping[str, StoredWeight],
    round_inputs: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> None:
    """Swap the named linears for QuantizedLinear. All of them are built before the first one is swapped."""
    layers = linears(model)
    if unknown := set(weights) - set(layers):
        raise InputError(f"{min(unknown)!r} is not a linear layer of a block; the first one is {next(iter(layers))!r}")
    built = {
        name: QuantizedLinear(stored, layers[name].bias, (round_inputs or {}).get(name))
        for name, stored in weights.items()
    }
    for name, layer in built.items():
        replace_module(model, name, layer)


def set_weight(linear: nn.Linear, weight: Tensor) -> None:
    """Another weight for a linear that stays a plain one."""
    linear.weight = nn.Parameter(weight, requires_grad=False)


def stored_bytes(model: Llama) -> tuple[int, int]:
    """Bytes of the blocks' linears as stored, and of the whole model: the rest (embedding, head, norms, biases) counts
    FLOAT_BYTES a parameter, and so does a linear that was not quantized."""
    quantized = sum(layer.stored.nbytes for layer in linears(model).values() if hasattr(layer, "stored"))
    floats = {id(p): p.numel() for p in model.parameters()}
    plain = sum(layer.weight.numel() for layer in linears(model).values() if not hasattr(layer, "stored"))
    in_blocks = quantized + FLOAT_BYTES * plain
    return in_blocks, quantized + FLOAT_BYTES * sum(floats.values())


def bits_per_weight(model: Llama) -> float:
    """Bits a weight of the blocks' linears."""
    return 8 * stored_bytes(model)[0] / sum(_count(layer) for layer in linears(model).values())


def _count(layer: nn.Module) -> int:
    return layer.weight.numel() if hasattr(layer, "weight") else layer.stored.codes.numel()
