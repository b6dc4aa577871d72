"""What preempted requests have computed, kept in host memory instead of being thrown away.

Recomputing needs no memory and reads no bus, but repeats the work; swapping costs two transfers. PagedAttention,
arXiv:2309.06180, section 4.5, has both; vLLM's V1 engine dropped swapping. Bookkeeping only: the runner carries out the
moves, and the tensors on both sides are its own.
"""

from __future__ import annotations

from labcore.core.step_plan import BlockMove, Move
from labcore.kv.block_pool import NULL_BLOCK


class HostPool:
    """`num_blocks` host blocks, each owned by at most one request.

    saved: request id -> (tokens it had computed, host block of each table entry; None where a sliding window had
    forgotten it). refused: how often a request found no room and must compute again.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.free_blocks = list(range(num_blocks - 1, -1, -1))
        self.saved: dict[str, tuple[int, list[int | None]]] = {}
        self.refused = 0

    def swap_out(self, request_id: str, num_tokens: int, table: list[int], block_size: int) -> list[BlockMove] | None:
        """Keep the first `num_tokens` of a table. Returns the moves; None, with nothing changed, if they do not fit.

        The device blocks can be freed at once: whoever gets them writes later than these moves read.
        """
        used = table[: -(-num_tokens // block_size)]
        if len(used) - used.count(NULL_BLOCK) > len(self.free_blocks):
            self.refused += 1
            return None
        kept = [None if block == NULL_BLOCK else self.free_blocks.pop() for block in used]
        self.saved[request_id] = num_tokens, kept
        pairs = zip(used, kept, strict=True)
        return [BlockMove(Move.SWAP_OUT, block, host) for block, host in pairs if host is not None]

    def num_tokens(self, request_id: str) -> int:
        """Computed tokens kept for a request, 0 if it is not here."""
        return self.saved[request_id][0] if request_id in self.saved else 0

    def swap_in(self, request_id: str, table: list[int], first_block: int) -> list[BlockMove]:
        """Moves that fill a new table from entry `first_block` on; what precedes it was found on the device.

        The host blocks are free afterwards; nothing happens for a request that is not here, and nothing is moved to
        where a sliding window has passed since (the null block is never written).
        """
        _, kept = self.saved.get(request_id, (0, []))
        pairs = list(zip(kept, table, strict=False))[first_block:]
        self.drop(request_id)
        return [
            BlockMove(Move.SWAP_IN, host, block) for host, block in pairs if host is not None and block != NULL_BLOCK
        ]

    def drop(self, request_id: str) -> None:
        """Forget a request, if it is here."""
        _, kept = self.saved.pop(request_id, (0, []))
        self.free_blocks += [host for host in reversed(kept) if host is not None]
