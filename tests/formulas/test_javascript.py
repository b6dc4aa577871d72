"""Python and JavaScript are one formula: same numbers, same limits, and the committed file is the generated one."""

import json
import math
import random
import shutil
import subprocess
from dataclasses import replace
from itertools import islice

import pytest
import sympy as sp

from labcore.formulas import formula, javascript, printing
from labcore.formulas.symbols import TABLE, S, n
from labcore.formulas.vectors import samples
from tests.formulas.golden import PATH, generate

VECTORS = 200  # random inputs a formula
TOLERANCE = 1e-12  # relative
HARNESS = """
const path = process.argv[1];
require(path);
const jobs = JSON.parse(require("fs").readFileSync(0, "utf8"));
const spell = (x) => (Number.isFinite(x) ? x : String(x));
const values = jobs.map(([id, inputs]) => spell(globalThis.labcoreFormulas[id].evaluate(inputs)));
process.stdout.write(JSON.stringify(values));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def run(jobs: list[tuple[str, dict]], path=javascript.TARGET) -> list[float]:
    """Evaluate every (id, inputs) in one node process."""
    command = ["node", "-e", HARNESS, str(path)]
    done = subprocess.run(command, input=json.dumps(jobs), capture_output=True, text=True, check=True, timeout=60)
    return [float(value) for value in json.loads(done.stdout)]


def differences(jobs, values, found) -> list[str]:
    return [
        f"{id}({inputs}): Python {value!r}, JavaScript {other!r}"
        for (id, inputs), value, other in zip(jobs, values, found, strict=True)
        if not math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=0)
    ]


@needs_node
def test_python_and_javascript_agree():
    rng = random.Random(7)
    jobs = [(f.id, inputs) for f in formula for inputs in islice(samples(f, rng), VECTORS)]
    values = [formula[id](**inputs) for id, inputs in jobs]
    assert len(jobs) == VECTORS * len(formula)
    assert differences(jobs, values, run(jobs)) == []


@needs_node
def test_javascript_reproduces_the_golden_vectors():
    vectors = [(id, row) for id, rows in json.loads(PATH.read_text()).items() for row in rows]
    jobs = [(id, row["inputs"]) for id, row in vectors]
    assert differences(jobs, [row["value"] for _, row in vectors], run(jobs)) == []


@needs_node
def test_a_wrong_script_is_noticed(tmp_path):
    text = javascript.TARGET.read_text(encoding="utf-8")
    wrong = tmp_path / "labcore-formulas.js"
    wrong.write_text(text.replace("2*b_kv*d_h*n_kv*n_layers", "2.00000000001*b_kv*d_h*n_kv*n_layers"), encoding="utf-8")
    jobs = [("kv.bytes_per_token", {"n_layers": 80, "n_kv": 8, "d_h": 128, "b_kv": 2})]
    assert run(jobs) == [327_680]
    assert len(differences(jobs, [327_680.0], run(jobs, wrong))) == 1


@needs_node
def test_outside_its_range_a_formula_is_nan():
    beyond = {"P": 7e10, "n_layers": 80, "n_q": 64, "d_h": 128, "kappa": 327_680, "R": 153, "b_w": 2, "L": 4096}
    jobs = [
        ("roofline.crossover_batch_kv", beyond),
        ("roofline.max_context", beyond | {"R": 7}),
        ("decode.attention_intensity", {"n_q": 8, "n_kv": 64, "b_kv": 2}),
        ("latency.tpot", {"e2e": 1, "ttft": 2, "n_out": 10}),
        ("kv.hybrid_fraction", {"n_global": 0, "n_local": 0, "L": 100, "W": 10}),
    ]
    assert all(math.isnan(value) for value in run(jobs))


def test_golden_vectors_are_current():
    committed, fresh = json.loads(PATH.read_text()), generate()
    assert list(committed) == list(fresh), "run: python -m tests.formulas.golden"
    for id, rows in fresh.items():
        for old, new in zip(committed[id], rows, strict=True):
            assert old["inputs"] == new["inputs"]
            assert math.isclose(old["value"], new["value"], rel_tol=TOLERANCE), id


def test_the_committed_script_is_the_generated_one():
    committed = javascript.TARGET.read_text(encoding="utf-8")
    assert committed == javascript.script(), "run: python -m labcore.formulas.javascript"


def test_the_script_is_classic_small_and_clean():
    text = javascript.script()
    assert len(text.encode()) < 40_000
    assert not any(word in text for word in ("export ", "import ", "fetch(", "%", "Not supported"))
    assert all(f'define("{f.id}"' in text for f in formula)


@needs_node
def test_the_script_carries_what_a_control_needs():
    probe = 'require(process.argv[1]); process.stdout.write(JSON.stringify(globalThis.labcoreFormulas["kv.bytes"]));'
    done = subprocess.run(["node", "-e", probe, str(javascript.TARGET)], capture_output=True, text=True, check=True)
    entry = json.loads(done.stdout)
    assert (entry["title"], entry["unit"]) == (formula["kv.bytes"].title, "B")
    want = [
        {key: getattr(i, key) for key in ("name", "latex", "unit", "doc", "low", "high", "integer")}
        for i in formula["kv.bytes"].inputs
    ]
    assert entry["inputs"] == want


@needs_node
def test_ceiling_floor_piecewise_and_extremes_translate():
    tail = sp.Piecewise((sp.floor(n / S), n > S), (sp.ceiling(S / n), True)) + sp.Max(n, S) * sp.Min(n, S)
    f = replace(formula["kv.paging.blocks"], expr=tail, valid=())
    for n_, S_ in ((100, 7), (3, 16), (16, 16)):
        script = f"const n = {n_}, S = {S_}; process.stdout.write(String({f.javascript}))"
        done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
        assert float(done.stdout) == f(n=n_, S=S_)


def test_what_javascript_lacks_is_refused():
    with pytest.raises(ValueError, match="has no JavaScript form"):
        printing.javascript(sp.Mod(n, S))
    with pytest.raises(ValueError, match="has no JavaScript form"):
        printing.javascript(sp.zeta(n))


def test_no_formula_or_symbol_hides_a_script_breaker():
    for i in TABLE.values():
        assert "\u2028" not in i.doc and "</script" not in i.doc
