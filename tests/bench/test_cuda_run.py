"""A GPU run survives what goes wrong in it: failing rows, a used-up budget, a lost context, a killed process."""

import os
import sys

import pytest

from labcore.bench import cli, cuda_run, precompile, suites
from labcore.bench.ceilings import Ceiling
from labcore.bench.cuda_rows import bars, both, floor, measured
from labcore.bench.cuda_run import CudaRun, DeviceLost, reason
from labcore.bench.device import git_state
from labcore.bench.record import Row
from labcore.core.errors import DataError, InputError

RIGHT = {"pass": True, "how": "equal"}


def ceilings():
    units = {"read_bandwidth": "B/s", "matmul.bf16": "FLOP/s"}
    return [Ceiling(name, 1, "bf16", "op", "N", 1e9, "N", unit, (1.0, 1.0)) for name, unit in units.items()]


def run(**options):
    return CudaRun("cpu", 1, ceilings(), ["test"], **options)


def row(key):
    return Row(key, "a sum", [[1.0]], "s", "value", correct=RIGHT)


def one(key):
    return lambda run: [row(key)]


def broken(run):
    raise RuntimeError("Triton Error at /tmp/x/y.py:3\nand more")


def test_a_failing_row_is_recorded_and_the_next_runs(capsys):
    builder = run()
    builder.attempt_all({"gpu.a": one("gpu.a"), "gpu.b": broken, "gpu.c": one("gpu.c")})
    assert [r["key"] for r in builder.rows] == ["gpu.a", "gpu.c"]
    assert builder.skipped == [{"suite": "gpu.b", "why": "failed: RuntimeError: Triton Error at …"}]
    builder.finish(ceilings())
    assert "Triton Error" in capsys.readouterr().err


def test_only_the_rows_asked_for_are_attempted():
    builder = run(only="gpu.b*")
    builder.attempt_all({"gpu.a": one("gpu.a"), "gpu.b1": one("gpu.b1")})
    assert [r["key"] for r in builder.rows] == ["gpu.b1"] and not builder.skipped


def test_rows_before_a_failure_in_the_same_measurement_stay():
    def half(run):
        yield row("gpu.a.1")
        raise ValueError("no")

    builder = run()
    builder.attempt("gpu.a", half)
    assert [r["key"] for r in builder.rows] == ["gpu.a.1"] and builder.skipped[0]["suite"] == "gpu.a"


def test_behind_its_budget_a_run_only_says_what_it_leaves_out():
    builder = run(budget=0.0)
    builder.attempt("gpu.a", one("gpu.a"))
    assert not builder.rows and "budget of 0 s" in builder.skipped[0]["why"]


def test_an_unfinished_run_goes_on_where_it_was(tmp_path):
    keep = tmp_path / "unfinished-run"
    first = run(keep=keep)
    first.attempt_all({"gpu.a": one("gpu.a"), "gpu.b": broken})
    second = CudaRun("cpu", 1, [], keep=keep)
    second.restore(keep)
    tried = []
    again = lambda run: tried.append("gpu.b") or []  # noqa: E731
    second.attempt_all({"gpu.a": one("gpu.a"), "gpu.b": again, "gpu.c": one("gpu.c")})
    assert not tried
    finished = second.finish(ceilings())
    assert [r["key"] for r in finished["rows"]] == ["gpu.a", "gpu.c"] and finished["skipped"][0]["suite"] == "gpu.b"
    assert finished["run_id"].startswith(f"{first.started:%Y%m%dT%H%M%SZ}")
    keep.write_text("{}")
    with pytest.raises(DataError, match="no unfinished run"):
        second.restore(keep)


def test_a_lost_context_asks_for_a_new_process_after_it_was_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_run, "_lost", lambda: "failed: AcceleratorError: an illegal memory access")
    builder = run(keep=tmp_path / "unfinished-run")
    with pytest.raises(DeviceLost, match="illegal memory access"):
        builder.attempt("gpu.b", broken)
    assert '"gpu.b"' in (tmp_path / "unfinished-run").read_text()


def test_the_command_goes_on_in_a_new_process(monkeypatch, tmp_path):
    calls = []

    def lost(names, threads, say, **options):
        raise DeviceLost("gone")

    monkeypatch.setattr(suites, "record_cuda", lost)
    monkeypatch.setattr(cli, "cuda_available", lambda: True)
    monkeypatch.setattr(os, "execv", lambda program, words: calls.append(words) or sys.exit())
    words = ["bench", "all", "--device", "cuda", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["labcore", *words])
    from labcore.cli import main

    with pytest.raises(SystemExit):  # execv does not return
        main(words)
    assert calls[0][1:] == ["-m", "labcore.cli", *words, "--resume"]


