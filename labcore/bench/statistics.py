"""From samples to the figures a recorded run states: medians, spread, ratios, and whether a bar was met.

Samples come in rounds, because two programs that are compared take turns (A B A B …): a machine that slows down slows
both, and the ratio inside one round survives what the times themselves do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labcore.core.errors import InputError
from labcore.core.units import unit

Rounds = Sequence[Sequence[float]]

# kind -> (what the ratio means, whether more of it is better)
KINDS: dict[str, tuple[str, bool]] = {
    "speedup": ("how many times better than the baseline", True),
    "overhead": ("how many times the cost of the baseline", False),
    "fraction_of_ceiling": ("share of the best the hardware allows", True),
    "value": ("the measured figure itself", False),
}
BARS = ("must", "target", "dream")


@dataclass(frozen=True)
class Ratio:
    """Median over rounds, with the lowest and the highest round as its interval."""

    median: float
    lo: float
    hi: float


def summarize(rounds: Rounds) -> dict[str, float]:
    """Median, 20 % and 80 % quantile and count over all samples of all rounds.

    Raises InputError for no samples, an empty round, or a sample that is not a positive finite number.
    """
    if not rounds or not all(len(one) for one in rounds):
        raise InputError("a measurement needs at least one round, and every round at least one sample")
    samples = np.concatenate([np.asarray(one, dtype=float) for one in rounds])
    if not np.all(np.isfinite(samples) & (samples > 0)):
        bad = samples[~(np.isfinite(samples) & (samples > 0))][0]
        raise InputError(f"sample {bad:g} is not a positive finite number; the clock or the counter is wrong")
    q20, median, q80 = np.quantile(samples, [0.2, 0.5, 0.8])
    return {"median": float(median), "q20": float(q20), "q80": float(q80), "n": int(samples.size)}


def is_rate(unit_text: str) -> bool:
    """True for "B/s" or "token/s" (more is better), false for "s" or "B" (less is better)."""
    return dict(unit(unit_text).dimension).get("s", 0) < 0


def ratio(kind: str, unit_text: str, ours: Rounds, baseline: Rounds | None = None, floor: float | None = None) -> Ratio:
    """The ratio of a row, one value a round, summarised by its median and extremes.

    `baseline` has as many rounds as `ours`; `floor` is the least time (or bytes), or the highest rate, that the
    hardware allows, in the unit of `ours`. Raises InputError for an unknown kind or a missing partner.
    """
    if kind not in KINDS:
        raise InputError(f"ratio kind {kind!r} is unknown; use one of {', '.join(KINDS)}")
    if kind == "fraction_of_ceiling":
        if floor is None:
            raise InputError("a fraction_of_ceiling needs floor=: what the hardware would allow at best")
        baseline = [[floor]] * len(ours)
    elif kind == "value":
        return _over_rounds([float(np.median(one)) for one in ours])
    elif baseline is None or len(baseline) != len(ours):
        count = 0 if baseline is None else len(baseline)
        raise InputError(f"a {kind} compares round with round: ours has {len(ours)} rounds, the baseline {count}")
    times_better = [
        float(np.median(o) / np.median(b)) if is_rate(unit_text) else float(np.median(b) / np.median(o))
        for o, b in zip(ours, baseline, strict=True)
    ]
    return _over_rounds([1 / r for r in times_better] if kind == "overhead" else times_better)


def _over_rounds(values: list[float]) -> Ratio:
    return Ratio(float(np.median(values)), min(values), max(values))


def met(kind: str, median: float, target: dict[str, float], correct: bool) -> str | None:
    """The highest bar that `median` reaches: "dream", "target", "must" or "missed"; None without bars.

    A row whose result is wrong has met nothing: "incorrect", however fast it was.
    Raises InputError for an unknown bar, or bars that do not get harder from must to dream.
    """
    if unknown := set(target) - set(BARS):
        raise InputError(f"bar {min(unknown)!r} is unknown; use must, target, dream")
    if not correct:
        return "incorrect"
    higher_is_better = KINDS[kind][1]
    bars = [(name, target[name]) for name in BARS if name in target]
    values = [value for _, value in bars]
    if values != sorted(values, reverse=not higher_is_better):
        raise InputError(f"bars {values} do not get harder from must to dream")
    reached = [name for name, value in bars if (median >= value if higher_is_better else median <= value)]
    return (reached[-1] if reached else "missed") if bars else None
