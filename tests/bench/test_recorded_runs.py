"""Recorded runs: what is written can be read again, and a file that contradicts itself is rejected with its reason."""

import copy
import getpass
import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.bench.ceilings import Ceiling
from labcore.bench.record import Row, RunBuilder, load_run, load_runs, provenance, rows, write_run
from labcore.bench.report import report, si
from labcore.bench.validation import problems, validate
from labcore.core.errors import DataError, InputError

RIGHT = {"pass": True, "how": "64 greedy tokens equal"}


def ceiling(name="read_bandwidth", threads=2, seconds=(1.0, 1.1, 1.2), work=30e9, unit="B/s"):
    return Ceiling(name, threads, "fp32", "torch.sum", "N = 7.5e9", work, "4 N", unit, tuple(seconds))


def row(**changes):
    fields = {
        "key": "cpu.decode.peer",
        "what": "greedy decode, batch 1",
        "ours": [[0.010, 0.011], [0.012, 0.010]],
        "unit": "s",
        "kind": "speedup",
        "baseline": [[0.020, 0.021], [0.024, 0.020]],
        "baseline_name": "peer 1.0",
        "floor": 0.008,
        "floor_formula": "bytes / read_bandwidth",
        "target": {"must": 1.0, "target": 1.5, "dream": 3.0},
        "predicted": 0.0100,
        "predicted_by": "decode.step_time",
        "correct": RIGHT,
        "threads": 2,
    }
    return Row(**(fields | changes))


def finished(*added, again=None):
    builder = RunBuilder("cpu", 2, [ceiling()], ["ceilings", "test"])
    for one in added:
        builder.add(one)
    return builder.finish([again or ceiling()])


@pytest.fixture
def run():
    return finished(row())


def test_a_row_states_what_its_samples_give(run):
    (one,) = run["rows"]
    assert one["ours"]["median"] == pytest.approx(0.0105) and one["ours"]["n"] == 4
    assert one["ratio"]["kind"] == "speedup"
    assert one["ratio"]["median"] == pytest.approx((0.0205 / 0.0105 + 0.022 / 0.011) / 2)
    assert one["ratio"]["lo"] == pytest.approx(0.0205 / 0.0105) and one["ratio"]["hi"] == pytest.approx(2.0)
    assert one["met"] == "target"
    assert one["predicted"]["error"] == pytest.approx(0.05)


