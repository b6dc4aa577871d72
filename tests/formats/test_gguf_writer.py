"""Writing GGUF: what we write, we, gguf-py and llama.cpp read; the real model's file comes back byte for byte."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import DataError, InputError
from labcore.core.files import sha256
from labcore.formats.blocks import dequantize, named
from labcore.formats.gguf import GGUFFile
from labcore.formats.gguf_writer import Tensor, copy, requantize, write_gguf

METADATA = {
    "general.architecture": "llama", "x.bool": True, "x.int": 7, "x.negative": -7, "x.big": 2**63, "x.low": -(2**60),
    "x.float": 0.25, "x.text": "naïve 😀", "x.strings": ["a", "", "ß"], "x.ints": [1, -2], "x.floats": [0.5, -1.5],
    "x.bytes": np.arange(3, dtype=np.uint8), "x.nested": [["a"], ["b", "c"]], "x.none": [],
}  # fmt: skip


def tensors(seed=0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    names = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
    made = {f"t.{name}": Tensor.encode(rng.normal(size=(3, 512)).astype(np.float32), name) for name in names}
    made["norm"] = Tensor.encode(rng.normal(size=5).astype(np.float32))
    made["cube"] = Tensor.encode(rng.normal(size=(2, 3, 32)).astype(np.float32), "Q8_0")
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", METADATA, tensors())


def test_our_reader_reads_what_was_written(written):
    file = GGUFFile(written)
    for key, value in METADATA.items():
        read = file.metadata[key]
        assert (read.tolist() if isinstance(read, np.ndarray) else read) == (
            value.tolist() if isinstance(value, np.ndarray) else value
        )
    for name, tensor in tensors().items():
        assert file.info(name).shape == tensor.shape
        assert file.raw(name).tobytes() == tensor.raw.tobytes()
        assert file.info(name).offset % 32 == 0


def test_gguf_py_reads_what_was_written(written):
    gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
    reader = gguf.GGUFReader(written)
    for tensor in reader.tensors:
        ours = tensors()[tensor.name]
        assert tuple(reversed(tensor.shape)) == ours.shape
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.array_equal(numbers.reshape(ours.shape), dequantize(ours.raw, ours.format))
    kinds = {key: reader.fields[key].types[0].name for key in METADATA}
    assert kinds["x.int"] == "UINT32" and kinds["x.negative"] == "INT32" and kinds["x.big"] == "UINT64"
    assert kinds["x.low"] == "INT64" and kinds["x.float"] == "FLOAT32" and kinds["x.bool"] == "BOOL"
    assert reader.fields["x.text"].contents() == "naïve 😀" and reader.fields["x.ints"].contents() == [1, -2]


def test_a_file_of_gguf_py_comes_back_byte_for_byte(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    for kind, value in [("uint8", 200), ("int8", -100), ("uint16", 60_000), ("int16", -30_000), ("uint64", 5)]:
        getattr(writer, f"add_{kind}")(f"x.{kind}", value)
    writer.add_float64("x.float64", 0.1)
    writer.add_array("x.strings", ["a", "", "ß"])
    writer.add_array("x.ints", [1, -2, 3])
    writer.add_array("x.bools", [True, False])
    writer.add_tensor("plain", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.add_tensor("half", np.arange(6, dtype=np.float16))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    ours = copy(GGUFFile(tmp_path / "theirs.gguf"), tmp_path / "ours.gguf")
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.model
def test_the_real_model_comes_back_byte_for_byte(smollm2_path, tmp_path):
    ours = copy(GGUFFile(smollm2_path), tmp_path / "ours.gguf")
    assert sha256(ours) == sha256(smollm2_path)
    ours.unlink()


@pytest.mark.model
@pytest.mark.slow
def test_llama_cpp_generates_from_a_requantized_model(smollm2_path, tmp_path):
    """One tensor in each k-quant, and one whose rows of 576 fall back; the words are still the model's."""
    pytest.importorskip("xllamacpp", reason="the peer xllamacpp is not installed")
    from labcore.model.loader import GGUFCheckpoint
    from labcore.model.peers import LlamaCpp

    asked = {f"blk.{i}.ffn_down.weight": name for i, name in enumerate(["Q4_K", "Q5_K", "Q6_K", "Q3_K", "Q2_K"])}
    asked["blk.0.attn_q.weight"] = "Q4_K"
    path = requantize(
        GGUFFile(smollm2_path), tmp_path / "mixed.gguf", lambda name, info: asked.get(name, info.format.name)
    )
    formats = {name: info.format.name for name, info in GGUFFile(path).tensors.items()}
    assert {name: formats[name] for name in asked} == asked | {"blk.0.attn_q.weight": "Q5_0"}
    tokenizer = GGUFCheckpoint(path).tokenizer()
    answer = LlamaCpp(path, threads=1, context=64).complete(tokenizer.encode("The capital of France is"), tokens=4)
    assert "Paris" in answer["choices"][0]["text"]
    path.unlink()


