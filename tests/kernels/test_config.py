"""The table of launch choices: which entry a chip and a shape get."""

import pytest

pytest.importorskip("torch")

from labcore.core.errors import InputError
from labcore.kernels import _config


@pytest.fixture(autouse=True)
def table(monkeypatch):
    small, large = {"BLOCK": 16, "num_warps": 4}, {"BLOCK": 64, "num_warps": 8}
    entries = {
        ("walk", "sm75"): {"BLOCK": 32, "num_warps": 4},
        ("walk", "sm90"): [({"rows": range(1, 17)}, small), ({"head_dim": {64, 128}}, large)],
        ("walk", "interpreter"): {"BLOCK": 8},
        ("fly", "sm89"): {"BLOCK": 1},
    }
    monkeypatch.setattr(_config, "TABLE", entries)
    _config._pick.cache_clear()
    yield entries
    _config._pick.cache_clear()


@pytest.mark.parametrize(
    ("cc", "name"),
    [
        (None, "interpreter"),
        ((7, 5), "sm75"),
        ((8, 0), "sm80"),
        ((8, 6), "sm89"),
        ((8, 7), "sm80"),
        ((8, 9), "sm89"),
        ((9, 0), "sm90"),
        ((10, 0), "sm90"),
        ((12, 0), "sm89"),
    ],
)
def test_a_chip_takes_the_tiles_that_fit_its_shared_memory(cc, name):
    assert _config.architecture(cc) == name


def test_the_newest_entry_that_is_not_newer_than_the_chip():
    assert _config.pick("walk", (8, 0)) == {"BLOCK": 32, "num_warps": 4}
    assert _config.pick("walk", None) == {"BLOCK": 8}
    assert _config.pick("fly", (9, 0)) == {"BLOCK": 1}
    for kind, cc in [("fly", (8, 0)), ("fly", None), ("swim", (9, 0))]:
        with pytest.raises(InputError, match=f"no launch choices of kind '{kind}'"):
            _config.pick(kind, cc)


def test_the_first_rule_that_fits_the_shape():
    assert _config.pick("walk", (9, 0), rows=16, head_dim=256)["BLOCK"] == 16
    assert _config.pick("walk", (9, 0), rows=17, head_dim=128)["BLOCK"] == 64
    with pytest.raises(InputError, match=r"'walk' for sm90 and .*256"):
        _config.pick("walk", (9, 0), rows=17, head_dim=256)
    with pytest.raises(InputError, match="a rule asks for rows"):
        _config.pick("walk", (9, 0), head_dim=64)


def test_who_changes_what_it_got_changes_nothing_else():
    _config.pick("walk", (7, 5))["BLOCK"] = 1
    assert _config.pick("walk", (7, 5))["BLOCK"] == 32


def test_a_chip_older_than_the_table_is_refused():
    with pytest.raises(InputError, match=r"7\.0: the kernels need 7\.5"):
        _config.pick("walk", (7, 0))
