"""How much reserved KV memory holds tokens, over the lives of requests, under four ways to reserve it.

A request with p prompt and n answer tokens lives n steps and stores p + t tokens in the t-th. What is reserved and not
yet, or never, written is waste. The schemes are those that PagedAttention compares, arXiv:2309.06180, section 6.1 and
figure 2: Orca with the maximum length, with the answer rounded up to a power of two, with the length known in advance
(no system can), and paging.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from labcore.core.errors import InputError


def stored_slots(prompts: np.ndarray, outputs: np.ndarray) -> int:
    """Tokens in memory, summed over the steps of all requests."""
    return int((outputs * prompts + outputs * (outputs + 1) // 2).sum())


def reserve_max(prompts: np.ndarray, outputs: np.ndarray, size: int) -> int:
    """Slots reserved, summed over all steps, when each request gets `size`, the longest it may become."""
    return int((outputs * size).sum())


def reserve_power_of_two(prompts: np.ndarray, outputs: np.ndarray, size: int) -> int:
    """The same when the answer's slots are the next power of two: somebody guesses within a factor of two."""
    return int((outputs * (prompts + 2 ** np.ceil(np.log2(outputs)).astype(np.int64))).sum())


def reserve_oracle(prompts: np.ndarray, outputs: np.ndarray, size: int) -> int:
    """The same when every answer's length is known when it starts."""
    return int((outputs * (prompts + outputs)).sum())


def reserve_paged(prompts: np.ndarray, outputs: np.ndarray, size: int) -> int:
    """The same when blocks of `size` slots are allocated as they are needed: the sum of S·⌈(p + t)/S⌉ over t."""

    def until(length: np.ndarray) -> np.ndarray:
        full, rest = length // size, length % size
        return size * size * full * (full + 1) // 2 + rest * size * (full + 1)

    return int((until(prompts + outputs) - until(prompts)).sum())


SCHEMES: dict[str, Callable[[np.ndarray, np.ndarray, int], int]] = {
    "max": reserve_max,
    "power_of_two": reserve_power_of_two,
    "oracle": reserve_oracle,
    "paged": reserve_paged,
}


def utilization(scheme: str, prompts: ArrayLike, outputs: ArrayLike, size: int) -> float:
    """Share of the reserved slots that hold a token, over all steps of requests with these lengths.

    prompts, outputs: int [requests], outputs 1 or more. size: the longest a request may become for "max", the block
    size for "paged"; the others do not read it. Raises InputError for a scheme or lengths that make no sense.
    """
    prompts, outputs = np.asarray(prompts, np.int64), np.asarray(outputs, np.int64)
    if scheme not in SCHEMES:
        raise InputError(f"scheme={scheme!r}: must be one of {', '.join(SCHEMES)}")
    if prompts.shape != outputs.shape or not prompts.size or prompts.min() < 0 or outputs.min() < 1:
        raise InputError("prompts and outputs must be of one shape and not empty, and every output 1 token or more")
    if size < 1 or (scheme == "max" and (prompts + outputs).max() > size):
        raise InputError(f"size={size}: must be 1 or more, and for 'max' no less than the longest request")
    return stored_slots(prompts, outputs) / SCHEMES[scheme](prompts, outputs, size)