def test_a_resumed_run_needs_something_to_resume(monkeypatch, tmp_path):
    from labcore.cli import main

    monkeypatch.setattr(cli, "cuda_available", lambda: True)
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path), "--resume"]) == 2
    assert main(["bench", "--resume"]) == 2


def test_reasons_hold_no_paths_and_one_line():
    assert reason(RuntimeError("see /root/a/b.py, line 3\nmore")) == "failed: RuntimeError: see … line 3"


# --- rows ----------------------------------------------------------------------------------------------------------


class Fixed:
    """Calls return their own duration."""

    def events(self, calls):
        return [call() for call in calls]

    def graph(self, calls):
        return calls[0]


def programs():
    return {"ours": [lambda: 1.0], "slow": [lambda: 4.0], "fast": [lambda: 2.0]}


def test_the_fastest_baseline_counts_and_is_named():
    found = measured(run(clock=Fixed()), programs(), lambda: RIGHT)
    made = found.row("gpu.x", "x", ["slow", "fast"], target=bars(1, 2, 3)).to_json()
    assert made["ratio"]["median"] == 2.0 and made["met"] == "target"
    assert made["baseline"]["name"] == "fast, fastest of slow, fast" and made["correct"]["after_timing"] is True
    assert found.row("gpu.y", "y", ["fast"], scale=0.5).to_json()["ratio"]["median"] == 1.0


def test_a_baseline_that_cannot_run_is_left_out_and_said():
    def missing():
        raise RuntimeError("no such backend")

    found = measured(run(clock=Fixed()), programs() | {"none": [missing]}, lambda: RIGHT)
    assert "none left out: RuntimeError: no such backend." in found.row("k", "w", ["fast", "none"]).notes
    with pytest.raises(InputError, match="nothing to compare with"):
        found.row("k", "w", ["none"])


def test_a_wrong_result_is_not_timed_and_one_that_goes_wrong_is_not_recorded():
    with pytest.raises(DataError, match="wrong result before timing: error 3"):
        measured(run(clock=Fixed()), programs(), lambda: {"pass": False, "error": 3})
    answers = iter([RIGHT, {"pass": False, "error": 3}])
    with pytest.raises(DataError, match="after timing"):
        measured(run(clock=Fixed()), programs(), lambda: next(answers))


def test_the_floor_is_the_longer_of_memory_and_arithmetic():
    assert floor(run(), nbytes=2e9, flops=1e9)["floor"] == 2.0
    by_compute = floor(run(), nbytes=2e9, flops=3e9)
    assert by_compute["floor"] == 3.0 and by_compute["floor_formula"] == "flops / matmul.bf16"


def test_of_several_checks_the_failing_one_is_shown():
    assert both(RIGHT, {"pass": False, "error": 3}) == {"pass": False, "error": 3, "checks": 2}


# --- compiling side by side ----------------------------------------------------------------------------------------


def test_tasks_run_apart_and_failures_are_named():
    failures = precompile.run_apart(exec, ["1 + 1", "int('x')", "2 + 2"], longest=60)
    assert list(failures) == ["int('x')"] and failures["int('x')"].startswith("failed: ValueError: invalid literal")


def test_a_dying_process_does_not_hold_up_the_rest():
    failures = precompile.run_apart(exec, ["import os; os._exit(3)"], longest=60)
    assert "its process ended" in failures["import os; os._exit(3)"]


# --- provenance without a history ----------------------------------------------------------------------------------


def test_a_copy_without_git_is_told_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr("labcore.bench.device.labcore.__file__", str(tmp_path / "labcore" / "__init__.py"))
    monkeypatch.delenv("LABCORE_COMMIT", raising=False)
    assert git_state() == (None, None)
    for stated, expected in (("ab12cd3", ("ab12cd3", False)), ("ab12cd3-dirty", ("ab12cd3", True))):
        monkeypatch.setenv("LABCORE_COMMIT", stated)
        assert git_state() == expected
    monkeypatch.setenv("LABCORE_COMMIT", "main")
    with pytest.raises(InputError, match="is no commit"):
        git_state()
