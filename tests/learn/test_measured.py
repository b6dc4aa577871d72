"""The explorer of a measured machine: its roof and points are the run's, and the page draws what Python says."""

from __future__ import annotations

import json

import pytest

from labcore.core.errors import InputError
from labcore.learn import widgets
from labcore.learn.recorded import ceiling
from tests.learn.measured_run import BETA, CACHE, PRODUCTS, RATE, SECONDS, WEIGHTS, measured_run
from tests.learn.test_widgets import drawn, javascript, same_values  # noqa: F401 (javascript is a fixture)


@pytest.fixture(scope="module")
def run():
    """One run: its id holds the second in which it was made, so a second one would have another."""
    return measured_run()


@pytest.fixture(scope="module")
def explorer(run):
    return widgets.measured_roofline(run)


def measured(explorer):
    return explorer.spec["inputs"][0]["devices"]["measured"]["measured"]


def test_the_roof_is_that_of_the_run(explorer):
    found = explorer.results()
    assert found["R"] == pytest.approx(RATE / BETA)
    assert found["t_linear"] == pytest.approx(WEIGHTS / BETA, rel=1e-3), "fp32 weights at the measured bandwidth"
    assert explorer.results(B=64)["t_linear"] == pytest.approx(64 * PRODUCTS / RATE, rel=1e-3)
    assert "measured" in explorer.html() and "AMD EPYC, 2 threads, measured" in explorer.html()


def test_a_point_stands_where_its_row_says(explorer):
    points = {point["label"]: point for point in measured(explorer)["points"]}
    assert list(points) == ["1", "2", "8", "64", "256"]
    for batch, seconds in SECONDS.items():
        point, flops = points[str(batch)], batch * PRODUCTS
        assert point["rate"] == pytest.approx(flops / seconds)
        assert point["I"] == pytest.approx(flops / (WEIGHTS + batch * CACHE))
        assert point["rate"] <= min(RATE, point["I"] * BETA), "no measurement lies above its roof"
    assert (points["256"]["hue"], points["8"]["hue"]) == ("prefill", "decode")


def test_without_scripts_the_points_and_their_provenance_read(run, explorer):
    text = explorer.html()
    assert "batch 8 took 80 ms, 26.9 GFLOP/s at 3.824 FLOP/B" in text
    assert run["run_id"] in text and "2 threads" in text


def test_another_device_shows_no_point_and_the_old_explorer_none(explorer):
    spec = json.loads(json.dumps(explorer.spec))
    spec["inputs"][0]["value"], spec["inputs"][1]["value"] = "h100-sxm", "bf16"
    assert "took" not in widgets.Calculator(spec).html().split('&quot;}">')[-1].split("</table>")[-1]
    assert "devices" not in widgets.roofline_explorer().html()


def test_page_computes_what_python_computes(javascript, explorer):  # noqa: F811
    states = drawn(explorer, "measured", 60)
    assert {s["hardware"] for s in states} > {"measured"}
    answers = javascript(*(["results", explorer.spec, s] for s in states))
    for state, answer in zip(states, answers, strict=True):
        assert same_values(answer["values"], explorer.results(**state)), state


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: run["rows"][0].update(dtype="bf16"), "not all times of one model in fp32"),
        (lambda run: run["rows"][0]["shape"].update(model="other"), "not all times of one model in fp32"),
        (lambda run: run.update(ceilings=run["ceilings"][1:]), "has no ceiling 'read_bandwidth' at threads=2"),
        (lambda run: run.update(rows=run["rows"][4:]), "no decode step"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_in_one_sentence(change, says):
    run = measured_run()
    change(run)
    with pytest.raises(InputError, match=says) as caught:
        widgets.measured_roofline(run)
    assert "\n" not in str(caught.value)


def test_a_ceiling_is_read_at_the_threads_of_the_rows():
    run = measured_run()
    other = dict(run["ceilings"][0], threads=1, value=1.0)
    run["ceilings"].insert(0, other)
    assert ceiling(run, "read_bandwidth") == BETA
