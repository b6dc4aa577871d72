"""Reading the arguments of a formula: every refusal is one sentence naming the formula, the input and the fix."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import numpy as np

from labcore.core.errors import InputError, UnitError
from labcore.core.units import Quantity, magnitude, unit
from labcore.formulas.symbols import DOMAINS, Input

if TYPE_CHECKING:
    from labcore.formulas.registry import Formula


def read(f: Formula, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arguments as float64 arrays in each input's unit, broadcast against one another.

    Raises InputError for a missing, unknown, non-numeric, non-finite or out-of-domain value, UnitError for a
    Quantity in another unit.
    """
    names = [i.name for i in f.inputs]
    for name in values:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {close[0]}?" if close else f"its inputs are {', '.join(names)}"
            raise InputError(f"{f.id} takes no input {name!r}; {hint}")
    missing = [i for i in f.inputs if i.name not in values]
    if missing:
        wanted = ", ".join(f"{i.name} ({i.doc}, {i.unit})" for i in missing)
        raise InputError(f"{f.id} needs {wanted}; pass {', '.join(i.name + '=…' for i in missing)}")
    arrays = {i.name: _number(f.id, i, values[i.name]) for i in f.inputs}
    try:
        return dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items() if a.ndim)
        raise InputError(f"{f.id}: the shapes of {shapes} do not broadcast; give arrays of one shape") from None


def _number(where: str, i: Input, value: Any) -> np.ndarray:
    try:
        array = np.asarray(_in_unit(i, value), dtype=np.float64)
    except UnitError as error:
        raise UnitError(f"{where}: {i.name} ({i.doc}): {error}") from error
    except (TypeError, ValueError):
        raise InputError(f"{where}: {i.name}={value!r} is not a number; pass {i.doc} in {i.unit}") from None
    accepted, words, _ = DOMAINS[i.domain]
    bad = ~(np.isfinite(array) & accepted(array))
    if bad.any():
        shown = f"{array[bad].flat[0]:g}"
        raise InputError(f"{where}: {i.name}={shown} is refused; {i.doc} ({i.unit}) must be finite and {words}")
    return array


def _in_unit(i: Input, value: Any) -> Any:
    if value is None:
        raise TypeError  # numpy would read it as nan
    if isinstance(value, str):
        raise UnitError(f"{value!r} is text; write Quantity.parse({value!r}) or a plain number in {i.unit}")
    if i.written and isinstance(value, Quantity):
        return magnitude(value, i.written) * unit(i.written).scale / unit(i.unit).scale
    return magnitude(value, i.unit)


def shown(inputs: dict[str, Any]) -> str:
    """`S=16, n=1366`, for messages."""
    return ", ".join(f"{name}={float(value):.7g}" for name, value in inputs.items())
