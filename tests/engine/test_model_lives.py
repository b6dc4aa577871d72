"""Random lives of the engine with a real (tiny) model: whatever happens, every row of logits is the model's own.

The control half's random traces (`engine.random_traces`) with the model runner in place of the shadow: pools that are
too small, prefix hits, forks, swaps, drafts that are right, wrong or mixed, cancellations, samplers and passes that
raise. Each logits row that chose a token is compared with one pass over the whole prefix, without any cache.
"""

import dataclasses
from random import Random

import pytest

torch = pytest.importorskip("torch")

from labcore.attention.reference import ReferenceAttention  # noqa: E402
from labcore.attention.sdpa import SDPAAttention  # noqa: E402
from labcore.core.draft import Draft  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.core.request import Request  # noqa: E402
from labcore.core.step_plan import StepOutput  # noqa: E402
from labcore.engine.build import new_storage  # noqa: E402
from labcore.engine.check import check_empty, check_plan, check_state  # noqa: E402
from labcore.engine.engine_core import EngineCore  # noqa: E402
from labcore.engine.random_traces import random_config, random_requests  # noqa: E402
from labcore.engine.scheduler import Scheduler  # noqa: E402
from labcore.engine.speculative_runner import SpeculativeRunner  # noqa: E402
from labcore.sampling.sampler import SamplingRow, new_generator, sample  # noqa: E402
from labcore.speculative.proposer import Proposer  # noqa: E402
from tests.model.tiny import tiny_model  # noqa: E402

SLICE, SOAK = 40, 3000
MEANT_TO_FAIL = "the forward pass raised MemoryError: not now", "sampling raised KeyError: 'broken processor'"
MODEL = tiny_model(head_dim=16)
for _layer in MODEL.layers:  # attention that matters: a wrong key or value moves the logits by far more than rounding
    _layer.self_attn.q_proj.weight *= 4
    _layer.self_attn.o_proj.weight *= 4


class Guesses(Proposer):
    """Drafts that repeat the last token, or are random, as chains, with the laws they come from, or as trees."""

    num_tokens = 6

    def __init__(self, rng: Random):
        self.rng, self.kind = rng, rng.choice(("none", "repeat", "random", "drawn", "tree", "tree"))

    def propose(self, step):
        rows = [row for row in step.rows if row.room and self.kind != "none"]
        return {row.request_id: self.guess(row.token_ids[-1], self.rng.randint(0, 4)) for row in rows}

    def guess(self, last, count):
        rng = self.rng
        if self.kind == "repeat":
            return Draft([last] * count)
        if self.kind == "drawn":
            laws = torch.rand(count, MODEL.config.vocab, generator=torch.Generator().manual_seed(rng.randrange(99)))
            return Draft(rng.choices(range(3), k=count), laws=laws / laws.sum(-1, keepdim=True))
        tokens = [rng.choice((last, rng.randrange(3))) for _ in range(count * (1 + (self.kind == "tree")))]
        parents = [rng.randint(max(-1, node - 3), node - 1) for node in range(len(tokens))]
        return Draft(tokens, parents if self.kind == "tree" else None)


class RecordingRunner(SpeculativeRunner):
    """Keeps the logits of every row that was accepted, and raises now and then."""

    def __init__(self, *arguments, rng: Random, backend=None):
        super().__init__(*arguments, proposer=Guesses(rng), backend=backend)
        self.rng, self.seen = rng, {}  # seen: request id -> position -> logits

    def forward(self, scheduled):
        if self.rng.random() < 0.005:
            raise MemoryError("not now")
        return super().forward(scheduled)

    def sample(self, scheduled, logits) -> StepOutput:
        output = super().sample(scheduled, logits)
        for name, verdict in self.verdicts.items():
            last = verdict.one.request.num_tokens - 1
            for depth, node in enumerate([-1, *verdict.path]):
                self.seen.setdefault(name, {})[last + depth] = logits[verdict.first + 1 + node]
        return output


def varied(request: Request, rng: Random) -> None:
    """Give a request other sampling parameters: greedy, truncated, penalized, or failing."""

    def fails(output_ids, logits):
        if len(output_ids) == 3:
            raise KeyError("broken processor")
        return logits

    change = rng.choice(
        [{}, {"temperature": 0.0}, {"temperature": 0.0}, {"top_k": 3}, {"top_p": 0.5, "repetition_penalty": 1.3},
         {"frequency_penalty": 0.5, "min_p": 0.05}, {"logits_processors": [fails]}]
    )  # fmt: skip
    request.sampling_params = dataclasses.replace(request.sampling_params, **change)


