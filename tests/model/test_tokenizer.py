"""Our tokenizer against the `tokenizers` library on the file's own vocabulary, and back again exactly.

The library's digits rule and pre-tokenizer are set by hand: transformers' GGUF conversion loses them.
"""

import random
import sys
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import DataError, InputError
from labcore.model import pretokenizer
from labcore.model.bpe import BytePairEncoder

pytestmark = pytest.mark.model
tokenizers = pytest.importorskip("tokenizers", reason="the oracle package tokenizers is not installed")

# Assigned in this Python's Unicode version (later digits and letters differ) and encodable.
CHARACTERS = st.characters(exclude_categories=("Cs", "Cn"))
PIECES = st.sampled_from(
    [
        "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<|im_", "|>", "'s", "'LL", "'re", " ", "  ",
        "\n", "\n\n\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2003", "\u200b", "\u3000", "1", "12", "2024",
        "٣", "१२", "²", "½", "Ⅷ", "一二三", "😀", "👩‍👩‍👧", "🇫🇷", "e\u0301", "é", "İ", "ß",
        "def f(x):\n    return x", "  }", "the", " quick", "https://a.b/c?d=e&f=1", "ﷺ", "𝔘𝔫𝔦", "\U0010ffff", "ab" * 40,
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=80),
    st.lists(st.one_of(PIECES, st.text(CHARACTERS, max_size=4)), max_size=20).map("".join),
)


@pytest.fixture(scope="module")
def oracle(checkpoint):
    from tokenizers import Tokenizer, models, pre_tokenizers

    metadata = checkpoint.file.metadata
    vocabulary, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    library = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary)}, merges=[tuple(merge.split(" ")) for merge in merges]
        )
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    library.add_special_tokens(
        [vocabulary[i] for i, kind in enumerate(metadata["tokenizer.ggml.token_type"]) if kind == 3]
    )
    return lambda text: library.encode(text).ids


def without_lost_bytes(tokenizer, text: str) -> str:
    """`text` less the characters with a byte that the vocabulary lacks (some controls, planes 4 to 15)."""
    lost = {b for b, token in enumerate(tokenizer._bpe.byte_ids) if token is None}
    return "".join(character for character in text if not lost & set(character.encode()))


def corpus() -> list[str]:
    """Source code, numbers, whitespace, scripts, emoji and special tokens: some 3,000 fixed strings."""
    draw = random.Random(0)
    source = [line for module in (random, unittest_source()) for line in open(module.__file__, encoding="utf-8")]
    digits = [chr(c) for c in range(sys.maxunicode) if unicodedata.category(chr(c)) in ("Nd", "Nl", "No")]
    letters = [chr(c) for c in range(0x20, 0x1FBFF, 61) if unicodedata.category(chr(c)) not in ("Cs", "Cn")]
    spaces = [" ", "\n", "\t", "\r", "\x0b", "\x85", "\xa0", "\u2003", "\u3000"]
    texts = source + [f"x{a} {a}{b}  7{b}" for a, b in zip(digits, reversed(digits), strict=True)]
    texts += ["".join(draw.choices(letters, k=12)) for _ in range(400)]
    texts += [
        "a" + "".join(draw.choices(spaces, k=draw.randint(1, 12))) + draw.choice(["b", "1", "!", ""])
        for _ in range(400)
    ]
    texts += [f"<|im_start|>user\n{n} 😀{n * 7}<|im_end|>{n}<|endoftext|>" for n in range(200)]
    return texts


def unittest_source():
    import argparse

    return argparse


def test_the_fixed_corpus_encodes_like_the_oracle_and_comes_back(tokenizer, oracle):
    texts = corpus()
    assert len(texts) >= 2000
    wrong = [text for text in texts if tokenizer.encode(text) != oracle(text)]
    assert wrong == []
    kept = [without_lost_bytes(tokenizer, text) for text in texts]
    assert [text for text in kept if tokenizer.decode(tokenizer.encode(text)) != text] == []


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
def test_any_text_encodes_like_the_oracle_and_comes_back(tokenizer, oracle, text):
    ids = tokenizer.encode(text)
    assert ids == oracle(text)
    assert tokenizer.decode(ids) == without_lost_bytes(tokenizer, text)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 49_151), max_size=30), skip=st.booleans())
