"""The engine can be read in an evening: how much code one greedy request passes through."""

import io
import sys
import tokenize
from pathlib import Path

import pytest

import labcore

pytest.importorskip("torch")

from labcore import LLM, SamplingParams

pytestmark = pytest.mark.model

PACKAGES = ("attention", "core", "engine", "kv", "sampling")
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """Lines with code on them: neither blank, nor comment, nor docstring."""
    lines, begins = set(), True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        docstring = begins and token.type == tokenize.STRING
        if token.type not in SILENT and not docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
        begins = token.type in SILENT or docstring
    return len(lines)


def test_code_lines_count_code():
    assert code_lines('"""Of\nthe file."""\n\n# why\ndef f():\n    """Of it."""\n    return """\n1"""\n') == 3


def test_one_greedy_request_touches_about_1600_lines_of_the_engine():
    llm, root, touched = LLM(), Path(labcore.__file__).parent, set()
    llm.generate(["Hello"], SamplingParams(temperature=0, max_tokens=1))  # what is compiled once is no part of serving

    def note(frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(root) and path.relative_to(root).parts[0] in PACKAGES:
            touched.add(path)

    sys.setprofile(note)
    try:
        llm.generate(["Hello, my name is"], SamplingParams(temperature=0, max_tokens=4))
    finally:
        sys.setprofile(None)
    lines = {str(path.relative_to(root)): code_lines(path.read_text()) for path in sorted(touched)}
    assert {"engine/scheduler.py", "kv/manager.py", "sampling/sampler.py"} <= set(lines)
    assert not {"core/draft.py", "engine/speculative_runner.py", "engine/tree_rows.py", "engine/verify.py"} & set(lines)
    assert 1000 < sum(lines.values()) <= 1680, lines
