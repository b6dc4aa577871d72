"""From programs on a GPU to rows of a recorded run: checked, timed in turns, checked again, beside their floor.

found = measured(run, {"ours": calls, "torch.matmul": theirs}, check)
yield found.row("gpu.d1", "W4A16, one row", against=["torch.matmul"], ideal=3.85, target=bars(2.6, 3.2, 3.5))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from labcore.bench.cuda_run import CudaRun, reason
from labcore.bench.cuda_timing import Calls, CudaClock, Timing, alternate, sets_beyond_cache
from labcore.bench.record import Row
from labcore.core.errors import DataError, InputError

Check = Callable[[], Mapping]  # {"pass": bool, and the evidence}


def bars(must: float, target: float, dream: float) -> dict[str, float]:
    """What a row has to reach to be shipped, to be called good, and to be shown around."""
    return {"must": must, "target": target, "dream": dream}


@dataclass(frozen=True)
class Measured:
    """Programs timed in turns after their result was found right; `left_out` says which could not run."""

    timing: Timing
    correct: dict
    left_out: str

    def row(
        self,
        key: str,
        what: str,
        against: Sequence[str] = (),
        ours: str = "ours",
        scale: float = 1.0,
        notes: str = "",
        **fields,
    ) -> Row:
        """The row of program `ours` against the fastest of the programs `against`, or against its floor without any.

        fields: others of Row, in place of those that follow from the measurement. scale: factor on the baseline's
        times, where it did another amount of the same work.
        Raises InputError if none of `against` could run.
        """
        there = [name for name in against if name in self.timing.rounds]
        if against and not there:
            raise InputError(f"nothing to compare with: {self.left_out}")
        if there:
            best = min(there, key=self.timing.median)
            fields["baseline_name"] = best if len(there) == 1 else f"{best}, fastest of {', '.join(there)}"
            fields["baseline"] = [[scale * sample for sample in one] for one in self.timing.rounds[best]]
        common = {
            "unit": "s",
            "kind": "speedup" if there else "fraction_of_ceiling",
            "correct": self.correct,
            "method": self.timing.method,
            "notes": " ".join(filter(None, [notes, self.left_out])),
        }
        return Row(key=key, what=what, ours=self.timing.rounds[ours], **common | fields)


def measured(run: CudaRun, programs: Mapping[str, Calls], check: Check, **options) -> Measured:
    """Check, time all programs in turns (`cuda_timing.alternate` takes `options`), and check again.

    The first program is ours; another that raises is left out, with the reason in the row's notes. Raises DataError for
    a wrong result, before or after: what is wrong is not timed.
    """
    if run.warming:
        check = lambda: {"pass": True, "how": "not checked: this process compiles for another"}  # noqa: E731
    before = _right(check, "before timing")
    ours = next(iter(programs))
    able, why = {}, []
    for name, calls in programs.items():
        try:
            calls[0]()
            able[name] = calls
        except Exception as error:
            if name == ours:
                raise
            why.append(f"{name} left out: {reason(error).removeprefix('failed: ')}.")
    if run.clock is None:
        run.clock = CudaClock()
    timing = alternate(able, run.clock, **options)
    after = _right(check, "after timing")
    return Measured(timing, before | {"after_timing": after["pass"]}, " ".join(why))


def _right(check: Check, when: str) -> dict:
    found = dict(check())
    if not found["pass"]:
        raise DataError(f"wrong result {when}: {', '.join(f'{k} {v}' for k, v in found.items() if k != 'pass')}")
    return found


def close(ours, reference, bar: float, how: str) -> dict:
    """Evidence for a tensor against a more exact one: ‖ours − reference‖ / ‖reference‖ (Frobenius) against its bar."""
    ours, reference = ours.float(), reference.float()
    error = (ours - reference).norm() / reference.norm()
    found = {"rel_frob": float(f"{error.item():.3g}"), "bar": bar, "how": how}
    largest = (ours - reference).abs().max().item()
    return {"pass": bool(error <= bar)} | found | {"max_abs": float(f"{largest:.3g}")}


def all_finite(found: Mapping, out) -> dict:
    """The evidence `found` for some elements of the tensor `out`, and that every element of it is finite."""
    return {**found, "pass": found["pass"] and bool(out.isfinite().all())}


def both(*found: Mapping) -> dict:
    """The evidence of several checks; the row is right if all of them are. The first that fails is shown."""
    worst = next((one for one in found if not one["pass"]), found[0])
    return {**worst, "checks": len(found)}


def floor(run: CudaRun, *, nbytes: float = 0, flops: float = 0, units: str = "bf16", move: str = "read") -> dict:
    """Fields of a row: the work, and the least time it takes at this run's ceilings, by memory (`move` bandwidth) or by
    the matrix units' rate for type `units`, whichever takes longer."""
    by_memory = nbytes / run.ceiling(f"{move}_bandwidth") if nbytes else 0.0
    by_compute = flops / run.ceiling(f"matmul.{units}") if flops else 0.0
    formula = f"bytes / {move}_bandwidth" if by_memory >= by_compute else f"flops / matmul.{units}"
    return {
        "floor": max(by_memory, by_compute),
        "floor_formula": formula,
        "bytes": float(nbytes) or None,
        "flops": float(flops) or None,
    }


def sets(run: CudaRun, nbytes: float) -> int:
    """How many sets of inputs of so many bytes are rotated on this device."""
    return sets_beyond_cache(nbytes, run.description.get("l2_bytes") or 0) if run.device == "cuda" else 1
