"""Histograms of lengths agree with the plain list they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import DataError, InputError
from labcore.facts import BinnedLengths, Lengths

lists = st.lists(st.integers(0, 100_000), min_size=1, max_size=200)
blocks = st.integers(1, 4096)


@given(lists)
def test_nothing_is_lost(lengths):
    histogram = Lengths.of(lengths)
    assert histogram.all().tolist() == sorted(lengths)
    assert (histogram.count, histogram.total) == (len(lengths), sum(lengths))
    assert histogram.mean == pytest.approx(np.mean(lengths))


@given(lists)
def test_encoding_is_reversible_and_ascii(lengths):
    histogram = Lengths.of(lengths)
    text = histogram.encode()
    assert text.isascii() and '"' not in text and "\\" not in text
    assert Lengths.decode(text).all().tolist() == sorted(lengths)


@given(lists, blocks)
def test_waste_and_utilization_are_those_of_the_list(lengths, size):
    histogram = Lengths.of(lengths)
    reserved = [-(-n // size) * size for n in lengths]
    assert histogram.tail_waste(size) == pytest.approx(np.mean(np.subtract(reserved, lengths)))
    if sum(reserved):
        assert histogram.utilization(size) == pytest.approx(sum(lengths) / sum(reserved))
    assert 0 <= histogram.tail_waste(size) <= size - 1 and histogram.tail_waste(1) == 0


@given(lists, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(lengths, q):
    assert Lengths.of(lengths).quantile(q) == pytest.approx(np.quantile(lengths, q))


@given(lists, st.integers(0, 1000), st.integers(0, 100_000))
def test_shares_count_half_open_intervals(lengths, low, width):
    expected = sum(low <= n < low + width for n in lengths) / len(lengths)
    assert Lengths.of(lengths).share(low, low + width) == pytest.approx(expected)


def test_an_encoding_by_hand():
    assert Lengths.of([64, 67, 67, 68]).all().tolist() == [64, 67, 67, 68]
    import base64
    import zlib

    assert zlib.decompress(base64.b85decode(Lengths.of([64, 67, 67, 68]).encode())) == b"64 3x2 1"


def test_samples_are_reproducible_and_come_from_the_list():
    histogram = Lengths.of([5, 5, 9])
    assert (histogram.sample(50, seed=1) == histogram.sample(50, seed=1)).all()
    assert set(histogram.sample(200, seed=2)) == {5, 9}


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_block_size_that_is_none(size):
    with pytest.raises(InputError, match="block_size="):
        Lengths.of([1]).tail_waste(size)


@pytest.mark.parametrize("q", [-0.1, 1.1, float("nan")])
def test_a_quantile_that_is_none(q):
    for lengths in (Lengths.of([1]), BinnedLengths(np.array([0.0, 1.0]), np.array([1.0]))):
        with pytest.raises(InputError, match="q="):
            lengths.quantile(q)


@pytest.mark.parametrize(
    ("values", "counts"), [([], []), ([1], [1, 2]), ([2, 1], [1, 1]), ([1, 1], [1, 1]), ([-1], [1]), ([1], [0])]
)
def test_a_histogram_that_is_none(values, counts):
    with pytest.raises(DataError):
        Lengths(np.array(values, dtype=np.int64), np.array(counts, dtype=np.int64))


@pytest.mark.parametrize("text", ["", "not base 85 \x00", "abcde"])
def test_a_damaged_encoding_is_one_sentence(text):
    with pytest.raises(DataError, match="damaged"):
        Lengths.decode(text)


def test_bins_spread_their_share_evenly():
    binned = BinnedLengths(np.array([0.0, 10.0, 30.0]), np.array([0.5, 0.5]))
    assert binned.mean == 0.5 * 5 + 0.5 * 20
    assert [binned.quantile(q) for q in (0, 0.25, 0.5, 0.75, 1)] == [0, 5, 10, 20, 30]


@pytest.mark.parametrize(
    ("edges", "shares"), [([0, 1], [0.5, 0.5]), ([0, 2, 1], [0.5, 0.5]), ([0, 1], [0.9]), ([0, 1, 2], [1.5, -0.5])]
)
def test_bins_that_are_none(edges, shares):
    with pytest.raises(DataError):
        BinnedLengths(np.array(edges, float), np.array(shares, float))
