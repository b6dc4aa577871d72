"""The layer on torch's int4 and int8 kernels computes what the dequantized weight computes."""

import pytest

torch = pytest.importorskip("torch")

from labcore.formats.group_codes import GroupCodes  # noqa: E402
from labcore.formats.group_linear import GroupLinear  # noqa: E402


def weight(out, columns, groups, bits, order=None) -> GroupCodes:
    generator = torch.Generator().manual_seed(out + columns + groups + bits)
    codes = torch.randint(0, 2**bits, (out, columns), generator=generator).to(torch.uint8)
    zero = torch.randint(0, 2**bits, (out, groups), generator=generator).float()
    return GroupCodes(codes, torch.rand(out, groups, generator=generator) + 0.1, zero, bits, order)


def g_idx(order, columns, groups):
    if order == "uneven":
        return (torch.arange(columns) < 10).long()
    shuffle = torch.randperm(columns, generator=torch.Generator().manual_seed(1))
    return (torch.arange(columns) // (columns // groups))[shuffle] if order else None


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
    (7, 15, 5, 4, None, "dequantized"),  # the kernel of 8 bits reads 8 or 16 columns at a time, past the end of these
    (24, 72, 3, 8, None, "dequantized"),
]


@pytest.mark.parametrize(("out", "columns", "groups", "bits", "order", "path"), CASES)
def test_y_is_that_of_the_dequantized_weight(out, columns, groups, bits, order, path):
    w = weight(out, columns, groups, bits, g_idx(order, columns, groups))
    bias = torch.arange(float(out))
    layer = GroupLinear(w, bias)
    assert layer.path == path
    for shape in [(columns,), (1, columns), (5, columns), (2, 3, columns)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
        expected = torch.nn.functional.linear(x.double(), w.dequantize().double(), bias.double())
        assert layer(x).shape == expected.shape
        bar = {"dequantized": 1e-6, "int8": 1e-2, "int4": 2e-2}[path]  # x in bf16, and in int4 scale and centre too
        assert torch.allclose(layer(x).double(), expected, rtol=0, atol=bar * expected.abs().max())
        assert layer(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(("out", "columns", "groups", "bits", "order", "path"), CASES)
def test_a_one_hot_input_reads_one_column_back(out, columns, groups, bits, order, path):
    """One product an element: an error of order or of sign cannot hide in a sum."""
    w = weight(out, columns, groups, bits, g_idx(order, columns, groups))
    steps = (GroupLinear(w)(torch.eye(columns)).T - w.dequantize()) / w.scale[:, w.group_of_column]
    assert steps.abs().max() <= (0.1 if path == "int4" else 1e-4)  # of a step: scale, centre and y in bf16


def test_int4_codes_are_kept_in_half_a_byte():
    layer = GroupLinear(weight(64, 256, 4, 4))
    assert layer.codes.nbytes == 64 * 256 // 2
    assert sum(buffer.nbytes for buffer in layer.buffers()) == 64 * 256 // 2 + 4 * 64 * 4
