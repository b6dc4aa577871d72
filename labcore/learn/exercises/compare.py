"""Compare what a reader's function returned with what it should have returned, and put the difference into words.

Numbers may be Python or numpy scalars or arrays without axes; arrays may be numpy's or torch's (torch is never
imported here). A count must be an integer, a rate need not.
"""

from __future__ import annotations

import inspect
import math
import numbers

import numpy as np

LONGEST = 80  # characters of one described value


def is_array(value: object) -> bool:
    """A numpy array or a torch tensor."""
    return isinstance(value, np.ndarray) or _is_tensor(value)


def _is_tensor(value: object) -> bool:
    return any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in type(value).__mro__)


def _numpy(value) -> np.ndarray:
    if _is_tensor(value):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    return value


def _scalar(value: object) -> object:
    """A numpy scalar or an array without axes as a Python number; anything else as it is."""
    if isinstance(value, np.generic) or (is_array(value) and value.ndim == 0):
        return value.item()
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def kind_problem(got: object, want: object) -> str | None:
    """Why `got` is not even the kind of thing `want` is (type, shape, length, keys, nan); None if it is."""
    if got is None and want is not None:
        return "returned None; is there a return on every path?"
    if inspect.isgenerator(got):
        return "returned a generator; return the values themselves, for instance with list(...)"
    if inspect.iscoroutine(got):
        got.close()
        return "returned a coroutine; write def, not async def"
    if callable(got) and not callable(want):
        return "returned a function; call it and return its result"
    if is_array(want) and np.ndim(_numpy(want)) > 0:
        return _array_problem(got, want)
    plain, wanted = _scalar(got), _scalar(want)
    if isinstance(wanted, bool):
        return None if isinstance(plain, bool) else f"returned {describe(got)}, expected True or False"
    if _is_number(wanted):
        return _number_problem(got, plain, wanted)
    if isinstance(want, list | tuple):
        return _sequence_problem(got, want)
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return f"returned {describe(got)}, expected a dict"
        if set(got) != set(want):
            return f"returned the keys {describe(sorted(got, key=str))}, expected {describe(sorted(want, key=str))}"
        return _first(kind_problem(got[key], want[key]) for key in want)
    if isinstance(want, str):
        return None if isinstance(got, str) else f"returned {describe(got)}, expected text"
    return None if isinstance(got, type(want)) else f"returned {describe(got)}, expected a {type(want).__name__}"


def _number_problem(got: object, plain: object, wanted: numbers.Real) -> str | None:
    if not _is_number(plain):
        return f"returned {describe(got)}, expected one number"
    if math.isnan(plain) and not math.isnan(wanted):
        return "returned nan, which is not a number; look for 0/0 or inf - inf"
    if isinstance(wanted, numbers.Integral) and not isinstance(plain, numbers.Integral):
        return f"returned the float {plain!r}; a count is an integer, so use // or int(...)"
    return None


def _array_problem(got: object, want) -> str | None:
    if _is_tensor(got) != _is_tensor(want) or not is_array(got):
        return f"returned {describe(got)}, expected a {'torch tensor' if _is_tensor(want) else 'numpy array'}"
    if tuple(got.shape) != tuple(want.shape):
        return f"returned shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    here, there = _numpy(got), _numpy(want)
    if here.dtype.kind != there.dtype.kind:
        return f"returned elements of type {got.dtype}, expected {want.dtype}"
    if here.dtype.kind == "f" and np.isnan(here).any() and not np.isnan(there).any():
        return f"returned {int(np.isnan(here).sum())} nan among {here.size} elements; look for 0/0 or inf - inf"
    return None


def _sequence_problem(got: object, want: list | tuple) -> str | None:
    if not isinstance(got, list | tuple):
        return f"returned {describe(got)}, expected a {type(want).__name__}"
    if len(got) != len(want):
        return f"returned {len(got)} values, expected {len(want)}"
    return _first(kind_problem(g, w) for g, w in zip(got, want, strict=True))


def _first(problems) -> str | None:
    return next((problem for problem in problems if problem), None)


