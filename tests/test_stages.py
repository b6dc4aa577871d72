"""The driver of `make test`: it goes on after a failure, adds up the counts and exits non-zero."""

from __future__ import annotations

import sys

import pytest

from tests import stages

PASSING = "def test_a(): pass\ndef test_b(): pass\n"
FAILING = "import pytest\ndef test_a(): assert 0\ndef test_b(): pytest.skip('why')\ndef test_c(): pass\n"


@pytest.fixture
def two_stages(tmp_path, monkeypatch):
    """Two stages of a suite of their own, the first of which fails."""
    for name, text in {"test_bad.py": FAILING, "test_good.py": PASSING}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(stages, "REPORTS", tmp_path / "reports")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the plugins take most of the start-up

    def commands(name):
        return [[*stages.PYTEST, "-o", "addopts=", "-p", "no:cacheprovider", str(tmp_path / name)]]

    table = {"bad": (commands("test_bad.py"), {}), "good": (commands("test_good.py"), {}), "empty": ([], {})}
    monkeypatch.setattr(stages, "stages", lambda: table)


def test_a_failed_stage_does_not_stop_the_others_and_fails_the_run(two_stages, capfd):
    assert stages.main([]) == 1
    out = capfd.readouterr().out
    assert "failed: bad" in out and out.strip().endswith("3 passed, 1 failed, 1 skipped")
    assert "nothing to run" in out


def test_a_single_stage_can_be_chosen(two_stages, capfd):
    assert stages.main(["good"]) == 0
    assert capfd.readouterr().out.strip().endswith("2 passed, 0 failed, 0 skipped")
    assert stages.main(["goood"]) == 2
    assert "there are bad, good, empty" in capfd.readouterr().err


def test_a_stage_that_collects_nothing_fails(two_stages, tmp_path, monkeypatch):
    (tmp_path / "test_none.py").write_text("")
    command = [*stages.PYTEST, "-o", "addopts=", str(tmp_path / "test_none.py")]
    assert stages.run("none", [command], {})[0] is False


def test_a_command_that_is_not_pytest_counts_by_its_exit_status(two_stages):
    (tmp := stages.REPORTS).mkdir()
    assert stages.run("lint", [[sys.executable, "-c", "raise SystemExit(1)"]], {})[0] is False
    assert stages.run("lint", [[sys.executable, "-c", "pass"]], {})[0] is True
    assert not list(tmp.iterdir())
