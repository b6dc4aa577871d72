"""Compare the prose of a notebook with what its cells claim, quote or were given, without running it.

`python -m labcore.learn.claims_check [NOTEBOOK …]` lists what has no source and exits 1, or prints the ledger.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import nbformat

from labcore.learn.authoring import find_notebooks
from labcore.learn.claims import NUMBER, Entry

_BYTES = r"(?:[kKMGTP]i?B|(?<=\s)B)"  # "8B" without a space names a model
_BITS = r"[kMGT]?(?:bit|b)"
_UNITS = [
    rf"(?:{_BYTES}|{_BITS})(?:/(?:s|token|step|parameter|weight|element|FLOP|sequence|layer))?",
    r"[kMGTPE]?FLOPs?(?:/(?:s|B|token|step))?",
    r"[kMGTPE]?OPS?(?:/(?:s|B))?",
    r"[nµum]?s(?:/(?:token|step|request|call))?",
    r"[kM]?tok(?:ens?)?/s",
    r"[mkM]?W|[kMG]?Wh|[mk]?J(?:/token)?|[kMG]Hz",
    r"USD(?:/\w+)?",
    r"%|(?<=\d)×(?!\s?\d)|x faster|times (?:as|more|fewer|less|faster|slower|smaller|larger)",
]
_DECIMAL = r"\d[\d,]*\.\d+"
FIGURE = re.compile(
    rf"(?<![\w.,^–])(?P<usd>USD\s?)?(?P<low>{NUMBER})(?:\s?(?:–|to)\s?(?P<high>{NUMBER}))?"
    rf"(?P<unit>(?(usd)(?:\s?(?:/|per )\s?\w+)?|[\s\u00a0\u202f]?(?:{'|'.join(_UNITS)})(?![\w/])))"
)
# A plain count is data; a fractional one was computed.
FRACTION = re.compile(rf"(?<![\w.,])(?P<low>{_DECIMAL})(?:\s?(?:–|to)\s?(?P<high>{_DECIMAL}))?\s(?P<unit>tokens?)\b")
CALLS = ("claim", "quoted", "given")


def figures(text: str) -> list[str]:
    """Figures with a unit in a piece of prose, in one spelling: no spaces or thousands separators, "-" for minus."""
    found = []
    for pattern in (FIGURE, FRACTION):
        for match in pattern.finditer(text):
            usd = (match.groupdict().get("usd") or "").strip()
            ends = [match["low"], *([match["high"]] if match["high"] else [])]
            unit = re.sub(r"\s", "", match["unit"].replace("per ", "/"))
            number = "–".join(re.sub(r"[,_\s]", "", end).replace("−", "-").lstrip("+") for end in ends)
            found.append(f"{number}{usd}{unit}")
    return found


def prose(markdown: str) -> str:
    """What a reader sees as text: no code, displayed formulas, HTML tags or addresses; inline mathematics unwrapped."""
    text = re.sub(r"```.*?```|~~~.*?~~~|\$\$.*?\$\$|`[^`]*`|<[^>]*>", " ", markdown, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "] ", text)
    text = re.sub(r"\\(?:text|mathrm|textrm)\{([^}]*)\}", r"\1", text)
    text = re.sub(r"\\times", "×", re.sub(r"\\[,; !]|~", " ", text))
    return re.sub(r"(?<!\\)\$", " ", text.replace("\\%", "%").replace("{,}", ","))


def entries(notebook: nbformat.NotebookNode, name: str) -> list[Entry]:
    """The claim, quoted and given calls in a notebook's cells whose figure is written as a literal."""
    found: list[Entry] = []
    ordinals: Counter[tuple[str, str]] = Counter()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        try:
            tree = ast.parse(cell.source)
        except SyntaxError:
            continue  # a magic or shell line; such a cell makes no claims
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") in CALLS]
        for call in sorted(calls, key=lambda n: (n.lineno, n.col_offset)):
            texts = call.args if call.func.id == "given" else call.args[:1]
            named = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
            for text in (a.value for a in texts if isinstance(a, ast.Constant) and isinstance(a.value, str)):
                key = call.func.id, named.get("id", "")
                ordinals[key] += 1
                fields = {k: v for k, v in named.items() if k in ("id", "source", "verdict")}
                found.append(Entry(name, call.func.id, text, ordinal=ordinals[key], **fields))
    return found


def unsupported(notebook: nbformat.NotebookNode, name: str) -> list[str]:
    """Figures in the prose that no claim, quotation or given states; one sentence each."""
    known = {figure for entry in entries(notebook, name) for figure in figures(entry.text)}
    found = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            missing = [f for f in figures(prose(cell.source)) if f not in known]
            found += [f"{name}, cell {i}: {f} has no claim(), quoted() or given()" for f in dict.fromkeys(missing)]
    return found


def unknown_sources(found: Iterable[Entry], keys: set[str]) -> list[str]:
    """Quotations whose source is not among the citation `keys`."""
    return [
        f"{e.notebook}: quoted({e.text!r}) cites {e.source!r}, which is not in references.bib"
        for e in found
        if e.kind == "quoted" and e.source not in keys
    ]


def citation_keys(bibliography: Path) -> set[str]:
    """Keys of a BibTeX file."""
    return set(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)", bibliography.read_text(encoding="utf-8"), re.M))


def ledger(paths: Iterable[Path]) -> Iterator[Entry]:
    """Every entry of the notebooks, in reading order."""
    for path in paths:
        yield from entries(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4), path.stem)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m labcore.learn.claims_check", description="the claims ledger")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of book/ and labs/")
    paths = parser.parse_args(arguments).notebooks or find_notebooks(Path.cwd())
    missing = []
    for path in paths:
        missing += unsupported(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4), path.stem)
    for entry in ledger(paths):
        print(f"{entry.notebook}  {entry.kind:7s}{entry.id:14s} {entry!r}  {entry.verdict}".rstrip())
    print("\n".join(missing), file=sys.stderr)
    return bool(missing)


if __name__ == "__main__":
    raise SystemExit(main())