def test_write_and_read_back(run, tmp_path):
    path = write_run(run, tmp_path / "results")
    assert path.name == f"{run['run_id']}.json" and "-cpu-" in path.name
    assert load_run(path) == run == load_runs(path.parent)[0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nothing_is_written_for_an_inconsistent_run(run, tmp_path):
    run["rows"][0]["ratio"]["median"] = 9.9
    with pytest.raises(DataError):
        write_run(run, tmp_path / "results")
    assert not (tmp_path / "results").exists()


samples = st.lists(st.lists(st.floats(1e-5, 10), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(samples, st.floats(0.1, 10), st.sampled_from(["speedup", "overhead"]), st.sampled_from(["s", "B/s", "token/s"]))
def test_every_run_the_builder_makes_is_valid_and_every_nudge_is_noticed(ours, factor, kind, unit):
    baseline = [[sample * factor for sample in one] for one in ours]
    plain = {"floor": None, "floor_formula": None, "target": {}, "predicted": None}
    run = finished(row(ours=ours, baseline=baseline, kind=kind, unit=unit, **plain))
    assert list(problems(run)) == []
    for section, figure in [
        ("ours", "median"),
        ("ours", "q80"),
        ("baseline", "q20"),
        ("ratio", "median"),
        ("ratio", "hi"),
    ]:
        nudged = copy.deepcopy(run)
        nudged["rows"][0][section][figure] *= 1.001
        assert any("does not follow from its samples" in problem for problem in problems(nudged)), (section, figure)


def edit(path, value):
    """A mutation of a run: set the entry at `path`, or delete it when `value` is DELETE."""

    def apply(run):
        at = run
        for step in path[:-1]:
            at = at[step]
        if value is DELETE:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return apply


DELETE = object()
ROW, CEILING = ("rows", 0), ("ceilings", 0)
WRONG = {
    "another schema": (edit(["schema"], "labcore-bench/0"), "schema is 'labcore-bench/0'"),
    "a missing field": (edit(["versions"], DELETE), "'versions' is missing"),
    "a free-form run id": (edit(["run_id"], "my best run"), "is not YYYYMMDDTHHMMSSZ"),
    "another commit": (edit(["git"], "f" * 40), "names another commit"),
    "a machine path": (edit([*ROW, "notes"], "weights from /home/someone/model.gguf"), "path of the machine"),
    "a Windows path": (edit([*ROW, "notes"], "C:\\Users\\someone"), "path of the machine"),
    "a polished median": (edit([*ROW, "ours", "median"], 0.009), "ours: median 0.009 does not follow"),
    "a polished spread": (edit([*ROW, "ours", "q80"], 0.0106), "ours: q80 0.0106 does not follow"),
    "a wrong count": (edit([*ROW, "ours", "n"], 150), "ours: n 150 does not follow"),
    "a dropped sample": (edit([*ROW, "ours", "rounds", 0], [0.010]), "does not follow from its samples"),
    "a polished ratio": (edit([*ROW, "ratio", "median"], 2.5), "ratio.median 2.5 does not follow"),
    "a polished interval": (edit([*ROW, "ratio", "lo"], 1.99), "ratio.lo 1.99 does not follow"),
    "a ratio without kind": (edit([*ROW, "ratio", "kind"], DELETE), "ratio kind None"),
    "a row without unit": (edit([*ROW, "ours", "unit"], DELETE), "has no unit"),
    "another unit beside it": (edit([*ROW, "baseline", "unit"], "ms"), "compares s with ms"),
    "an unknown unit": (edit([*ROW, "ours", "unit"], "furlong"), "'furlong' is unknown"),
    "a nameless baseline": (edit([*ROW, "baseline", "name"], ""), "does not name its baseline"),
    "a row without correctness": (edit([*ROW, "correct"], DELETE), "has no 'correct'"),
    "correctness without evidence": (edit([*ROW, "correct"], {"pass": True}), "does not say whether"),
    "correctness that is no verdict": (edit([*ROW, "correct", "pass"], "yes"), "does not say whether"),
    "a bar it did not meet": (edit([*ROW, "met"], "dream"), "met is 'dream'"),
    "a bar met by a wrong result": (edit([*ROW, "correct", "pass"], False), "gives 'incorrect'"),
    "bars that get easier": (edit([*ROW, "target", "dream"], 0.5), "do not get harder"),
    "a time below its floor": (edit([*ROW, "floor", "value"], 0.0110), "beats its floor"),
    "a floor from nowhere": (edit([*ROW, "floor", "formula"], None), "the formula it comes from"),
    "a ratio above the ideal": (edit([*ROW, "ideal"], 1.5), "exceeds the ideal 1.5"),
    "a flattering prediction": (edit([*ROW, "predicted", "error"], 0.0), "its error is not 5.00%"),
    "a ceiling above its samples": (edit([*CEILING, "value"], 99e9), "its medians give"),
    "a hidden drift": (edit([*CEILING, "drift"], 0.2), "states a drift of 20.00%"),
    "a ceiling that is no rate": (edit([*CEILING, "unit"], "s"), "not a rate"),
    "stability by decree": (edit(["stable"], False), "does not follow from the drift"),
    "a malformed field": (edit([*ROW, "ours", "rounds"], None), "malformed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_inconsistent_run_is_rejected_with_its_reason(run, name):
    mutate, says = WRONG[name]
    validate(run)
    mutate(run)
    with pytest.raises(DataError) as caught:
        validate(run, "some.json")
    assert says in str(caught.value) and str(caught.value).startswith("some.json: ")
    assert "\n" not in str(caught.value)


def test_a_floor_bounds_costs_from_below_and_rates_from_above():
    bound = {"baseline": None, "kind": "fraction_of_ceiling", "target": {}, "predicted": None}
    at_floor = {"unit": "s", "ours": [[0.0098]], "floor": 0.0095}
    assert finished(row(**bound, **at_floor))["rows"][0]["ratio"]["median"] == pytest.approx(0.9694, abs=1e-4)
    with pytest.raises(DataError, match="beats its floor"):
        finished(row(**bound, unit="s", ours=[[0.0090]], floor=0.0095))
    with pytest.raises(DataError, match="beats its floor"):
        finished(row(**bound, unit="B/s", ours=[[31e9]], floor=29e9))


def test_a_run_whose_ceilings_moved_is_unstable_and_says_so():
    slower = ceiling(seconds=(1.04, 1.144, 1.248))
    unstable = finished(row(), again=slower)
    assert not unstable["stable"] and "UNSTABLE" in provenance(unstable) and "UNSTABLE" in report(unstable)
    assert finished(row(), again=ceiling(seconds=(1.02, 1.122, 1.224)))["stable"]


def test_a_ceiling_is_the_higher_median_of_its_two_measurements():
    (one,) = finished(again=ceiling(seconds=(0.98, 1.078, 1.2)))["ceilings"]
    assert one["value"] == one["after"]["median"] == pytest.approx(30e9 / 1.078, rel=1e-4)
    assert one["key"] == "read_bandwidth.2t"


def test_a_ceiling_is_compared_only_with_itself():
    for other in (ceiling(name="copy_bandwidth"), ceiling(threads=1), replace(ceiling(), shape="N = 1")):
        with pytest.raises(InputError, match="was measured again as"):
            finished(again=other)


def test_suites_read_the_ceilings_of_their_own_run():
    builder = RunBuilder("cpu", 2, [ceiling(), ceiling(threads=1, seconds=(2.0,))])
    assert builder.ceiling("read_bandwidth") == pytest.approx(30e9 / 1.1, rel=1e-4)
    with pytest.raises(InputError, match=r"no ceiling 'matmul\.fp4' at threads=2"):
        builder.ceiling("matmul.fp4")


def test_a_key_is_used_once_and_every_row_is_told():
    said = []
    builder = RunBuilder("cpu", 2, [], say=said.append)
    builder.add(row())
    assert said[0].split() == ["cpu.decode.peer", "1.98", "speedup", "(target)"]
    with pytest.raises(InputError, match="already in this run"):
        builder.add(row())


def test_rows_are_found_by_pattern_and_a_miss_names_what_there_is(run):
    assert rows(run, "cpu.decode.*") == run["rows"]
    with pytest.raises(InputError, match=r"no row 'gpu\.\*'.*cpu\.decode\.peer"):
        rows(run, "gpu.*")


def test_provenance_is_one_line_with_run_device_versions_and_commit(run):
    line = provenance(run)
    for part in (run["run_id"], run["device"]["name"], "2 threads", f"python {run['versions']['python']}", "numpy"):
        assert part in line
    assert "\n" not in line and "ceilings moved by at most 0.0 %" in line
    assert provenance(run | {"git": None, "run_id": "20261124T000000Z-cpu-nogit"}).count("no commit") == 1
    assert "(modified)" in provenance(run | {"dirty": True}) and "(modified)" not in provenance(run | {"dirty": False})


def test_a_run_holds_no_trace_of_the_machine(run):
    text = json.dumps(run)
    for trace in (platform.node(), str(Path.home()), str(Path.cwd())):
        assert len(trace) < 3 or trace not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "labcore-bench/1"}'])
def test_a_damaged_file_is_named(text, tmp_path):
    path = tmp_path / "20261124T000000Z-cpu-nogit.json"
    path.write_text(text)
    with pytest.raises(DataError, match=path.name):
        load_runs(tmp_path)


def test_a_renamed_file_is_noticed(run, tmp_path):
    path = write_run(run, tmp_path)
    path.rename(tmp_path / "best.json")
    with pytest.raises(DataError, match=r"best\.json holds run"):
        load_run(tmp_path / "best.json")


def test_every_committed_run_is_valid():
    folder = Path(__file__).parents[2] / "book" / "results"
    for path in folder.glob("*.json"):
        load_run(path)


def test_figures_are_printed_with_si_prefixes():
    assert [si(2.95e10, "B/s"), si(9.996e11, "B/s"), si(0.0105, "s"), si(3e-7, "s"), si(0.928, "1")] == [
        "29.5 GB/s",
        "1 TB/s",
        "10.5 ms",
        "300 ns",
        "0.928",
    ]


def test_the_report_shows_every_row_with_its_spread_and_its_verdict(run):
    text = report(run)
    for part in ("cpu.decode.peer", "peer 1.0", "10.5 ms", "target", "yes", "read_bandwidth.2t", "speedup"):
        assert part in text
    run["skipped"].append({"suite": "model", "why": "the checkpoint is missing"})
    assert "skipped model: the checkpoint is missing" in report(run)
