"""What attention has to know about a step, and what every backend offers.

A backend is called twice: once a step with the metadata, so that whatever depends on lengths and block tables alone is
computed once for all layers (FlashInfer's plan), and then once a layer with the tensors (its run). Block 0 of a cache
holds zeros and no token: backends may read it as padding. What other slots hold that no token of the step attends to
can be anything, NaN included, and must not matter.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labcore.core.draft import Branch


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """One step: the new tokens of all its requests, one request after the other. Names are vLLM's.

    query_start_loc: int32 [requests + 1], on the CPU; tokens query_start_loc[i] : query_start_loc[i + 1] are request
    i's, the newest of its seq_lens[i] tokens (int32 [requests], on the CPU), so each has at least one.
    block_table: int32 [requests, blocks]; position p of request i lies in block_table[i, p // block_size].
    slot_mapping: int64 [tokens], the slot block · block_size + offset in which each new token is stored.
    branches: token of the pass -> its Branch, for the nodes of draft trees, which are in places one after the other
    though some have the same position. Every other token attends to all places up to its own.
    on_device: query_start_loc and seq_lens once more, where the block table is, if that is another place.
    """

    query_start_loc: Tensor
    seq_lens: Tensor
    block_table: Tensor
    slot_mapping: Tensor
    max_query_len: int
    max_seq_len: int
    branches: Mapping[int, Branch] = field(default_factory=dict)
    on_device: tuple[Tensor, Tensor] | None = None

    @property
    def beside_table(self) -> tuple[Tensor, Tensor]:
        """query_start_loc and seq_lens on the block table's device."""
        device = self.block_table.device
        return self.on_device or (self.query_start_loc.to(device, torch.int32), self.seq_lens.to(device, torch.int32))


@dataclass(slots=True)
class StepInputs:
    """token_ids, positions: int64 [tokens]; wanted: int64, the tokens whose logits are sampled: for each request that
    wants one its last token, preceded by the tokens before its drafts."""

    token_ids: Tensor
    positions: Tensor
    wanted: Tensor
    metadata: AttentionMetadata


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """What does not change from step to step. window: tokens that a token attends to, itself included; None: all."""

    n_heads: int
    n_kv_heads: int
    head_dim: int
    num_blocks: int
    block_size: int
    window: int | None = None

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    def first_visible(self, position: int) -> int:
        """The first position to which the token at `position` attends."""
        return 0 if self.window is None else max(0, position - self.window + 1)


# attend(q [tokens, n_heads, head_dim], key_cache and value_cache [num_blocks, block_size, n_kv_heads, head_dim])
# -> like q. The step's own keys and values are in the cache already.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
Backend = Callable[[AttentionMetadata, AttentionShape], Attend]
