"""Each step of the ladder can be read beside the last: at most forty lines of it are new."""

import ast
import re
from pathlib import Path

import pytest

from labcore.kernels import attention_ladder, attention_prefill

STEPS = {
    "v0": (attention_ladder, ["literal_kernel"]),
    "v1": (attention_ladder, ["tiled_kernel"]),
    "v2": (attention_prefill, ["attend_blocks", "_varlen_kernel"]),
}


def code(module, names: list[str]) -> list[str]:
    """The lines of these functions without docstrings, comments and indentation."""
    text = Path(module.__file__).read_text()
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert len(functions) == len(names)
    lines = []
    for function in functions:
        docstring = function.body[0]
        kept = text.splitlines()[function.lineno - 1 : docstring.lineno - 1]
        kept += text.splitlines()[docstring.end_lineno : function.end_lineno]
        lines += filter(None, (re.sub(r"\s*#.*$", "", line).strip() for line in kept))
    return lines


@pytest.mark.parametrize(("before", "after"), [("v0", "v1"), ("v1", "v2")])
def test_a_step_is_small(before, after):
    known = code(*STEPS[before])
    new = [line for line in code(*STEPS[after]) if line not in known]
    assert 10 < len(new) <= 40, "\n".join(new)
