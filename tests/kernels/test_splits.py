"""Into how many shares the keys of a batch are cut."""

import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.kernels._config import pick  # noqa: E402
from labcore.kernels.splits import AT_ONCE, choose_splits  # noqa: E402


def test_the_choice_of_splits():
    h200 = 132
    assert choose_splits(512, 8192, h200) == 1  # 64 requests of 8 heads: 512 programs for 528 places
    assert choose_splits(8, 131_072, h200) == 57  # one request: 456 of 528 places, 86 %, and no fewer do
    assert choose_splits(128, 2048, h200) == 4  # 512 of 528
    assert choose_splits(8, 8192, h200) in range(27, 33)  # a share has 256 keys or more
    assert choose_splits(8, 500, h200) == 1  # nor is it worth less than that
    assert choose_splits(4096, 131_072, h200) == 16  # mixed lengths: none longer than 8192 keys
    assert choose_splits(8, 8192, 108, per_multiprocessor=1) == 12  # an A100 with one program a multiprocessor


def test_up_to_32_shares_may_be_short():
    """What one pass of a merge takes; more of them have 256 keys."""
    assert [choose_splits(8, longest, 132, least=64) for longest in (100, 540, 2048, 8192)] == [1, 7, 28, 28]
    assert [choose_splits(8, longest, 132, least=512) for longest in (540, 8192)] == [1, 14]
    assert pick("merge", (9, 0))["BLOCK_N"] == AT_ONCE


LEAST = st.sampled_from([32, 64, 256, 512])


@given(st.integers(1, 5000), st.integers(0, 200_000), st.integers(1, 200), st.integers(1, 8), LEAST)
def test_no_choice_of_splits_breaks_its_rules(programs, longest, multiprocessors, resident, least):
    splits = choose_splits(programs, longest, multiprocessors, per_multiprocessor=resident, least=least)
    assert splits >= 1 and longest <= splits * 8192  # no share is too long
    if splits > max(1, -(-longest // 8192)):  # split for the sake of occupancy
        assert (
            longest // splits >= (least if splits <= 32 else max(least, 256))
            and programs < 0.8 * multiprocessors * resident
        )

        def fullness(n):
            waves = programs * n / (multiprocessors * resident)
            return waves / math.ceil(waves)

        fewest = max(1, -(-longest // 8192))
        most = max(longest // max(least, 256), min(longest // least, 32))
        best = max(map(fullness, range(fewest, most + 1)))
        assert fullness(splits) >= 0.85 * best
        assert all(fullness(n) < 0.85 * best for n in range(fewest, splits))
