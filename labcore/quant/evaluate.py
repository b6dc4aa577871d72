"""What quantization cost: perplexity with an interval, KL to the unquantized model, and agreement on the first choice.

Protocol: the text is cut into windows of equal length, each read from its own beginning; every token but a window's
first is scored given those before it in the window. Perplexities of other window lengths, texts or tokenizers do not
compare. Two models read the same windows, so their difference is far better known than either perplexity: KL, which is
taken token by token between the two distributions, separates methods that the perplexities' intervals do not.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from labcore.core.errors import DataError
from labcore.model.agreement import kl_divergence, same_first
from labcore.model.llama import Llama
from labcore.quant import windows

SIGMAS = 1.96  # of a normal interval with 95 % coverage


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, 1.96 standard errors to each side; windows are taken as independent draws from the
    text's source.

    1.96 is the normal distribution's number and serves any count of windows, though the error is estimated from the
    same few: the 95 % hold for many windows, 8 of them cover about 91 % (Student's t, 7 degrees of freedom, would take
    2.36).
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, per_window: Tensor) -> "Interval":
        mean = per_window.mean().item()
        spread = SIGMAS * per_window.std().item() / math.sqrt(len(per_window)) if len(per_window) > 1 else math.inf
        return cls(mean, mean - spread, mean + spread)

    def exp(self) -> "Interval":
        return Interval(math.exp(self.value), math.exp(self.low), math.exp(min(self.high, 700)))


Perplexity = Interval


@dataclass(frozen=True)
class Divergence:
    """kl: KL(reference ‖ model) in nats per token. top1: share of tokens with the same candidate first.
    excess: ln of the ratio of the perplexities, paired window by window."""

    kl: Interval
    top1: float
    excess: Interval


@dataclass(frozen=True)
class Evaluation:
    perplexity: Perplexity
    divergence: Divergence
    windows: int
    tokens: int


class Reference:
    """What the unquantized model says about the windows `rows` [count, length + 1].

    Its last hidden states are kept instead of its logits, a hundredth of the size; the head makes logits of them again.
    """

    @torch.no_grad()
    def __init__(self, model: Llama, rows: Tensor):
        self.rows, self.head = rows, model.lm_head
        self.hidden: list[Tensor] = []
        hook = model.lm_head.register_forward_pre_hook(lambda head, args: self.hidden.append(args[0]))
        try:
            self.nll = torch.stack([_nll(logp, row).mean() for row, logp in _read(model, rows)])
        finally:
            hook.remove()

    def log_probabilities(self, window: int) -> Tensor:
        """[length, vocab] of one window."""
        return self.head(self.hidden[window]).float().log_softmax(-1)

    @property
    def perplexity(self) -> Perplexity:
        return Interval.of(self.nll).exp()


@torch.no_grad()
def perplexity(model: Llama, rows: Tensor) -> Perplexity:
    """exp of the mean -ln p of the tokens of rows [windows, length + 1] (see `windows.cut`), by the protocol above.

    DataError when the model answers with numbers that are not finite.
    """
    return Interval.of(torch.stack([_nll(logp, row).mean() for row, logp in _read(model, rows)])).exp()


def divergence(model: Llama, reference: Reference) -> Divergence:
    """`model` beside the reference on the reference's windows."""
    return evaluate(model, reference).divergence


@torch.no_grad()
def evaluate(model: Llama, reference: Reference) -> Evaluation:
    """Perplexity and divergence in one reading of the reference's windows."""
    nll, kl, agree = [], [], []
    for window, (row, logp) in enumerate(_read(model, reference.rows)):
        exact = reference.log_probabilities(window)
        nll.append(_nll(logp, row).mean())
        kl.append(kl_divergence(exact, logp).mean())
        agree.append(same_first(exact, logp).float().mean())
    taken = torch.stack(nll)
    difference = Divergence(
        Interval.of(torch.stack(kl)), torch.stack(agree).mean().item(), Interval.of(taken - reference.nll)
    )
    return Evaluation(Interval.of(taken).exp(), difference, len(taken), reference.rows[:, 1:].numel())


def _read(model: Llama, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each window and the log-probabilities [length, vocab] that score its tokens."""
    for window, row in enumerate(rows):
        logp = windows.logits(model, row[None, :-1]).float().log_softmax(-1)
        if not logp.isfinite().all():
            raise DataError(f"the model's logits in window {window} are not finite; nothing can be scored")
        yield row, logp


def _nll(logp: Tensor, row: Tensor) -> Tensor:
    """-ln p of each token of the window but its first."""
    return -logp.gather(1, row[1:, None])[:, 0]
