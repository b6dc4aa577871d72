"""Texts as rows of equal length: how calibration and evaluation feed a decoder, without a cache.

A window is read from its own beginning: no token sees another window.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.model.llama import Attend, Llama


def cut(ids: list[int] | Tensor, length: int, count: int | None = None) -> Tensor:
    """Windows [count, length + 1] of a token stream, one token shared by neighbours: length inputs, length targets.

    count: so many, spread evenly over the stream; None: all that fit. InputError when there are not enough.
    """
    rows = torch.as_tensor(ids).unfold(0, length + 1, length) if len(ids) > length else torch.empty(0, length + 1)
    wanted = len(rows) if count is None else count
    if not 1 <= wanted <= len(rows):
        raise InputError(f"{len(ids)} tokens hold {len(rows)} windows of {length} + 1; {max(1, wanted)} were asked for")
    return rows[torch.arange(wanted) * len(rows) // wanted].long()


def attend_within(count: int, length: int) -> Attend:
    """Causal attention within each of `count` windows that lie one after the other in the pass."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
        return attended.transpose(1, 2).flatten(0, 1)

    return attend


def logits(model: Llama, inputs: Tensor) -> Tensor:
    """[windows · length, vocab] after every token of inputs [windows, length]."""
    count, length = inputs.shape
    return model(inputs.flatten(), _positions(inputs), attend_within(count, length))


def next_token_loss(model: Llama, rows: Tensor) -> Tensor:
    """Mean cross-entropy in nats of each token of rows [windows, length + 1] after its predecessors in the row."""
    return F.cross_entropy(logits(model, rows[:, :-1]), rows[:, 1:].flatten())


def context(model: Llama, inputs: Tensor) -> tuple[tuple[Tensor, Tensor], Attend]:
    """What a block or its attention takes beside x: the rotation of every token, and attention within the windows.

    With it a walk can stop at every block: x = model.embed_tokens(inputs.flatten()), then x = block(x, *context).
    """
    count, length = inputs.shape
    return model.rope(_positions(inputs)), attend_within(count, length)


def _positions(inputs: Tensor) -> Tensor:
    count, length = inputs.shape
    return torch.arange(length, device=inputs.device).repeat(count)
