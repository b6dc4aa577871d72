"""Tokens drawn where the logits are, so that the host copies eight bytes a row and waits for nothing.

Requests whose choice needs the host (their own processors, penalties over the tokens so far, log probabilities, min_p)
go through `sampling.sampler`. A request goes one way for its whole life, whatever its company: the two draw different,
equally valid numbers from the same seed.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labcore.attention.upload import upload
from labcore.core.sampling_params import SamplingParams
from labcore.kernels.sampling import sample
from labcore.sampling.processors import adjusts
from labcore.sampling.sampler import SamplingRow, divisor

NOT_FINITE = "no logit is finite; the model's weights or activations are damaged"
LEAST, MOST = 1e-30, 2**31 - 1  # float32 and int32 hold these


class Draw(NamedTuple):
    """How the tokens of a request are drawn; seed: its random numbers are a function of this and the position."""

    temperature: float
    top_k: int
    top_p: float
    seed: int


def draws_on_device(params: SamplingParams) -> bool:
    """Whether nothing but the logits, temperature, top-k and top-p decides about a token."""
    return params.logprobs is None and params.min_p == 0 and not adjusts(SamplingRow(params, [], 0))


def new_draw(params: SamplingParams) -> Draw | None:
    """The way of a request; None: on the host. Without a seed it gets one of its own."""
    if not draws_on_device(params):
        return None
    seed = secrets.randbits(63) if params.seed is None else params.seed
    temperature = 0.0 if params.greedy else divisor(params)
    return Draw(temperature, min(params.top_k, MOST), max(params.top_p, LEAST), seed)


def draw(
    logits: Tensor, draws: Sequence[Draw], positions: Sequence[int], places: Sequence[int], newest: Tensor
) -> Tensor:
    """Token ids, int64 [rows], from logits [rows, vocab]; -1 where no logit is finite. `newest` gets them at `places`.

    positions: of the tokens to be drawn, each counted from the beginning of its request.
    """
    temperature, top_k, top_p, seed = zip(*draws, strict=True)
    arrays = {
        "temperature": np.array(temperature, np.float32),
        "seed": np.array(seed, np.int64),
        "position": np.array(positions, np.int64),
        "places": np.array(places, np.int64),
    }
    if any(top_k):
        arrays["top_k"] = np.array(top_k, np.int32)
    if min(top_p) < 1:
        arrays["top_p"] = np.array(top_p, np.float32)
    there = upload(arrays, logits.device)  # one copy for all: each costs the host more than its bytes
    places = there.pop("places")
    tokens = sample(logits, **there)
    newest[places] = tokens
    return tokens


class ToHost:
    """Token ids on their way to the host; `tolist` waits for them, and for nothing that was queued later."""

    def __init__(self, tokens: Tensor):
        self.there = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=tokens.is_cuda)
        self.there.copy_(tokens, non_blocking=True)
        self.arrived = None
        if tokens.is_cuda:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def tolist(self) -> list[int]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.there.tolist()
