"""`TODO`, what an unfinished stub returns: a value, so that a notebook as shipped runs from top to bottom."""

from __future__ import annotations

import numpy as np

from labcore.core.errors import InputError


class NotAttempted(InputError):
    """Code went on computing with TODO."""


class Todo:
    """The type of TODO. It can be passed around and printed; computing with it raises NotAttempted."""

    __slots__ = ()
    __array_ufunc__ = None  # numpy hands the operation to the methods below

    def __repr__(self) -> str:
        return "TODO"

    def __copy__(self) -> Todo:
        return self

    def __deepcopy__(self, memo: dict) -> Todo:
        return self

    def __getattr__(self, name: str):
        if name.startswith("_"):  # protocols ask for these; they must hear that there is nothing
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *_, **__):
        raise NotAttempted("this value is still TODO; write the missing code first")


for _name in "bool len iter next float int index complex call getitem setitem contains neg abs lt le gt ge".split():
    setattr(Todo, f"__{_name}__", Todo._refuse)
for _name in "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift".split():
    setattr(Todo, f"__{_name}__", Todo._refuse)
    setattr(Todo, f"__r{_name}__", Todo._refuse)

TODO = Todo()


def contains_todo(value: object) -> bool:
    """Whether `value` is TODO, or a list, tuple, dict or object array that holds it at any depth."""
    if isinstance(value, Todo):
        return True
    if isinstance(value, dict):
        return any(contains_todo(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(contains_todo(v) for v in value)
    return isinstance(value, np.ndarray) and value.dtype == object and any(contains_todo(v) for v in value.flat)
