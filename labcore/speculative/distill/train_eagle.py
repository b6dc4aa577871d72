"""EAGLE's one layer, trained on the target's features.

EAGLE-1 learns one step: smooth L1 between its output and the target's next feature, and cross-entropy between what the
LM head makes of the two. EAGLE-3 drops the first and learns several steps, each reading what the draft put out in the
step before (training-time test); step j counts 0.8^j.
Sources: arXiv:2401.15077, section 3.2 (loss, noise); arXiv:2503.01840, section 3.2; SafeAILab/EAGLE, eagle/train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.model.llama import Llama
from labcore.speculative.distill.attention import UnrolledAttention
from labcore.speculative.distill.data import Batch, batch
from labcore.speculative.distill.fit import Recipe, Say, fit, judged, soft_cross_entropy
from labcore.speculative.distill.generate import Example
from labcore.speculative.eagle_head import EagleHead, eagle_config
from labcore.speculative.reduced_head import ReducedHead

INTERMEDIATE, STEPS, DECAY = 768, 3, 0.8
NOISE = 0.2  # half-width of the uniform noise on features: at run time they are the draft's own, and wrong


def train_eagle(
    target: Llama,
    head: ReducedHead,
    examples: Sequence[Example],
    fused: bool,
    recipe: Recipe,
    say: Say = lambda line: None,
) -> tuple[EagleHead, list[float]]:
    """An EAGLE-3 layer (`fused`) or an EAGLE-1 layer for `target`, and its losses."""
    torch.manual_seed(recipe.seed)
    draft = EagleHead(eagle_config(target.config, INTERMEDIATE), fused)
    loss = loss_of_steps if fused else loss_of_features
    return draft, fit(draft, lambda one: loss(draft, target, head, one), examples, STEPS, recipe, say)


def loss_of_features(draft: EagleHead, target: Llama, head: ReducedHead, one: Batch) -> Tensor:
    """EAGLE-1. The paper weights the cross-entropy by 0.1, over very many steps; here, over few, by 1."""
    noise = (torch.rand_like(one.features[:, -1]) - 0.5) * 2 * NOISE
    out, _ = next(unroll(draft, target, one, noise))
    guessed, wanted = out[one.learns], one.following[one.learns]
    some = judged(len(guessed))
    said = soft_cross_entropy(head(draft.ready(guessed[some])), head(wanted[some]))
    return F.smooth_l1_loss(guessed, wanted) + said


def loss_of_steps(draft: EagleHead, target: Llama, head: ReducedHead, one: Batch) -> Tensor:
    """EAGLE-3: row t of step j says token t+j+2, as the target does from its state after token t+j+1."""
    total = torch.zeros(())
    for step, (out, rows) in enumerate(unroll(draft, target, one)):
        state, there = _later(one, step)
        some = there.nonzero()[:, 0]
        some = some[judged(len(some))]
        said = soft_cross_entropy(head(draft.ready(out[rows][some])), head(state[some]))
        total = total + DECAY**step * said
        if step == STEPS - 1:
            break
    return total


def unroll(draft: EagleHead, target: Llama, one: Batch, noise: Tensor | float = 0.0) -> Iterator[tuple[Tensor, Tensor]]:
    """Step after step, each given the right tokens and the features that the step before put out.

    Yields the output [rows, hidden] and which of its rows learn. Step 0 has all rows, later ones the learning rows.
    """
    taps, hidden = one.features.unbind(1)[:3], one.features[:, -1] + noise
    attend = UnrolledAttention(one.lengths, one.firsts)
    ids, positions, rows = one.token_ids, one.positions, one.learns
    x = draft.features(hidden, list(taps))
    for step in range(ids.shape[1] - 1):
        x = draft(target.embed_tokens(ids[:, 1 + step].clamp(min=0)), x, positions + step, attend)
        yield x, rows
        if step == 0:
            x, ids, positions = x[rows], ids[rows], positions[rows]
            rows = torch.ones(len(x), dtype=torch.bool)


def _later(one: Batch, step: int) -> tuple[Tensor, Tensor]:
    """For each learning row t the target's state after token t+step+1, and whether there is one."""
    states = torch.cat([F.pad(part, (0, 0, 0, step))[step:] for part in one.following.split(one.lengths)])
    return states[one.learns], one.token_ids[one.learns, 2 + step] >= 0


@torch.inference_mode()
def chain_accuracies(draft: EagleHead, target: Llama, head: ReducedHead, examples: Sequence[Example]) -> list[float]:
    """accuracy[j]: how often the draft's best guess for token t+j+2 is right, of the rows whose guesses were right so
    far; every row may begin a draft."""
    right, tried = [0] * (STEPS + 1), [0] * (STEPS + 1)
    for example in examples:
        one = batch([example], STEPS)
        alive = torch.ones(int(one.learns.sum()), dtype=torch.bool)
        for step, (out, rows) in enumerate(unroll(draft, target, one)):
            if step == STEPS:
                break
            tokens = one.token_ids[one.learns, 2 + step]
            alive &= tokens >= 0
            guesses, _ = head.likeliest(draft.ready(out[rows]), 1)
            tried[step] += int(alive.sum())
            alive &= guesses[:, 0] == tokens
            right[step] += int(alive.sum())
    return [round(hit / max(1, all_), 4) for hit, all_ in zip(right, tried, strict=True)][:STEPS]
