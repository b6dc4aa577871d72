"""The token tape: what was drafted for a request, what the target kept of it, and the token it added, pass by pass.

tape = core.recorder = TapeRecorder()
...                                          # serve
Player(tape.trace("ada", llm.tokenizer, "Eight rounds", "this run"))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from labcore.core.draft import is_chain
from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.step_plan import StepPlan
from labcore.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Round:
    """One verification. parents[i]: the node that drafted[i] continues, -1 the last known token; accepted: the nodes
    that were kept, in order; added: the token that came with them, None if the answer ended inside the draft."""

    drafted: tuple[int, ...]
    parents: tuple[int, ...]
    accepted: tuple[int, ...]
    added: int | None

    @property
    def num_tokens(self) -> int:
        """Tokens that the answer grew by."""
        return len(self.accepted) + (self.added is not None)


def read_round(drafted: list[int], parents: list[int] | None, new_ids: list[int]) -> Round:
    """The round in which `new_ids` came of a draft: the path of the tree that they follow, then the added token."""
    parents = list(range(-1, len(drafted) - 1)) if parents is None else parents
    paths: dict[int, list[int]] = {-1: []}  # to the nodes that say what was answered so far
    for token in new_ids:
        nodes = [i for i, parent in enumerate(parents) if parent in paths and drafted[i] == token]
        if not nodes:
            break
        paths = {node: [*paths[parents[node]], node] for node in nodes}
    accepted = paths[min(paths)]
    added = new_ids[len(accepted)] if len(accepted) < len(new_ids) else None
    return Round(tuple(drafted), tuple(parents), tuple(accepted), added)


class TapeRecorder:
    """An engine's `recorder` that follows drafts. rounds: request id -> its rounds, once `read` has closed the last."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[Round]] = {}
        self._open: list[tuple[Request, list[int], list[int] | None, int]] = []

    def record(self, plan: StepPlan) -> StepPlan:
        """Take down `plan`, the one before it having been answered; returns it."""
        self._close()
        for row in plan.scheduled:
            if row.wants_token:
                drafted = row.request.spec_token_ids[: row.num_draft_tokens]
                self._open.append((row.request, drafted, row.parents, row.request.num_tokens))
        return plan

    def _close(self) -> None:
        for request, drafted, parents, known in self._open:
            new_ids = request.all_token_ids[known:]
            if new_ids:
                self._rounds.setdefault(request.request_id, []).append(read_round(drafted, parents, new_ids))
        self._open = []

    def read(self, request_id: str) -> list[Round]:
        """The rounds of a request so far. Raises InputError for a request that got no token."""
        self._close()
        if request_id not in self._rounds:
            raise InputError(f"request {request_id!r} has no rounds; there are {', '.join(self._rounds) or 'none'}")
        return self._rounds[request_id]

    def trace(self, request_id: str, tokenizer: Tokenizer, title: str, source: str) -> dict[str, Any]:
        """The rounds of a request whose drafts were chains, for the Player. Raises InputError for a tree."""
        steps, tokens = [], 0
        for number, one in enumerate(self.read(request_id), start=1):
            if not is_chain(one.parents):
                raise InputError(f"request {request_id!r}: round {number} drafted a tree; the tape shows chains")
            tokens += one.num_tokens
            event = {
                "op": "round",
                "drafted": [tokenizer.decode([token]) for token in one.drafted],
                "accepted": len(one.accepted),
            }
            if one.added is not None:
                kind = "bonus" if len(one.accepted) == len(one.drafted) else "resampled"
                event[kind] = tokenizer.decode([one.added])
            steps.append({"events": [event], "counters": {"passes": number, "tokens": tokens, "rate": tokens / number}})
        return {
            "schema": "labcore-trace/1",
            "view": "tokens",
            "title": title,
            "source": source,
            "counters": [
                {"name": "passes", "label": "passes of the target"},
                {"name": "tokens", "label": "tokens of the answer"},
                {"name": "rate", "label": "tokens a pass", "unit": "tokens/pass"},
            ],
            "steps": steps,
        }
