"""Distributions of lengths in tokens: exact counts of every length that occurred, or shares of bins.

An exact histogram of 20,000 requests fits into three kilobytes: write each length that occurred as its distance from
the one before, with a count where it occurred more than once ("64 3x2 1" is 64, 67, 67, 68), and compress that text.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from labcore.core.errors import DataError, InputError


@dataclass(frozen=True, eq=False)
class Lengths:
    """values int64[K], increasing: the lengths that occurred, in tokens; counts int64[K]: how often each did."""

    values: np.ndarray
    counts: np.ndarray

    def __post_init__(self) -> None:
        if len(self.values) == 0 or len(self.values) != len(self.counts):
            raise DataError(
                f"{len(self.values)} lengths with {len(self.counts)} counts: need as many, and at least one"
            )
        if self.values[0] < 0 or (np.diff(self.values) < 1).any() or (self.counts < 1).any():
            raise DataError("lengths must be 0 or more and increase, and counts must be 1 or more")

    @classmethod
    def of(cls, lengths: Iterable[int]) -> Lengths:
        """The histogram of a plain list of lengths."""
        return cls(*np.unique(np.asarray(list(lengths), dtype=np.int64), return_counts=True))

    @classmethod
    def decode(cls, text: str) -> Lengths:
        """The inverse of `encode`. Raises DataError for text that is damaged."""
        try:
            pairs = [part.split("x") for part in zlib.decompress(base64.b85decode(text)).decode().split()]
            steps = [int(pair[0]) for pair in pairs]
            counts = [int(pair[1]) if len(pair) == 2 else 1 for pair in pairs]
        except (ValueError, zlib.error) as error:
            raise DataError(f"an encoded histogram is damaged ({error}); derive it again") from None
        return cls(np.cumsum(steps, dtype=np.int64), np.asarray(counts, dtype=np.int64))

    def encode(self) -> str:
        """The histogram as ASCII text: steps and counts, deflated, in base 85."""
        steps = np.diff(self.values, prepend=0)
        text = " ".join(f"{s}" if n == 1 else f"{s}x{n}" for s, n in zip(steps, self.counts, strict=True))
        return base64.b85encode(zlib.compress(text.encode(), 9)).decode()

    @property
    def count(self) -> int:
        """Number of requests."""
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """Tokens of all requests together."""
        return int(self.values @ self.counts)

    @property
    def mean(self) -> float:
        """Mean length in tokens."""
        return self.total / self.count

    def quantile(self, q: float) -> float:
        """The length that the share `q` of the requests does not exceed; between two requests interpolated linearly,
        as np.quantile does on the plain list."""
        if not 0 <= q <= 1:
            raise InputError(f"q={q!r} must lie between 0 and 1")
        rank = q * (self.count - 1)
        below, above = np.searchsorted(np.cumsum(self.counts), [np.floor(rank), np.ceil(rank)], side="right")
        low, high = self.values[below], self.values[above]
        return float(low + (high - low) * (rank % 1))

    def share(self, low: int, high: int) -> float:
        """Share of the requests with low <= length < high."""
        return float(self.counts[(self.values >= low) & (self.values < high)].sum() / self.count)

    def all(self) -> np.ndarray:
        """Every request's length, int64[count], sorted."""
        return np.repeat(self.values, self.counts)

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` lengths drawn with replacement, int64[n]; the same for the same seed."""
        return np.random.default_rng(seed).choice(self.values, size=n, p=self.counts / self.count)

    def tail_waste(self, block_size: int) -> float:
        """Mean slots per request that its last block reserves and leaves empty: mean of S·⌈n/S⌉ - n.

        Source: PagedAttention, arXiv:2309.06180, section 4.3 (internal fragmentation of the last block).
        """
        return float(self._empty_slots(block_size) @ self.counts) / self.count

    def utilization(self, block_size: int) -> float:
        """Tokens stored over slots reserved, when each request owns ⌈n/S⌉ blocks of S slots."""
        empty = int(self._empty_slots(block_size) @ self.counts)
        return self.total / (self.total + empty)

    def _empty_slots(self, block_size: int) -> np.ndarray:
        if not (block_size >= 1 and block_size % 1 == 0):
            raise InputError(f"block_size={block_size!r} must be a whole number of tokens, 1 or more")
        return -self.values % int(block_size)


@dataclass(frozen=True, eq=False)
class BinnedLengths:
    """edges float[K+1] in tokens, increasing: bin k holds lengths from edges[k] up to below edges[k+1]; shares
    float[K], summing to 1. Mean and quantiles spread each bin's share evenly over it, so they are approximate."""

    edges: np.ndarray
    shares: np.ndarray

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.shares) + 1 or (np.diff(self.edges) <= 0).any():
            raise DataError(f"{len(self.shares)} bins need {len(self.shares) + 1} increasing edges")
        if (self.shares < 0).any() or abs(self.shares.sum() - 1) > 1e-6:
            raise DataError(f"shares of bins sum to {self.shares.sum():.6f}, not to 1")

    @property
    def mean(self) -> float:
        """Approximate mean length in tokens."""
        return float((self.edges[1:] + self.edges[:-1]) / 2 @ self.shares)

    def quantile(self, q: float) -> float:
        """Approximate length that the share `q` of the requests stays below."""
        if not 0 <= q <= 1:
            raise InputError(f"q={q!r} must lie between 0 and 1")
        return float(np.interp(q, np.concatenate([[0.0], np.cumsum(self.shares)]), self.edges))