def test_the_incremental_detokenizer_says_what_decode_says(tokenizer, ids, skip):
    stream = tokenizer.detokenizer(skip_special=skip)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(ids, skip_special=skip)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_the_incremental_detokenizer_never_shows_half_a_character(tokenizer, text):
    text = without_lost_bytes(tokenizer, text)
    stream, shown = tokenizer.detokenizer(skip_special=False), ""
    for token in tokenizer.encode(text):
        shown += stream.push(token)
        assert text.startswith(shown)
    assert shown == text and stream.finish() == ""


def test_an_emoji_that_is_several_tokens_appears_once_whole(tokenizer):
    ids = tokenizer.encode("🧑‍🚀")
    stream = tokenizer.detokenizer()
    pieces = [stream.push(token) for token in ids]
    assert len(ids) > 3 and "".join(pieces) == "🧑‍🚀" and "\ufffd" not in "".join(pieces)
    cut = tokenizer.detokenizer()
    assert cut.push(ids[0]) == "" and cut.finish() == "\ufffd"


def test_digits_stand_alone_and_spaces_stay_together(tokenizer):
    assert [tokenizer.decode([i]) for i in tokenizer.encode("1 2  3")] == ["1", " ", "2", "  ", "3"]
    assert len(tokenizer.encode("2024")) == 4


def test_without_the_digits_rule_the_corpus_would_fail(tokenizer, oracle, monkeypatch):
    monkeypatch.setattr(tokenizer, "stages", pretokenizer.by_name("gpt-2"))
    assert tokenizer.encode("1 2  3") != oracle("1 2  3")


def test_special_tokens_can_be_read_as_plain_text(tokenizer):
    assert tokenizer.encode("<|im_end|>") == [2]
    plain = tokenizer.encode("<|im_end|>", parse_special=False)
    assert 2 not in plain and tokenizer.decode(plain) == "<|im_end|>"


def test_control_tokens_can_be_left_out_of_the_text(tokenizer):
    ids = [1, *tokenizer.encode("hi"), 2]
    assert tokenizer.decode(ids) == "<|im_start|>hi<|im_end|>"
    assert tokenizer.decode(ids, skip_special=True) == "hi"


def test_long_words_are_not_quadratic(tokenizer, oracle):
    for text in (" " * 20_000, "ab" * 20_000, "é" * 5_000):
        assert tokenizer.encode(text) == oracle(text)


def test_bad_input_is_one_sentence(tokenizer):
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(InputError, match="token id 49152: this vocabulary has ids 0 to 49151"):
        tokenizer.decode([49_152])
    with pytest.raises(InputError, match="token id -1"):
        tokenizer.decode([-1])


def test_an_unknown_pretokenizer_is_one_sentence():
    with pytest.raises(DataError, match="pre-tokenizer 'klingon' is unknown; known: gpt-2"):
        pretokenizer.by_name("klingon")


@settings(max_examples=300, deadline=None)
@given(word=st.binary(max_size=12), ranks=st.permutations(range(8)))
def test_merging_follows_the_rule_step_by_step(word, ranks):
    """The heap against the definition: merge the pair of lowest rank, leftmost first, until none is left."""
    word = bytes(b % 4 for b in word)
    pairs = [(0, 1), (1, 0), (2, 3), (0, 0), (4, 2), (5, 5), (3, 4), (1, 1)]
    merges = {pair: (rank, 4 + i) for i, (pair, rank) in enumerate(zip(pairs, ranks, strict=True))}
    ids = list(word)
    while True:
        known = [(merges[pair][0], i) for i, pair in enumerate(pairwise(ids)) if pair in merges]
        if not known:
            break
        _, i = min(known)
        ids[i : i + 2] = [merges[ids[i], ids[i + 1]][1]]
    assert BytePairEncoder(list(range(256)), merges).encode(word) == ids
