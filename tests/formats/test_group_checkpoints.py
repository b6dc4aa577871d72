"""GPTQ's and AWQ's packings against loops that follow their definition bit by bit, and their folders."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.formats.awq_checkpoint import pack_awq, unpack_awq  # noqa: E402
from labcore.formats.gptq_checkpoint import pack_gptq, unpack_gptq  # noqa: E402
from labcore.formats.group_codes import GroupCodes  # noqa: E402
from labcore.formats.packing import pack_words, unpack_words, word_count  # noqa: E402
from labcore.formats.quantized_folder import read_quantized, write_quantized  # noqa: E402


def weight(out=32, columns=64, groups=2, bits=4, seed=0, order=False, lowest_zero=0) -> GroupCodes:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, shape: torch.randint(low, 2**bits, shape, generator=generator)  # noqa: E731
    g_idx = torch.randint(0, groups, (columns,), generator=generator) if order else None
    scale = (torch.rand(out, groups, generator=generator) + 0.1).half().float()
    zero = draw(lowest_zero, (out, groups)).float()
    return GroupCodes(draw(0, (out, columns)).to(torch.uint8), scale, zero, bits, g_idx)


def same(a: GroupCodes, b: GroupCodes) -> bool:
    parts = a.codes.equal(b.codes) and a.scale.equal(b.scale) and a.zero.equal(b.zero)
    return parts and a.group_of_column.equal(b.group_of_column)


def stream(codes: list[int], bits: int) -> list[int]:
    """The words of a bit stream, lowest bit first, as signed 32-bit integers."""
    whole = sum(code << (bits * i) for i, code in enumerate(codes))
    words = [whole >> (32 * j) & 0xFFFFFFFF for j in range(len(codes) * bits // 32)]
    return [word - 2**32 if word >= 2**31 else word for word in words]


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))
@settings(max_examples=40)
def test_words_are_a_stream_of_bits(bits, runs, rows, seed):
    codes = torch.randint(0, 2**bits, (rows, 32 * runs), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    words = pack_words(codes, bits)
    assert words.shape == (rows, word_count(32 * runs, bits))
    assert words.tolist() == [stream(row, bits) for row in codes.tolist()]
    assert unpack_words(words, bits).equal(codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("version", [1, 2])
def test_gptq_words_by_the_definition(bits, version):
    w = weight(bits=bits, lowest_zero=1)
    parts = pack_gptq(w, version)
    assert parts["qweight"].shape == (64 * bits // 32, 32) and parts["qzeros"].shape == (2, 32 * bits // 32)
    assert parts["qweight"].T.tolist() == [stream(row, bits) for row in w.codes.tolist()]
    stored = w.zero.int() - (1 if version == 1 else 0)
    assert parts["qzeros"].tolist() == [stream(column, bits) for column in stored.T.tolist()]
    assert parts["scales"].dtype == torch.float16 and parts["scales"].T.float().equal(w.scale)
    assert parts["g_idx"].tolist() == [0] * 32 + [1] * 32


def test_awq_words_by_the_definition():
    w = weight()
    parts = pack_awq(w)
    for packed, plain in ((parts["qweight"], w.codes.T), (parts["qzeros"], w.zero.int().T)):
        nibbles = [[row[8 * j + i] for i in (0, 2, 4, 6, 1, 3, 5, 7)] for row in plain.tolist() for j in range(4)]
        assert packed.flatten().tolist() == [stream(eight, 4)[0] for eight in nibbles]


@given(
    bits=st.sampled_from([2, 3, 4, 8]), runs=st.integers(1, 3), out=st.sampled_from([32, 64]),
    groups=st.integers(1, 4), order=st.booleans(), version=st.sampled_from([1, 2]), seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=60)
def test_gptq_comes_back(bits, runs, out, groups, order, version, seed):
    columns = 32 * runs
    if columns % groups:
        order = True
    w = weight(out, columns, groups, bits, seed, order, lowest_zero=version % 2)
    back = unpack_gptq(pack_gptq(w, version), bits, version)
    assert same(back, w)
    assert back.dequantize().equal(w.dequantize())


@given(
    columns=st.sampled_from([8, 24, 64, 576]), out=st.sampled_from([8, 16, 40]), groups=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 999),
)  # fmt: skip
@settings(max_examples=40)
def test_awq_comes_back(columns, out, groups, seed):
    w = weight(out, columns, groups, 4, seed)
    assert same(unpack_awq(pack_awq(w)), w)


def test_reading_version_1_as_version_2_is_one_step_off():
    w = weight(lowest_zero=1)
    wrong = unpack_gptq(pack_gptq(w, version=1), 4, version=2)
    assert (wrong.dequantize() - w.dequantize()).allclose(w.scale[:, w.group_of_column])


@pytest.mark.parametrize("layout", ["gptq", "gptq_v2", "awq"])
def test_a_folder_comes_back(tmp_path, layout):
    weights = {f"model.layers.{i}.mlp.up_proj": weight(seed=i, lowest_zero=1) for i in range(2)}
    others = {"model.norm.weight": torch.arange(4.0), "lm_head.weight": torch.ones(4, 8).half().T}
    folder = write_quantized(tmp_path / "out", layout, weights, others, {"model_type": "llama"})
    read, rest = read_quantized(folder)
    assert read.keys() == weights.keys() and all(same(read[name], weights[name]) for name in weights)
    assert rest.keys() == others.keys() and all(rest[name].equal(others[name]) for name in others)
    described = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert (described["quant_method"], described["bits"], described["group_size"]) == (layout[:4].rstrip("_"), 4, 32)


def test_act_order_is_said_in_the_config(tmp_path):
    write_quantized(tmp_path, "gptq_v2", {"a": weight(order=True)}, {}, {})
    described = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert described["desc_act"] and not described["sym"]
    assert same(read_quantized(tmp_path)[0]["a"], weight(order=True))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pack_gptq(weight(columns=60)), "60 codes of 4 bits .* multiple of 8"),
        (lambda: pack_gptq(weight(out=12, bits=3)), "12 codes of 3 bits .* multiple of 32"),
        (lambda: pack_gptq(weight(bits=5)), "bits=5"),
        (lambda: pack_gptq(weight(), version=3), "version=3"),
        (lambda: weight(columns=64, groups=3), "64 columns are not a whole number of 3 groups"),
        (lambda: pack_awq(weight(bits=8)), "8 bits"),
        (lambda: pack_awq(weight(order=True)), "act-order"),
        (lambda: pack_awq(weight(out=12)), "12 outputs"),
        (lambda: GroupCodes(weight(bits=4).codes, torch.ones(32, 1), torch.ones(32, 1), 3), "code is 15; 3 bits"),
        (lambda: GroupCodes(weight().codes, torch.ones(32, 2), torch.ones(32, 1), 4), r"\(32, 1\)"),
        (lambda: GroupCodes(weight().codes, torch.ones(32, 2), torch.ones(32, 2), 4, torch.full((64,), 2)), "g_idx"),
        (lambda: GroupCodes(weight().codes.int(), torch.ones(32, 2), torch.ones(32, 2), 4), "torch.int32; .* uint8"),
        (lambda: GroupCodes(weight().codes[0], torch.ones(1, 2), torch.ones(1, 2), 4), r"codes \(64,\)"),
        (lambda: GroupCodes(weight().codes, torch.ones(32), torch.ones(32), 4), r"scales \(32,\)"),
        (lambda: GroupCodes(weight().codes, torch.ones(32, 0), torch.ones(32, 0), 4), "one group or more"),
        (lambda: GroupCodes(weight().codes, torch.ones(32, 2), torch.full((32, 2), 7.5), 4), "a zero is 7.5; .* whole"),
        (lambda: GroupCodes(weight().codes, torch.ones(32, 2), torch.full((32, 2), torch.nan), 4), "a zero is nan"),
    ],
)  # fmt: skip
def test_what_a_layout_has_no_place_for_is_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_zero_of_0_needs_version_2():
    w = weight()
    assert (w.zero == 0).any()
    with pytest.raises(InputError, match=r"a zero is 0, .* version 1 .* use the other"):
        pack_gptq(w, version=1)


def test_a_zero_one_beyond_the_codes_needs_version_1():
    w = weight()
    beyond = GroupCodes(w.codes, w.scale, torch.full_like(w.zero, 16), 4)
    with pytest.raises(InputError, match=r"a zero is 16, .* version 2 .* use the other"):
        pack_gptq(beyond)
    assert same(unpack_gptq(pack_gptq(beyond, version=1), 4, version=1), beyond)


def test_act_order_may_have_more_groups_than_columns():
    w = weight(groups=80, order=True)
    assert same(unpack_gptq(pack_gptq(w), 4), w)


@pytest.mark.parametrize("factor", [1e6, 1e-9])
def test_a_scale_beyond_fp16_is_refused(factor):
    w = weight()
    beyond = GroupCodes(w.codes, w.scale * factor, w.zero, 4)
    for pack in (pack_gptq, pack_awq):
        with pytest.raises(InputError, match="which fp16 cannot store"):
            pack(beyond)


def test_a_bad_folder_is_one_sentence_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="b: AWQ checkpoints"):
        write_quantized(tmp_path / "x", "awq", {"a": weight(out=16), "b": weight(out=12)}, {}, {})
    with pytest.raises(InputError, match="layout='marlin'"):
        write_quantized(tmp_path / "x", "marlin", {"a": weight()}, {}, {})
    with pytest.raises(InputError, match="one of each"):
        write_quantized(tmp_path / "x", "gptq_v2", {"a": weight(), "b": weight(bits=8)}, {}, {})
    assert not (tmp_path / "x").exists()
    (tmp_path / "x").write_text("a file")
    with pytest.raises(InputError, match="cannot make the folder"):
        write_quantized(tmp_path / "x", "gptq_v2", {"a": weight()}, {}, {})


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (None, "not quantized"),
        ({"quant_method": "aqlm"}, "'aqlm'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv'"),
        ({"quant_method": "gptq", "bits": 8}, "do not fit"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin'"),
    ],
)
def test_a_folder_that_cannot_be_read_says_why(tmp_path, described, message):
    write_quantized(tmp_path, "gptq_v2", {"a": weight()}, {}, {})
    config = {} if described is None else {"quantization_config": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        read_quantized(tmp_path)


def test_parts_that_do_not_belong_together(tmp_path):
    parts = pack_gptq(weight())
    with pytest.raises(DataError, match="do not fit 63 inputs"):
        unpack_gptq(parts | {"g_idx": parts["g_idx"][:63]}, 4)
    with pytest.raises(DataError, match="g_idx must name"):
        unpack_gptq(parts | {"g_idx": parts["g_idx"] + 1}, 4)
    with pytest.raises(DataError, match="0 groups"):
        unpack_gptq(parts | {"qzeros": parts["qzeros"][:0], "scales": parts["scales"][:0]}, 4)
    parts = pack_awq(weight())
    with pytest.raises(DataError, match="do not fit scales"):
        unpack_awq(parts | {"qzeros": parts["qzeros"][:1]})
    with pytest.raises(DataError, match=r"do not fit scales \(0, 32\)"):
        unpack_awq(parts | {"qzeros": parts["qzeros"][:0], "scales": parts["scales"][:0]})