def whole_prefix(tokens: list[int], window: int | None) -> "torch.Tensor":
    """Logits [tokens, vocab] of one pass that keeps nothing."""

    def attend(layer, q, k, v):
        count, group = len(q), q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(group, 1).transpose(0, 1) for x in (k, v))
        scores = q.transpose(0, 1) @ k.transpose(1, 2) * q.shape[2] ** -0.5
        hidden = torch.ones(count, count, dtype=torch.bool).triu(1)
        if window is not None:
            hidden |= torch.ones(count, count, dtype=torch.bool).tril(-window)
        return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(0, 1)

    with torch.inference_mode():
        return MODEL(torch.tensor(tokens), torch.arange(len(tokens)), attend)


def check_answer(request: Request, seen: dict[int, "torch.Tensor"], window: int | None, drawn: bool) -> int:
    """Every token's logits are those of its prefix, and it is what they choose, drawn in order (unless the drafts were
    drawn, too). Tokens checked."""
    expected = whole_prefix(request.all_token_ids, window)
    generator, prompt = new_generator(request.sampling_params), request.num_prompt_tokens
    for position in range(prompt - 1, request.num_tokens - 1):
        torch.testing.assert_close(seen[position], expected[position], rtol=0, atol=2e-4)
        before = request.all_token_ids[: position + 1]
        row = SamplingRow(request.sampling_params, before, prompt, request.stop_ids, generator)
        chosen = sample(seen[position][None], [row])[0].token_id
        assert chosen == request.all_token_ids[position + 1] or (drawn and not request.sampling_params.greedy)
    return request.num_output_tokens


def live(seed: int) -> dict[str, int]:
    """One life; counts of what happened in it."""
    rng = Random(seed)
    config, cache = random_config(rng)
    scheduler = Scheduler(config, cache)
    backend = rng.choice((None, None, SDPAAttention, ReferenceAttention))
    storage = new_storage(MODEL, cache)
    storage.keys[:, 1:], storage.values[:, 1:] = torch.nan, torch.nan  # what is read before it is written is seen
    runner = RecordingRunner(MODEL, storage, config, cache, rng=rng, backend=backend)
    core = EngineCore(scheduler, runner)
    happened = dict.fromkeys(("tokens", "preempted", "cached", "copied", "failed", "drafted", "accepted"), 0)
    check = scheduler.schedule

    def schedule():
        plan = check()
        check_state(scheduler)
        check_plan(scheduler, plan)
        happened["preempted"] += len(plan.preempted)
        happened["copied"] += len(plan.moves)
        happened["drafted"] += sum(one.num_draft_tokens for one in plan.scheduled)
        return plan

    scheduler.schedule = schedule
    waiting, requests = random_requests(rng, rng.randint(2, 10), 3), []
    for request in waiting:
        if request.fork_of is None:
            varied(request, rng)
        else:
            request.sampling_params = dataclasses.replace(request.fork_of.sampling_params, seed=len(requests))
    while waiting or core.has_unfinished_requests():
        while waiting and rng.random() < 0.7:
            try:
                core.add_request(waiting[-1])
                requests.append(waiting[-1])
            except InputError:
                pass
            waiting.pop()
        if rng.random() < 0.03 and scheduler.requests:
            core.abort(rng.sample(sorted(scheduler.requests), rng.randint(1, len(scheduler.requests))))
        core.step()
    core.step()
    check_empty(scheduler)
    happened["accepted"] = core.stats.total("accepted")
    assert not core.answers and not runner.generators and not runner.batch.rows
    for request in requests:
        if request.finish_reason in ("stop", "length"):
            happened["tokens"] += check_answer(
                request, runner.seen[request.request_id], cache.sliding_window, runner.proposer.kind == "drawn"
            )
            happened["cached"] += request.num_cached_tokens
        happened["failed"] += request.finish_reason == "error"
        assert request.error is None or request.error in MEANT_TO_FAIL
    return happened


def lives(seeds: range) -> dict[str, int]:
    total: dict[str, int] = {}
    for seed in seeds:
        try:
            for name, count in live(seed).items():
                total[name] = total.get(name, 0) + count
        except AssertionError as error:
            raise AssertionError(f"life {seed}: {error}") from error
    return total


def test_whatever_happens_every_token_is_the_models_own(caplog):
    total = lives(range(SLICE))
    assert total["tokens"] > 20 * SLICE / 2
    assert min(total.values()) > 0, total  # every kind of event occurred


@pytest.mark.soak
def test_many_lives(caplog):
    lives(range(SLICE, SLICE + SOAK))
