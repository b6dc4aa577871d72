"""The console script, run as a reader runs it: in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import labcore
from labcore.bench import hooks
from labcore.cli import COMMANDS, EXTRAS, main

SCRIPT = Path(sys.executable).with_name("labcore")


def labcore_script(*arguments, **options):
    command = [str(SCRIPT)] if SCRIPT.exists() else [sys.executable, "-m", "labcore.cli"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120, **options)


def test_version():
    asked = labcore_script("--version")
    assert (asked.returncode, asked.stdout) == (0, f"labcore {labcore.__version__}\n")


def test_help_lists_exactly_the_commands_that_exist():
    asked = labcore_script("--help")
    assert asked.returncode == 0
    listed = {line.split()[0] for line in asked.stdout.splitlines() if line.startswith("    ")}
    assert {name for name in COMMANDS if name in listed} == {
        name for name, module in COMMANDS.items() if hooks.exists(module)
    }
    assert {"bench", "doctor"} <= listed


def test_no_command_and_an_unknown_command_exit_2_with_the_choices():
    assert labcore_script().returncode == 2
    asked = labcore_script("bnech")
    assert asked.returncode == 2 and "bnech" in asked.stderr and "bench" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_doctor_names_versions_device_and_what_is_missing():
    asked = labcore_script("doctor", env={**os.environ, "LABCORE_DATA": ""})
    assert asked.returncode == 0, asked.stderr
    for subject in ("python", "labcore", "numpy", "cpu", "gpu", "browser", "data", "cache"):
        assert any(line[2:].startswith(subject) for line in asked.stdout.splitlines()), subject
    assert "export LABCORE_DATA=" in asked.stdout


def test_doctor_reports_a_bad_setting_instead_of_stopping_at_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("labcore.bench.doctor.CHECKS", ("labcore.bench.doctor:folders", "labcore.bench.doctor:machine"))
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("LABCORE_DATA", str(tmp_path / "nowhere"))
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "○ folders" in said and "nowhere is not a folder" in said and "✓ cpu" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bench", "decoed"], "suite 'decoed' is unknown"),
        (["bench", "ceilings", "--threads", "0"], "--threads 0 is not between 1 and"),
        (["bench", "ceilings", "--threads", "100000"], "--threads 100000 is not between 1 and"),
        (["bench", "ceilings", "--out", __file__], "is a file; name a folder"),
        (["bench", "ceilings", "--out", "/proc/nope"], "--out /proc/nope cannot be written to"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, says):
    asked = labcore_script(*arguments)
    assert asked.returncode == 2 and says in asked.stderr
    assert asked.stderr.startswith("labcore bench: ") and asked.stderr.count("\n") == 1


def test_interrupting_a_measurement_exits_130_and_leaves_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "labcore.cli",
        "bench",
        "ceilings",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "out"),
    ]
    # a shell that starts the tests in the background ignores SIGINT, and children inherit that
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert "ceilings of this machine" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in errors and "Traceback" not in errors
    assert not list(tmp_path.rglob("*"))


def test_bench_writes_one_valid_run(tmp_path, monkeypatch, capsys):
    from labcore.bench import ceilings
    from labcore.bench.record import load_run

    monkeypatch.setattr(ceilings, "cpu_array_bytes", lambda: 2**20)
    monkeypatch.setattr(ceilings, "CPU_MATMUL_SIZES", (64, 64))
    assert main(["bench", "ceilings", "--threads", "1", "--out", str(tmp_path / "new" / "results")]) == 0
    (path,) = (tmp_path / "new" / "results").iterdir()
    run = load_run(path)
    assert run["rows"] == [] and {one["threads"] for one in run["ceilings"]} <= {1, None}
    assert str(path) in capsys.readouterr().out
    assert json.loads(path.read_text())["schema"] == "labcore-bench/1"


def test_a_missing_package_is_named_with_the_command_that_gets_it(monkeypatch, capsys):
    def needs_torch(args):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("labcore.bench.doctor.run", needs_torch)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == (
        "labcore doctor: the package 'torch' is not installed; get it with: "
        f"{sys.executable} -m pip install 'labcore[test]'\n"
    )
    assert set(EXTRAS) == set(COMMANDS)
    extras = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    assert set(EXTRAS.values()) <= set(extras["optional-dependencies"])


def test_a_mistake_of_ours_is_not_disguised(monkeypatch):
    def broken(args):
        raise ModuleNotFoundError("No module named 'labcore.gone'", name="labcore.gone")

    monkeypatch.setattr("labcore.bench.doctor.run", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_a_closed_pipe_is_no_error():
    head = subprocess.run(
        f'"{sys.executable}" -m labcore.cli doctor | head -n 0', shell=True, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in head.stderr and "BrokenPipe" not in head.stderr


def test_commands_and_figures_start_without_what_they_do_not_use():
    heavy = "{'torch', 'sympy', 'matplotlib', 'pydantic', 'yaml'} & set(sys.modules)"
    rooms = "labcore.bench.cli, labcore.bench.metrics, labcore.bench.doctor, labcore.cli"
    plots = "import sys, labcore.learn.plots; assert 'torch' not in sys.modules"
    for code in (f"import sys, {rooms}; assert not {heavy}, {heavy}", plots):
        asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert asked.returncode == 0, asked.stderr
