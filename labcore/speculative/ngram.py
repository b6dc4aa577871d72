"""Prompt lookup: what followed the last few tokens when they occurred before is the draft.

No model and no training: a copy of the text's own past. It pays where answers repeat their prompts, in editing,
summarising and extraction, and costs a search of the text in every step. Sources: Saxena, prompt lookup decoding,
github.com/apoorvumang/prompt-lookup-decoding; the search is that of vLLM 0.9.2, vllm/v1/spec_decode/ngram_proposer.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.speculative.proposer import Proposer, SpeculationStep, Target


class NgramProposer(Proposer):
    """num_tokens: most draft tokens; min_n, max_n: lengths of the suffix that is looked up, the longest first; match:
    which earlier place counts, "latest" or "first" (vLLM's). Raises InputError for lengths that make no sense."""

    def __init__(
        self, target: Target | None = None, num_tokens: int = 3, min_n: int = 2, max_n: int = 5, match: str = "latest"
    ):
        if not 1 <= min_n <= max_n:
            raise InputError(f"min_n={min_n}, max_n={max_n}: must be at least 1, and max_n no smaller than min_n")
        if match not in ("latest", "first"):
            raise InputError(f"match={match!r}: must be 'latest' or 'first'")
        self.num_tokens, self.min_n, self.max_n, self.latest = num_tokens, min_n, max_n, match == "latest"

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        drafts = {}
        for row in step.rows:
            if row.room:
                tokens = lookup(row.token_ids, row.room, self.min_n, self.max_n, self.latest)
                if tokens:
                    drafts[row.request_id] = Draft(tokens)
        return drafts


def lookup(token_ids: Sequence[int], count: int, min_n: int, max_n: int, latest: bool = True) -> list[int]:
    """Up to `count` tokens that followed an earlier occurrence of the longest suffix of `token_ids` of min_n to max_n
    tokens that has one; none where there is none. A match that reaches into its own suffix goes on repeating.

    Every occurrence of the last token is a candidate, and those that match most tokens backwards win: O(tokens), plus
    O(candidates) for each further token.
    """
    tokens = np.asarray(token_ids)
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])  # where a match of length 1 ends
    best = ends[:0]
    for n in range(1, max_n + 1):
        if n > 1:
            ends = ends[ends >= n - 1]
            ends = ends[tokens[ends - n + 1] == tokens[len(tokens) - n]]
        if not len(ends):
            break
        if n >= min_n:
            best = ends
    if not len(best):
        return []
    follows = int(best[-1] if latest else best[0]) + 1
    return tokens[follows + np.arange(count) % (len(tokens) - follows)].tolist()
