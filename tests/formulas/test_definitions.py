"""What every declaration must satisfy: units, symbols, direction, limits, ids that others rely on."""

import random
from itertools import islice

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError, UnitError
from labcore.core.units import unit
from labcore.formulas import Formula, Limit, UnknownFormula, formula, notation_rows, symbols
from labcore.formulas.registry import declare
from labcore.formulas.symbols import FLOP, SECONDS_PER_HOUR, TABLE, B, F, L, P, S, b_w, beta, bits, n, price_hour
from labcore.formulas.vectors import samples

CONTRACT = """
economics.usd_per_mtok latency.tpot latency.e2e decode.linear_intensity decode.attention_intensity
mla.attention_intensity roofline.ridge roofline.attainable roofline.crossover_batch roofline.crossover_batch_kv
roofline.max_context roofline.intensity_kv decode.step_time decode.kv_equals_weights_batch decode.tpot_floor
moe.experts_hit moe.bytes_read energy.joules_per_token prefill.flops prefill.time kv.bytes_per_token kv.bytes
kv.gqa_ratio kv.mla_bytes_per_token kv.window_bytes kv.hybrid_fraction kv.quant_effective_bits
kv.sequences_per_weights kv.transfer_time kv.recompute_time kv.capacity.free kv.capacity.sequences
kv.paging.tail_waste kv.paging.utilization
""".split()
seeds = st.integers(0, 2**32).map(random.Random)
each = pytest.mark.parametrize("f", formula, ids=lambda f: f.id)


def test_ids_that_other_parts_use_exist():
    assert set(CONTRACT) <= set(formula.ids())


def test_python_names_and_table_agree():
    assert all(getattr(symbols, name) == entry.symbol for name, entry in TABLE.items())


def test_every_symbol_is_used_has_one_latex_and_sensible_bounds():
    rows = notation_rows()
    assert [row.name for row in rows] == list(TABLE)
    assert len({row.latex for row in rows}) == len(rows)
    for entry in TABLE.values():
        assert entry.name.isidentifier() and entry.name.isascii() and entry.low < entry.high and entry.doc
        assert symbols.DOMAINS[entry.domain][0](np.array([entry.low, entry.high])).all(), entry.name


def test_titles_and_left_sides_are_distinct():
    assert len({f.title for f in formula}) == len({f.lhs for f in formula}) == len(formula)
    assert all(f.source and f.unit and f.title for f in formula)


# ── units ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expr", "declared", "complaint"),
    [
        (b_w * P, "FLOP", "the expression has unit B, not the declared FLOP"),
        (b_w * P / beta + L, "s", "they do not mix"),
        (sp.Max(b_w * P / beta, 2 * P * B / F), "s", "they do not mix"),  # the 2 must carry FLOP
        (b_w**n, "1", "a base with a variable exponent b_w must be a plain number, and it is B"),
        (2**beta, "1", "an exponent beta must be a plain number, and it is B·s^-1"),
        (sp.log(beta), "1", "log of beta must be a plain number, and it is B·s^-1"),
        (sp.ceiling(beta), "1", "ceiling of beta must be a plain number"),
        (price_hour / beta, "USD/B", "the expression has unit 0.000277778"),  # an hour is not a second
        (price_hour / SECONDS_PER_HOUR, "USD/h", "not the declared USD/h"),
        (bits * P, "B", "the expression has unit 0.125 B, not the declared B"),  # 8 bits a byte
        (sp.sin(n), "1", "sin has no unit rule"),
        (sp.Symbol("nonsense") * n, "1", "'nonsense' is not in the table"),
        (sp.Piecewise((n, beta < F), (S, True)), "1", "they do not mix"),
    ],
)
def test_an_expression_in_other_units_cannot_be_declared(expr, declared, complaint):
    with pytest.raises(UnitError, match=r"^test\.wrong: ") as caught:
        declare("test.wrong", "", "", expr, declared, source="none")
    assert complaint in str(caught.value) and "test.wrong" not in formula


def test_a_condition_in_mixed_units_cannot_be_declared():
    from labcore.formulas import Condition

    with pytest.raises(UnitError, match="do not mix"):
        declare("test.wrong", "", "", 2 * n, "tokens", source="none", valid=(Condition(P < beta, ""),))


def test_marks_leave_nothing_behind():
    for f in formula:
        assert {s.name for s in f.expr.free_symbols} == {i.name for i in f.inputs}
        assert not any(c.holds.free_symbols - {i.symbol for i in f.inputs} for c in f.valid)
    assert (2 * FLOP * P).subs(FLOP, 1) == 2 * P


@each
def test_numbers_are_homogeneous(f):
    """Measure bytes, seconds, joules and dollars in other units: the value must change as its own unit says.

    FLOP is left out, because literals carry it and show no unit in a number.
    """
    scale = {"B": 3.0, "FLOP": 1.0, "s": 0.5, "J": 11.0, "USD": 13.0}

    def factor(text: str) -> float:
        return np.prod([scale[base] ** power for base, power in unit(text).dimension])

    value = sp.lambdify([i.symbol for i in f.inputs], f.expr, "math")
    for inputs in islice(samples(f, random.Random(f.id)), 5):
        moved = value(*(inputs[i.name] * factor(i.unit) for i in f.inputs))
        assert moved == pytest.approx(value(*inputs.values()) * factor(f.unit), rel=1e-9)


