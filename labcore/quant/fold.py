"""Moving a scale from a layer's inputs into its weights: y = W x = (W diag(s)) (diag(s)⁻¹ x).

The division by s costs nothing at run time if whatever produces x can do it: a norm's weight, or the rows of a linear
layer whose outputs reach x unmixed. The function of the model stays the same; what is easy to round does not. AWQ,
SmoothQuant and FPTQ differ in how they choose s.
"""

import torch
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.model.llama import Block


@torch.no_grad()
def fold(producer: nn.Module, consumers: list[nn.Linear], scale: Tensor) -> None:
    """Divide the outputs of `producer` (a norm or a linear) by scale [channels], multiply the consumers' columns by it.

    InputError, with nothing changed, where the channels are not one to one or a scale is not a positive number.
    """
    if not (scale.isfinite() & (scale > 0)).all():
        raise InputError(f"a scale is {scale[~(scale.isfinite() & (scale > 0))][0].item():g}; it must be positive")
    channels = producer.weight.shape[0]
    if any(consumer.weight.shape[1] != channels for consumer in consumers) or scale.shape != (channels,):
        columns = sorted({consumer.weight.shape[1] for consumer in consumers})
        raise InputError(
            f"{channels} output channels feed layers with {columns} inputs and {len(scale)} scales: they must pair one "
            "to one (with grouped-query heads one value channel feeds several, so v does not fold into o)"
        )
    inverse = 1 / scale
    producer.weight = _parameter(producer.weight * (inverse if producer.weight.ndim == 1 else inverse[:, None]))
    if getattr(producer, "bias", None) is not None:
        producer.bias = _parameter(producer.bias * inverse)
    for consumer in consumers:
        consumer.weight = _parameter(consumer.weight * scale)


def producers(block: Block) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """The groups of a block's linears whose input can be scaled for free, each with the module that produces it.

    v feeds o channel by channel only if every query head has a key-value head of its own; up feeds down through a
    product, gate · up, which passes a factor on.
    """
    attention = block.self_attn
    found = [
        (block.input_layernorm, ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        (block.post_attention_layernorm, ("mlp.gate_proj", "mlp.up_proj")),
        (block.mlp.up_proj, ("mlp.down_proj",)),
    ]
    if attention.v_proj.weight.shape[0] == attention.o_proj.weight.shape[1]:
        found.insert(1, (attention.v_proj, ("self_attn.o_proj",)))
    return found


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
