"""Names of things that live in higher rooms, as "package.module:function" strings, looked up only when they are used.

Imports run downwards, yet `labcore bench` runs measurements of the model and `labcore doctor` asks it what is missing.
The lists are static data, so what a command will call can be read off them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import labcore


def exists(module: str) -> bool:
    """True if the file of "labcore.room.module" is there; nothing is imported."""
    path = Path(labcore.__file__).parent.joinpath(*module.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def load(name: str) -> Callable:
    """The function that "package.module:function" names."""
    module, function = name.split(":")
    return getattr(importlib.import_module(module), function)
