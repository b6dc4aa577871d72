"""What a method may learn from calibration text: the inputs that every linear layer of a decoder sees.

Linears that read the same input form a group: q, k and v; o; gate and up; down. Two walks: `block_inputs` shows the
inputs in the model as it is; `true_sequential` lets each group be quantized before anything behind it computes, so that
later groups see, and can make up for, the errors of earlier ones.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from labcore.core.errors import InputError
from labcore.formats.groups import check_finite
from labcore.model.llama import Block, Llama
from labcore.quant import windows

GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)  # in the order in which a block computes them

# visit(linears by their full name, their common input [tokens, in])
Visit = Callable[[dict[str, nn.Linear], Tensor], None]


def linears(model: Llama) -> dict[str, nn.Linear]:
    """Every linear layer of the blocks by its name in the model; embedding and head are left as they are."""
    return {
        f"layers.{index}.{name}": block.get_submodule(name)
        for index, block in enumerate(model.layers)
        for group in GROUPS
        for name in group
    }


@torch.no_grad()
def true_sequential(model: Llama, inputs: Tensor, visit: Visit) -> None:
    """One pass over the calibration windows `inputs` [windows, length]; `visit` is called as each group is reached.

    A visitor that replaces the weights of its linears changes the outputs that everything behind them gets to see.
    All windows go through a block together, so every group is computed once. Source: the true-sequential option of
    IST-DASLab/gptq, which runs every block four times instead.
    """
    x, context = model.embed_tokens(_checked(inputs).flatten()), windows.context(model, inputs)
    for index, block in enumerate(model.layers):

        def reached(group: tuple[str, ...], seen: Tensor, index=index) -> None:
            visit({f"layers.{index}.{name}": model.layers[index].get_submodule(name) for name in group}, seen)

        x = _watched(index, block, x, context, reached)


@torch.no_grad()
def block_inputs(model: Llama, inputs: Tensor) -> Iterator[tuple[int, Block, dict[str, Tensor]]]:
    """Each block, with the input [tokens, in] of its linears by their name in the block.

    All of them as in the unchanged model: the next block's inputs are computed before the caller gets to change this
    one. One block's inputs are in memory at a time.
    """
    x, context = model.embed_tokens(_checked(inputs).flatten()), windows.context(model, inputs)
    for index, block in enumerate(model.layers):
        seen: dict[str, Tensor] = {}
        x = _watched(index, block, x, context, lambda group, x, seen=seen: seen.update(dict.fromkeys(group, x)))
        yield index, block, seen


def input_statistics(model: Llama, inputs: Tensor, measure: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """measure(input [tokens, in]) of every linear by its full name, for example `lambda x: x.abs().amax(0)`."""
    return {
        f"layers.{index}.{name}": measured
        for index, _, seen in block_inputs(model, inputs)
        for group in GROUPS
        for measured in [measure(seen[group[0]])]
        for name in group
    }


def _watched(
    index: int, block: Block, x: Tensor, context: tuple, reached: Callable[[tuple[str, ...], Tensor], None]
) -> Tensor:
    """The block's output; reached(group, input) is called just before each group of its linears computes."""

    def before(group: tuple[str, ...]) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(first: nn.Module, args: tuple[Tensor]) -> None:
            check_finite(args[0], f"input of layers.{index}.{group[0]}")
            reached(group, args[0])

        return hook

    hooks = [block.get_submodule(group[0]).register_forward_pre_hook(before(group)) for group in GROUPS]
    try:
        return block(x, *context)
    finally:
        for hook in hooks:
            hook.remove()


def _checked(inputs: Tensor) -> Tensor:
    if inputs.ndim != 2 or not inputs.numel():
        raise InputError(f"calibration windows of shape {tuple(inputs.shape)}; give at least one window of one token")
    return inputs
