"""Packed codes: any length, any width, in the order the docstring promises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.packing import WIDTHS, pack, packed_bytes, unpack  # noqa: E402


@given(bits=st.sampled_from(WIDTHS), count=st.integers(0, 41), rows=st.integers(0, 3), seed=st.integers(0, 999))
def test_unpack_is_the_inverse_of_pack(bits, count, rows, seed):
    codes = torch.randint(0, 2**bits, (rows, 2, count), generator=torch.Generator().manual_seed(seed)).byte()
    packed = pack(codes, bits)
    assert packed.dtype == torch.uint8 and packed.shape == (rows, 2, -(-count * bits // 8))
    assert torch.equal(unpack(packed, bits, count), codes)


def test_the_first_code_lies_in_the_lowest_bits():
    assert pack(torch.tensor([1, 2, 3], dtype=torch.uint8), 4).tolist() == [0x21, 0x03]
    assert pack(torch.tensor([1, 2, 3, 0, 2], dtype=torch.uint8), 2).tolist() == [0b00_11_10_01, 0b10]
    assert pack(torch.tensor([1, 0, 1, 1], dtype=torch.uint8), 1).tolist() == [0b1101]
    assert pack(torch.tensor([7, 255], dtype=torch.uint8), 8).tolist() == [7, 255]


def test_packing_leaves_its_input_alone():
    codes = torch.tensor([1, 2, 3, 4], dtype=torch.uint8)
    pack(codes, 4)
    assert codes.tolist() == [1, 2, 3, 4]


def test_a_width_that_does_not_divide_a_byte_is_refused():
    with pytest.raises(InputError, match="bits=3: only codes of 1, 2, 4, 8 bits fill a byte"):
        packed_bytes(8, 3)


def test_rows_of_the_wrong_length_are_refused():
    with pytest.raises(InputError, match="5 codes of 4 bits take 3 bytes a row; these rows have 2"):
        unpack(torch.zeros(2, dtype=torch.uint8), 4, 5)
