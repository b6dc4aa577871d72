"""What TTFT, TPOT, ITL, E2E, goodput, MBU and MFU mean in this book: one definition each, from timestamps.

Tools disagree, and a comparison across tools is only fair after translation. Two traps: guidellm's TPOT divides by n
and so includes the first token; vLLM's serving benchmark measures ITL between chunks, each of which may hold several
tokens, and counts a one-token answer as a TPOT of 0. Here:

    TTFT = first token − sent                     E2E = last token − sent
    TPOT = (E2E − TTFT) / (n − 1)                 ITL = the n − 1 gaps between tokens, so TPOT is their mean

A one-token answer has no gap and therefore no TPOT: `tpot` is None, means and percentiles leave the request out, and
an SLO on TPOT cannot be missed by it. Times are seconds on one clock, read where the client receives the token.
Sources: vLLM vllm/benchmarks/serve.py; DistServe (arXiv:2401.09670) for goodput.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from labcore.core.errors import InputError


@dataclass(frozen=True)
class RequestTimes:
    """One request: when it was sent, and when each output token arrived (s, not decreasing; a chunk repeats its time).

    No arrivals means that the request failed. Raises InputError for times that run backwards or are not finite.
    """

    sent: float
    arrivals: tuple[float, ...]

    def __post_init__(self) -> None:
        times = (self.sent, *self.arrivals)
        if not all(map(math.isfinite, times)):
            raise InputError(f"request sent at {self.sent}: a time is not finite; use seconds of one clock")
        for earlier, later in pairwise(times):
            if later < earlier:
                raise InputError(
                    f"a token arrived at {later} s, before {earlier} s; use one clock and sort the arrivals"
                )

    @classmethod
    def from_chunks(cls, sent: float, chunks: Iterable[tuple[float, int]]) -> RequestTimes:
        """From a stream of (arrival time in s, tokens in this chunk); chunks without tokens (role, usage) drop out."""
        return cls(sent, tuple(time for time, tokens in chunks for _ in range(tokens)))

    @property
    def n_out(self) -> int:
        """Output tokens received."""
        return len(self.arrivals)

    @property
    def failed(self) -> bool:
        """True if no token arrived."""
        return not self.arrivals


def ttft(request: RequestTimes) -> float:
    """Time to first token in s: network, queue, tokenization, prefill and the first sampling."""
    return _arrivals(request)[0] - request.sent


def e2e(request: RequestTimes) -> float:
    """End-to-end latency in s: from sending to the last token."""
    return _arrivals(request)[-1] - request.sent


def itl(request: RequestTimes) -> list[float]:
    """Inter-token latencies in s, n_out − 1 of them; tokens of one chunk (speculation) are 0 s apart."""
    arrivals = _arrivals(request)
    return [later - earlier for earlier, later in pairwise(arrivals)]


def chunk_gaps(request: RequestTimes) -> list[float]:
    """Gaps in s between distinct arrival times: what a reader sees, and what vLLM's benchmark calls ITL."""
    return [gap for gap in itl(request) if gap > 0]


def tpot(request: RequestTimes) -> float | None:
    """Time per output token in s after the first: (E2E − TTFT) / (n_out − 1); None for a one-token answer.

    It equals one decode step only when each step yields one token: speculation and chunked streams break that.
    """
    if len(_arrivals(request)) == 1:
        return None
    return (e2e(request) - ttft(request)) / (request.n_out - 1)


def _arrivals(request: RequestTimes) -> tuple[float, ...]:
    if request.failed:
        raise InputError(f"the request sent at {request.sent} s received no token, so it has no latency; leave it out")
    return request.arrivals


@dataclass(frozen=True)
class Slo:
    """Latency limits in s for one request; None means no limit."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    def met_by(self, request: RequestTimes) -> bool:
        """True if every limit holds. A failed request meets nothing; a one-token answer cannot miss a TPOT limit."""
        if request.failed:
            return False
        measured = ((ttft(request), self.ttft), (tpot(request), self.tpot), (e2e(request), self.e2e))
        return all(limit is None or value is None or value <= limit for value, limit in measured)


def attainment(requests: Sequence[RequestTimes], slo: Slo) -> float:
    """Share of the requests, failed ones included, that meet `slo`. Raises InputError for no requests."""
    if not requests:
        raise InputError("attainment of no requests is undefined; record at least one")
    return sum(slo.met_by(request) for request in requests) / len(requests)


def goodput(requests: Sequence[RequestTimes], slo: Slo, duration: float) -> float:
    """Requests per second that met `slo` in a measurement of `duration` s (vLLM's definition, at one offered load)."""
    return sum(slo.met_by(request) for request in requests) / _positive(duration=duration)


def goodput_rate(points: Iterable[tuple[float, float]], share: float = 0.9) -> float:
    """DistServe's goodput: the highest offered rate up to which at least `share` of the requests met the SLO.

    `points` are (offered requests/s, attainment) of separate open-loop measurements. A rate counts only if every lower
    measured rate holds as well, so a lucky point above the knee is not taken. 0.0 if the lowest rate already misses.
    """
    best = 0.0
    for rate, attained in sorted(points):
        if attained < share:
            break
        best = rate
    return best


def output_throughput(requests: Sequence[RequestTimes], duration: float) -> float:
    """Output tokens per second over a measurement of `duration` s."""
    return sum(request.n_out for request in requests) / _positive(duration=duration)


def mbu(bytes_moved: float, seconds: float, bandwidth: float) -> float:
    """Model bandwidth utilization: bytes a step *must* move (weights + live KV), over time, over bandwidth (B/s).

    Counts the algorithm's bytes, not the hardware's traffic, so waste lowers it. For decode `seconds` is the step time.
    Source: Databricks, "LLM Inference Performance Engineering: Best Practices" (2023).
    """
    return bytes_moved / _positive(seconds=seconds) / _positive(bandwidth=bandwidth)


def mfu(flops: float, seconds: float, peak: float) -> float:
    """Model FLOP/s utilization: FLOP the model needs (no recomputation), over time, over the dense peak (FLOP/s).

    Source: PaLM, arXiv:2204.02311, appendix B.
    """
    return flops / _positive(seconds=seconds) / _positive(peak=peak)


def _positive(**named: float) -> float:
    ((name, value),) = named.items()
    if not value > 0:
        raise InputError(f"{name}={value}: need a positive number")
    return value
