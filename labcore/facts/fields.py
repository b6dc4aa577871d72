"""Reading fields of a config.json: several spellings, class defaults, and one sentence when something is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labcore.core.errors import DataError

_REQUIRED = object()


class Fields:
    """The fields of one config, with the defaults that its model_type's class fills in. `source` names the file.

    Null is not the same as left out: it also overrules the class default. Alternative spellings may all be given if
    they agree.
    """

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], source: str) -> None:
        self.values, self.defaults, self.source = values, defaults, source

    def error(self, text: str) -> DataError:
        """A DataError that starts with the file."""
        return DataError(f"{self.source}: {text}")

    def given(self, *names: str) -> tuple[str, Any] | None:
        """The first of `names` that the file itself has, with its value. DataError if two of them disagree."""
        found = [(name, self.values[name]) for name in names if self.values.get(name) is not None]
        for name, value in found[1:]:
            if value != found[0][1]:
                raise self.error(f"{found[0][0]}={found[0][1]!r} contradicts {name}={value!r}")
        return found[0] if found else None

    def get(self, *names: str, default: Any = _REQUIRED) -> Any:
        """The value of the first of `names` that is given, else the class default (unless the file says null), else
        `default`; DataError if there is none."""
        found = self.given(*names)
        if found:
            return found[1]
        for name in names:
            if name in self.defaults and name not in self.values:
                return self.defaults[name]
        if default is _REQUIRED:
            spellings = f" (or {', '.join(names[1:])})" if names[1:] else ""
            raise self.error(f"{names[0]}{spellings} is missing")
        return default

    def integer(self, *names: str, default: Any = _REQUIRED, low: int = 1) -> Any:
        """`get` for a whole number of at least `low`."""
        value = self.get(*names, default=default)
        if value is default:
            return value
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0
        if not whole or value < low:
            name = (self.given(*names) or names)[0]
            raise self.error(f"{name}={value!r} must be a whole number, {low} or more")
        return int(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """`get` for true or false."""
        value = self.get(name, default=default)
        if not isinstance(value, bool):
            raise self.error(f"{name}={value!r} must be true or false")
        return value
