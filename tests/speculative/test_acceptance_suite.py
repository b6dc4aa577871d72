"""The acceptance suite: what it counts, on a tiny model with a draft that is always right and one that never is."""

import pytest

torch = pytest.importorskip("torch")

from labcore.engine import bench_acceptance as suite  # noqa: E402
from tests.model.tiny import tiny_tokenizer  # noqa: E402
from tests.speculative.serving import MODEL  # noqa: E402

CHOSEN = {domain: [[1, 2, 3], [5] * 7] for domain in suite.DOMAINS}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(suite, "PER_DOMAIN", 2)
    monkeypatch.setattr(suite, "NEW", 13)


def test_tokens_a_pass(monkeypatch):
    option = {"method": "small_draft", "num_tokens": 3}
    monkeypatch.setitem(suite.METHODS, "right", option)
    plain, passes, share = suite.serve(MODEL, tiny_tokenizer(), CHOSEN, None)
    assert set(passes.passes.values()) == {13} and not sum(passes.drafts.values()) and share == 0
    names = ["greedy.code.0", "greedy.code.1"]
    found = suite.serve(MODEL, tiny_tokenizer(), CHOSEN, option)
    row = suite._row("right", "greedy", "code", 0.0, names, plain, *found).to_json()
    assert row["ours"]["rounds"] == [[4.0, 4.0]], "12 tokens after the first, in three passes of 3 drafts and one more"
    assert row["config"]["passes"] == 6 and row["config"]["tokens"] == 24 and row["correct"]["pass"]


def test_a_wrong_answer_is_not_correct():
    plain, recorder, share = suite.serve(MODEL, tiny_tokenizer(), CHOSEN, None)
    names = ["greedy.chat.0", "greedy.chat.1"]
    wrong = plain | {name: [0] * 13 for name in names}
    row = suite._row("ngram", "greedy", "chat", 0.0, names, plain, wrong, recorder, share).to_json()
    assert row["correct"]["pass"] is False and row["ours"]["median"] == 1.0
