"""Draft models: which are refused, and the small ones that the engine's tests use behind the same door."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.model.tokenizer import Tokenizer, byte_alphabet  # noqa: E402
from labcore.speculative import draft_model as door  # noqa: E402
from labcore.speculative.controlled import Controlled  # noqa: E402
from labcore.speculative.proposer import Target  # noqa: E402
from tests.model.tiny import END, tiny_config, tiny_model, tiny_tokenizer  # noqa: E402
from tests.speculative.serving import MODEL, answers, greedy, serve  # noqa: E402

PROMPT = [1, 2, 3]


class Small:
    """A checkpoint in memory."""

    def __init__(self, model, tokenizer):
        self.model, self.config, self._tokenizer = model, model.config, tokenizer

    def tensor(self, name):
        return self.model.state_dict()[name]

    def tokenizer(self):
        return self._tokenizer


@pytest.fixture
def checkpoint(monkeypatch):
    """Whatever is asked for is this checkpoint."""
    box = SimpleNamespace(found=Small(tiny_model(1), tiny_tokenizer()))
    monkeypatch.setattr(door, "fetch", lambda name, progress: name)
    monkeypatch.setattr(door, "open_checkpoint", lambda path: box.found)
    return box


def test_a_checkpoint_with_the_same_tokenizer_drafts(checkpoint):
    checkpoint.found = Small(MODEL, tiny_tokenizer())  # the target itself: always right
    core = assemble(MODEL, tiny_tokenizer(), speculative={"method": "draft_model", "model": "small", "num_tokens": 2})
    assert serve(core, [PROMPT], [greedy(13)]) == answers([PROMPT], [greedy(13)])[0]
    assert core.stats.acceptance_length == 3


def test_another_vocabulary_is_refused(checkpoint):
    checkpoint.found = Small(tiny_model(vocab=300), tiny_tokenizer())
    with pytest.raises(InputError, match="'small' has 300 tokens and the target 257"):
        assemble(MODEL, speculative={"method": "draft_model", "model": "small"})


def test_the_same_number_of_tokens_with_other_meanings_is_refused(checkpoint):
    letters = byte_alphabet()
    letters[10], letters[11] = letters[11], letters[10]
    checkpoint.found = Small(tiny_model(1), Tokenizer([*letters, "<end>"], [], {"<end>": END}, [], eos_ids=[END]))
    with pytest.raises(InputError, match="something else by token 10 than the target"):
        assemble(MODEL, tiny_tokenizer(), speculative={"method": "draft_model", "model": "small"})


def test_a_difference_at_the_first_token_counts(checkpoint):
    letters = byte_alphabet()
    letters[0], letters[1] = letters[1], letters[0]
    checkpoint.found = Small(tiny_model(1), Tokenizer([*letters, "<end>"], [], {"<end>": END}, [], eos_ids=[END]))
    with pytest.raises(InputError, match="by token 0"):
        assemble(MODEL, tiny_tokenizer(), speculative={"method": "draft_model", "model": "small"})


def test_an_unknown_quantization_is_refused(checkpoint):
    with pytest.raises(InputError, match="quantization='int3'"):
        door.draft_model(Target(MODEL), "small", quantization="int3")


def test_a_draft_with_a_shorter_context_stops_in_time(checkpoint):
    checkpoint.found = Small(tiny_model(context=16), tiny_tokenizer())
    core = assemble(MODEL, speculative={"method": "draft_model", "model": "small"})
    assert serve(core, [PROMPT], [greedy(40)]) == answers([PROMPT], [greedy(40)])[0]
    assert 0 < core.stats.total("verified") < 6


def test_a_controlled_draft_is_as_right_as_it_is_told_to_be():
    prompts = [[i, i + 1, i + 2] for i in range(16)]
    plain, _ = answers(prompts, [greedy(31)] * 16)
    known = {tuple(prompt): answer for prompt, answer in zip(prompts, plain, strict=True)}
    lengths = {}
    for alpha in (0.0, 0.5, 1.0):
        core = assemble(MODEL, speculative={"method": "ngram"})
        core.runner.proposer = Controlled(known, alpha, tiny_config().vocab, num_tokens=2)
        assert serve(core, prompts, [greedy(31)] * 16) == plain
        lengths[alpha] = core.stats.acceptance_length
    assert lengths[0.0] == 1
    assert lengths[1.0] > 2.9  # but for the last draft of an answer
    assert abs(lengths[0.5] - 1.75) < 0.15  # 1 + 1/2 + 1/4
    with pytest.raises(InputError, match=r"alpha=1\.5"):
        Controlled({}, 1.5, 9)
