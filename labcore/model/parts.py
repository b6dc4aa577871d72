"""Where a decode step spends its time: linear layers, attention, everything else; measured with timers in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from labcore.formats.linear import Int4BlockLinear, Q8BlockHead
from labcore.kernels.cpu.linear import BlockLinear
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.compiled import CompiledStack
from labcore.model.llama import Llama

PARTS = ("linear", "attention", "other")
PRODUCTS = (nn.Linear, BlockLinear, Int4BlockLinear, Q8BlockHead)


class Parts:
    """Splits a step between PARTS: seconds, or operators called."""

    def __init__(self) -> None:
        self.at = "other"
        self.seconds: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.since = time.perf_counter()

    def enter(self, part: str) -> None:
        """What has passed since the last call belongs to the part left; from now on it belongs to `part`."""
        now = time.perf_counter()
        self.seconds[self.at] += now - self.since
        self.at, self.since = part, now

    def within(self, part: str, call):
        """`call`, whose time belongs to `part`."""

        def watched(*args, **kwargs):
            self.enter(part)
            out = call(*args, **kwargs)
            self.enter("other")
            return out

        return watched

    @contextmanager
    def watching(self, model: Llama) -> Iterator[None]:
        """Every linear layer of `model` reports when it starts and when it has finished.

        The compiled layers report as halves around attention, so the norms and rotations folded into them count here.
        """
        hooks, stacks = [], [module.layers for module in model.modules() if isinstance(module, CompiledStack)]
        for module in model.modules():
            if isinstance(module, PRODUCTS):
                hooks.append(module.register_forward_pre_hook(lambda *_: self.enter("linear")))
                hooks.append(module.register_forward_hook(lambda *_: self.enter("other")))
        for layers in stacks:
            layers.before_attention = self.within("linear", layers.before_attention)
            layers.after_attention = self.within("linear", layers.after_attention)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layers in stacks:
                del layers.before_attention, layers.after_attention


class CountOperators(TorchDispatchMode):
    """Adds each operator that torch dispatches, views included, to the part it was called in."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.parts.operators[self.parts.at] += 1
        return operator(*args, **(kwargs or {}))


class _Steps:
    """Decode steps of `batch` copies of a prompt, attention reporting to `parts`."""

    @torch.inference_mode()
    def __init__(self, model: Llama, ids: Sequence[int], batch: int, steps: int, parts: Parts):
        config, weight = model.config, model.norm.weight
        self.model, self.parts, self.past = model, parts, len(ids)
        self.cache = ContiguousKVCache(
            config.n_layers, config.n_kv_heads, config.head_dim,
            slots=batch, capacity=len(ids) + steps, dtype=weight.dtype, device=weight.device,
        )  # fmt: skip
        for slot in range(batch):
            attend = self.cache.extend([(slot, len(ids))])
            tokens = torch.tensor(ids, device=weight.device)
            logits = model(tokens, attend.positions, attend, wanted=attend.last)
        self.first = logits.argmax(-1).expand(batch)

    @torch.inference_mode()
    def run(self, steps: int) -> None:
        for slot in range(len(self.first)):
            self.cache.truncate(slot, self.past)
        tokens: Tensor = self.first
        for _ in range(steps):
            attend = self.cache.extend([(slot, 1) for slot in range(len(tokens))])
            tokens = self.model(tokens, attend.positions, self.parts.within("attention", attend)).argmax(-1)
        tokens.tolist()  # waits for a GPU


def step_parts(model: Llama, ids: Sequence[int], batch: int = 1, steps: int = 4, samples: int = 5) -> dict[str, float]:
    """Seconds that a decode step after the prompt `ids` spends in each part, `batch` sequences together.

    The figures are those of the median of `samples` runs of `steps` steps, so that they add up to one that happened.
    """
    parts = Parts()
    run, found = _Steps(model, ids, batch, steps, parts), []
    with parts.watching(model):
        for _ in range(samples + 1):
            parts.enter("other")
            parts.seconds.clear()
            run.run(steps)
            parts.enter("other")
            found.append({part: parts.seconds[part] / steps for part in PARTS})
    return sorted(found[1:], key=lambda one: sum(one.values()))[samples // 2]  # the first run warms up


def count_operators(model: Llama, ids: Sequence[int], batch: int = 1) -> dict[str, int]:
    """The torch operators that one decode step calls in each part."""
    parts = Parts()
    run = _Steps(model, ids, batch, 1, parts)
    with parts.watching(model), CountOperators(parts):
        run.run(1)
    return {part: parts.operators[part] for part in PARTS}
