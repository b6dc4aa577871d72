"""The GGUF container: what gguf's writer writes is what we read, and damage is one sentence."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import DataError
from labcore.formats.gguf import GGUFFile
from tests.oracles import gguf_reader

gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")

QUANTIZED = np.random.default_rng(1).integers(0, 100, (4, 3 * 20), dtype=np.uint8)  # 4 rows of 3 Q4_1 blocks


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small file with every metadata type, written by the gguf package."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind, value in [("uint8", 200), ("int8", -100), ("uint16", 60_000), ("int16", -30_000), ("uint32", 4 * 10**9)]:
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    for kind, value in [("int32", -2 * 10**9), ("uint64", 2**63), ("int64", -(2**62)), ("float32", 0.25)]:
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_float64("x.float64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_string("x.string", "naïve 😀")
    writer.add_array("x.strings", ["a", "", "ß"])
    writer.add_array("x.ints", [1, -2, 3])
    writer.add_array("x.floats", [0.5, -1.5])
    writer.add_array("x.bools", [True, False])
    writer.add_tensor("plain", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.add_tensor("half", np.arange(6, dtype=np.float16))
    writer.add_tensor("blocks", QUANTIZED, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


def damaged(written, tmp_path, edit) -> GGUFFile:
    """Open a copy of the file whose bytes `edit` has changed."""
    path = tmp_path / "damaged.gguf"
    path.write_bytes(edit(bytearray(written.read_bytes())))
    return GGUFFile(path)


def test_metadata_of_every_type(written):
    metadata = GGUFFile(written).metadata
    expected = {
        "uint8": 200, "int8": -100, "uint16": 60_000, "int16": -30_000, "uint32": 4 * 10**9, "int32": -2 * 10**9,
        "uint64": 2**63, "int64": -(2**62), "float32": 0.25, "float64": 0.1, "bool": True, "string": "naïve 😀",
        "strings": ["a", "", "ß"],
    }  # fmt: skip
    assert {name: metadata[f"x.{name}"] for name in expected} == expected
    assert metadata["x.ints"].tolist() == [1, -2, 3]
    assert metadata["x.floats"].tolist() == [0.5, -1.5]
    assert metadata["x.bools"].tolist() == [True, False]


def test_tensors(written):
    file = GGUFFile(written)
    assert list(file.tensors) == ["plain", "half", "blocks"]
    assert file.info("plain").shape == (2, 3, 4)
    np.testing.assert_array_equal(file.tensor("plain"), np.arange(24).reshape(2, 3, 4))
    np.testing.assert_array_equal(file.tensor("half"), np.arange(6))
    np.testing.assert_array_equal(file.raw("blocks"), QUANTIZED)
    assert file.tensor("blocks").shape == file.info("blocks").shape == (4, 96)


def test_raw_is_a_read_only_view_of_the_map(written):
    raw = GGUFFile(written).raw("blocks")
    assert not raw.flags.owndata and not raw.flags.writeable


def test_dropped_pages_are_read_again(written):
    file = GGUFFile(written[0] if isinstance(written, tuple) else written)
    before = {name: file.raw(name).tobytes() for name in file.tensors}
    file.drop_pages()
    assert {name: file.raw(name).tobytes() for name in file.tensors} == before


def test_tensor_data_begins_at_the_files_own_alignment(tmp_path):
    path = tmp_path / "aligned.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(128)
    writer.add_tensor("a", np.arange(3, dtype=np.float32))
    writer.add_tensor("b", np.arange(5, dtype=np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    file = GGUFFile(path)
    assert file.info("b").offset % 128 == 0
    np.testing.assert_array_equal(file.tensor("b"), np.arange(5))


def test_version_2_has_the_same_layout(written, tmp_path):
    file = damaged(written, tmp_path, lambda b: b[:4] + struct.pack("<I", 2) + b[8:])
    assert file.version == 2 and file.tensor("half").tolist() == [0, 1, 2, 3, 4, 5]


def test_nested_arrays(tmp_path):
    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    inner = [struct.pack("<IQ", 4, 2) + struct.pack("<2I", 1, 2), struct.pack("<IQ", 8, 1) + string("x")]
    body = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("nested") + struct.pack("<IIQ", 9, 9, 2) + b"".join(inner)
    path = tmp_path / "nested.gguf"
    path.write_bytes(body)
    numbers, words = GGUFFile(path).metadata["nested"]
    assert numbers.tolist() == [1, 2] and words == ["x"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b"", "the file is empty"),
        (lambda b: b"GGML" + b[4:], "not a GGUF file"),
        (lambda b: b[:3], "truncated: the file ends at byte 3, inside the magic number"),
        (lambda b: b[:4] + struct.pack("<I", 1) + b[8:], "version 1 GGUF; versions 2 and 3"),
        (lambda b: b[:4] + struct.pack(">I", 3) + b[8:], "big-endian GGUF"),
        (lambda b: b[:60], "truncated: the file ends at byte 60"),
        (lambda b: b[:-40], r"truncated: tensor 'blocks' ends at byte \d+, the file at \d+"),
        (lambda b: b[:16] + struct.pack("<Q", 2**60) + b[24:], "truncated|unknown"),
        (lambda b: b[:8] + struct.pack("<Q", 2**60) + b[16:], r"tensor|truncated"),
        (lambda b: b.replace(b"x.int8", b"x.\xff\xfe\xfd8"), "is not valid UTF-8"),
        (lambda b: b.replace(b"x.uint16", b"x.uint32", 1), "'x.uint32' appears twice"),
        (lambda b: b.replace(b"x.bool\x07", b"x.bool\x63"), "metadata 'x.bool' has value type 99"),
        (lambda b: b.replace(b"half", b"plai", 1).replace(b"plain", b"half_", 1), None),
    ],
)
def test_damage_is_one_sentence(written, tmp_path, edit, message):
    if message is None:
        assert set(damaged(written, tmp_path, edit).tensors) == {"half_", "plai", "blocks"}
        return
    with pytest.raises(DataError, match=message) as caught:
        damaged(written, tmp_path, edit)
    assert "damaged.gguf" in str(caught.value) and "\n" not in str(caught.value)


def entry(name: bytes, *shape: int, kind: int, offset: int) -> bytes:
    """One row of the tensor table, as the file stores it."""
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([entry(b"t", 32, kind=23, offset=0)], r"tensor 't': tensor type IQ4_XS \(ggml id 23\)"),
        ([entry(b"t", 32, kind=0, offset=4)], "tensor 't' at offset 4 is not aligned to 32 bytes"),
        ([entry(b"t", 33, kind=3, offset=0)], "a row of 33 weights is not a whole number of Q4_1 blocks"),
        ([entry(b"t", 1, 1, 1, 1, 1, kind=0, offset=0)], "claims 5 dimensions"),
        ([entry(b"t", 2**50, kind=0, offset=0)], "truncated: tensor 't' ends at byte"),
        ([entry(b"t", 1, kind=0, offset=0)] * 2, "tensor 't' appears twice"),
    ],
)
def test_a_wrong_tensor_table_is_one_sentence(tmp_path, table, message):
    path = tmp_path / "table.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(table), 0) + b"".join(table) + bytes(256))
    with pytest.raises(DataError, match=message):
        GGUFFile(path)


def test_missing_names_are_one_sentence(written, tmp_path):
    file = GGUFFile(written)
    with pytest.raises(DataError, match="no tensor 'nope' among the file's 3"):
        file.tensor("nope")
    with pytest.raises(DataError, match="metadata has no 'nope'"):
        file.field("nope")
    with pytest.raises(DataError, match="no such file"):
        GGUFFile(tmp_path / "absent.gguf")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_header_is_a_data_error_or_readable(written, tmp_path_factory, data):
    """Whatever bytes change or go missing, nothing but DataError comes out, and no read leaves the file."""
    content = bytearray(written.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(4, len(content)))]
    path = tmp_path_factory.mktemp("fuzz") / "fuzzed.gguf"
    path.write_bytes(content)
    try:
        file = GGUFFile(path)
    except DataError:
        return
    for name, info in file.tensors.items():
        assert file.raw(name).nbytes == info.nbytes
        assert info.offset + info.nbytes <= len(content)


@pytest.mark.model
def test_every_tensor_of_smollm2_is_bit_identical_to_gguf(smollm2_path):
    ours = GGUFFile(smollm2_path)
    theirs = gguf_reader(str(smollm2_path))
    assert len(ours.tensors) == len(theirs.tensors) == 272
    for tensor in theirs.tensors:
        reference = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        mine = ours.tensor(tensor.name)
        assert mine.shape == reference.shape, tensor.name
        assert np.array_equal(mine.view(np.uint32), reference.view(np.uint32)), tensor.name
    assert sum(np.prod(info.shape) for info in ours.tensors.values()) == 134_515_008
