"""The layer on torch's int4 and int8 kernels computes what the dequantized weight computes."""

import pytest

torch = pytest.importorskip("torch")

from labcore.formats.group_codes import GroupCodes  # noqa: E402
from labcore.formats.group_linear import GroupLinear  # noqa: E402


def weight(out, columns, groups, bits, g_idx=None) -> GroupCodes:
    generator = torch.Generator().manual_seed(out + columns + groups + bits)
    codes = torch.randint(0, 2**bits, (out, columns), generator=generator).to(torch.uint8)
    zero = torch.randint(0, 2**bits, (out, groups), generator=generator).float()
    return GroupCodes(codes, torch.rand(out, groups, generator=generator) + 0.1, zero, bits, g_idx)


def shuffled(columns, groups):
    generator = torch.Generator().manual_seed(1)
    return (torch.arange(columns) // (columns // groups))[torch.randperm(columns, generator=generator)]


CASES = [
    (48, 128, 2, 4, None, "int4"),
    (48, 128, 4, 3, None, "int4"),
    (16, 256, 1, 2, None, "int4"),
    (16, 128, 2, 4, "shuffled", "int4"),
    (24, 128, 2, 4, None, "int8"),  # outputs not in sixteens
    (48, 96, 2, 4, None, "int8"),  # groups of 48
    (48, 128, 1, 8, None, "int8"),
    (40, 576, 9, 8, "shuffled", "int8"),
    (16, 64, 2, 4, "uneven", "dequantized"),
]


@pytest.mark.parametrize(("out", "columns", "groups", "bits", "order", "path"), CASES)
def test_y_is_that_of_the_dequantized_weight(out, columns, groups, bits, order, path):
    g_idx = shuffled(columns, groups) if order else None
    if order == "uneven":
        g_idx = (torch.arange(columns) < 10).long()
    w = weight(out, columns, groups, bits, g_idx)
    bias = torch.arange(float(out))
    layer = GroupLinear(w, bias)
    assert layer.path == path
    for shape in [(1, columns), (5, columns), (2, 3, columns)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        expected = torch.nn.functional.linear(x.double(), w.dequantize().double(), bias.double())
        assert layer(x).shape == expected.shape
        assert torch.allclose(layer(x).double(), expected, rtol=0, atol=2e-6 * expected.abs().max())


@pytest.mark.parametrize(("out", "columns", "groups", "bits", "order", "path"), CASES)
def test_a_one_hot_input_reads_one_column_back(out, columns, groups, bits, order, path):
    """One product an element: an error of order or of sign cannot hide in a sum."""
    w = weight(out, columns, groups, bits, shuffled(columns, groups) if order else None)
    found = GroupLinear(w)(torch.eye(columns)).T
    assert torch.allclose(found, w.dequantize(), rtol=1e-6, atol=1e-6 * w.scale.max() * 2**bits)


def test_int4_codes_are_kept_in_half_a_byte():
    layer = GroupLinear(weight(64, 256, 4, 4))
    assert layer.codes.nbytes == 64 * 256 // 2
    assert sum(buffer.nbytes for buffer in layer.buffers()) == 64 * 256 // 2 + 8 * 64 * 4
