"""Block tables: which blocks hold which request's keys and values, and which of them are shared.

A table is a list of block ids; position p of a request lies in table[p // block_size]. Blocks are shared in two ways: a
prefix hit shares full blocks, which nobody writes again; a fork shares the partly filled last one too, and whoever
writes into that first gets a private copy. After vLLM 0.9.2, vllm/v1/core/kv_cache_manager.py and
single_type_kv_cache_manager.py; copy-on-write from PagedAttention, arXiv:2309.06180, section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labcore.core.request import Request
from labcore.core.step_plan import BlockMove, Move
from labcore.kv.block_pool import NULL_BLOCK, BlockPool
from labcore.kv.prefix_hash import extend_hashes


class KVCacheManager:
    """Tables of all running requests, for layers that attend to everything before them.

    block_tables: request id -> block ids, append-only except for copy-on-write; moves: copies that the next step must
    make before it computes, in this order. num_blocks counts the null block.
    """

    def __init__(self, num_blocks: int, block_size: int, enable_caching: bool = True):
        self.block_pool = BlockPool(num_blocks)
        self.block_size, self.enable_caching = block_size, enable_caching
        self.block_tables: dict[str, list[int]] = {}
        self.num_cached_blocks: dict[str, int] = {}  # leading blocks of a table that the prefix cache can find
        self.moves: list[BlockMove] = []

    def get_computed_blocks(self, request: Request) -> tuple[list[int], int]:
        """The longest prefix of `request` that is in the cache: its blocks, and how many tokens they hold.

        Never all of it: the last token is computed in any case, for its logits are wanted. Nothing is reserved.
        """
        if not self.enable_caching:
            return [], 0
        most = (request.num_tokens - 1) // self.block_size
        hits = self.find_longest_cache_hit(extend_hashes(request, self.block_size, most)[:most])
        return hits, len(hits) * self.block_size

    def find_longest_cache_hit(self, block_hashes: Sequence[bytes]) -> list[int]:
        """Blocks with these contents, up to the first that is missing: without it the rest cannot be used."""
        hits = []
        for block_hash in block_hashes:
            block = self.block_pool.get_cached_block(block_hash)
            if block is None:
                break
            hits.append(block)
        return hits

    def fork(self, parent: Request, child: Request) -> tuple[list[int], int]:
        """The same for the prompt that `child` has in common with a running `parent`, to the token.

        The last block may be partly filled, and `parent` may have gone on writing behind the shared tokens.
        """
        shared = min(child.num_prompt_tokens, child.num_tokens - 1, parent.num_computed_tokens)
        blocks = self.block_tables[parent.request_id][: -(-shared // self.block_size)]
        if NULL_BLOCK in blocks[self.num_skipped_blocks(shared) :]:  # the parent's window has moved on
            return [], 0
        return blocks, shared

    def allocate_slots(
        self,
        request: Request,
        num_new_tokens: int,
        new_computed_blocks: Sequence[int] = (),
        num_new_computed_tokens: int = 0,
        num_draft_tokens: int = 0,
        num_lookahead_tokens: int = 0,
        num_reserved_blocks: int = 0,
    ) -> int | None:
        """Extend the table of `request` so that `num_new_tokens` can be computed; all of it or nothing.

            | computed | new computed | new, drafts last | lookahead |
            |  blocks  |     hits     |     new blocks from here     |

        New computed tokens beyond the hits get blocks, too, which the caller fills (swap-in). Blocks that will be full
        of tokens known for certain can be found by the prefix cache from now on: whoever hits them runs in this step or
        later. num_reserved_blocks must remain free. Returns the index of the first table entry that changed (the
        length if none did), or None, with nothing changed, when too few blocks are free.
        """
        pool, size = self.block_pool, self.block_size
        computed = request.num_computed_tokens + num_new_computed_tokens
        slots = computed + num_new_tokens
        if num_lookahead_tokens:
            slots = max(slots, min(slots + num_lookahead_tokens, request.max_total_tokens))
        tail = computed // size  # the first block to be written
        table = self.block_tables.get(request.request_id)
        starts = table is None
        if starts:
            forgotten = self.num_skipped_blocks(computed) - len(new_computed_blocks)
            table = [*new_computed_blocks, *[NULL_BLOCK] * forgotten]
        unchanged = len(table)
        new = -(-slots // size) - unchanged
        copied = tail < unchanged and computed % size > 0 and (starts or pool.blocks[table[tail]].ref_cnt > 1)
        if new > 0 or copied or starts:
            revived = sum(map(pool.is_free, new_computed_blocks))
            if max(new, 0) + copied + revived + num_reserved_blocks > pool.num_free_blocks:
                return None
            if starts:
                pool.touch(new_computed_blocks)
                self.block_tables[request.request_id] = table
                self.num_cached_blocks[request.request_id] = min(len(new_computed_blocks), tail)
                unchanged = 0
            if copied:
                self._copy_on_write(table, tail)
                unchanged = min(unchanged, tail)
            if new > 0:
                table += pool.get_new_blocks(new)
        full = (computed + num_new_tokens - num_draft_tokens) // size
        if self.enable_caching and full > self.num_cached_blocks[request.request_id]:
            self._cache_blocks(request, table, full)
        return unchanged

    def _copy_on_write(self, table: list[int], index: int) -> None:
        shared, (private,) = table[index], self.block_pool.get_new_blocks(1)
        self.moves.append(BlockMove(Move.COPY, shared, private))
        self.block_pool.free_blocks([shared])
        table[index] = private

    def _cache_blocks(self, request: Request, table: list[int], num_full_blocks: int) -> None:
        hashes = extend_hashes(request, self.block_size, num_full_blocks)
        for index in range(self.num_cached_blocks[request.request_id], num_full_blocks):
            if table[index] != NULL_BLOCK:
                self.block_pool.cache_block(table[index], hashes[index])
        self.num_cached_blocks[request.request_id] = num_full_blocks

    def rollback(self, request: Request, num_rejected_tokens: int) -> None:
        """Take back the last computed tokens, which were drafts that the model rejected.

        Their slots are beyond num_computed_tokens, so nothing reads them before they are written again; the blocks stay
        in the table, and none of them was given to the prefix cache.
        """
        request.num_computed_tokens -= num_rejected_tokens

    def free(self, request: Request) -> None:
        """Give up the blocks of `request`, its tail first: a chain is useless without its head, so that goes last."""
        self.block_pool.free_blocks(reversed(self.block_tables.pop(request.request_id, ())))
        self.num_cached_blocks.pop(request.request_id, None)

    def discard(self, block_ids: Iterable[int]) -> None:
        """Let the prefix cache forget these blocks: the step that was to fill them failed."""
        for block in block_ids:
            self.block_pool.forget(block)

    def forget_prefix(self, request: Request, first_block: int = 0) -> None:
        """Let the prefix cache forget every copy of what `request` gave it from this block of its table on: its logits
        came out not finite, or the step failed that was to fill them.

        By contents, for the table may have given the blocks up by now. Without any copy of the first one nothing that
        continues it is found either.
        """
        for block_hash in request.block_hashes[first_block:]:
            for block in list(self.block_pool.cached.get(block_hash, ())):
                self.block_pool.forget(block)

    def take_moves(self) -> list[BlockMove]:
        """The moves so far, in the order in which they must be carried out; the list starts anew."""
        moves, self.moves = self.moves, []
        return moves

    def num_skipped_blocks(self, num_computed_tokens: int) -> int:
        """Leading blocks of a request with so many computed tokens that no later token attends to."""
        return 0

    def most_blocks(self, num_tokens: int, max_step_tokens: int) -> int:
        """Blocks that one request of `num_tokens` may hold at a time when it is computed alone."""
        return -(-num_tokens // self.block_size)
