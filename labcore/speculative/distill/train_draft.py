"""A draft model learns the target's distribution after every token of the target's answers.

Cross-entropy against all the target holds possible teaches more than the one token it happened to say: knowledge
distillation, forward KL up to a constant. Source: DistillSpec, arXiv:2310.08461, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.model.llama import Llama
from labcore.speculative.distill.attention import CausalAttention
from labcore.speculative.distill.data import Batch, batch
from labcore.speculative.distill.fit import Recipe, Say, fit, judged, soft_cross_entropy
from labcore.speculative.distill.generate import Example
from labcore.speculative.reduced_head import ReducedHead
from labcore.speculative.tied_draft import TiedDraft, draft_config


def train_draft(
    target: Llama, head: ReducedHead, examples: Sequence[Example], recipe: Recipe, say: Say = lambda line: None
) -> tuple[TiedDraft, list[float]]:
    """A draft model for `target`, and its losses."""
    torch.manual_seed(recipe.seed)
    draft = TiedDraft(draft_config(target.config), target.config.hidden)
    begin_with_components(draft, target, examples)
    return draft, fit(draft, lambda one: loss(draft, target, head, one), examples, 0, recipe, say)


def begin_with_components(draft: TiedDraft, target: Llama, examples: Sequence[Example]) -> None:
    """Let the two projections keep what varies most, of the embeddings and of what the head reads: tokens that are rare
    in the examples are then as far apart for the draft as they are for the target."""
    size = draft.config.hidden
    table = target.embed_tokens(torch.arange(target.config.vocab))
    states = torch.cat([one.features[:, -1].float() for one in examples[:100]])
    down, up = (torch.linalg.eigh(part.T @ part).eigenvectors[:, -size:] for part in (table, states))
    draft.down.weight.data.copy_(down.T * (size / (table @ down).pow(2).sum(-1).mean()) ** 0.5)
    draft.up.weight.data.copy_(up * (states @ up).pow(2).mean() ** 0.5)


def loss(draft: TiedDraft, target: Llama, head: ReducedHead, one: Batch) -> Tensor:
    """Over some rows of the whole sequence: the target has an opinion on what comes next in a prompt, too."""
    rows = judged(len(one.learns))
    return soft_cross_entropy(_logits(draft, target, head, one, rows), head(one.features[rows, -1]))


@torch.inference_mode()
def agreement(draft: TiedDraft, target: Llama, head: ReducedHead, examples: Sequence[Example]) -> tuple[float, float]:
    """Over the answers: how often the draft's likeliest token is the one the target said, and the mean overlap
    Σ min(p, q) of their distributions at temperature 1, the chance that a sampled token is accepted."""
    right, overlap = [], []
    for example in examples:
        one = batch([example], 0)
        logits = _logits(draft, target, head, one, one.learns.nonzero()[:, 0])
        right.append(head.token_ids[logits.argmax(-1)] == one.token_ids[one.learns, 1])
        p = target.lm_head(one.features[one.learns, -1]).softmax(-1)[:, head.token_ids]
        overlap.append(torch.minimum(p, logits.softmax(-1)).sum(-1))
    return tuple(round(torch.cat(part).float().mean().item(), 4) for part in (right, overlap))


def _logits(draft: TiedDraft, target: Llama, head: ReducedHead, one: Batch, rows: Tensor) -> Tensor:
    """Of these rows, [rows, draft vocab]."""
    model = draft.between(target.embed_tokens, head)
    return model(one.token_ids[:, 0], one.positions, CausalAttention(one.lengths), wanted=rows)
