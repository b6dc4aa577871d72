"""A draft that knows the answers and is wrong where it is told to be.

It costs nothing and its acceptance is a number one can choose, so what it gains and loses is the system's doing alone:
the longer pass, the bookkeeping, the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep


class Controlled(Proposer):
    """Chains of `num_tokens` tokens, each right with probability `alpha`, independently of the others.

    answers: prompt -> the target's own answer, found by plain decoding; nothing is proposed behind its end or for
    another prompt. Whether a place is right depends on the prompt and the place alone. vocab: of the target.
    """

    def __init__(self, answers: Mapping[tuple[int, ...], Sequence[int]], alpha: float, vocab: int, num_tokens: int = 3):
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha={alpha}: must be a probability")
        self.answers, self.alpha, self.vocab, self.num_tokens = dict(answers), alpha, vocab, num_tokens

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        rows = (row for row in step.rows if row.room)
        return {row.request_id: Draft(tokens) for row in rows if (tokens := self._tokens(row))}

    def _tokens(self, row: SpeculationRow) -> list[int]:
        prompt = tuple(row.token_ids[: row.num_prompt_tokens])
        done, count = len(row.token_ids) - row.num_prompt_tokens, min(self.num_tokens, row.room)
        right = self.answers.get(prompt, ())[done : done + count]
        return [
            token if self._is_right(prompt, done + i) else (token + 1) % self.vocab for i, token in enumerate(right)
        ]

    def _is_right(self, prompt: tuple[int, ...], place: int) -> bool:
        return Random(hash((prompt, place))).random() < self.alpha