# ── direction and limits ───────────────────────────────────────────────────────────────────────────────────────


@each
@settings(max_examples=5)
@given(rng=seeds)
def test_rises_and_falls(f, rng):
    for inputs in islice(samples(f, rng), 10):
        one_step(f, inputs, rng)


def one_step(f: Formula, inputs: dict[str, float], rng: random.Random) -> None:
    here = f(**inputs)
    for name in (*f.rises, *f.falls):
        value = inputs[name]
        further = inputs | {name: (value + 1) * (1 + rng.random()) if TABLE[name].integer else value * 1.37}
        if TABLE[name].domain == "fraction":
            further[name] = value + (1 - value) / 2
        try:
            there = f(**further)
        except InputError:
            continue  # the step left the range in which the formula holds
        slack = 1e-12 * abs(here)
        assert there >= here - slack if name in f.rises else there <= here + slack, (name, inputs)


@each
def test_rises_and_falls_move_at_all(f):
    """Weakly monotone is not constant: in each declared direction the value moves for some inputs."""
    rng = random.Random(f.id)
    moved = set()
    for inputs in islice(samples(f, rng), 60):
        for name in (*f.rises, *f.falls):
            far = inputs | {
                name: min(inputs[name] * 3, 1) if TABLE[name].domain == "fraction" else inputs[name] * 3 + 1
            }
            try:
                if f(**far) != f(**inputs):
                    moved.add(name)
            except InputError:
                continue
    assert moved == {*f.rises, *f.falls}


def approach(f: Formula, limit: Limit, inputs: dict[str, float]) -> tuple[mpmath.mpf, mpmath.mpf]:
    """Value close to the limit point and the declared limit, in 60 digits."""
    target = formula[limit.is_].expr if isinstance(limit.is_, str) else limit.is_
    exact = {i.symbol: mpmath.mpf(inputs[i.name]) for i in f.inputs}

    def at(expr: sp.Expr, values: dict) -> mpmath.mpf:
        if expr in (sp.oo, -sp.oo):
            return mpmath.mpf("inf") * (1 if expr is sp.oo else -1)
        names = sorted(expr.free_symbols, key=str)
        return mpmath.mpf(sp.lambdify(names, expr, "mpmath")(*(values[s] for s in names)))

    tiny = mpmath.mpf(10) ** -30
    to = at(limit.to, exact)
    counted = limit.to == 1 and TABLE[limit.symbol.name].integer
    near = 1 / tiny if mpmath.isinf(to) else tiny if to == 0 else to if counted else to * (1 - tiny)
    return at(f.expr, exact | {limit.symbol: near}), at(target, exact)


LIMITS = [(f, limit) for f in formula for limit in f.limits]


@pytest.mark.parametrize(("f", "limit"), LIMITS, ids=[f"{f.id} {x.symbol}→{x.to}" for f, x in LIMITS])
def test_limit(f, limit):
    rng = random.Random(f.id)
    with mpmath.workdps(60):
        for inputs in islice(samples(f, rng), 10):
            near, declared = approach(f, limit, inputs)
            if mpmath.isinf(declared):
                assert near > 1e12 * abs(mpmath.mpf(f(**inputs)))
            elif declared == 0:
                assert abs(near) <= mpmath.mpf("1e-15")
            else:
                assert abs(near / declared - 1) < mpmath.mpf("1e-15")


def test_a_wrong_limit_is_noticed():
    f = formula["kv.paging.utilization"]
    with mpmath.workdps(60):
        near, declared = approach(f, Limit(n, sp.oo, sp.Rational(1, 2)), {"n": 100.0, "S": 16.0})
    assert abs(near / declared - 1) > 0.9


def test_crossover_diverges_and_then_refuses():
    f, at = (
        formula["roofline.crossover_batch_kv"],
        {"P": 7e10, "n_layers": 80, "n_q": 64, "d_h": 128, "kappa": 327_680, "R": 153},
    )
    longest = formula["roofline.max_context"](**at)
    values = [f(L=longest * share, b_w=2, **at) for share in (0, 0.9, 0.99, 0.999, 0.9999)]
    assert values == sorted(values) and values[-1] > 5000 * values[0] / 1.0001
    with pytest.raises(InputError, match=rf"keep the context below L_max = {longest:.7g}".replace(".", r"\.")):
        f(L=longest * 1.0001, b_w=2, **at)


# ── the registry ───────────────────────────────────────────────────────────────────────────────────────────────


def test_unknown_id_names_close_ones():
    with pytest.raises(UnknownFormula, match=r"^no formula has the id 'kv.byte_per_token'; close ids are kv.bytes_per"):
        formula["kv.byte_per_token"]
    with pytest.raises(KeyError):
        formula["xyzzy"]


def test_an_id_is_declared_once_and_directions_name_inputs():
    with pytest.raises(InputError, match="declared twice"):
        declare("kv.bytes", "", "", 2 * n, "tokens", source="none")
    with pytest.raises(InputError, match="S in rises or falls is no input"):
        declare("test.wrong", "", "", 2 * n, "tokens", source="none", falls="S")
    assert "test.wrong" not in formula


def test_a_symbol_has_one_meaning():
    with pytest.raises(ValueError, match="one name, one meaning"):
        symbols.symbol("kappa", "k", "1", "condition number", 1, 2)
