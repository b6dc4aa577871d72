"""Self-speculation by skipping layers: some of the target's layers are the draft, with keys and values of their own.

Where a layer is skipped, those above it read something else than in the target, so the target's keys and values are of
no use to the draft. Which layers to keep is searched once, offline, on text: `search` leaves them out one at a time,
each time the one without which the draft agrees with the target most often.
Source: Draft & Verify, arXiv:2309.08168, sections 3.1 and 3.2, which skips attention and MLP apart and searches with
Bayesian optimization; a greedy search over whole layers is what a small model affords.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.llama import Llama
from labcore.speculative.layer_subset import subset
from labcore.speculative.paged_draft import PagedDraft
from labcore.speculative.proposer import Target

# What `search` found for SmolLM2-135M, on 112 tokens of four questions and its own answers to them: the layers in the
# order in which it left them out, and the agreement that was left. Half the layers agree in one place of three.
SEARCHED = (
    (17, 0.875), (25, 0.795), (14, 0.759), (3, 0.705), (22, 0.705), (16, 0.625), (18, 0.607), (13, 0.527),
    (26, 0.482), (5, 0.464), (4, 0.455), (9, 0.402), (7, 0.348), (6, 0.348), (10, 0.330),
)  # fmt: skip
SEARCHED_LAYERS = 30


class LayerSkip(PagedDraft):
    """Chains of `num_tokens` tokens from the layers `kept` of the target; None: the `num_layers` that the search on
    SmolLM2-135M would keep, InputError for a model with another number of layers. draft_vocab: as for `EarlyExit`."""

    def __init__(
        self,
        target: Target,
        num_tokens: int = 3,
        num_layers: int = 24,
        kept: Sequence[int] | None = None,
        draft_vocab: Sequence[int] | None = None,
    ):
        if kept is None:
            kept = recorded(target.model.config.n_layers, num_layers)
        super().__init__(subset(target.model, kept, draft_vocab), draft_vocab, num_tokens=num_tokens)


def recorded(n_layers: int, num_layers: int) -> list[int]:
    """The layers that the recorded search keeps when `num_layers` are left. Raises InputError where it was not made."""
    fewest = SEARCHED_LAYERS - len(SEARCHED)
    if n_layers != SEARCHED_LAYERS:
        raise InputError(f"no search was recorded for a model of {n_layers} layers; run layer_skip.search, give kept=")
    if not fewest <= num_layers < n_layers:
        raise InputError(f"num_layers={num_layers}: the recorded search keeps {fewest} to {n_layers - 1} layers")
    left_out = [layer for layer, _ in SEARCHED[: n_layers - num_layers]]
    return [layer for layer in range(n_layers) if layer not in left_out]


def search(model: Llama, token_ids: Sequence[int], count: int, tries: int = 6) -> list[tuple[int, float]]:
    """`count` layers to leave out, one after the other, each with the agreement that is left when it is gone.

    Agreement is the share of places in the text `token_ids` at which draft and target hold the same token likeliest.
    The first step tries every layer, each later one the `tries` that did best when they were tried last.
    """
    expected, found = likeliest(model, token_ids), []
    agreement = dict.fromkeys(range(model.config.n_layers), 1.0)  # of the layers that are left
    for step in range(count):
        best_first = sorted(agreement, key=lambda layer: -agreement[layer])
        tried = best_first if step == 0 else best_first[:tries]
        for layer in tried:
            draft = subset(model, sorted(set(agreement) - {layer}))
            agreement[layer] = (likeliest(draft, token_ids) == expected).float().mean().item()
        best = max(tried, key=lambda layer: agreement[layer])
        found.append((best, agreement.pop(best)))
    return found


@torch.inference_mode()
def likeliest(model: Llama, token_ids: Sequence[int]) -> Tensor:
    """int64 [tokens]: the likeliest token after each token of a text."""
    config = model.config
    shape = config.n_layers, config.n_kv_heads, config.head_dim
    attend = ContiguousKVCache(*shape, slots=1, capacity=len(token_ids)).extend([(0, len(token_ids))])
    return model(torch.tensor(token_ids), attend.positions, attend).argmax(-1)
