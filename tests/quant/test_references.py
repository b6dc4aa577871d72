"""Ours beside the authors' own code (recorded runs) and beside packages nobody here wrote."""

import pytest

torch = pytest.importorskip("torch")

from labcore.quant.awq import awq_clip, awq_scale, awq_search  # noqa: E402
from labcore.quant.gptq import damped, gptq, layer_loss  # noqa: E402
from labcore.quant.llm_int8 import Int8Linear, quantize_rows  # noqa: E402
from labcore.quant.reference_runs import BLOCK, GROUP, layer, recorded  # noqa: E402
from labcore.quant.rtn import quantize_weight  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from labcore.quant.squeezellm import weighted_kmeans  # noqa: E402
from tests.quant.layers import inputs, weight  # noqa: E402


def quadratic(w, h) -> float:
    return layer_loss(layer()[0].double(), torch.as_tensor(w).double(), damped(h.double(), 0.01))


@pytest.mark.parametrize("run", recorded()["gptq"], ids=lambda run: "-".join(str(run[key]) for key in list(run)[:5]))
def test_gptq_makes_the_weights_that_the_authors_code_makes(run):
    w, x = layer()
    h = 2 * x.T @ x  # theirs counts samples, and this is one
    spec = QuantSpec(run["bits"], run["group"], run["symmetric"])
    found = gptq(w, h, spec, block=BLOCK, order=run["order"], groups=run["groups"])
    torch.testing.assert_close(found.weight.dequantize(), torch.tensor(run["weight"]), rtol=1e-5, atol=1e-5)
    assert quadratic(found.weight.dequantize(), h) <= quadratic(run["weight"], h) * 1.001
    # theirs reports the sum of e² / 2 as well, with the damping in e
    assert found.loss == pytest.approx(run["loss"], rel=1e-3)


def test_a_gptq_with_fresh_groups_is_not_theirs():
    run = next(run for run in recorded()["gptq"] if run["group"] and run["order"] == "none")
    w, x = layer()
    fresh = gptq(w, 2 * x.T @ x, QuantSpec(run["bits"], run["group"]), block=BLOCK, groups="fresh")
    assert (fresh.weight.dequantize() - torch.tensor(run["weight"])).abs().max() > 0.01


def test_awq_searches_the_curve_that_the_authors_code_searches():
    w, x = layer()
    theirs, spec = recorded()["awq"], QuantSpec(recorded()["awq"]["bits"], GROUP)
    found = awq_search([w], x.abs().mean(0), x, spec)
    assert found.curve == pytest.approx(theirs["curve"], rel=1e-4)
    torch.testing.assert_close(found.scale, torch.tensor(theirs["scale"]))
    assert min(found.curve) <= min(theirs["curve"]) * 1.001 and found.alpha == 0.5
    torch.testing.assert_close(awq_clip(w, x, spec), torch.tensor(theirs["limit"]))
    assert torch.equal(awq_scale(x.abs().mean(0), 0.0), torch.ones(len(w[0])))


def test_int8_codes_are_those_of_bitsandbytes():
    bnb = pytest.importorskip("bitsandbytes", reason="the oracle bitsandbytes is not installed")
    x = inputs(64, 96, dtype=torch.float32)
    x[:, 7] *= 40
    x[5] = 0
    codes, absmax, _ = bnb.functional.int8_vectorwise_quant(x.half())
    found = quantize_rows(x.half().float())
    assert torch.equal(found.codes, codes)
    torch.testing.assert_close(found.absmax, absmax)


def test_the_mixed_product_is_that_of_bitsandbytes():
    bnb = pytest.importorskip("bitsandbytes", reason="the oracle bitsandbytes is not installed")
    x, w = inputs(64, 96, dtype=torch.float32).clamp(-3, 3), weight(48, 96, dtype=torch.float32)
    w = w.half().float()  # theirs rounds it to fp16 first
    x[:, [7, 30]] /= 10  # theirs lets what is small in an outlier column take part in a token's maximum
    x[3, 7], x[9, 30] = 20, -9
    theirs = bnb.nn.Linear8bitLt(96, 48, bias=False, has_fp16_weights=False, threshold=6.0)
    theirs.load_state_dict({"weight": w.clone()})
    expected = theirs.to("cpu").eval()(x.half()).float()  # while training it multiplies dequantized weights
    found = Int8Linear(w, threshold=6.0)(x.half().float())
    assert (found - expected).norm() / expected.norm() < 1e-3
    without = Int8Linear(w)(x.half().float())
    assert (without - x @ w.T).norm() > 1.5 * (found - x @ w.T).norm()


def test_levels_are_as_good_as_the_exact_optimum_and_better_than_scikit_learn():
    exact = pytest.importorskip("kmeans1d", reason="the oracle kmeans1d is not installed")
    x = weight(50, 200, dtype=torch.float32)
    levels, codes = weighted_kmeans(x, torch.ones_like(x), 16)
    ours = (x - levels.gather(1, codes.long())).square().sum(1)
    for row, loss in zip(x[:20], ours, strict=False):
        found = exact.cluster(row.tolist(), 16)
        best = (row - torch.tensor(found.centroids)[found.clusters]).square().sum()
        assert best * (1 - 1e-5) <= loss <= 1.02 * best


def test_weighted_levels_are_no_worse_than_scikit_learns():
    cluster = pytest.importorskip("sklearn.cluster", reason="the oracle scikit-learn is not installed")
    x = weight(4, 300, dtype=torch.float32)
    fisher = torch.exp(2 * weight(4, 300, 9, torch.float32))
    levels, codes = weighted_kmeans(x, fisher, 8)
    ours = (fisher * (x - levels.gather(1, codes.long())).square()).sum(1)
    for row, weights, loss in zip(x, fisher, ours, strict=True):
        fit = cluster.KMeans(8, random_state=0, n_init="auto", max_iter=50).fit(row[:, None], sample_weight=weights)
        assert loss <= fit.inertia_ * 1.01


def test_hqq_gains_what_a_data_free_solver_can():
    hqq = pytest.importorskip("hqq.core.quantize", reason="the reference point hqq is not installed")
    w = weight(64, 256, dtype=torch.float32)
    packed, meta = hqq.Quantizer.quantize(
        w, nbits=4, group_size=64, axis=1, device="cpu", compute_dtype=torch.float32, bitpack=True
    )
    theirs = hqq.Quantizer.dequantize(packed, meta)
    ours = quantize_weight(w, QuantSpec(4, 64)).dequantize()
    assert 0.85 < (theirs - w).norm() / (ours - w).norm() < 1.02
