"""Every exhibit of the bug museum is a real defect of the real code, and the check it names finds it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from labcore.core.errors import DataError, InputError
from labcore.learn.museum import EXHIBITS, exhibit
from labcore.learn.museum_trees import TREE_EXHIBITS


@dataclass(frozen=True)
class Killed:
    """An exhibit as the mutant report wants it."""

    id: str
    lab: str = "museum"

    def __str__(self) -> str:
        return self.id


@pytest.mark.parametrize("one", [*EXHIBITS, *TREE_EXHIBITS], ids=str)
def test_the_named_check_finds_it(one, record_mutant):
    violation = one.found()
    killed = violation is not None and violation.name == one.killed_by
    record_mutant(Killed(one.id), killed, violation)
    assert killed, f"{one.id}: {one.killed_by} should find it; found: {violation}"


def test_an_exhibit_leaves_no_trace():
    for one in [*EXHIBITS, *TREE_EXHIBITS]:
        before = getattr(one.owner, one.function)
        with pytest.raises(ZeroDivisionError), one.installed():
            assert getattr(one.owner, one.function) is not before
            raise ZeroDivisionError
        assert getattr(one.owner, one.function) is before


def test_one_line_each_and_every_one_with_its_origin():
    everything = [*EXHIBITS, *TREE_EXHIBITS]
    assert len(EXHIBITS) >= 10 and len({one.id for one in everything}) == len(everything)
    for one in everything:
        assert "\n" not in one.right + one.wrong and one.right != one.wrong and one.wrong in one.code
        assert one.origin and one.story and one.title


def test_an_exhibit_whose_line_has_changed_says_so():
    from dataclasses import replace

    stale = replace(EXHIBITS[0], right="what the line was once")
    with pytest.raises(DataError, match="exhibit lost_chain: extend_hashes does not contain"):
        with stale.installed():
            pass
    with pytest.raises(InputError, match="exhibit 'heisenbug' is unknown; there are lost_chain, "):
        exhibit("heisenbug")
    assert exhibit("lost_chain") is EXHIBITS[0]
