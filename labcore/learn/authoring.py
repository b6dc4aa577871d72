"""`make notebooks`: re-execute notebooks in place and write them in one normal form.

Outputs are committed, and the tests compare them with a fresh run, so two runs of the same notebook must give the
same bytes: execution counts 1..n, cell ids derived from the source, merged streams, no widget state, no timings.
A notebook that fails is left as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from labcore.core.errors import InputError
from labcore.core.files import atomic_write

if TYPE_CHECKING:
    from nbformat import NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
FOLDERS = ("book", "labs")
# What the kernel sees, here and in the tests: recorded results, one thread.
ENVIRONMENT = {"LABCORE_MODE": "recorded", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
KEPT_CELL_METADATA = {"covers", "editable", "jupyter", "mystnb", "slideshow", "tags"}
FIRST_CELL = """\
import sys, subprocess
if "google.colab" in sys.modules:  # Colab: add our package, touch nothing preinstalled
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "git+{address}"], check=True)
from labcore.learn.notebook import *
setup("{notebook}")"""


def find_notebooks(root: Path) -> list[Path]:
    """Every notebook of the book, sorted: `book/*.ipynb` and `labs/*.ipynb`."""
    return [path for folder in FOLDERS for path in sorted((root / folder).glob("*.ipynb"))]


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Put a notebook into its normal form, in place. Applying it twice changes nothing more."""
    notebook.metadata = nbformat.from_dict(
        {
            **{key: value for key, value in notebook.metadata.items() if key in ("labcore", "mystnb")},
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: Counter[str] = Counter()
    count = 0
    for cell in notebook.cells:
        cell.source = "\n".join(line.rstrip() for line in cell.source.strip("\n").split("\n"))
        cell.id = _cell_id(cell, seen)
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in KEPT_CELL_METADATA})
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = _normal_outputs(cell.outputs, count)
    return notebook


def _cell_id(cell: NotebookNode, seen: Counter[str]) -> str:
    """Eight hexadecimal digits of the source, numbered when it repeats."""
    if "google.colab" in cell.source:
        return "setup"  # `make set-repo` edits this cell; its id stays
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _normal_outputs(outputs: list[NotebookNode], count: int) -> list[NotebookNode]:
    """Outputs without widget views and display ids, neighbouring streams of one name merged."""
    result: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream":
            if result and result[-1].output_type == "stream" and result[-1].name == output.name:
                result[-1].text += output.text
                continue
        elif output.output_type in ("display_data", "execute_result"):
            output.data.pop(WIDGET_VIEW, None)
            output.metadata = nbformat.from_dict({})
            output.pop("transient", None)
            if not output.data:
                continue
            if output.output_type == "execute_result":
                output.execution_count = count
        result.append(output)
    return result


def execute(notebook: NotebookNode, folder: Path, timeout: int) -> None:
    """Run every cell in a fresh kernel with `folder` as working directory; replaces the outputs in place.

    Raises InputError naming the cell and the exception when one fails or takes longer than `timeout` seconds.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env={**os.environ, **ENVIRONMENT})
    except CellExecutionError as error:
        raise InputError(f"a cell raised {error.ename}: {error.evalue}\n{error.traceback}") from None
    except CellTimeoutError:
        raise InputError(f"a cell ran longer than {timeout} s; make it cheaper or pass --timeout") from None
    except DeadKernelError:
        raise InputError("the kernel died, most likely for want of memory") from None


def rebuild(path: Path, *, run: bool = True, timeout: int = 300) -> bool:
    """Re-execute (unless `run` is false) and normalise one notebook; True if the file changed.

    Raises InputError, with the file left as it was, when a cell fails or writes to stderr.
    """
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    if run:
        execute(notebook, path.parent, timeout)
    normalise(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise InputError(f"cell {cell.execution_count} wrote to stderr: {output.text.strip().splitlines()[-1]}")
    nbformat.validate(notebook)
    after = nbformat.writes(notebook, indent=1, sort_keys=True) + "\n"
    if after != before:
        atomic_write(path, after)
    return after != before


def main(arguments: list[str] | None = None) -> int:
    """`python -m labcore.learn.authoring [--no-run] [--timeout S] [NOTEBOOK ...]`; 1 if a notebook failed."""
    parser = argparse.ArgumentParser(prog="make notebooks", description="re-execute notebooks in place, in normal form")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: every notebook of book/ and labs/")
    parser.add_argument("--no-run", action="store_true", help="only write the normal form")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="seconds a cell may take (default: 300)")
    options = parser.parse_args(arguments)
    paths = options.notebooks or find_notebooks(Path.cwd())
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    failed = 0
    for path in paths:
        start = time.monotonic()
        print(f"{path} … ", end="", flush=True)
        try:
            changed = rebuild(path, run=not options.no_run, timeout=options.timeout)
            print(f"{'written' if changed else 'unchanged'}, {time.monotonic() - start:.0f} s")
        except InputError as error:
            failed += 1
            print(f"failed, left as it was\n{error}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted, left as it was", file=sys.stderr)
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
