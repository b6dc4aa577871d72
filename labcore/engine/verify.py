"""Verification: which draft tokens the target agrees with, and the token that it adds.

Three rules. Matching, for drafts chosen without chance, trees included: the target's token is sampled at a node as it
would be without a draft, with the request's own next random number, and the child that equals it is the next node. So
the answer is token for token the one without speculation. Rejection, for a chain whose tokens were drawn from known
laws: `sampling.rejection`, the same distribution with more tokens accepted. Typical acceptance, on demand:
`sampling.typical`, which keeps what is plausible and changes the distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labcore.core.draft import branches
from labcore.core.step_plan import ScheduledRequest
from labcore.sampling.logprobs import Logprobs, likeliest
from labcore.sampling.processors import adjust, adjusts
from labcore.sampling.rejection import accept_chain
from labcore.sampling.sampler import SamplingRow, law, pick, sample
from labcore.sampling.typical import typical_accepts

ACCEPTANCE = "exact", "typical"
NewRow = Callable[[ScheduledRequest, list[int]], SamplingRow]  # a row behind these accepted drafts


@dataclass(slots=True)
class Verdict:
    """What came of one row. first: its first row of the logits, the next ones belong to its draft nodes; path: the
    accepted nodes; tokens: theirs and the one behind them; error: why the row cannot be sampled, if it cannot."""

    one: ScheduledRequest
    first: int
    path: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] = field(default_factory=list)
    error: str | None = None

    @property
    def place(self) -> int:
        """The row of the logits that chooses the next token."""
        return self.first + 1 + (self.path[-1] if self.path else -1)

    def child(self, token_id: int) -> int | None:
        """The draft node that continues the path with this token."""
        one, last = self.one, self.path[-1] if self.path else -1
        drafts, parents = one.request.spec_token_ids, one.parents
        for node in range(last + 1, one.num_draft_tokens):
            if drafts[node] == token_id and (node - 1 if parents is None else parents[node]) == last:
                return node
        return None


def verify(
    scheduled: Sequence[ScheduledRequest], logits: Tensor, new_row: NewRow, acceptance: str = "exact"
) -> list[Verdict]:
    """A verdict for each row that wants a token; `logits` [wanted tokens, vocab] in the order of `scheduled`."""
    verdicts, first = [], 0
    for one in scheduled:
        if one.wants_token:
            verdicts.append(Verdict(one, first))
            first += 1 + one.num_draft_tokens
    matching = []
    for verdict in verdicts:
        one = verdict.one
        if not one.num_draft_tokens or one.request.sampling_params.greedy:
            matching.append(verdict)  # at temperature 0 the three rules are one
        elif acceptance == "typical":
            _guarded(_typical, verdict, logits, new_row)
        elif one.request.spec_laws is not None:
            _guarded(_rejection, verdict, logits, new_row)
        else:
            matching.append(verdict)
    _match(matching, logits, new_row)
    return verdicts


def _match(verdicts: list[Verdict], logits: Tensor, new_row: NewRow) -> None:
    """Sample every row at its node, descend where a draft agrees, and again, until no row goes on."""
    while verdicts:
        rows = [new_row(verdict.one, verdict.tokens) for verdict in verdicts]
        places = [verdict.place for verdict in verdicts]
        chosen = logits if places == list(range(len(logits))) else logits[places]
        going_on = []
        for verdict, outcome in zip(verdicts, sample(chosen, rows), strict=True):
            if outcome.error is not None:
                verdict.error = outcome.error
                continue
            node = verdict.child(outcome.token_id)
            verdict.tokens.append(outcome.token_id)
            if outcome.logprobs is not None:
                verdict.logprobs.append(outcome.logprobs)
            if node is not None:
                verdict.path.append(node)
                going_on.append(verdict)
        verdicts = going_on


def _guarded(rule: Callable, verdict: Verdict, logits: Tensor, new_row: NewRow) -> None:
    """`rule` for one row; what it raises, a processor perhaps, is that row's error alone."""
    try:
        own = logits[verdict.first : verdict.first + 1 + verdict.one.num_draft_tokens].float()
        rows = _rows(verdict.one, new_row)
        p, broken = _laws(own, rows)
        path, token = rule(verdict.one, p, rows[0].generator)
        if reached := broken.intersection((0, *(node + 1 for node in path))):
            first = min(reached)
            verdict.error = sample(own[first : first + 1], [rows[first]])[0].error  # says what is wrong
        else:
            _conclude(verdict, own, path, token)
    except Exception as error:
        verdict.error = f"sampling raised {type(error).__name__}: {error}"


def _laws(own: Tensor, rows: list[SamplingRow]) -> tuple[Tensor, set[int]]:
    """The target's law at every place, and the places that have none: 0 for every token. Nothing is wrong until the
    answer arrives there: behind a draft that it forbids, a processor may well raise, or leave no token."""
    adjusted = own.clone()
    for i, row in enumerate(rows):
        if adjusts(row):
            try:
                adjusted[i : i + 1] = adjust(own[i : i + 1].clone(), [row])
            except Exception:
                adjusted[i] = -torch.inf
    broken = (~adjusted.amax(-1).isfinite()).nonzero().flatten().tolist()
    adjusted[broken] = 0
    p = law(adjusted, [row.params for row in rows])
    p[broken] = 0
    return p, set(broken)


def _rows(one: ScheduledRequest, new_row: NewRow) -> list[SamplingRow]:
    """What sampling has to know behind the known tokens and behind each node, [1 + nodes]."""
    drafts = one.request.spec_token_ids
    return [new_row(one, [drafts[node] for node in branch]) for branch in ([], *branches(_parents(one)))]


def _parents(one: ScheduledRequest) -> list[int]:
    """The parent of every node, a chain's written out, [nodes]."""
    return one.parents or list(range(-1, one.num_draft_tokens - 1))


def _rejection(one: ScheduledRequest, p: Tensor, generator: torch.Generator) -> tuple[list[int], int]:
    """The accepted nodes and the token behind them. Leviathan et al., arXiv:2211.17192, algorithm 1."""
    count = one.num_draft_tokens
    drafts, q = one.request.spec_token_ids[:count], one.request.spec_laws[:count]
    uniforms = torch.rand(count + 1, generator=generator, dtype=torch.float64)
    accepted, token = accept_chain(p, q.to(p), drafts, uniforms)
    return list(range(accepted)), token


def _typical(one: ScheduledRequest, p: Tensor, generator: torch.Generator) -> tuple[list[int], int]:
    """The longest branch on which every node passes (the first of those), and a draw behind it. Cai et al.,
    arXiv:2401.10774, section 2.3.1."""
    parents = _parents(one)
    drafts = torch.tensor(one.request.spec_token_ids[: len(parents)], device=p.device)
    passes = typical_accepts(p[[parent + 1 for parent in parents]], drafts).tolist()
    plausible = (branch for branch in branches(parents) if all(passes[node] for node in branch))
    path = max(plausible, key=len, default=[])
    last = 1 + path[-1] if path else 0
    uniform = torch.rand(1, generator=generator, dtype=torch.float64).to(p.device)
    return path, int(pick(p[last : last + 1], uniform))


def _conclude(verdict: Verdict, own: Tensor, path: list[int], token: int) -> None:
    request = verdict.one.request
    verdict.path = path
    verdict.tokens = [*(request.spec_token_ids[node] for node in path), token]
    wanted = request.sampling_params.logprobs
    if wanted is not None:
        places = [0, *(node + 1 for node in path)]
        verdict.logprobs = [likeliest(own[i], t, wanted) for i, t in zip(places, verdict.tokens, strict=True)]
