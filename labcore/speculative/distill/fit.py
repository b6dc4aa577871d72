"""The training loop that all drafts share: AdamW, a warm-up, a cosine down to nothing, and a record of the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labcore.speculative.distill.data import CONTEXT, Batch, batch
from labcore.speculative.distill.generate import Example

Say = Callable[[str], object]


@dataclass(frozen=True)
class Recipe:
    """epochs: times every example is seen; examples: in a batch; context: tokens of its prompt that an example keeps;
    rate: the highest learning rate; warmup: share of the steps on the way to it; clip: largest norm of a gradient;
    seed: of the order of the examples."""

    epochs: float = 2.0
    examples: int = 4
    context: int = CONTEXT
    rate: float = 1e-3
    warmup: float = 0.05
    clip: float = 0.5
    seed: int = 0


def fit(
    module: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    examples: Sequence[Example],
    ahead: int,
    recipe: Recipe,
    say: Say = lambda line: None,
) -> list[float]:
    """Train `module` in place; the losses, each the mean over a twentieth of the run."""
    steps = max(1, round(recipe.epochs * len(examples) / recipe.examples))
    parameters = [one for one in module.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps, recipe.warmup))
    generator, order = torch.Generator().manual_seed(recipe.seed), []
    losses: list[float] = []
    for step in range(1, steps + 1):
        while len(order) < recipe.examples:
            order += torch.randperm(len(examples), generator=generator).tolist()
        chosen, order = order[: recipe.examples], order[recipe.examples :]
        loss = loss_of(batch([examples[i] for i in chosen], ahead, recipe.context))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 10 == 0 or step == steps:
            say(f"step {step} of {steps}: loss {sum(losses[-10:]) / len(losses[-10:]):.3f}")
    every = max(1, steps // 20)
    return [round(sum(part) / len(part), 4) for part in (losses[i : i + every] for i in range(0, steps, every))]


def _share(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at a step."""
    rising = max(1, int(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def soft_cross_entropy(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean cross-entropy of softmax(logits) against softmax(teacher), both [rows, draft vocab], in nats."""
    return -(teacher.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


def judged(rows: int, share: float = 0.5) -> Tensor:
    """Indices of a random share of the rows. The head costs more than the draft before it, and neighbouring rows teach
    much the same: half the rows in each pass, and twice the passes, is the better use of the time."""
    return torch.randperm(rows)[: max(1, round(share * rows))]
