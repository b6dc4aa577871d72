"""The float baseline: its vocabulary, its training step, and the committed weights."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from labcore.core.errors import FetchError, InputError  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.quant import corpus, windows  # noqa: E402
from labcore.quant.baseline import baseline, bpe  # noqa: E402
from labcore.quant.baseline import train as training  # noqa: E402
from tests.conftest import skip_or_fail  # noqa: E402

WORDS = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(baseline())


@pytest.fixture(scope="module")
def evaluation():
    try:
        return corpus.text("evaluation")
    except FetchError as error:
        skip_or_fail("corpus", str(error))


def test_the_merges_of_sennrich_s_example():
    """Figure 1 of the paper merges "es", "est", "lo" first; with GPT-2's words a space leads, and ties sort."""
    tokens, merges = bpe.train(WORDS, 257 + 6)
    assert [a + b for a, b in merges[:3]] == ["es", "est", "lo"]
    assert len(tokens) == 263 and tokens[0] == bpe.END_OF_TEXT


def test_every_merge_is_the_most_frequent_pair_of_its_moment():
    """The incremental counts against counting everything anew."""
    text = "the cat sat on the mat, the hat sat in the vat; that is that " * 3
    _, merges = bpe.train(text, 257 + 20)
    words = [list(word.replace(" ", "Ġ")) for word in bpe.pretokenizer.split(text, bpe.pretokenizer.by_name("smollm"))]
    for merge in merges:
        counts = bpe.Counter(pair for word in words for pair in bpe.pairwise(word))
        assert merge == min(counts, key=lambda pair: (-counts[pair], pair))
        words = [bpe._merge(word, merge) for word in words]


def test_what_cannot_be_trained_is_one_sentence():
    with pytest.raises(InputError, match="256 bytes"):
        bpe.train(WORDS, 256)
    with pytest.raises(InputError, match="repeated pairs for only"):
        bpe.train("abc abd", 300)


def test_the_committed_folder_is_whole_and_small(checkpoint):
    weights = baseline() / "model.safetensors"
    assert weights.stat().st_size <= 5_000_000
    model = load_model(checkpoint)
    assert sum(p.numel() for p in model.parameters()) == 2_492_672
    assert all(p.shape[1] % 256 == 0 for p in model.parameters() if p.ndim == 2), "k-quants must fit every matrix"
    assert all(p.isfinite().all() for p in model.parameters())


@settings(max_examples=20)
@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text):
    tokenizer = open_checkpoint(baseline()).tokenizer()
    assert tokenizer.decode(tokenizer.encode(text, parse_special=False)) == text


def test_the_tokenizer_of_the_tokenizers_library_agrees(checkpoint):
    library = pytest.importorskip("tokenizers", reason="the oracle package tokenizers is not installed")
    theirs = library.Tokenizer.from_file(str(baseline() / "tokenizer.json"))
    text = "In 1830, Côte d'Ivoire's 2 districts — “Abidjan” — weren't 12%.\n\n  Naïve\tεὖ 😀"
    assert checkpoint.tokenizer().encode(text) == theirs.encode(text).ids


def test_the_weights_reach_the_loss_that_the_curve_reports(checkpoint, evaluation):
    """Twelve windows spread over the split against the mean of all 333: within three standard errors."""
    curve = json.loads((baseline() / "curve.json").read_text())
    ids = checkpoint.tokenizer().encode(evaluation, parse_special=False)
    assert len(ids) == curve["tokens"]["evaluation"]
    model = load_model(checkpoint)
    losses = torch.tensor([training.mean_loss(model, row[None]) for row in windows.cut(ids, training.WINDOW, 12)])
    assert abs(losses.mean() - curve["points"][-1]["evaluation_loss"]) < 3 * losses.std() / math.sqrt(12)
    assert losses.max() < math.log(1024)


def test_the_curve_falls_and_unseen_text_is_harder():
    points = json.loads((baseline() / "curve.json").read_text())["points"]
    batch = [point["batch_loss"] for point in points]
    assert batch == sorted(batch, reverse=True)
    assert points[-1]["train_loss"] < points[-1]["evaluation_loss"]


def test_a_training_run_in_the_small(tmp_path, monkeypatch):
    """Twenty steps on one repeated sentence: the loss falls, and the folder loads."""
    text = "the quick brown fox jumps over the lazy dog, and the dog sleeps; " * 12
    monkeypatch.setattr(corpus, "text", lambda split: text)
    small = {"vocab_size": 280, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    monkeypatch.setattr(training, "CONFIG", training.CONFIG | small | {"num_attention_heads": 4})
    for name, value in {"WINDOW": 16, "WARMUP": 5, "EVALUATE_EVERY": 10}.items():
        monkeypatch.setattr(training, name, value)
    curve = training.train(tmp_path, steps=20)
    assert [point["step"] for point in curve["points"]] == [10, 20]
    assert curve["points"][1]["evaluation_loss"] < curve["points"][0]["evaluation_loss"] < math.log(280)
    assert json.loads((tmp_path / "curve.json").read_text()) == curve
    read = open_checkpoint(tmp_path)
    ids = read.tokenizer().encode(text)
    rows = windows.cut(ids, 16)
    assert training.mean_loss(load_model(read), rows) == pytest.approx(curve["points"][1]["evaluation_loss"], abs=2e-3)


def test_the_schedule_rises_then_falls():
    shares = [training.schedule(step, 1000) for step in range(1, 1001)]
    peak = shares.index(max(shares)) + 1
    assert peak == training.WARMUP and max(shares) == 1.0
    assert shares[peak - 1 :] == sorted(shares[peak - 1 :], reverse=True) and shares[-1] == pytest.approx(0.02)