def same_value(got: object, want: object, rel_tol: float, abs_tol: float) -> bool:
    """Whether both are equal: integers and text exactly, floats within `rel_tol` (of an array's largest) or `abs_tol`.

    Things of different kinds are different, never an error.
    """
    if kind_problem(got, want):
        return False
    if is_array(want) and np.ndim(_numpy(want)) > 0:
        here, there = _numpy(got), _numpy(want)
        if there.dtype.kind != "f":
            return bool(np.array_equal(here, there))
        finite = np.abs(there[np.isfinite(there)])
        return bool(np.allclose(here, there, rtol=0, atol=abs_tol + rel_tol * finite.max(initial=0.0), equal_nan=True))
    if isinstance(want, list | tuple):
        return all(same_value(g, w, rel_tol, abs_tol) for g, w in zip(got, want, strict=True))
    if isinstance(want, dict):
        return all(same_value(got[key], want[key], rel_tol, abs_tol) for key in want)
    got, want = _scalar(got), _scalar(want)
    if isinstance(want, float):
        return math.isclose(got, want, rel_tol=rel_tol, abs_tol=abs_tol) or (math.isnan(want) and math.isnan(got))
    return bool(got == want)


def unchanged(now: object, before: object) -> bool:
    """Whether an argument still is what it was before the call, to the last bit."""
    if type(now) is not type(before):
        return False
    if is_array(now):
        a, b = _numpy(now), _numpy(before)
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    if isinstance(now, list | tuple):
        return len(now) == len(before) and all(map(unchanged, now, before))
    if isinstance(now, dict):
        return list(now) == list(before) and all(unchanged(now[key], before[key]) for key in now)
    if type(now).__eq__ is object.__eq__ and hasattr(now, "__dict__"):
        return unchanged(vars(now), vars(before))
    return bool(now == before) or now != now


def describe(value: object, digits: int = 6) -> str:
    """`value` in a few words, the same on every machine."""
    value = _scalar(value)
    if is_array(value):
        small = value.ndim == 1 and value.shape[0] <= 6
        inner = ", ".join(describe(v.item(), digits) for v in value) if small else ""
        return f"[{inner}]" if small else f"an array of shape {tuple(value.shape)}"
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e5 <= abs(value) < 1e12 and digits <= 6 else f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        text = ", ".join(describe(v, digits) for v in value)
        text = f"[{text}]" if isinstance(value, list) else f"({text})"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {describe(v, digits)}" for k, v in value.items()) + "}"
    elif isinstance(value, str):
        text = repr(value)
    else:
        text = repr(value) if type(value).__repr__ is not object.__repr__ else f"a {type(value).__name__}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def describe_both(got: object, want: object) -> tuple[str, str]:
    """Both values with as many digits as it takes to tell them apart, and where they differ if words do not show it."""
    for digits in (6, 9, 12, 17):
        both = describe(got, digits), describe(want, digits)
        if both[0] != both[1]:
            return both
    return _where_they_differ(got, want) or both


def _where_they_differ(got: object, want: object) -> tuple[str, str] | None:
    """The first elements of two arrays of one shape, or of two tuples with such arrays, that differ noticeably."""
    if isinstance(want, list | tuple):
        found = ((i, _where_they_differ(g, w)) for i, (g, w) in enumerate(zip(got, want, strict=True)))
        return next(((f"{pair[0]} of result {i}", pair[1]) for i, pair in found if pair), None)
    if not is_array(want):
        return None
    here, there = np.asarray(_numpy(got)), np.asarray(_numpy(want))
    with np.errstate(invalid="ignore"):  # inf - inf, the same on both sides
        off = np.nan_to_num(np.abs(here.astype(float) - there.astype(float)))
    if not off.any():
        return None
    at = tuple(map(int, np.argwhere(off > 0.01 * off.max())[0]))  # what rounding did elsewhere is not meant
    mine, right = describe_both(here[at].item(), there[at].item())
    return f"{describe(got)} with {mine} at {list(at)}", f"{right} there"
