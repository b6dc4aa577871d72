"""No kernel transposes the result of a dot in registers and feeds it to another dot.

Triton 3.4 to 3.7 computes wrong values for that on Hopper (fla-org/flash-linear-attention, pull requests 826 and 983),
and the interpreter cannot see it. Names are followed through a function: whatever is computed from a dot's result is
tainted, its transposition twice so, and no operand of a dot may be that.
"""

import ast
from pathlib import Path

import pytest

KERNELS = Path(__file__).resolve().parents[2] / "labcore" / "kernels"
TRANSPOSITIONS = {"trans", "permute"}


def called(node: ast.AST) -> str:
    """The last part of a called name: "dot" for tl.dot(…)."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_transposition(node: ast.AST) -> bool:
    return called(node) in TRANSPOSITIONS or (isinstance(node, ast.Attribute) and node.attr == "T")


class Taint:
    """Which names of one function hold a dot's result, and which the transposition of one."""

    def __init__(self, function: ast.FunctionDef, dotting: set[str]):
        self.dotting, self.results, self.transposed = dotting, set(), set()
        assignments = [node for node in ast.walk(function) if isinstance(node, (ast.Assign, ast.AugAssign))]
        size = -1
        while size != len(self.results) + len(self.transposed):  # loops carry names around: until nothing is added
            size = len(self.results) + len(self.transposed)
            for one in assignments:
                targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                names = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
                self.results |= names if self.is_result(one.value) else set()
                self.transposed |= names if self.is_transposed(one.value) else set()
        self.bad = [
            node.lineno
            for node in ast.walk(function)
            if called(node) in ("dot", "dot_scaled") and any(map(self.is_transposed, self.operands(node)))
        ]

    @staticmethod
    def operands(dot: ast.Call) -> list[ast.AST]:
        """Without the accumulator, which a dot may well take from another."""
        return dot.args[:2] + [k.value for k in dot.keywords if k.arg in ("input", "other", "lhs", "rhs")]

    def is_result(self, node: ast.AST) -> bool:
        return any(
            called(n) in {"dot", "dot_scaled", *self.dotting} or (isinstance(n, ast.Name) and n.id in self.results)
            for n in ast.walk(node)
        )

    def is_transposed(self, node: ast.AST) -> bool:
        return any(
            (is_transposition(n) and self.is_result(n)) or (isinstance(n, ast.Name) and n.id in self.transposed)
            for n in ast.walk(node)
        )


def transposed_results(source: str) -> list[int]:
    """Lines of `source` on which a dot is fed the transposition of a dot's result."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    dotting = {f.name for f in functions if any(called(node) == "dot" for node in ast.walk(f))}
    return sorted(line for f in functions for line in Taint(f, dotting).bad)


@pytest.mark.parametrize("path", sorted(KERNELS.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_no_dot_is_fed_the_transposition_of_a_dots_result(path):
    assert transposed_results(path.read_text()) == []


@pytest.mark.parametrize(
    ("body", "bad"),
    [
        ("tl.dot(tl.trans(tl.dot(a, b)), c)", True),
        ("x = tl.dot(a, b)\n  y = x.to(tl.bfloat16)\n  tl.dot(tl.trans(y), c)", True),
        ("x = tl.dot(a, b)\n  y = tl.trans(x)\n  z = y.to(tl.bfloat16)\n  tl.dot(c, z)", True),
        ("x = tl.dot(a, b)\n  tl.dot(c, tl.exp2(x).T)", True),
        ("x = tl.dot(a, b)\n  tl.dot(c, tl.permute(x, 1, 0))", True),
        ("for j in range(n):\n    acc += tl.dot(tl.trans(p), v)\n    p = tl.dot(q, k)", True),
        ("p = helper(a, b)\n  tl.dot(tl.trans(p), v)", True),
        ("x = tl.dot(a, tl.trans(b))\n  tl.dot(x.to(tl.bfloat16), c)", False),
        ("x = tl.dot(a, b)\n  tl.store(out, tl.trans(x))", False),
        ("x = tl.dot(a, b)\n  y = tl.dot(tl.trans(c), a, x)", False),
        ("acc = tl.dot(p, v, tl.trans(acc))", False),
    ],
)
def test_the_lint_follows_names(body, bad):
    helper = "def helper(a, b):\n  return tl.dot(a, b)\n"
    assert bool(transposed_results(f"{helper}def kernel(a, b, c, v, n):\n  {body}\n")) == bad
