"""`source(object)`, `region(module, name)`: show the library's own code in a notebook, never a second copy of it."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import labcore
from labcore.core.errors import InputError


@dataclass(frozen=True)
class Shown:
    """Code with the name it has in the library. Pages highlight it in their own theme; a terminal prints it."""

    name: str
    code: str
    fold: str = ""

    def __repr__(self) -> str:
        return f"# {self.name}\n{self.code}"

    def _repr_markdown_(self) -> str:
        fence = "~~~~" if "```" in self.code else "```"
        block = f"{fence}python\n{self!r}\n{fence}"
        return f"<details>\n<summary>{self.fold}</summary>\n\n{block}\n\n</details>" if self.fold else block


def source(thing: object, doc: bool = True, fold: str = "") -> Shown:
    """The source of a function, method, property or class, without its indentation.

    `doc=False` leaves out docstrings; `fold="summary"` hides the code until the summary is clicked. Raises
    InputError for something that has no Python source, such as a number or a function written in C.
    """
    thing = thing.fget if isinstance(thing, property) else thing
    thing = thing.func if isinstance(thing, functools.partial | functools.cached_property) else thing
    thing = inspect.unwrap(thing) if callable(thing) else thing
    try:
        code = _unmarked(textwrap.dedent(inspect.getsource(thing)).rstrip())
    except (TypeError, OSError):
        what = getattr(thing, "__name__", None) or type(thing).__name__
        raise InputError(f"{what} has no Python source to show; pass a function, method or class") from None
    module, name = inspect.getmodule(thing), getattr(thing, "__qualname__", thing.__name__)
    place = module.__name__ if module and module.__name__ != "__main__" else ""
    name = "" if inspect.ismodule(thing) else name
    return Shown(".".join(filter(None, (place, name))), code if doc else _without_docstrings(code), fold)


def region(module: str, *names: str, doc: bool = True, fold: str = "") -> Shown:
    """The parts of a module between `# [book: name]` and `# [/book]`: region("kernels.paging", "slots").

    The file is read, not imported, so a kernel shows where Triton is not installed. doc and fold as for `source`.
    Raises InputError naming the regions there are.
    """
    path = Path(labcore.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    if not path.is_file():
        raise InputError(f"no module labcore.{module} to show a region of")
    text = path.read_text(encoding="utf-8")
    found = dict(re.findall(r"(?ms)^# \[book: ([\w-]+)\]\n(.*?)^# \[/book\]$", text))
    if strange := [name for name in names if name not in found]:
        raise InputError(f"labcore.{module} has no region {strange[0]!r}; it has {', '.join(found) or 'none'}")
    code = _unmarked("\n\n\n".join(found[name].strip() for name in names))
    return Shown(f"labcore.{module}", code if doc else _without_docstrings(code), fold)


def _unmarked(code: str) -> str:
    """The same lines without the formatter's marker, which tells a reader nothing."""
    return re.sub(r"  # fmt: skip$", "", code, flags=re.M)


def _without_docstrings(code: str) -> str:
    """The same lines less those of every docstring."""
    lines, dropped = code.splitlines(), set()
    for node in ast.walk(ast.parse(code)):
        body = getattr(node, "body", None)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            first = body[0] if body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first, "value", None), ast.Constant):
                if isinstance(first.value.value, str) and len(body) > 1:
                    dropped |= set(range(first.lineno - 1, first.end_lineno))
                    after = first.end_lineno
                    if after < len(lines) and not lines[after].strip():
                        dropped.add(after)  # the blank line below it
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped)
