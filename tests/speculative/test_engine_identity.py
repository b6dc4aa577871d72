"""Speculation on the real model: greedy answers token for token, sampled ones too where drafts are without chance."""

from __future__ import annotations

from random import Random

import pytest

torch = pytest.importorskip("torch")

from labcore.attention.sdpa import SDPAAttention  # noqa: E402
from labcore.core.draft import Draft, depths  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.runner import ModelRunner  # noqa: E402
from labcore.model.checkpoints import fetch  # noqa: E402
from labcore.model.fast import fast_path  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.speculative.build import METHODS  # noqa: E402
from labcore.speculative.proposer import Proposer  # noqa: E402
from tests.speculative.serving import serve  # noqa: E402

pytestmark = pytest.mark.model

TEXTS = (
    "one two three four one two three four one two",
    "The river rises in the mountains, crosses the plain,",
    "def add(a, b):\n    return a + b\n\n\ndef add(a, b):\n    return",
)
PARAMS = [
    SamplingParams(temperature=0, max_tokens=14),
    SamplingParams(temperature=0.8, top_p=0.9, seed=3, frequency_penalty=0.4, max_tokens=14),
    SamplingParams(temperature=0, max_tokens=14),
]


class Oracle(Proposer):
    """Knows the answers. right: how often a draft token is the right one; a tree has it beside a wrong sibling."""

    num_tokens, num_branch_tokens = 5, 3

    def __init__(self, target, right: float = 1.0, tree: bool = False):
        self.right, self.tree, self.rng = right, tree, Random(0)

    def propose(self, step):
        drafts = {}
        for row in step.rows:
            answer = self.answers[tuple(row.token_ids[: row.num_prompt_tokens])]
            coming = answer[len(row.token_ids) - row.num_prompt_tokens :]
            parents = [-1, -1, 1, 1, 2] if self.tree else [-1, 0, 1, 2]
            tokens = []
            for node, depth in enumerate(depths(parents)):
                right = coming[depth] if depth < len(coming) else 0
                agrees = self.rng.random() < self.right and not (self.tree and node in (0, 3))
                tokens.append(right if agrees else (right + 1) % 1000)
            if row.room:
                drafts[row.request_id] = Draft(tokens, parents if self.tree else None).first(row.room)
        return drafts


@pytest.fixture(scope="module")
def checkpoint():
    return open_checkpoint(fetch("smollm2-135m", progress=False))


@pytest.fixture(scope="module")
def exact(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def prompts(checkpoint):
    return [checkpoint.tokenizer().encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def plain(exact, prompts):
    return serve(assemble(exact), prompts, PARAMS)


ROOM = {"enable_prefix_caching": False, "num_blocks": 17, "block_size": 4, "watermark": 0.0}
WAYS = {
    "ngram": ({"method": "ngram", "min_n": 1}, {}),
    "suffix trees in chunks": ({"method": "suffix"}, {"max_num_batched_tokens": 16, "max_num_seqs": 3}),
    "always right": ({"method": "oracle"}, {}),
    "always right trees, preempted": ({"method": "oracle", "tree": True}, ROOM),
    "always wrong trees": ({"method": "oracle", "right": 0.0, "tree": True}, {}),
    "now and then right, swapped": ({"method": "oracle", "right": 0.7}, {**ROOM, "num_host_blocks": 60}),
}


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_those_without_speculation(way, exact, prompts, plain, monkeypatch):
    speculative, options = WAYS[way]
    monkeypatch.setitem(METHODS, "oracle", Oracle)
    monkeypatch.setattr(
        Oracle, "answers", {tuple(p): answer for p, answer in zip(prompts, plain, strict=True)}, raising=False
    )
    params = [PARAMS[0], PARAMS[1], SamplingParams(temperature=0, max_tokens=14, num_draft_tokens=0)]
    core = assemble(exact, speculative=speculative, **options)
    assert serve(core, prompts, params) == plain
    drafted, accepted = core.stats.total("drafted"), core.stats.total("accepted")
    assert drafted > 0 and (accepted > 0) == ("wrong" not in way)
    assert (core.stats.preemptions > 0) == (options.get("num_blocks") is not None)
    if way == "always right":
        assert accepted == drafted and core.stats.acceptance_length > 3


def test_a_chain_verified_by_the_compiled_pass_has_the_logits_of_the_uncompiled_one(checkpoint, prompts):
    """Prompt, then drafts of up to three: rows of one compiled call, or layer by layer with attention in torch."""
    transform, dtype = fast_path()
    fast = load_model(checkpoint, dtype=dtype, transform=transform)
    seen = {}
    for backend in (None, SDPAAttention):
        core = assemble(fast, backend=backend, speculative={"method": "ngram", "min_n": 1})
        kept, runner = seen.setdefault(backend, []), core.runner
        forward = runner.forward

        def watched(scheduled, kept=kept, forward=forward):
            kept.append((sum(one.num_draft_tokens for one in scheduled), forward(scheduled)))
            return kept[-1][1]

        runner.forward = watched
        serve(core, prompts[:1], [SamplingParams(temperature=0, max_tokens=12)])
    assert [count for count, _ in seen[None]] == [count for count, _ in seen[SDPAAttention]]
    assert max(count for count, _ in seen[None]) == 3
    for (_, compiled), (_, uncompiled) in zip(*seen.values(), strict=True):
        torch.testing.assert_close(compiled, uncompiled, rtol=1e-2, atol=0.1)
        assert torch.equal(compiled.argmax(-1), uncompiled.argmax(-1))


def test_without_a_proposer_the_runner_knows_nothing_of_drafts(exact):
    assert type(assemble(exact).runner) is ModelRunner
