"""The bench of speculation: what it makes of a run, without the run."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from labcore.engine.bench_speculation import row  # noqa: E402
from labcore.engine.speculation_gain import Decoded, Prediction, acceptance  # noqa: E402
from labcore.engine.stats import RunStats, StepRecord  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

RUN = SimpleNamespace(ceiling=lambda name: {"read_bandwidth": 1e6, "matmul.fp32": 1e12}[name])


def decoded(steps) -> Decoded:
    """A run of (sampled, drafted, verified, accepted, seconds of the pass, of the draft) steps."""
    stats = RunStats()
    for sampled, drafted, verified, accepted, model, draft in steps:
        record = StepRecord(sampled=sampled, drafted=drafted, verified=verified, accepted=accepted)
        record.seconds |= {"model": model, "draft": draft}
        stats.steps.append(record)
    return Decoded({(1, 2): [3, 4, 5, 6]}, stats)


PLAIN = decoded([(1, 0, 0, 0, 0.1, 0.0)] * 8)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 0.93])
@pytest.mark.parametrize("length", [1, 3, 5.5])
def test_acceptance_is_the_inverse_of_equation_4_4(alpha, length):
    tokens = formula["speculation.expected_tokens"](alpha=alpha, K=length)
    assert acceptance(tokens, length) == pytest.approx(alpha, abs=1e-6)


def test_a_run_predicts_itself_from_its_own_costs():
    """Three drafts a pass, two kept, a verification of 1.5 steps and drafts of 0.1 each: 3 tokens in 1.8 steps."""
    spec = decoded([(3, 3, 1, 2, 0.15, 0.03)] * 4)
    found = Prediction.of(RUN, tiny_model(), PLAIN, spec, 1, 64)
    assert (found.c, found.v) == (pytest.approx(0.1), pytest.approx(1.5))
    assert found.measured == pytest.approx(3 / 1.8, rel=1e-6)
    assert found.free == pytest.approx(3 / 1.3, rel=1e-6)
    assert found.roofline == pytest.approx(found.free, rel=1e-3)  # this machine computes for nothing


def test_passes_without_a_draft_cost_a_step_each():
    spec = decoded([(3, 3, 1, 2, 0.15, 0.03)] * 2 + [(1, 0, 0, 0, 0.1, 0.0)] * 2)
    found = Prediction.of(RUN, tiny_model(), PLAIN, spec, 1, 64)
    assert found.measured == pytest.approx(8 / (2 * 1.8 + 2), rel=1e-6)
    never = Prediction.of(RUN, tiny_model(), PLAIN, PLAIN, 1, 64)
    assert (never.free, never.roofline, never.measured) == (1, 1, 1)


def test_a_row_holds_the_predictions_and_their_errors():
    spec = decoded([(3, 3, 1, 2, 0.15, 0.03)] * 4)
    found = Prediction.of(RUN, tiny_model(), PLAIN, spec, 1, 64)
    rates = {"plain": [[10.0], [10.0]], "x": [[20.0], [20.0]]}
    made = row("cpu.spec.x.b1.p64", rates, "x", PLAIN, spec, found, 1, 64, 4).to_json()
    assert made["ratio"]["median"] == 2 and made["correct"]["pass"]
    assert made["predicted"]["value"] == pytest.approx(10 * found.roofline)
    assert made["config"]["errors"]["measured costs"] == pytest.approx(3 / 1.8 / 2 - 1, abs=1e-3)


def test_answers_that_differ_are_not_the_same():
    other = decoded([(1, 0, 0, 0, 0.1, 0.0)])
    other.answers = {(1, 2): [3, 9, 5, 6]}
    assert other.agreement(PLAIN) == 0.25
    assert other.share_right([1, 2], [3, 4, 5, 6]) == 0.75
