"""The compiled block linear against its specification, within the error that rounding its activations can make."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.formats.blocks import FORMATS, dequantize  # noqa: E402
from labcore.kernels.cpu import library  # noqa: E402
from labcore.kernels.cpu.linear import BlockLinear, pack_panels, prepared, specification  # noqa: E402
from tests.formats.test_linear import blocks  # noqa: E402

BY_NAME = {format.name: format for format in FORMATS.values()}
compiled = pytest.mark.skipif(library.why_unavailable() is not None, reason=str(library.why_unavailable()))


def rounding_bound(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The most that rounding x to 16 bits per block of 32 can change x Wᵀ, plus fp32 summation: [rows, outputs]."""
    largest = x.abs().unflatten(-1, (-1, 32)).amax(-1, keepdim=True)
    step = (largest / 32767).expand(*largest.shape[:-1], 32).flatten(-2)
    return step @ weight.abs().T / 2 + 2e-6 * (x.abs() @ weight.abs().T)


@compiled
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["Q4_0", "Q4_1", "Q8_0"]),
    st.integers(1, 13),
    st.sampled_from([8, 24, 200]),
    st.sampled_from([32, 96, 576]),
    st.sampled_from(["plain", "norm", "gated"]),
    st.integers(0, 2**32 - 1),
)
def test_products_equal_the_specification_up_to_rounding(name, rows, outputs, columns, before, seed):
    raw, generator = blocks(name, outputs, columns, seed), torch.Generator().manual_seed(seed)
    weight = torch.from_numpy(dequantize(raw, BY_NAME[name])).double()
    x = torch.randn(rows, columns * (2 if before == "gated" else 1), generator=generator) * 3
    norm = torch.rand(columns, generator=generator) + 0.5
    options = {"plain": {}, "norm": {"norm": norm, "eps": 1e-5}, "gated": {"gated": True}}[before]
    layer = BlockLinear(raw, BY_NAME[name], **options)
    layer.packed = None  # a CPU with bf16 instructions would multiply many rows in that
    y = layer(x)
    exact = {key: value.double() if torch.is_tensor(value) else value for key, value in options.items()}
    ready = prepared(x.double(), exact.get("norm"), exact.get("eps", 0.0), exact.get("gated", False))
    assert y.shape == (rows, outputs)
    assert ((y - specification(x.double(), weight, **exact)).abs() <= rounding_bound(ready, weight) + 1e-30).all()


@compiled
def test_more_rows_than_one_chunk_and_more_threads_change_nothing():
    raw = blocks("Q4_1", 64, 128, 0)
    layer, x = BlockLinear(raw, BY_NAME["Q4_1"]), torch.randn(150, 128, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([layer(row[None]) for row in x])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(layer(x), alone)
    finally:
        torch.set_num_threads(before)


@compiled
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_hidden(value):
    layer, x = BlockLinear(blocks("Q8_0", 16, 64, 1), BY_NAME["Q8_0"]), torch.ones(2, 64)
    x[1, 40] = value
    y = layer(x)
    assert y[0].isfinite().all() and y[1].isnan().all()


@compiled
def test_zeros_and_the_largest_codes():
    layer = BlockLinear(blocks("Q4_0", 8, 32, 2), BY_NAME["Q4_0"])
    assert (layer(torch.zeros(1, 32)) == 0).all()
    raw = np.zeros((8, 1), dtype=BY_NAME["Q8_0"].layout)
    raw["d"], raw["qs"] = 1, -128
    assert (BlockLinear(raw.view(np.uint8), BY_NAME["Q8_0"])(torch.full((1, 32), 2.0**100)) == -(2.0**112)).all()


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q8_0"])
def test_panels_hold_every_code_where_linear_h_says(name):
    raw = blocks(name, 16, 64, 5)
    stored, panels = raw.view(BY_NAME[name].layout), pack_panels(raw, BY_NAME[name])
    assert panels.nbytes == raw.nbytes + (0 if name != "Q4_0" else 2 * stored.size)  # Q4_0 gains a minimum
    for row, block, column in [(0, 0, 0), (3, 1, 31), (9, 0, 17), (15, 1, 10)]:
        panel, lane = panels[row // 8, block], row % 8
        if name == "Q8_0":
            assert panel["codes"][column // 2, lane, column % 2] == stored[row, block]["qs"][column]
            continue
        low, high = stored[row, block]["qs"] & 15, stored[row, block]["qs"] >> 4
        chunk, rest = divmod(column, 8)
        code = panel["codes"][chunk, lane, rest % 2] >> 4 * (rest // 2) & 15
        assert code == np.concatenate((low, high))[column]


def test_what_the_kernel_does_not_read_is_refused_by_name():
    with pytest.raises(DataError, match="stored as Q5_0; the compiled kernel reads"):
        pack_panels(np.zeros((8, BY_NAME["Q5_0"].layout.itemsize), np.uint8), BY_NAME["Q5_0"])
    with pytest.raises(DataError, match="has 12 rows; the compiled kernel needs a multiple of 8"):
        pack_panels(blocks("Q4_1", 12, 32, 0), BY_NAME["Q4_1"])


@compiled
def test_activations_of_another_shape_or_type_are_refused():
    layer = BlockLinear(blocks("Q4_1", 8, 64, 0), BY_NAME["Q4_1"])
    for x in (torch.ones(1, 32), torch.ones(64), torch.ones(1, 64, dtype=torch.bfloat16)):
        with pytest.raises(InputError, match=r"takes float32 \[rows, 64\]"):
            layer(x)


@compiled
def test_many_rows_take_the_packed_copy_where_there_is_one():
    raw = blocks("Q4_1", 16, 64, 3)
    layer, x = BlockLinear(raw, BY_NAME["Q4_1"], norm=torch.ones(64), eps=1e-5), torch.randn(9, 64)
    layer.packed = None
    expected = layer(x)
    layer.packed = torch.from_numpy(dequantize(raw, BY_NAME["Q4_1"])).bfloat16()
    packed = layer(x)
    assert packed.dtype == torch.float32 and not torch.equal(packed, expected)
    assert (packed - expected).norm() < 0.01 * expected.norm()
    assert torch.equal(layer(x[:8]), expected[:8])


def test_without_a_compiler_one_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="need a C compiler"):
        library.compiled(library.SOURCE)


def test_a_compiler_that_refuses_is_quoted_and_leaves_nothing(monkeypatch, tmp_path):
    program = tmp_path / "broken"
    program.write_text("#!/bin/sh\necho 'decoder.c:1: error: no such target' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CC", str(program))
    with pytest.raises(InputError, match=r"could not compile decoder.c: decoder.c:1: error: no such target"):
        library.compiled(library.SOURCE)
    assert not list((tmp_path / "cache").rglob("*.so*"))
