"""The pieces of LLM.int8(), SmoothQuant, FPTQ and SqueezeLLM against what their formulas say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.quant.awq import awq_clip, awq_scale, awq_search, clip  # noqa: E402
from labcore.quant.fptq import plan, round_activations  # noqa: E402
from labcore.quant.llm_int8 import Int8Linear, int8_product, llm_int8, outlier_columns, quantize_rows  # noqa: E402
from labcore.quant.smoothquant import lae_scale, smoothquant_scale  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from labcore.quant.squeezellm import squeeze, weighted_kmeans  # noqa: E402
from tests.quant.layers import weight  # noqa: E402


def single(rows, columns, seed=0):
    return weight(rows, columns, seed, torch.float32)


# --- LLM.int8() ------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(columns=st.sampled_from([1, 1040, 1041, 2500]), extreme=st.booleans(), seed=st.integers(0, 100))
def test_the_integer_product_is_exact(columns, extreme, seed):
    generator = torch.Generator().manual_seed(seed)
    low = 127 if extreme else -127  # all at the end of the range: the largest sum there is
    a, b = (torch.randint(low, 128, (n, columns), generator=generator, dtype=torch.int8) for n in (3, 4))
    assert torch.equal(int8_product(a, b).long(), a.long() @ b.long().T)


def test_the_threshold_chooses_between_integers_and_floats():
    x, w = 3 * single(16, 64), single(8, 64, 1)
    stored = quantize_rows(w)
    torch.testing.assert_close(llm_int8(x, stored, 0.0), x @ stored.dequantize().T, rtol=1e-4, atol=1e-4)
    assert torch.equal(llm_int8(x, stored, 1e9), Int8Linear(w)(x))
    assert outlier_columns(torch.tensor([[6.0, 5.9], [0.0, -5.9]])).tolist() == [True, False]


def test_one_large_channel_spoils_the_integers_and_not_the_split():
    x, w = single(32, 64), single(16, 64, 1)
    x[:, 5] = 60.0
    exact = x @ w.T
    error = {t: (Int8Linear(w, threshold=t)(x) - exact).norm().item() for t in (6.0, None)}
    assert error[6.0] < error[None] / 2.5


def test_static_scales_saturate_and_bad_choices_are_refused():
    w = single(4, 8)
    small, large = torch.full((1, 8), 0.5), torch.full((1, 8), 5.0)
    layer = Int8Linear(w, x_absmax=1.0)
    torch.testing.assert_close(layer(large), layer(torch.ones(1, 8)))
    assert not torch.allclose(layer(small), layer(large))
    with pytest.raises(InputError, match="give one of them"):
        Int8Linear(w, threshold=6.0, x_absmax=1.0)
    with pytest.raises(InputError, match=r"activation \[0, 3\] is nan"):
        layer(torch.tensor([[0.0, 1, 2, torch.nan, 0, 0, 0, 0]]))
    assert quantize_rows(torch.zeros(1, 4)).dequantize().tolist() == [[0, 0, 0, 0]]


# --- scales ----------------------------------------------------------------------------------------------------------


def test_smoothing_scales_are_their_formulas():
    x, ws = torch.tensor([4.0, 100.0]), [torch.tensor([[1.0, -2.0]]), torch.tensor([[-4.0, 0.5]])]
    torch.testing.assert_close(smoothquant_scale(x, ws, 0.5), torch.tensor([1.0, 50.0**0.5]))
    torch.testing.assert_close(smoothquant_scale(x, ws, 1.0), x)
    torch.testing.assert_close(lae_scale(x), x / torch.log2(2 + x))
    with pytest.raises(InputError, match=r"alpha=1.5"):
        smoothquant_scale(x, ws, 1.5)
    with pytest.raises(InputError, match=r"activation maximum \[0\] is inf"):
        lae_scale(torch.tensor([torch.inf]))


def test_fptq_plans_by_range():
    assert plan({"a": 15.0, "b": 15.1, "c": 149.9, "d": 150.0}) == {"a": "static", "b": "lae", "c": "lae", "d": "token"}
    with pytest.raises(InputError, match="low=9, high=3"):
        plan({}, low=9, high=3)
    x = single(4, 16)
    error = (round_activations(x) - x).abs()
    assert (error <= x.abs().amax(1, keepdim=True) / 254 * 1.0001).all() and error.max() > 0


def test_awq_protects_the_channel_that_matters_and_clips_where_it_pays():
    x, w = single(128, 64), single(32, 64, 1)
    x[:, 9] *= 50
    spec = QuantSpec(3, 32)
    found = awq_search([w], x.abs().mean(0), x, spec)
    assert found.alpha > 0 and found.scale.argmax() == 9 and min(found.curve) < found.curve[0] / 1.5
    w[:, 40] = 6 * w[:, 40].sign()  # a weight that its input, almost always 0, never uses
    x[:, 40] *= 1e-3
    limit = awq_clip(w, x, spec)
    assert limit[:, 1].median() < 6 * 0.6 and (limit[:, 0] > w[:, :32].abs().amax(1) * 0.5).all()
    assert clip(w, limit).abs().max() < 6
    with pytest.raises(InputError, match="no calibration tokens"):
        awq_search([w], x.abs().mean(0), x[:0], spec)


def test_awq_does_not_divide_by_a_channel_that_is_never_active():
    scale = awq_scale(torch.tensor([0.0, 1.0, 4.0]), 0.5)
    torch.testing.assert_close(scale, torch.tensor([1e-4, 1.0, 2.0]) / 2e-4**0.5)


# --- SqueezeLLM ------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(k=st.sampled_from([2, 4, 8]), n=st.integers(8, 40), seed=st.integers(0, 1000), edges=st.sampled_from([12, 64]))
def test_levels_follow_scale_and_order_of_the_sensitivities(k, n, seed, edges):
    x, fisher = single(3, n, seed), torch.exp(single(3, n, seed + 1))
    levels, codes = weighted_kmeans(x, fisher, k, edges)
    assert (levels.diff(dim=1) >= 0).all() and codes.max() < k
    nearest = (x[..., None] - levels[:, None]).abs().argmin(2)
    chosen, best = levels.gather(1, codes.long()), levels.gather(1, nearest)
    torch.testing.assert_close((x - chosen).abs(), (x - best).abs(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weighted_kmeans(x, 8 * fisher, k, edges)[0], levels, rtol=1e-4, atol=1e-5)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(weighted_kmeans(x[:, order], fisher[:, order], k, edges)[0], levels)


def test_as_many_levels_as_numbers_lose_nothing():
    x = torch.tensor([[3.0, -1, 3, 0.5, -1, 7, 0.5, 3]])
    levels, codes = weighted_kmeans(x, torch.ones_like(x), 4)
    assert torch.equal(levels.gather(1, codes.long()), x)
    levels, codes = weighted_kmeans(x, torch.zeros_like(x), 8)  # no weight at all: evenly weighted
    assert torch.equal(levels.gather(1, codes.long()), x)


def test_sparse_weights_come_back_exactly_and_are_paid_for():
    w, fisher = single(8, 100), torch.exp(2 * single(8, 100, 1))
    dense, found = squeeze(w, fisher, 3), squeeze(w, fisher, 3, outliers=0.01, sensitive=0.02)
    assert found.kept.sum() in range(16, 25), "8 largest and 16 most sensitive ones, which may be the same"
    assert torch.equal(found.dequantize()[found.kept], w[found.kept])
    largest = w.abs().flatten().topk(8).indices
    assert found.kept.flatten()[largest].all() and found.kept.flatten()[fisher.flatten().topk(16).indices].all()
    loss = [(fisher * (w - one.dequantize()).square()).sum() for one in (dense, found)]
    assert loss[1] < loss[0] / 1.3
    assert dense.nbytes == 8 * (25 + 13) + 8 * 8 * 2, "2 + 1 bits of 100 codes, 8 fp16 levels a row"
    assert found.nbytes == dense.nbytes + 6 * int(found.kept.sum()) + 4 * 9
    assert found.stored().dequantize().half().float().equal(found.stored().dequantize())


def test_a_row_without_sensitivities_counts_as_evenly_weighted():
    x = single(3, 40)
    found, even = (weighted_kmeans(x, weights, 8) for weights in (torch.zeros_like(x), torch.ones_like(x)))
    assert torch.equal(found[0], even[0]) and torch.equal(found[1], even[1]) and even[0].unique().numel() == 24


def test_sensitivities_must_fit():
    w = single(4, 8)
    with pytest.raises(InputError, match=r"sensitivities of shape \(4, 7\)"):
        squeeze(w, torch.ones(4, 7), 4)
    with pytest.raises(InputError, match="one finite number, 0 or more"):
        squeeze(w, -torch.ones(4, 8), 4)


def test_bits_and_shares_must_exist():
    w = single(4, 8)
    for bits in (0, 9):
        with pytest.raises(InputError, match=f"bits={bits}: codes have 1 to 8 bits"):
            squeeze(w, w.square(), bits)
    for shares in ({"outliers": 1.5}, {"sensitive": -0.1}, {"outliers": float("nan")}):
        with pytest.raises(InputError, match="shares of the matrix are 0 to 1"):
            squeeze(w, w.square(), 4, **shares)
    assert squeeze(w, w.square(), 1, outliers=1.0).dequantize().equal(w)
