"""A safetensors folder as GGUF: the same weights, tokens and logits here, and the same words from llama.cpp."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from labcore.core.errors import DataError  # noqa: E402
from labcore.model.gguf_export import export_gguf, main  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.quant import windows  # noqa: E402
from labcore.quant.baseline import baseline  # noqa: E402

TEXT = "The country became independent from"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export_gguf(baseline(), tmp_path_factory.mktemp("gguf") / "baseline.gguf")


def test_the_fp16_file_holds_the_folder_s_weights_and_tokenizer(exported):
    ours, theirs = open_checkpoint(exported), open_checkpoint(baseline())
    assert ours.config.norm_eps == pytest.approx(theirs.config.norm_eps, rel=1e-7)  # GGUF keeps a float32
    assert replace(ours.config, norm_eps=theirs.config.norm_eps) == theirs.config
    for name, parameter in load_model(theirs).named_parameters():
        assert ours.tensor(name).equal(parameter)
    text = TEXT + " Côte d'Ivoire in 1960; 12% 😀<|endoftext|>"
    ids = ours.tokenizer().encode(text)
    assert ids == theirs.tokenizer().encode(text) and ours.tokenizer().decode(ids) == text
    assert ours.tokenizer().eos_ids == theirs.tokenizer().eos_ids


def test_every_matrix_takes_the_k_quant_asked_for(tmp_path):
    path = export_gguf(baseline(), tmp_path / "q4k.gguf", lambda name: "Q6_K" if "embd" in name else "Q4_K")
    formats = {name: info.format.name for name, info in open_checkpoint(path).file.tensors.items()}
    assert {name: format for name, format in formats.items() if "norm" not in name} == {
        name: "Q6_K" if "embd" in name else "Q4_K" for name in formats if "norm" not in name
    }
    assert {format for name, format in formats.items() if "norm" in name} == {"F32"}
    model, original = load_model(open_checkpoint(path)), load_model(open_checkpoint(baseline()))
    ids = torch.tensor([open_checkpoint(baseline()).tokenizer().encode(TEXT)])
    laws = [torch.log_softmax(windows.logits(m, ids), -1) for m in (original, model)]
    divergence = (laws[0].exp() * (laws[0] - laws[1])).sum(-1).mean()
    assert 0 < divergence < 0.1


@pytest.mark.slow
def test_llama_cpp_says_the_same_words(exported):
    pytest.importorskip("xllamacpp", reason="the peer xllamacpp is not installed")
    from labcore.model.peers import LlamaCpp

    checkpoint = open_checkpoint(exported)
    model, tokenizer = load_model(checkpoint), checkpoint.tokenizer()
    ids = tokenizer.encode(TEXT)
    prompt = list(ids)
    for _ in range(12):
        ids.append(int(windows.logits(model, torch.tensor([ids]))[-1].argmax()))
    answer = LlamaCpp(exported, threads=1, context=64).complete(prompt, tokens=12)
    assert answer["choices"][0]["text"] == tokenizer.decode(ids[len(prompt) :])


def test_a_pre_tokenizer_without_a_name_is_one_sentence(tmp_path):
    for file in baseline().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spec = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(spec.replace('"individual_digits": true', '"individual_digits": false'))
    with pytest.raises(DataError, match="no name for this tokenizer's pre-tokenizer"):
        export_gguf(tmp_path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path, capsys):
    out = tmp_path / "out.gguf"
    for arguments, sentence in [
        ([str(tmp_path / "none"), str(out)], "none: no such folder"),
        ([str(baseline()), str(out), "--type", "Q9"], "Q9"),
        ([str(baseline()), str(tmp_path / "none" / "out.gguf")], "cannot write"),
    ]:
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said.startswith("labcore.model.gguf_export: ") and sentence in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert main([str(baseline()), str(out)]) == 0 and capsys.readouterr().out == f"{out}\n"
