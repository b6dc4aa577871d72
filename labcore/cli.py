"""The console script `labcore`: a table of commands, each in the room it serves, imported when it is asked for.

A command module offers `HELP: str`, `add_arguments(parser)` and `run(args) -> int`. Exit codes: 0 done, 1 something
measured or checked failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from labcore import __version__
from labcore.bench import hooks
from labcore.core.errors import FetchError, InputError

COMMANDS = {
    "bench": "labcore.bench.cli",
    "doctor": "labcore.bench.doctor",
    "generate": "labcore.engine.cli",
    "quantize": "labcore.quant.cli",
    "quiz": "labcore.learn.quiz_cli",
    "serve": "labcore.serving.cli",
}
EXTRAS = {"bench": "bench", "doctor": "test", "generate": "run", "quantize": "run", "quiz": "quiz", "serve": "run"}
DESCRIPTION = "The engine, formulas and learning tools behind the book."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Expected errors become one sentence on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(arguments).parse_args(arguments)
        return args.run(args)
    except (InputError, FetchError) as error:
        return _complain(arguments, str(error), 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("labcore"):
            raise
        fix = f"{sys.executable} -m pip install 'labcore[{EXTRAS[arguments[0]]}]'"  # the extra pins what fits together
        return _complain(arguments, f"the package {error.name!r} is not installed; get it with: {fix}", 2)
    except KeyboardInterrupt:
        return _complain(arguments, "interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone; nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _complain(arguments: Sequence[str], sentence: str, code: int) -> int:
    command = next((word for word in arguments if word in COMMANDS), "")
    print(f"labcore {command}".rstrip() + f": {sentence}", file=sys.stderr)
    return code


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with every command for help, or with the one command named in `arguments`, so that only it loads."""
    parser = argparse.ArgumentParser(prog="labcore", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"labcore {__version__}")
    there = {name: module for name, module in COMMANDS.items() if hooks.exists(module)}
    named = {name: module for name, module in there.items() if name in arguments[:1]}
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in (named or there).items():
        try:
            command = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if named or (error.name or "").startswith("labcore"):
                raise
            subparsers.add_parser(name, help=f"(needs the package {error.name!r})")
            continue
        subparser = subparsers.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
