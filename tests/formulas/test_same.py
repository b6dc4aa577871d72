"""`same`: derivations as a chapter writes them, and wrong ones."""

import pytest
import sympy as sp

from labcore.formulas import DerivationError, formula, same
from labcore.formulas.symbols import TABLE


def free(names: str) -> list[sp.Symbol]:
    """Symbols without any assumption, as a reader declares them."""
    return list(sp.symbols(names, seq=True))


def test_expected_waste_from_its_sum():
    S, k = sp.symbols("S k", positive=True, integer=True)
    n = sp.symbols("n", positive=True)
    waste = sp.simplify(sp.summation(k, (k, 0, S - 1)) / S)
    assert repr(same(formula["kv.paging.tail_waste"], waste)) == "✓ kv.paging.tail_waste is what was just derived"
    assert repr(same("kv.paging.utilization", n / (n + waste))) == "✓ kv.paging.utilization is what was just derived"


def test_a_sum_left_unevaluated():
    S, j = sp.symbols("S j", positive=True, integer=True)
    assert same("kv.paging.tail_waste", sp.Sum(j, (j, 0, S - 1)) / S)


def test_crossover_solved_from_the_intensity():
    B, L, P, R, b_w, kappa, n_layers, n_q, d_h = free("B L P R b_w kappa n_layers n_q d_h")
    flops, moved = B * (2 * P + 4 * n_layers * n_q * d_h * L), b_w * P + B * L * kappa
    assert same("roofline.intensity_kv", flops / moved)
    assert same("roofline.crossover_batch_kv", sp.solve(sp.Eq(flops / moved, R), B)[0])


def test_kappa_and_ridge_may_be_spelled_out():
    B, L, F, beta, b_w, n_layers, n_kv, d_h, b_kv = free("B L F beta b_w n_layers n_kv d_h b_kv")
    assert same("kv.bytes", 2 * n_layers * n_kv * d_h * b_kv * B * L)
    assert same("roofline.crossover_batch", F / beta * b_w / 2)
    with pytest.raises(DerivationError):
        same("kv.bytes", n_layers * n_kv * d_h * b_kv * B * L)


def test_expected_experts():
    E, k, B, j = sp.symbols("E k B j", positive=True)
    assert same("moe.experts_hit", sp.summation(1 - (1 - k / E) ** B, (j, 1, E)))


def test_ceilings_and_maxima():
    n, S, F, beta, intensity = free("n S F beta intensity")
    assert same("kv.paging.waste", S * sp.ceiling(n / S) - n)
    assert same("roofline.attainable", sp.Min(intensity * beta, F))
    with pytest.raises(DerivationError):
        same("kv.paging.waste", S * sp.floor(n / S) - n)


@pytest.mark.parametrize("id", formula.ids())
def test_every_formula_is_itself_in_a_reader_s_symbols(id):
    plain = {i.symbol: sp.Symbol(i.name) for i in TABLE.values()}
    assert same(id, sp.expand(formula[id].expr.doit()).xreplace(plain))


def test_a_wrong_derivation_says_where_and_shows_both():
    S, n = free("S n")
    with pytest.raises(DerivationError) as caught:
        same("kv.paging.utilization", n / (n + S / 2))
    message = str(caught.value)
    assert message.startswith("kv.paging.utilization differs at S=") or "differs at n=" in message
    assert "registered n/(n + (S - 1)/2) = " in message and "derived n/(S/2 + n) = " in message


def test_query_heads_differ_from_kv_heads():
    n_layers, n_q, d_h, b_kv = free("n_layers n_q d_h b_kv")
    with pytest.raises(DerivationError, match=r"differs at .*n_q="):
        same("kv.bytes_per_token", 2 * n_layers * n_q * d_h * b_kv)


def test_a_difference_at_rare_points_only_is_found():
    S, n = free("S n")
    with pytest.raises(DerivationError):
        same("kv.paging.waste", sp.Max(S * sp.ceiling(n / S) - n, sp.Rational(1, 10)))


def test_unknown_symbols_are_named():
    with pytest.raises(DerivationError, match=r"has block_size, which kv.paging.tail_waste does not take; it takes S"):
        same("kv.paging.tail_waste", (sp.Symbol("block_size") - 1) / 2)
