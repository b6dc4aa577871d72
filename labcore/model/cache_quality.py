"""What a smaller KV cache costs: the same tokens, decoded one by one through it and through the exact cache.

One pass over a whole text would prove nothing: a quantized cache attends to a pass as it is and a cache that evicts
needs steps to do it in. So every token has a pass of its own, as in generation, and the text's next token follows
whatever the model would have said (teacher forcing).

Any cache will do that speaks ContiguousKVCache's protocol: `extend([(slot, count)])` returns the `attend` of a pass,
which has `positions`; `truncate(slot, 0)` empties a slot. Only slot 0 is used.
"""

import math
import tomllib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.model.agreement import kl_divergence, same_first
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer


class SideBySide:
    """The `attend` of a pass in which row i belongs to cache i: the weights are read once for all of them."""

    def __init__(self, attends: Sequence):
        self.attends = attends

    @property
    def positions(self) -> Tensor:
        return torch.cat([attend.positions for attend in self.attends])

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = ((one[i : i + 1] for one in (q, k, v)) for i in range(len(self.attends)))
        return torch.cat([attend(layer, *row) for attend, row in zip(self.attends, rows, strict=True)])


@torch.inference_mode()
def decode(
    model: Llama, caches: Sequence, ids: Sequence[int], wanted: Container[int] | None = None
) -> Iterator[Tensor]:
    """Feed `ids` one by one to slot 0 of every cache; yields the logits [caches, vocab] after each of them.

    wanted: the indices of the tokens whose logits are needed; after any other, [0, vocab] is yielded.
    """
    nothing = torch.empty(0, dtype=torch.long)
    for cache_ in caches:
        cache_.truncate(0, 0)
    for index, token in enumerate(ids):
        attend = SideBySide([cache_.extend([(0, 1)]) for cache_ in caches])
        rows = None if wanted is None or index in wanted else nothing
        yield model(torch.full((len(caches),), token), attend.positions, attend, wanted=rows)


@dataclass(frozen=True)
class Quality:
    """A cache beside the exact one, over the scored tokens of one text.

    Both perplexities are exp of the mean negative log-probability, in nats, of each scored token given all tokens
    before it. kl: KL(exact ‖ this) of the distributions that score a token, in nats. top1: the share of scored tokens
    for which both caches rank the same candidate first.
    """

    scored: int
    perplexity: float
    exact_perplexity: float
    kl_mean: float
    kl_max: float
    top1: float


def compare(
    model: Llama,
    exact,
    others: Mapping[str, object],
    ids: Sequence[int],
    first: int = 1,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Quality]:
    """Each of `others` beside the cache `exact` on `ids`, scoring the tokens ids[first:].

    `first` is where judging begins, 1 or later (nothing predicts the first token): tokens that a cache has room for
    say nothing about what it drops. `say` is told of the progress. InputError when no token is left to score.
    """
    if not 1 <= first < len(ids):
        raise InputError(f"first={first}: scoring begins at token 1 or later and before the end of {len(ids)} tokens")
    steps = decode(model, [exact, *others.values()], ids[:-1], wanted=range(first - 1, len(ids)))
    nll, kl, agree = [], [], []
    for following, logits in enumerate(steps, start=1):
        if following % 100 == 0:
            say(f"  {following} of {len(ids)} tokens compared")
        if following < first:
            continue
        logp = logits.float().log_softmax(-1)
        nll.append(-logp[:, ids[following]])
        kl.append(kl_divergence(logp[0], logp[1:]))
        agree.append(same_first(logp[0], logp[1:]))
    perplexities = torch.stack(nll).mean(0).exp().tolist()
    kl_, top1 = torch.stack(kl), torch.stack(agree).float().mean(0)
    return {
        name: Quality(
            len(nll),
            perplexities[i + 1],
            perplexities[0],
            kl_[:, i].mean().item(),
            kl_[:, i].max().item(),
            top1[i].item(),
        )
        for i, name in enumerate(others)
    }


@dataclass(frozen=True)
class Needle:
    """An answer hidden in a haystack: token ids[begin:end], whose fact ended at token `hidden` of it."""

    name: str
    hidden: int
    begin: int
    end: int


@dataclass(frozen=True)
class Haystack:
    """Filler with facts in it, then one question after the other, each with its answer."""

    ids: list[int]
    needles: list[Needle]


@dataclass(frozen=True)
class Recall:
    """What became of one needle. found: greedy decoding says the answer, every token of it. probability: of an answer
    token, given the answer so far; the geometric mean (a blind guess among ten digits scores 0.1)."""

    name: str
    found: bool
    probability: float


def recall(
    model: Llama,
    caches: Mapping[str, object],
    haystack: Haystack,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, list[Recall]]:
    """Read the haystack token by token through each cache; one Recall per needle, in the order of the questions.
    `say` is told of the progress."""
    answers = {i: needle.name for needle in haystack.needles for i in range(needle.begin, needle.end)}
    right, logp = ({needle.name: [] for needle in haystack.needles} for _ in range(2))
    steps = decode(model, list(caches.values()), haystack.ids[:-1], wanted={i - 1 for i in answers})
    for following, logits in enumerate(steps, start=1):
        if following % 100 == 0:
            say(f"  {following} of {len(haystack.ids)} tokens of the haystack read")
        if following in answers:
            token = haystack.ids[following]
            right[answers[following]].append(logits.argmax(-1) == token)
            logp[answers[following]].append(logits.float().log_softmax(-1)[:, token])
    found = {name: torch.stack(tokens).all(0) for name, tokens in right.items()}
    mean = {name: torch.stack(tokens).mean(0) for name, tokens in logp.items()}
    return {
        cache_: [Recall(name, bool(found[name][i]), math.exp(mean[name][i])) for name in found]
        for i, cache_ in enumerate(caches)
    }


@cache
def texts() -> dict:
    """The evaluation text that ships with the package, with its source: cache_quality.toml."""
    found = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return found | {name: " ".join(found[name].split()) for name in ("prose", "filler", "calibration")}


def prose(tokenizer: Tokenizer) -> list[int]:
    """The text that perplexity and KL are measured on."""
    return tokenizer.encode(texts()["prose"])


def haystack(tokenizer: Tokenizer) -> Haystack:
    """The filler with its needles, then the questions, oldest fact first."""
    data = texts()
    facts = {needle["after"]: needle for needle in data["needle"]}
    said, hidden = [], {}
    for count, sentence in enumerate(data["filler"].split(". "), start=1):
        said.append(sentence.removesuffix(".") + ".")
        if needle := facts.get(count):
            said.append(data["fact"].format(**needle))
            hidden[needle["name"]] = len(tokenizer.encode(" ".join(said)))
    ids, needles = tokenizer.encode(" ".join(said)), []
    for needle in data["needle"]:
        ids += tokenizer.encode("\n\n" + data["question"].format(**needle))
        answer = tokenizer.encode(needle["key"])
        needles.append(Needle(needle["name"], hidden[needle["name"]], len(ids), len(ids) + len(answer)))
        ids += answer
    return Haystack(ids, needles)
