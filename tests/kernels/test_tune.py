"""The sweep: every case has candidates, and trying one leaves the table as it was. Its times need a GPU."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.kernels import _config, tune
from labcore.kernels.tune_cases import CASES

HOPPER = (9, 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_has_candidates_and_a_present_choice(case):
    assert [other.name for other in CASES].count(case.name) == 1
    assert len(tune.tried(case, HOPPER)) > 1 and _config.rules(case.kind, HOPPER)
    if case.like:
        (alike,) = [other for other in CASES if other.name == case.like]
        assert alike.kind == case.kind and not alike.like


def test_a_candidate_is_picked_only_while_it_is_tried(monkeypatch):
    monkeypatch.setattr(tune, "capability", lambda device: HOPPER)
    shape = {"width": 4096, "many_rows": True}
    before, table = _config.pick("rms_norm", HOPPER, **shape), dict(_config.TABLE)
    tried = {"ROWS": 7}
    with pytest.raises(ZeroDivisionError), tune.chosen("rms_norm", tried):
        assert _config.pick("rms_norm", HOPPER, **shape) == tried
        raise ZeroDivisionError
    assert _config.pick("rms_norm", HOPPER, **shape) == before and table == _config.TABLE
    with tune.chosen("rms_norm", None):
        assert _config.pick("rms_norm", HOPPER, **shape) == before


def test_the_table_of_a_case_shows_the_fastest_and_the_present_choice(capsys):
    seconds = [1e-6 * n for n in range(1, 9)]
    found = [{"launch": {"BLOCK": n}, "seconds": s, "why": None} for n, s in enumerate(seconds)]
    found += [
        {"launch": None, "seconds": 9e-6, "why": None},
        {"launch": {"BLOCK": 99}, "seconds": None, "why": "wrong"},
    ]
    tune.show("a case", found)
    said = capsys.readouterr().out.splitlines()
    assert (
        said[2].split() == ["1.0", "µs", "BLOCK=0"] and "the=present choice" in said[8] and said[-1].endswith("wrong")
    )
