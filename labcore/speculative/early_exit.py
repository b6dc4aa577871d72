"""Self-speculation by early exit: the target's first layers are the draft, its own norm and head stand on top.

The first layers' keys and values are the target's own: the draft finds them in the target's cache, exact for every
known token, stores nothing of its own, and what it writes for a draft token the verification writes once more. Only a
model trained so that its early layers can speak through the head is a good draft for itself (LayerSkip: layer dropout
and an early-exit loss); others are mostly wrong half-way up.
Source: LayerSkip, arXiv:2404.16710, section 4; the exit is after E layers there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from labcore.core.errors import InputError
from labcore.kv.storage import KVStorage
from labcore.speculative.layer_subset import subset
from labcore.speculative.paged_draft import Chain, ChainProposer
from labcore.speculative.proposer import SpeculationRow, Target


class EarlyExit(ChainProposer):
    """Chains of `num_tokens` tokens from the first `num_layers` layers of the target.

    draft_vocab: the only tokens it proposes, frequent ones, for the head is a large part of a short model; None: all.
    Raises InputError for a number of layers that leaves none out.
    """

    def __init__(
        self, target: Target, num_tokens: int = 3, num_layers: int = 24, draft_vocab: Sequence[int] | None = None
    ):
        most = target.model.config.n_layers - 1
        if not 1 <= num_layers <= most:
            raise InputError(f"num_layers={num_layers}: an early exit runs 1 to {most} layers of this model")
        super().__init__(subset(target.model, range(num_layers), draft_vocab), draft_vocab, num_tokens=num_tokens)

    def attach(self, storage: KVStorage) -> None:
        self.storage = storage

    def chain(self, row: SpeculationRow, num_computed: int) -> Chain | None:
        """Everything but the newest token is in the target's cache already."""
        last = len(row.token_ids) - 1
        return Chain(row, row.token_ids[last:], last, min(self.num_tokens, row.room)) if row.room else None
