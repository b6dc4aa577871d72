"""What a proposer can read of the target, on the exact path and on the compiled one, and what it is shown each step."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from labcore.core.draft import Draft  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.kernels.cpu.library import why_unavailable  # noqa: E402
from labcore.kv.contiguous import ContiguousKVCache  # noqa: E402
from labcore.model.checkpoints import fetch  # noqa: E402
from labcore.model.compiled import CompiledStack, split_at  # noqa: E402
from labcore.model.fast import fast_path  # noqa: E402
from labcore.model.loader import load_model, open_checkpoint  # noqa: E402
from labcore.speculative.build import METHODS  # noqa: E402
from labcore.speculative.proposer import Proposer  # noqa: E402
from tests.speculative.serving import MODEL, greedy, serve  # noqa: E402

PROMPTS = [[5, 6, 7, 8, 9, 1, 2], [3] * 5, [11, 12, 13]]


class Watcher(Proposer):
    """Keeps every step, and drafts trees whose first branch repeats the last token."""

    num_tokens, num_branch_tokens, reads_hidden, taps = 4, 2, True, (0, 1)

    def __init__(self, target):
        self.steps, self.forgotten = [], []

    def propose(self, step):
        step.inputs.token_ids, step.inputs.positions = step.inputs.token_ids.clone(), step.inputs.positions.clone()
        self.steps.append(step)
        return {
            row.request_id: Draft([row.token_ids[-1], 7, row.token_ids[-1], 8], [-1, -1, 0, 1]).first(row.room)
            for row in step.rows
            if row.room
        }

    def forget(self, request_ids):
        self.forgotten += request_ids


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setitem(METHODS, "watcher", Watcher)

    def serve_watched(params, **options):
        core = assemble(MODEL, speculative={"method": "watcher"}, **options)
        return serve(core, PROMPTS, params), core.runner.proposer

    return serve_watched


def whole(ids):
    """Outputs of both layers and the final norm over a text, in one pass without drafts."""
    config = MODEL.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(ids))
    with torch.inference_mode():
        x, tapped = MODEL.run(torch.tensor(ids), torch.arange(len(ids)), cache.extend([(0, len(ids))]), (0, 1))
        return tapped[0], tapped[1], MODEL.norm(x)


def test_a_proposer_sees_what_the_target_computed_for_every_token_that_stays(watched):
    answers, proposer = watched([greedy(12)] * 3, long_prefill_token_threshold=3, block_size=2)
    for number, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        text = prompt + answer
        expected, seen = whole(text), 0
        for step in proposer.steps:
            for row in (row for row in step.rows if row.request_id == str(number)):
                positions = step.inputs.positions[row.kept].tolist()
                assert positions == list(range(seen, seen + len(row.kept)))
                assert step.inputs.token_ids[row.kept].tolist() == text[seen : seen + len(row.kept)]
                found = step.features[0], step.features[1], step.hidden
                for one, full in zip(found, expected, strict=True):
                    torch.testing.assert_close(one[row.kept], full[positions], rtol=1e-4, atol=1e-5)
                seen += len(row.kept)
                known = max(seen + 1, len(prompt))
                assert row.token_ids == text[:known] and row.num_prompt_tokens == len(prompt)
        assert seen == len(text) - 1
    assert sorted(proposer.forgotten) == ["0", "1", "2"] or len(proposer.forgotten) < 3


def test_room_is_what_may_still_come(watched):
    params = [greedy(12), greedy(12, num_draft_tokens=1), greedy(12, num_draft_tokens=0)]
    _, proposer = watched(params)
    rooms = {str(i): [] for i in range(3)}
    for step in proposer.steps:
        for row in step.rows:
            rooms[row.request_id].append(row.room)
    assert max(rooms["0"]) == 4 and max(rooms["1"]) == 1 and max(rooms["2"]) == 0
    assert all(one[-1] == 0 for one in rooms.values()), "nothing follows the last token"


def test_chosen_is_the_targets_likeliest_token_at_every_node(watched):
    answers, proposer = watched([greedy(12)] * 3)
    for step in proposer.steps:
        for row in step.rows:
            if row.chosen:
                answer = answers[int(row.request_id)]
                place = len(row.token_ids) - len(PROMPTS[int(row.request_id)])
                accepted = len(row.kept) - (row.end - row.begin - len(row.chosen) + 1)
                assert row.chosen[0] == answer[place - accepted - 1]


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_trees_in_a_quantized_cache(watched, kind):
    answers, proposer = watched([greedy(12)] * 3, kv_cache_dtype=kind, block_size=4)
    assert answers == serve(assemble(MODEL, kv_cache_dtype=kind, block_size=4), PROMPTS, [greedy(12)] * 3)
    assert any(len(row.kept) > 1 and row.chosen[1:] for step in proposer.steps for row in step.rows)


def test_without_taps_nothing_is_kept():
    x = torch.tensor([1, 2, 3])
    cache = ContiguousKVCache(
        MODEL.config.n_layers, MODEL.config.n_kv_heads, MODEL.config.head_dim, slots=1, capacity=3
    )
    with torch.inference_mode():
        _, tapped = MODEL.run(x, torch.arange(3), cache.extend([(0, 3)]))
    assert tapped == {}


@pytest.mark.model
def test_compiled_layers_can_be_tapped():
    """Split stacks compute the same bits as the whole one, in one call a stretch or in halves around attention, and
    what they leave at the taps is near what the exact path has there."""
    if why_unavailable() is not None:
        pytest.skip("this machine cannot compile the kernels")
    checkpoint = open_checkpoint(fetch("smollm2-135m", progress=False))
    transform, dtype = fast_path()
    exact, fast = load_model(checkpoint), load_model(checkpoint, dtype=dtype, transform=transform)
    taps, ids = (2, 15, 29), checkpoint.tokenizer().encode("The river rises in the mountains and crosses")

    def run(model, wanted=taps):
        config = model.config
        shape = config.n_layers, config.n_kv_heads, config.head_dim
        cache = ContiguousKVCache(*shape, slots=1, capacity=len(ids) + 1)
        with torch.inference_mode():
            first = model.run(torch.tensor(ids), torch.arange(len(ids)), cache.extend([(0, len(ids))]), wanted)
            return first, model.run(torch.tensor([5]), torch.tensor([len(ids)]), cache.extend([(0, 1)]), wanted)

    before = [x for x, _ in run(fast, ())]
    split_at(fast, taps)
    assert [layer.index for layer in fast.layers] == [2, 15, 29]
    assert all(isinstance(layer, CompiledStack) for layer in fast.layers)
    for x, (split, features), (_, expected) in zip(before, run(fast), run(exact), strict=True):
        assert torch.equal(x, split) and torch.equal(features[29], split)
        for tap in taps:
            near = torch.nn.functional.cosine_similarity(features[tap], expected[tap], dim=-1)
            assert near.min() > 0.99, (tap, near)


def test_room_for_branches_is_no_room_for_a_chain():
    """The scheduler may keep slots for more branch tokens than the proposer has; a chain ends where the answer does."""
    options = {
        "speculative": {"method": "small_draft", "seed": 1, "num_tokens": 5},
        "num_branch_tokens": 4,
        "block_size": 2,
    }
    plain = serve(assemble(MODEL), PROMPTS, [greedy(20)] * 3)
    assert serve(assemble(MODEL, **options), PROMPTS, [greedy(20)] * 3) == plain


def test_options_that_do_not_exist_or_make_no_sense():
    from labcore.core.errors import InputError

    for speculative, text in (
        ({"method": "oracle"}, "speculative method 'oracle': must be one of ngram"),
        ({"num_tokens": 3}, "speculative method None"),
        ("ngram", "speculative='ngram': must be a mapping"),
        ({"method": "ngram", "k": 3}, "speculative option 'k' is unknown; ngram has num_tokens"),
        ({"method": "ngram", "num_tokens": 0}, "num_tokens=0: must be 1 or more"),
        ({"method": "ngram", "num_tokens": "3"}, "num_tokens='3': must be int"),
        ({"method": "ngram", "num_tokens": 2.5}, "num_tokens=2.5: must be int"),
        ({"method": "ngram", "num_tokens": True}, "num_tokens=True: must be int"),
        ({"method": "suffix", "num_tokens": 10**9}, "num_tokens=1000000000: must be .* the model's context of 48"),
        ({"method": "small_draft", "num_tokens": 10**9}, "num_tokens=1000000000: must be .* the model's context of 48"),
        ({"method": "suffix", "capacity": 3}, "depth=16, capacity=3"),
        ({"method": "suffix", "factor": float("inf")}, "factor=inf"),
        ({"method": "layer_skip", "kept": 1}, "kept=1: must be Sequence"),
        ({"method": "adaptive", "draft": {"method": "ngram"}, "probe": "x"}, "probe='x': must be int"),
        ({"method": ["ngram"]}, "speculative method .* must be one of ngram"),
        ({"method": "ngram", "acceptance": "often"}, "acceptance='often': must be one of exact, typical"),
    ):
        with pytest.raises(InputError, match=text):
            assemble(MODEL, speculative=speculative)
    with pytest.raises(InputError, match="num_draft_tokens=-1"):
        SamplingParams(num_draft_tokens=-1)