@settings(max_examples=10)
@given(
    metadata=st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.one_of(
            st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(width=32, allow_nan=False), st.text(max_size=9),
            st.lists(st.text(max_size=4), max_size=4), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4),
        ),
        max_size=6,
    ).filter(lambda metadata: "general.alignment" not in metadata),
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=3), max_size=4),
    alignment=st.sampled_from([None, 8, 32, 128]),
)  # fmt: skip
def test_whatever_is_written_is_read_again(tmp_path_factory, metadata, shapes, alignment):
    folder = tmp_path_factory.mktemp("any")
    if alignment:
        metadata = metadata | {"general.alignment": alignment}
    made = {f"t{i}": Tensor.encode(np.full((*shape, 32), i, np.float32), "Q4_0") for i, shape in enumerate(shapes)}
    file = GGUFFile(write_gguf(folder / "any.gguf", metadata, made))
    read = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in file.metadata.items()}
    assert read == metadata
    assert {name: file.raw(name).tobytes() for name in made} == {name: t.raw.tobytes() for name, t in made.items()}
    assert copy(file, folder / "again.gguf").read_bytes() == (folder / "any.gguf").read_bytes()


@pytest.mark.parametrize(
    ("metadata", "made", "message"),
    [
        ({"a": object()}, {}, "'a' is a object"),
        ({"a": 2**64}, {}, "does not fit into 64 bits"),
        ({"a": [1, "b"]}, {}, "mixes types"),
        ({"a": np.zeros(2, np.complex64)}, {}, "complex64"),
        ({"a": np.zeros((2, 3), np.int32)}, {}, r"'a' is an array of shape \(2, 3\)"),
        ({"a": [np.zeros((), np.int32)]}, {}, r"'a' is an array of shape \(\)"),
        ({"a": 1e39}, {}, "'a' is 1e\\+39, which float32 does not hold"),
        ({"a": [0.5, -1e39]}, {}, "'a' is -1e\\+39, which float32"),
        ({"a": "\ud800"}, {}, "lone surrogate"),
        ({"general.alignment": 12}, {}, "multiple of 8"),
        ({}, {"x" * 64: Tensor.encode(np.zeros(32, np.float32))}, "64 bytes"),
        ({}, {"x": Tensor(np.zeros((1, 1, 1, 1, 18), np.uint8), named("Q4_0"))}, "dimensions"),
        ({}, {"x": Tensor(np.zeros((2, 17), np.uint8), named("Q4_0"))}, "whole number of Q4_0 blocks"),
    ],
)
def test_what_gguf_cannot_hold_is_one_sentence_and_no_file(tmp_path, metadata, made, message):
    with pytest.raises(InputError, match=message):
        write_gguf(tmp_path / "bad.gguf", metadata, made)
    assert not list(tmp_path.iterdir())


def test_types_that_do_not_hold_the_value(tmp_path):
    with pytest.raises(InputError, match="'a' is 300, which uint8"):
        write_gguf(tmp_path / "bad.gguf", {"a": 300}, {}, {"a": 0})
    for type_id, value, name in [(4, 0.5, "uint32"), (11, -0.5, "int64"), (7, 7, "bool"), (6, 1e300, "float32")]:
        with pytest.raises(InputError, match=re.escape(f"'a' is {value}, which {name} does not hold")):
            write_gguf(tmp_path / "bad.gguf", {"a": value}, {}, {"a": type_id})
    with pytest.raises(InputError, match="no value of type 99"):
        write_gguf(tmp_path / "bad.gguf", {"a": 300}, {}, {"a": 99})
    with pytest.raises(InputError, match="cannot write"):
        write_gguf(tmp_path / "missing" / "bad.gguf", {}, {})
    assert not list(tmp_path.iterdir())


def test_a_float_beyond_float32_and_a_whole_float_have_their_types(tmp_path):
    values = {"a": 1e39, "b": 7.0, "c": 3.4028235e38, "d": float("-inf"), "e": True}
    file = GGUFFile(write_gguf(tmp_path / "some.gguf", values, {}, {"a": 12, "b": 4, "e": 0}))
    assert file.metadata == values | {"b": 7, "c": float(np.finfo(np.float32).max), "e": 1}


def test_a_truncated_block_is_refused_by_the_reader(written, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(written.read_bytes()[:-64])
    with pytest.raises(DataError, match="truncated"):
        GGUFFile(tmp_path / "cut.gguf")
