"""A draft in the target's blocks: it never reads a slot that holds anything but the right prefix, and says what its
model says without any cache. Random engine lives, with pools that are too small, shared prefixes, forks and swaps."""

from dataclasses import replace
from random import Random

import pytest

torch = pytest.importorskip("torch")

from labcore.attention.metadata import AttentionShape  # noqa: E402
from labcore.core.draft import Draft  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.sampling_params import SamplingParams  # noqa: E402
from labcore.core.step_plan import Move  # noqa: E402
from labcore.engine.build import new_storage  # noqa: E402
from labcore.engine.check import check_empty, check_state  # noqa: E402
from labcore.engine.config import CacheConfig, SchedulerConfig  # noqa: E402
from labcore.engine.engine_core import EngineCore  # noqa: E402
from labcore.engine.random_traces import random_config, random_requests  # noqa: E402
from labcore.engine.scheduler import Scheduler  # noqa: E402
from labcore.engine.speculative_runner import SpeculativeRunner  # noqa: E402
from labcore.kv.paged_attend import PagedAttend  # noqa: E402
from labcore.kv.storage import KVStorage  # noqa: E402
from labcore.sampling.sampler import law  # noqa: E402
from labcore.speculative import stamps  # noqa: E402
from labcore.speculative.paged_draft import PagedDraft, pass_inputs  # noqa: E402
from labcore.speculative.stamps import ROOT, Stamps  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402
from tests.speculative.serving import MODEL, OTHER, answers, greedy, serve  # noqa: E402

LIVES = 9, 12, 13, 14, 16, 18  # seeds of lives with trouble


class WrongRead(AssertionError):
    """The draft read a slot that does not hold its prefix."""


