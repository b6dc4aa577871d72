"""The LaTeX means what the function computes, and reads as the field writes it."""

import random
from itertools import islice

import pytest
import sympy as sp

from labcore.formulas import formula, notation_rows, printing
from labcore.formulas.symbols import TABLE, n, n_layers, n_out, tpot
from labcore.formulas.vectors import samples
from tests.formulas.latex_reader import evaluate

FIELD_FORM = {
    "kv.bytes_per_token": r"\kappa = 2 n_\ell n_{\mathrm{kv}} d_h b_{\mathrm{kv}}",
    "kv.bytes": r"M_{\mathrm{kv}} = B L \kappa",
    "kv.paging.utilization": r"u_{\mathrm{page}} = \frac{n}{n + \frac{S - 1}{2}}",
    "kv.paging.waste": r"w(n, S) = S \left\lceil{\frac{n}{S}}\right\rceil - n",
    "decode.linear_intensity": r"I_{\mathrm{lin}} = \frac{2 B}{b_w}",
    "roofline.attainable": r"F_{\mathrm{att}} = \min\left(F, I \beta\right)",
    "roofline.crossover_batch": r"B^\star = \frac{R b_w}{2}",
    "roofline.intensity_kv": (
        r"I(B, L) = \frac{B \left(2 P + 4 n_\ell n_{\mathrm{q}} d_h L\right)}{b_w P + B L \kappa}"
    ),
    "roofline.crossover_batch_kv": (r"B^\star(L) = \frac{R b_w P}{2 P + 4 n_\ell n_{\mathrm{q}} d_h L - R L \kappa}"),
    "roofline.max_context": r"L_{\max} = \frac{2 P}{R \kappa - 4 n_\ell n_{\mathrm{q}} d_h}",
    "decode.step_time": (
        r"t_{\mathrm{step}} = \max\left(\frac{b_w P}{\beta}, \frac{2 P B}{F}\right) + \frac{B L \kappa}{\beta}"
        r" + t_{\mathrm{comm}} + t_{\mathrm{launch}}"
    ),
    "latency.e2e": (r"\mathrm{E2E} = \mathrm{TTFT} + \left(n_{\mathrm{out}} - 1\right) \mathrm{TPOT}"),
    "economics.usd_per_mtok": r"\text{USD per Mtok} = \frac{10^{6} C_{\mathrm{h}}}{3600 X u}",
    "moe.experts_hit": r"E_{\mathrm{hit}} = E \left(1 - \left(1 - \frac{k}{E}\right)^{B}\right)",
    "prefill.flops": r"\mathrm{FLOP}_{\mathrm{prefill}} = 2 P L + 2 n_\ell n_{\mathrm{q}} d_h L^{2}",
    "kv.quant_effective_bits": r"\bar b = b + \frac{b_{\mathrm{scale}} + b_{\mathrm{zero}}}{G}",
    "kv.capacity.free": (
        r"M_{\mathrm{free}} = M_{\mathrm{gpu}} f_{\mathrm{mem}} - \frac{b_w P}{N_{\mathrm{gpu}}} - M_{\mathrm{over}}"
    ),
}


@pytest.mark.parametrize("id", FIELD_FORM)
def test_field_form(id):
    assert formula[id].latex == FIELD_FORM[id]


@pytest.mark.parametrize("f", formula, ids=lambda f: f.id)
def test_latex_evaluates_to_the_function(f):
    right = f.latex.removeprefix(f"{f.lhs} = ")
    for inputs in islice(samples(f, random.Random(f.id)), 20):
        assert evaluate(right, inputs) == pytest.approx(f(**inputs), rel=1e-11, abs=1e-300)


def test_the_reader_notices_a_wrong_page():
    inputs = {"n": 100.0, "S": 16.0}
    value = pytest.approx(formula["kv.paging.utilization"](**inputs))
    assert evaluate(r"\frac{n}{n + \frac{S - 1}{2}}", inputs) == value
    assert evaluate(r"\frac{n}{n + S - \frac{1}{2}}", inputs) != value
    for unreadable in (r"n \cdot S", "n +", r"\frac{n}", "q"):
        with pytest.raises(ValueError, match=r"expected|cannot read"):
            evaluate(unreadable, inputs)


def test_brackets_survive_unevaluated_products():
    assert printing.latex(printing.half(n - 1)) == r"\frac{n - 1}{2}"
    assert printing.latex(sp.Mul(n_out - 1, tpot, evaluate=False)) == r"\left(n_{\mathrm{out}} - 1\right) \mathrm{TPOT}"
    assert printing.latex(printing.fraction(n_layers, n + 1)) == r"\frac{n_\ell}{n + 1}"


def test_every_latex_name_stands_apart():
    """No symbol's LaTeX is a prefix of another's up to a subscript, so a page can be read without guessing."""
    for a in TABLE.values():
        assert evaluate(a.latex, {i.name: float(hash(i.name) % 997) for i in TABLE.values()}) == hash(a.name) % 997


def test_notebooks_show_the_latex():
    assert formula["kv.bytes"]._repr_latex_() == r"$\displaystyle M_{\mathrm{kv}} = B L \kappa$"
    assert repr(formula["kv.bytes"]) == "kv.bytes(B, L, kappa) [B]"


def test_notation_rows_name_every_use():
    rows = {row.name: row for row in notation_rows()}
    assert rows["kappa"].latex == r"\kappa" and rows["kappa"].unit == "B/token"
    assert "kv.bytes" in rows["kappa"].formulas and "kv.gqa_ratio" not in rows["kappa"].formulas
