"""`labcore bench acceptance`: answer tokens that a pass of the target yields, for every method and kind of prompt.

Held-out prompts of `speculative.distill.prompts`, no topic of which any draft was trained on, on the model's fast path,
all at a time. A row's samples are prompts; nothing in it depends on the clock but "draft_share".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from labcore.bench.record import Row, RunBuilder
from labcore.core.errors import FetchError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import StepPlan
from labcore.engine.build import assemble
from labcore.model.bench import MODEL
from labcore.model.chat import render
from labcore.model.checkpoints import fetch
from labcore.model.fast import fast_path
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.model.tokenizer import Tokenizer
from labcore.speculative.distill.passages import passages
from labcore.speculative.distill.prompts import DOMAINS, prompts

PER_DOMAIN, NEW = 4, 32
TEMPERATURES = {"greedy": 0.0, "sampled": 0.7}
METHODS = {
    "ngram": {"method": "ngram", "num_tokens": 3},
    "suffix": {"method": "suffix"},
    "lookahead": {"method": "lookahead"},
    "early_exit": {"method": "early_exit", "num_tokens": 3},
    "layer_skip": {"method": "layer_skip", "num_tokens": 3},
    "draft_model": {"method": "draft_model", "num_tokens": 3},
    "medusa": {"method": "medusa", "num_tokens": 3},
    "medusa_tree": {"method": "medusa", "num_tokens": 7},
    "eagle": {"method": "eagle", "num_tokens": 3},
    "eagle3": {"method": "eagle3", "num_tokens": 3},
    "eagle3_tree": {"method": "eagle3", "num_tokens": 7, "width": 2},
}
DRAWN = "early_exit", "layer_skip", "draft_model"  # for a sampled request they draw drafts: other tokens, the same law


class Passes:
    """An engine's recorder that counts the passes that gave a request tokens, and the drafts in them."""

    def __init__(self) -> None:
        self.passes: Counter[str] = Counter()
        self.drafts: Counter[str] = Counter()

    def record(self, plan: StepPlan) -> StepPlan:
        for row in plan.scheduled:
            self.passes[row.request.request_id] += row.wants_token
            self.drafts[row.request.request_id] += row.num_draft_tokens
        return plan


def suite(run: RunBuilder) -> None:
    """A row for every method, kind of prompt and temperature."""
    checkpoint = open_checkpoint(fetch(MODEL))
    tokenizer = checkpoint.tokenizer()
    transform, dtype = fast_path()
    model = load_model(checkpoint, dtype=dtype, transform=transform)
    chosen = held_out(tokenizer)
    plain, _, _ = serve(model, tokenizer, chosen, None)
    for name, option in METHODS.items():
        answers, recorder, share = serve(model, tokenizer, chosen, option)
        for kind, temperature in TEMPERATURES.items():
            for domain in DOMAINS:
                names = [f"{kind}.{domain}.{number}" for number in range(PER_DOMAIN)]
                run.add(_row(name, kind, domain, temperature, names, plain, answers, recorder, share))


def held_out(tokenizer: Tokenizer) -> dict[str, list[list[int]]]:
    """Token ids of PER_DOMAIN prompts of each domain, topics held out from training."""
    try:
        some = prompts(passages())
    except FetchError as error:
        raise FetchError(f"the prompts to summarize come from a corpus: {error}") from None
    found: dict[str, list[list[int]]] = {domain: [] for domain in DOMAINS}
    for one in some:
        if one.held_out and len(found[one.domain]) < PER_DOMAIN:
            text = render(tokenizer.chat_template, [{"role": "user", "content": one.text}])
            found[one.domain].append(tokenizer.encode(text))
    return found


def serve(
    model: Llama, tokenizer: Tokenizer, chosen: Mapping[str, Sequence[list[int]]], option: dict | None
) -> tuple[dict[str, list[int]], Passes, float]:
    """Answers by name "kind.domain.number", their passes, and the seconds of drafting for each of the target's."""
    core = assemble(model, tokenizer, **({} if option is None else {"speculative": option}))
    core.recorder = recorder = Passes()
    requests = [
        Request(
            f"{kind}.{domain}.{number}",
            prompt,
            SamplingParams(temperature=temperature, seed=number, max_tokens=NEW),
            eos_token_ids=tokenizer.eos_ids,
        )
        for kind, temperature in TEMPERATURES.items()
        for domain, some in chosen.items()
        for number, prompt in enumerate(some)
    ]
    for request in requests:
        core.add_request(request)
    while core.has_unfinished_requests():
        core.step()
    seconds: Counter[str] = Counter()
    for step in core.stats.steps:
        if step.decode:
            seconds.update(step.seconds)
    share = seconds["draft"] / seconds["model"] if seconds["model"] else 0.0
    return {request.request_id: request.output_token_ids for request in requests}, recorder, share


def _row(
    name: str,
    kind: str,
    domain: str,
    temperature: float,
    names: Sequence[str],
    plain: Mapping[str, list[int]],
    answers: Mapping[str, list[int]],
    recorder: Passes,
    share: float,
) -> Row:
    """Tokens a pass, one sample a prompt; the first token of an answer, which its prompt's pass gives, is left out."""
    same = sum(answers[one] == plain[one] for one in names)
    drawn = kind == "sampled" and name in DRAWN
    how = f"{same} of {len(names)} answers are token for token those without speculation; " + (
        "drafts drawn at random are verified by rejection: other tokens of the same law"
        if drawn
        else "a pass of more rows may round a near tie the other way"
    )
    sampled = [one for one in names if len(answers[one]) > 1]
    return Row(
        key=f"spec.acceptance.{name}.{domain}.{kind}",
        what=f"{name}, {domain} prompts, {kind}: answer tokens a pass of the target",
        ours=[[(len(answers[one]) - 1) / (recorder.passes[one] - 1) for one in sampled]],
        unit="1",
        kind="value",
        dtype="int16 × Q4_1",
        shape={"model": MODEL, "prompts": len(sampled), "new_tokens": NEW, "temperature": temperature},
        config=METHODS[name]
        | {
            "tokens": sum(len(answers[one]) - 1 for one in sampled),
            "passes": sum(recorder.passes[one] - 1 for one in sampled),
            "drafted": sum(recorder.drafts[one] for one in sampled),
            "draft_share": round(share, 3),
        },
        correct={"pass": drawn or same >= len(names) - 1, "how": how},
        method="held-out prompts, all at a time, fast path; draft_share: seconds of drafting for one of the target's",
    )
