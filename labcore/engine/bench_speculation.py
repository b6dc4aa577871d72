"""`labcore bench speculative`: every way to draft, on the fast path, over batches and prompt lengths.

| row | measures |
|---|---|
| cpu.spec.METHOD.bB.pL | decode rate of B requests with prompts of L tokens, beside plain decoding in turns |
| cpu.spec.controlled.bB.pL | the same with a draft that costs nothing and is right at 80 % of the places |
| cpu.spec.prompt_lookup | n-grams on a text that is copied with one name changed (`copy_task`) |

Each row holds what was measured in a run before its rounds: alpha (from the tokens a pass yielded, by equation 4.4), c
and v in plain steps; and three predictions: a verification that costs nothing more (4.5), the roofline's (4.7, the
row's own prediction), and v as measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from labcore.bench.record import Row, RunBuilder
from labcore.core.errors import DataError
from labcore.core.request import Request
from labcore.engine.bench_serving import serve
from labcore.engine.build import new_storage
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.copy_task import copy_task
from labcore.engine.engine_core import EngineCore
from labcore.engine.runner import ModelRunner
from labcore.engine.scheduler import Scheduler
from labcore.engine.speculation_gain import Decoded, Prediction
from labcore.engine.speculative_runner import SpeculativeRunner
from labcore.engine.stats import RunStats
from labcore.model.bench import MODEL
from labcore.model.checkpoints import fetch
from labcore.model.compiled import split_at
from labcore.model.fast import fast_path
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.tokenizer import Tokenizer
from labcore.quant.corpus import passages
from labcore.speculative.build import build_proposer
from labcore.speculative.controlled import Controlled
from labcore.speculative.layer_subset import subset
from labcore.speculative.proposer import Proposer, Target
from labcore.speculative.weights_file import WEIGHTS, Weights

K = 3  # the int4 kernel works in blocks of 4 rows: one known token and three drafts
ROUNDS = 2
NEW = {1: 48, 4: 20, 16: 12}  # batch -> answer tokens of each request
PROMPTS = 128, 2048
PASSAGES = 100
DOCUMENTS = 2  # different long prompts; requests share them, as their prefix cache does
ALPHA = 0.8
LOOKAHEAD = 16  # slots, at least those of every proposer here
TASKS = (
    "Summarize this text in two sentences.",
    "List five facts from this text.",
    "Write a Python dictionary with the facts of this text.",
    "What would a visitor of this country like to know?",
    "Which questions does this text leave open?",
    "Write a short letter to a friend about this country.",
    "Explain this text to a child.",
    "Give this text a title and say why.",
)
METHODS = {
    "ngram": {"num_tokens": K},
    "suffix": {"num_tokens": K},
    "draft_model": {"num_tokens": K},
    "medusa": {},
    "eagle": {"num_tokens": K},
    "eagle3": {"num_tokens": K},
    "lookahead": {"window": 3, "ngram": 3, "guesses": 2},
    "early_exit": {"num_tokens": K, "num_layers": 24},
    "layer_skip": {"num_tokens": K, "num_layers": 20},
}
FEW = "ngram", "draft_model", "eagle3"  # of the largest batch with the long prompts, where a pass takes longest
REDUCED = "early_exit", "layer_skip"  # their heads are cut down to the draft vocabulary


def suite(run: RunBuilder) -> None:
    """The whole grid. A method without its weights is recorded as skipped."""
    bench = SpeculationBench.load()
    proposers: dict[str, Proposer] = {}
    for method, options in METHODS.items():
        try:
            proposers[method] = bench.proposer(method, options)
        except DataError:
            run.skip(f"cpu.spec.{method}", "its weights are not in the package")
    runners = {method: bench.runner(proposer) for method, proposer in proposers.items()}
    copy_row(run, bench, runners["ngram"])
    for length in PROMPTS:
        for batch in NEW:
            largest = batch == max(NEW) and length == max(PROMPTS)
            some = {name: runner for name, runner in runners.items() if name in FEW or not largest}
            grid_point(run, bench, some, batch, length)


class SpeculationBench:
    """One model, one cache and one scheduler for all methods: a long prompt is computed once, then it is a prefix hit;
    runners take turns."""

    def __init__(self, model: Llama, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        prose = " ".join(passage.text for passage in passages("evaluation")[:PASSAGES])
        self.text = tokenizer.encode(prose)  # no draft was trained on it
        largest = max(NEW)
        blocks = 1 + (DOCUMENTS * max(PROMPTS) + largest * (min(PROMPTS) + 256)) // 16
        self.cache = CacheConfig(2 * blocks)
        self.limits = SchedulerConfig(
            max_num_seqs=largest, max_model_len=4096, num_lookahead_tokens=LOOKAHEAD, num_branch_tokens=LOOKAHEAD
        )
        self.storage = new_storage(model, self.cache)
        self.plain = ModelRunner(model, self.storage, self.limits, self.cache)
        self.core = EngineCore(Scheduler(self.limits, self.cache), self.plain, tokenizer)

    @classmethod
    def load(cls) -> SpeculationBench:
        checkpoint = open_checkpoint(fetch(MODEL))
        transform, dtype = fast_path()
        return cls(load_model(checkpoint, dtype=dtype, transform=transform), checkpoint.tokenizer())

    def proposer(self, method: str, options: Mapping) -> Proposer:
        if method in REDUCED:
            options = {**options, "draft_vocab": draft_vocabulary(self.model)}
        return build_proposer({"method": method, **options}, Target(self.model, self.tokenizer))

    def runner(self, proposer: Proposer) -> SpeculativeRunner:
        model = self.model
        if proposer.taps:  # a copy that shares all weights, its stack split; the others keep theirs whole
            model = subset(model, range(model.config.n_layers))
            split_at(model, proposer.taps)
        return SpeculativeRunner(model, self.storage, self.limits, self.cache, proposer=proposer)

    def decode(self, runner: ModelRunner, prompts: Sequence[list[int]], new_tokens: int) -> Decoded:
        """Answer the prompts greedily, together."""
        self.core.runner, self.core.stats = runner, RunStats()
        requests, _ = serve(self.core, prompts, new_tokens)
        stats = self.core.stats
        self.core.step()  # tells this runner what finished
        return Decoded({_prompt(request): request.output_token_ids for request in requests}, stats)

    def prompts(self, batch: int, length: int) -> list[list[int]]:
        """Something to read and a task, in the model's chat format, `length` tokens in all; no two are the same."""
        documents = batch if length == min(PROMPTS) else DOCUMENTS
        tasks = (
            TASKS[i // documents % len(TASKS)] if documents < batch else TASKS[i % len(TASKS)] for i in range(batch)
        )
        return [self._prompt(self.text[length * (i % documents) :], task, length) for i, task in enumerate(tasks)]

    def _prompt(self, text: list[int], task: str, length: int) -> list[int]:
        begin = self.tokenizer.encode("<|im_start|>user\n")
        end = self.tokenizer.encode(f"\n\n{task}<|im_end|>\n<|im_start|>assistant\n")
        return begin + text[: length - len(begin) - len(end)] + end


def draft_vocabulary(model: Llama) -> list[int]:
    """Token ids of the draft vocabulary that comes with the package."""
    return Weights(WEIGHTS / "medusa.gguf", model).head().token_ids.tolist()


def _prompt(request: Request) -> tuple[int, ...]:
    return tuple(request.all_token_ids[: request.num_prompt_tokens])


def copy_row(run: RunBuilder, bench: SpeculationBench, runner: ModelRunner) -> None:
    """Prompt lookup where it is at its best."""
    prompt, answer = copy_task(bench.tokenizer)
    prompts, new = [prompt], len(answer)
    bench.decode(bench.plain, prompts, new)  # fills the prefix cache
    plain, before = (bench.decode(one, prompts, new) for one in (bench.plain, runner))
    rates: dict[str, list[list[float]]] = {"plain": [], "ngram": []}
    for _ in range(2 * ROUNDS):
        for name, one in (("plain", bench.plain), ("ngram", runner)):
            rates[name].append([bench.decode(one, prompts, new).rate])
    found = Prediction.of(run, bench.model, plain, before, 1, len(prompts[0]))
    result = row("cpu.spec.prompt_lookup", rates, "ngram", plain, before, found, 1, len(prompts[0]), new)
    config = {**result.config, "right_tokens": before.share_right(prompt, answer)}
    run.add(replace(result, target={"must": 1.5}, config=config, threads=run.threads))


def grid_point(
    run: RunBuilder, bench: SpeculationBench, runners: Mapping[str, ModelRunner], batch: int, length: int
) -> None:
    """A row for each method at one batch and prompt length; all take turns with plain decoding."""
    prompts, new = bench.prompts(batch, length), NEW[batch]
    bench.decode(bench.plain, prompts, new)  # fills the prefix cache
    plain = bench.decode(bench.plain, prompts, new)
    controlled = bench.runner(Controlled(plain.answers, ALPHA, bench.model.config.vocab, K))
    runners = {"plain": bench.plain, "controlled": controlled, **runners}
    before = {name: bench.decode(runner, prompts, new) for name, runner in runners.items() if name != "plain"}
    rates: dict[str, list[list[float]]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            rates[name].append([bench.decode(runner, prompts, new).rate])
    for name, one in before.items():
        found = Prediction.of(run, bench.model, plain, one, batch, length)
        key = f"cpu.spec.{name}.b{batch}.p{length}"
        run.add(replace(row(key, rates, name, plain, one, found, batch, length, new), threads=run.threads))


def row(
    key: str,
    rates: Mapping[str, list[list[float]]],
    name: str,
    plain: Decoded,
    before: Decoded,
    found: Prediction,
    batch: int,
    length: int,
    new: int,
) -> Row:
    """The rounds of a method beside plain decoding, and what the run `before` them foretold."""
    base, ours = (float(np.median([rate for (rate,) in rates[one]])) for one in ("plain", name))
    same = before.agreement(plain)
    gains = {"free verification": found.free, "roofline": found.roofline, "measured costs": found.measured}
    return Row(
        key=key,
        what=f"decoding with {name}, {batch} requests, prompts of {length} tokens",
        ours=rates[name],
        baseline=rates["plain"],
        baseline_name="the same engine without speculation",
        unit="tok/s",
        kind="speedup",
        predicted=base * found.roofline,
        predicted_by="speculation.batch_gain",
        correct={
            "pass": same >= 0.9,
            "same_tokens": same,
            "bar": "90 % of the answers as without speculation, up to the first token that differs",
        },
        shape={"model": MODEL, "batch": batch, "prompt": length, "new_tokens": new},
        config={
            "acceptance_length": round(before.stats.acceptance_length, 3),
            "tokens_per_pass": round(before.tokens_per_pass, 3),
            "draft_length": round(before.draft_length, 3),
            "drafting_share": round(before.drafting_share, 3),
            "alpha": round(found.alpha, 3),
            "c": round(found.c, 3),
            "v": round(found.v, 3),
            "gains": {how: round(gain, 3) for how, gain in gains.items()},
            "errors": {how: round(gain / (ours / base) - 1, 3) for how, gain in gains.items()},
        },
        method="rounds in turns; alpha, c and v from a run before them",
    )
