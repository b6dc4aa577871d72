"""Which prefix the keys and values in each slot of a draft's cache stand for.

What a slot has to hold depends on the whole prefix up to its token and on nothing else. So a slot is stamped with a
number of that prefix when it is written, and is right for a request exactly if its stamp is the number of the request's
own prefix. Prefix hits, copies before a write, swapping, preemption, rejected drafts, steps in which the draft did not
run: none of them needs a rule of its own, whatever is not right is computed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labcore.core.step_plan import BlockMove, Move
from labcore.kv.block_pool import NULL_BLOCK

UNWRITTEN = 0
ROOT = 1  # the empty prefix


def extend(prefix: int, token_id: int) -> int:
    """The number of `prefix` and one more token: 64 bits of a hash, the same in every process."""
    return hash((prefix, token_id))


class Stamps:
    """device, host: one prefix number per slot. right: request id -> (leading tokens whose slots are known to be right,
    the number of that prefix)."""

    def __init__(self, num_blocks: int, num_host_blocks: int, block_size: int):
        self.block_size = block_size
        self.device, self.host = ([UNWRITTEN] * (blocks * block_size) for blocks in (num_blocks, num_host_blocks))
        self.right: dict[str, tuple[int, int]] = {}

    def move(self, moves: Iterable[BlockMove]) -> None:
        """Whole-block copies, in order, as in the cache itself."""
        size = self.block_size
        for kind, source, target in moves:
            reads, writes = (
                self.host if kind is Move.SWAP_IN else self.device,
                self.host if kind is Move.SWAP_OUT else self.device,
            )
            writes[target * size : (target + 1) * size] = reads[source * size : (source + 1) * size]

    def lag(self, request_id: str, token_ids: Sequence[int], block_ids: Sequence[int], end: int) -> tuple[int, int]:
        """The first position before `end` whose slot is not right, `end` if there is none, and the prefix before it.

        What is right stays right while the request runs: nobody writes into a block that others read. A block that a
        sliding window has forgotten is read by nobody and as good as right.
        """
        place, prefix = self.right.get(request_id, (0, ROOT))
        size = self.block_size
        while place < end:
            longer, block = extend(prefix, token_ids[place]), block_ids[place // size]
            if block != NULL_BLOCK and self.device[block * size + place % size] != longer:
                break
            place, prefix = place + 1, longer
        self.right[request_id] = place, prefix
        return place, prefix

    def write(self, prefix: int, token_ids: Iterable[int], slots: Iterable[int]) -> int:
        """Stamp the slots of tokens that follow `prefix`; returns the number of the prefix that ends with the last."""
        for token, slot in zip(token_ids, slots, strict=True):
            self.device[slot] = prefix = extend(prefix, token)
        return prefix

    def clear(self) -> None:
        """Trust nothing any more."""
        for stamps in (self.device, self.host):
            stamps[:] = [UNWRITTEN] * len(stamps)
        self.right.clear()

    def forget(self, request_ids: Iterable[str]) -> None:
        """These requests lost their block tables; what the blocks hold stays known."""
        for name in request_ids:
            self.right.pop(name, None)