class ShadowDraft(PagedDraft):
    """Keeps for every slot the very tokens that it stands for, and compares before every read."""

    def attach(self, storage):
        super().attach(storage)
        size, host = storage.shape.block_size, storage.arrays[0][1].shape[1]
        self.slots = {False: [()] * (storage.shape.num_blocks * size), True: [()] * (host * size)}
        self.reused = 0

    def propose(self, step):
        size = self.storage.shape.block_size
        for kind, source, target in step.moves:
            reads, writes = self.slots[kind is Move.SWAP_IN], self.slots[kind is Move.SWAP_OUT]
            writes[target * size : (target + 1) * size] = reads[source * size : (source + 1) * size]
        return super().propose(step)

    def _run(self, chains):
        size, shape = self.storage.shape.block_size, self.storage.shape
        reads = []
        for chain in chains:  # every row of a pass is stored before any is read
            end, table = chain.start + len(chain.pending), chain.row.block_ids
            tokens = tuple([*chain.row.token_ids, *chain.drafted][:end])
            for place in range(shape.first_visible(chain.start), end):
                slot = table[place // size] * size + place % size
                reads.append((slot, tokens[: place + 1], chain.row.request_id))
                if place >= chain.start:
                    assert slot >= size, "the null block is never written"
                    self.slots[False][slot] = tokens[: place + 1]
                else:
                    self.reused += 1
        for slot, prefix, name in reads:
            if self.slots[False][slot] != prefix:
                raise WrongRead(f"position {len(prefix) - 1} of {name}")
        return super()._run(chains)


def life(seed: int) -> tuple[ShadowDraft, EngineCore, list]:
    """One random life of a tiny engine: the draft, the engine, and (tokens, parameters, draft) of every proposal."""
    rng = Random(seed)
    config, cache = random_config(rng)
    proposer, seen = ShadowDraft(OTHER, num_tokens=rng.randint(1, 4)), []
    propose = proposer.propose

    def recorded(step):
        drafts = propose(step)
        for row in step.rows:
            if draft := drafts.get(row.request_id):
                seen.append((row.token_ids, row.params, Draft(list(draft.token_ids), laws=draft.laws)))
        return drafts

    proposer.propose = recorded
    config = replace(config, num_lookahead_tokens=proposer.num_tokens)
    runner = SpeculativeRunner(MODEL, new_storage(MODEL, cache), config, cache, proposer=proposer)
    core = EngineCore(Scheduler(config, cache), runner)
    waiting = random_requests(rng, rng.randint(3, 8), vocabulary=3)
    while waiting or core.has_unfinished_requests():
        while waiting and rng.random() < 0.7:
            request = waiting.pop(0)
            if rng.random() < 0.5:
                request.sampling_params = replace(request.sampling_params, temperature=0)
            try:
                core.add_request(request)
            except InputError:
                continue
        for progress in core.step():
            if progress.error is not None:
                raise WrongRead(progress.error)
        check_state(core.scheduler)
    core.step()
    check_empty(core.scheduler)
    return proposer, core, seen


def test_no_wrong_slot_is_read_and_drafts_are_those_of_the_whole_text():
    moved = preempted = reused = drafts = 0
    for seed in LIVES:
        proposer, core, seen = life(seed)
        moved += core.stats.total("moved") + core.stats.total("swapped")
        preempted += core.stats.preemptions
        reused += proposer.reused
        some = seen[:: max(1, len(seen) // 8)]
        drafts += len(some)
        for tokens, params, draft in some:
            assert_says_so(tokens, params, draft, proposer.storage.shape.window)
    assert min(moved, preempted, reused, drafts) > len(LIVES), "these lives hardly ever get into trouble"


def assert_says_so(tokens, params, draft, window):
    """A greedy draft is what the model says likeliest, and the laws of a drawn one are its own, without any cache."""
    logits = dense(OTHER, [*tokens, *draft.token_ids[:-1]], window)[len(tokens) - 1 :]
    if params.greedy:
        assert draft.laws is None and draft.token_ids == logits.argmax(-1).tolist()
    else:
        assert torch.allclose(draft.laws, law(logits, [params] * len(logits)), atol=1e-6)
        assert all(draft.laws[i, token] > 0 for i, token in enumerate(draft.token_ids))


def dense(model, token_ids, window=None):
    """Logits after every token, from one pass over all."""
    config, inputs = model.config, pass_inputs([token_ids], [0], [[1]], len(token_ids))
    shape = AttentionShape(config.n_heads, config.n_kv_heads, config.head_dim, 2, len(token_ids), window)
    attend = PagedAttend(KVStorage(config.n_layers, shape), inputs.metadata, None)
    return model(inputs.token_ids, inputs.positions, attend)


def trust_everything(stamps, request_id, token_ids, block_ids, end):
    return end, ROOT


def forget_nothing(stamps, request_ids):
    pass


def number_tokens_only(prefix, token_id):
    return token_id + 2


@pytest.mark.parametrize(
    "owner, name, wrong",
    [(Stamps, "lag", trust_everything), (Stamps, "forget", forget_nothing), (stamps, "extend", number_tokens_only)],
)
def test_the_shadow_sees_a_draft_that_trusts_too_much(monkeypatch, owner, name, wrong):
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(WrongRead):
        for seed in LIVES:
            life(seed)


def test_keys_that_are_not_moved_with_their_stamps_change_drafts(monkeypatch):
    attach = ShadowDraft.attach

    def attach_without_moves(self, storage):
        attach(self, storage)
        self.storage.move = lambda moves: None

    monkeypatch.setattr(ShadowDraft, "attach", attach_without_moves)
    with pytest.raises(AssertionError):
        test_no_wrong_slot_is_read_and_drafts_are_those_of_the_whole_text()


TINY_VOCAB, SAMPLES = 6, 1000
WARM = {"temperature": 0.8, "top_k": 5}


class Boasting(PagedDraft):
    """Says that its tokens were as likely as any other."""

    def _choose(self, chains, logits):
        super()._choose(chains, logits)
        for chain in chains:
            chain.laws[-1] = torch.full_like(chain.laws[-1], 1 / TINY_VOCAB)


def far_from_the_law(proposer_class) -> tuple[float, float]:
    """Total variation distance of the second and third answer tokens of many sampled requests from their law, and the
    drafted tokens that were accepted of each. These two are verified, corrected or a bonus; the first has no draft."""
    target, draft = (tiny_model(vocab=TINY_VOCAB) for _ in range(2))
    target.lm_head.weight *= 2  # a draft that is right and wrong about equally often
    draft.lm_head.weight += torch.randn(draft.lm_head.weight.shape, generator=torch.Generator().manual_seed(0)) / 5
    config, cache = SchedulerConfig(8192, 500, 8, num_lookahead_tokens=2), CacheConfig(5000, 1)
    proposer = proposer_class(draft, num_tokens=2)
    runner = SpeculativeRunner(target, new_storage(target, cache), config, cache, proposer=proposer)
    core = EngineCore(Scheduler(config, cache), runner)
    params = [SamplingParams(seed=seed, max_tokens=4, **WARM) for seed in range(SAMPLES)]
    counts, expected = torch.zeros([TINY_VOCAB] * 2), torch.zeros([TINY_VOCAB] * 2, dtype=torch.float64)
    for answer in serve(core, [[1, 2]] * SAMPLES, params):
        counts[tuple(answer[1:3])] += 1
    begin = law(dense(target, [1, 2])[1:], [SamplingParams(**WARM)])[0]
    for first in range(TINY_VOCAB):
        for second in range(TINY_VOCAB):
            laws = law(dense(target, [1, 2, first, second])[2:], [SamplingParams(**WARM)] * 2)
            expected[second] += begin[first] * laws[0, second] * laws[1]
    return float((counts / SAMPLES - expected).abs().sum() / 2), core.stats.total("accepted") / SAMPLES


def test_drawn_drafts_leave_the_law_of_the_answer():
    """1,000 samples of 36 outcomes are about 0.07 from their law; those of a wrong one are further at once."""
    distance, accepted = far_from_the_law(PagedDraft)
    assert distance < 0.1 and 0.3 < accepted < 1.7
    assert far_from_the_law(Boasting)[0] > 0.2


def test_draft_numbers_depend_on_seed_and_place_alone():
    sampled = [SamplingParams(temperature=1.0, seed=seed, max_tokens=12) for seed in (1, 1, 2)]
    option = {"method": "small_draft", "seed": 1}
    together, _ = answers([[1, 2, 3]] * 3, sampled, speculative=option)
    alone, _ = answers([[1, 2, 3]], sampled[:1], speculative=option)
    pressed, core = answers(
        [[1, 2, 3]] * 3, sampled, speculative=option, num_blocks=10, block_size=4, max_model_len=20, watermark=0.0
    )
    assert core.stats.preemptions > 0
    assert together[0] == together[1] == alone[0] != together[2]
    assert pressed[0] == alone[0]


def test_a_pass_that_raises_leaves_nothing_trusted():
    draft = PagedDraft(OTHER, num_tokens=2)
    config, cache = SchedulerConfig(64, 4, 40, num_lookahead_tokens=2), CacheConfig(20, 4)
    core = EngineCore(
        Scheduler(config, cache),
        SpeculativeRunner(MODEL, new_storage(MODEL, cache), config, cache, proposer=draft),
    )
    serve(core, [[1, 2, 3, 4, 5]], [greedy(4)])
    assert any(draft.stamps.device)
    run, draft._run = draft._run, lambda chains: 1 / 0
    core.add_request(Request("broken", [1, 2, 3, 4, 6], greedy(4)))
    assert core.step()[-1].error
    assert not any(draft.stamps.device)
    draft._run = run
    assert serve(core, [[1, 2, 3, 4, 6]], [greedy(4)], first=5) == answers([[1, 2, 3, 4, 6]], [greedy(4)])[0]
