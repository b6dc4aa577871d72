"""Notice when the library a check relies on was replaced in this session, and put it back.

A notebook is one process: `np.mean = my_mean`, or a patched method of ours, would change what every later check
compares with. The originals are remembered when the exercises are imported, before any of the reader's cells ran.
"""

from __future__ import annotations

import builtins
import sys
from types import FunctionType, ModuleType

WATCHED = ("math", "numpy", "numpy.linalg", "statistics", "torch", "torch.nn.functional")
BUILTINS = "abs all any bool dict divmod enumerate filter float int isinstance len list map max min pow range reversed"
BUILTINS = (BUILTINS + " round set sorted str sum tuple type zip").split()


class Originals:
    """Functions and methods as they were when first seen, by owner and name."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._originals: dict[tuple[int, str], tuple[object, str, object, object]] = {}
        for name in BUILTINS:
            self._remember(builtins, name, getattr(builtins, name))

    def remember(self) -> None:
        """Take note of every watched module that has been imported since the last call."""
        for name, module in list(sys.modules.items()):
            if name in self._seen or not isinstance(module, ModuleType):
                continue
            if name in WATCHED:
                self._seen.add(name)
                for attribute, value in list(vars(module).items()):
                    if callable(value):
                        self._remember(module, attribute, value)
            elif name == "labcore" or name.startswith("labcore."):
                self._seen.add(name)
                self._remember_own(module)

    def _remember_own(self, module: ModuleType) -> None:
        """A module of this package: the functions and classes it defines, and the methods of those classes."""
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", None) == module.__name__:
                self._remember(module, name, value)
                if isinstance(value, type):
                    for method, function in list(vars(value).items()):
                        if isinstance(function, FunctionType):
                            self._remember(value, method, function)

    def _remember(self, owner: object, name: str, value: object) -> None:
        self._originals[id(owner), name] = owner, name, value, getattr(value, "__code__", None)

    def restore(self) -> list[str]:
        """Put back whatever was replaced; its dotted names. What a library does to itself is not a replacement."""
        replaced = []
        for owner, name, original, code in list(self._originals.values()):
            now = vars(owner).get(name)
            if now is not original:
                if _from_home(owner, name, now):
                    self._remember(owner, name, now)
                    continue
                setattr(owner, name, original)
            elif code is not None and now.__code__ is not code:
                now.__code__ = code
            else:
                continue
            place = f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__
            replaced.append(f"{place}.{name}".removeprefix("builtins."))
        return replaced


def _from_home(owner: object, name: str, now: object) -> bool:
    """A reloaded module of this package, or a library wrapping its own function under the same name, as torch does."""
    home = str(getattr(now, "__module__", "")).partition(".")[0]
    owner_home = str(getattr(owner, "__module__", None) or getattr(owner, "__name__", "")).partition(".")[0]
    return home == "labcore" or (home == owner_home and getattr(now, "__name__", "") == name)


originals = Originals()
originals.remember()
