"""A quantized model written and read again says the same; what cannot be written leaves nothing behind."""

import json

import pytest

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

from labcore.cli import main  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.formats import quantized_folder  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.quant import methods, windows  # noqa: E402
from labcore.quant.apply import stored_bytes  # noqa: E402
from labcore.quant.checkpoint import load_quantized, save_quantized  # noqa: E402
from labcore.quant.spec import QuantSpec  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

ROWS = torch.randint(0, 257, (4, 17), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path):
    """A tiny float checkpoint as the hub ships it."""
    model = tiny_model(hidden=64, head_dim=16, intermediate=128)
    path = tmp_path / "float"
    path.mkdir()
    names = {n: n if n.startswith("lm_head") else f"model.{n}" for n, _ in model.named_parameters()}
    save_file({names[n]: p.detach().half() for n, p in model.named_parameters()}, path / "model.safetensors")
    config = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "vocab_size": 257}
    config |= {"max_position_embeddings": 48, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    (path / "config.json").write_text(json.dumps(config))
    (path / "tokenizer.json").write_text("{}")
    return path


def logits(model):
    with torch.no_grad():
        return windows.logits(model, ROWS[:, :-1])


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        ("gptq", lambda m: methods.rtn(m, QuantSpec(4, 32))),
        ("gptq_v2", lambda m: methods.gptq_model(m, ROWS, QuantSpec(4, 32), order="act")),
        ("gptq_v2", lambda m: methods.gptq_model(m, ROWS, QuantSpec(8, 32, True), order="act", groups="static")),
        ("gptq_v2", lambda m: methods.rtn(m, QuantSpec(3, 32))),
        ("awq", lambda m: methods.awq_model(m, ROWS, QuantSpec(4, 32))),
    ],
)
def test_a_written_model_says_what_it_said(folder, tmp_path, layout, change):
    model = load_model(open_checkpoint(folder))
    change(model)
    path = save_quantized(model, folder, tmp_path / "codes", layout)
    assert (path / "tokenizer.json").is_file()
    again = load_quantized(path)
    for name, layer in ((n, m) for n, m in model.named_modules() if hasattr(m, "stored")):
        assert torch.equal(again.get_submodule(name).weight, layer.weight), name
    torch.testing.assert_close(logits(again), logits(model), rtol=5e-3, atol=5e-3)  # AWQ's norms are rounded to fp16
    assert stored_bytes(again) == stored_bytes(model)


def test_what_no_layout_holds_is_refused_and_nothing_is_written(folder, tmp_path):
    model = load_model(open_checkpoint(folder))
    methods.w4a8(model, ROWS, QuantSpec(4, 32))
    with pytest.raises(InputError, match=r"layers.0.self_attn.q_proj is not a weight of integer codes"):
        save_quantized(model, folder, tmp_path / "codes")
    model = load_model(open_checkpoint(folder))
    methods.rtn(model, QuantSpec(3, 32))
    with pytest.raises(InputError):
        save_quantized(model, folder, tmp_path / "codes", "awq")
    assert not (tmp_path / "codes").exists()


def test_the_folder_serves_alone_and_its_config_comes_last(folder, tmp_path, monkeypatch):
    for name in ("chat_template.jinja", "generation_config.json", "special_tokens_map.json"):
        (folder / name).write_text(name)
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    written = []
    write = quantized_folder.atomic_write
    monkeypatch.setattr(
        quantized_folder, "atomic_write", lambda p, content: (written.append(p.name), write(p, content))
    )
    model = load_model(open_checkpoint(folder))
    methods.rtn(model, QuantSpec(4, 32))
    path = save_quantized(model, folder, tmp_path / "codes")
    assert {file.name for file in path.iterdir()} == {file.name for file in folder.iterdir()} == set(written)
    assert written[-1] == "config.json" and (path / "chat_template.jinja").read_text() == "chat_template.jinja"
    described = json.loads((path / "config.json").read_text())
    assert described["torch_dtype"] == "float16" and "dtype" not in described


def test_the_command_refuses_before_any_work(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("labcore.model.checkpoints.fetch", lambda name: pytest.fail("work was done"))
    out = tmp_path / "codes"
    (tmp_path / "file").write_text("")
    for options, sentence in [
        (["--bits", "5"], "bits=5: the layout gptq_v2 holds codes of 2, 3, 4, 8 bits"),
        (["--bits", "3", "--layout", "awq"], "bits=3: the layout awq holds codes of 4 bits"),
        (["--out", str(tmp_path / "file" / "codes")], "cannot be written to"),
        (["--out", "/proc/codes/deep"], "cannot be written to"),
    ]:
        assert main(["quantize", str(folder), "--out", str(out), *options]) == 2
        said = capsys.readouterr().err
        assert sentence in said and said.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"float", "file"}


def test_the_command_writes_a_folder_and_refuses_in_one_sentence(folder, tmp_path, capsys):
    out = tmp_path / "codes"
    command = ["quantize", str(folder), "--out", str(out), "--method", "rtn"]
    assert main([*command, "--group", "48"]) == 2
    said = capsys.readouterr().err
    assert "group=48 does not divide rows of 64 weights; groups that do:" in said and said.count("\n") == 1
    assert main([*command, "--bits", "1"]) == 2 and not out.exists()
    assert main([*command, "--group", "32"]) == 0
    assert "4.6" in capsys.readouterr().out and load_quantized(out).config.hidden == 64
    assert main([*command, "--group", "32"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["quantize", str(out), "--out", str(tmp_path / "twice")]) == 2
    said = capsys.readouterr().err
    assert "codes is quantized already" in said and said.count("\n") == 1 and not (tmp_path / "twice").exists()
