"""Hugging Face folders: sharded or not, whole or broken."""

import json

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file

from labcore.core.errors import DataError  # noqa: E402
from labcore.formats.safetensors_folder import SafetensorsFolder  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    return tmp_path


def test_tensors_keep_shape_and_dtype(folder):
    opened = SafetensorsFolder(folder)
    assert opened.config == {"model_type": "llama"}
    assert opened.tensor("a").tolist() == [0, 1, 2, 3]
    assert opened.tensor("b").dtype == torch.bfloat16 and opened.tensor("b").shape == (2, 3)


def test_the_index_decides_which_shards_count(folder):
    save_file({"c": torch.zeros(1)}, folder / "extra.safetensors")
    save_file({"stale": torch.zeros(1)}, folder / "stale.safetensors")
    index = {"weight_map": {"a": "model.safetensors", "b": "model.safetensors", "c": "extra.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert sorted(SafetensorsFolder(folder).files) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds a list, not a JSON object"),
        (lambda f: (f / "model.safetensors").unlink(), r"holds no \*.safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 30), "not a readable safetensors file"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}'),
            "gone.safetensors: not a readable safetensors file",
        ),
    ],
)
def test_a_broken_folder_is_one_sentence(folder, break_it, message):
    break_it(folder)
    with pytest.raises(DataError, match=message):
        SafetensorsFolder(folder)


def test_missing_names_are_one_sentence(folder, tmp_path):
    with pytest.raises(DataError, match="no tensor 'z' among the folder's 2"):
        SafetensorsFolder(folder).tensor("z")
    with pytest.raises(DataError, match="no such folder"):
        SafetensorsFolder(tmp_path / "absent")
