"""Block tables for layers with a sliding window: what the window has left behind is freed while the request runs.

The token at position p attends to positions p - window + 1 .. p. Table entries before the window become the null block,
so positions keep their places. After vLLM 0.9.2, vllm/v1/core/single_type_kv_cache_manager.py SlidingWindowManager.
"""

from __future__ import annotations

from collections.abc import Sequence

from labcore.core.request import Request
from labcore.kv.block_pool import NULL_BLOCK
from labcore.kv.manager import KVCacheManager


class SlidingWindowManager(KVCacheManager):
    """window: tokens that a token attends to, itself included."""

    def __init__(self, num_blocks: int, block_size: int, enable_caching: bool = True, *, window: int):
        super().__init__(num_blocks, block_size, enable_caching)
        self.window = window

    def num_skipped_blocks(self, num_computed_tokens: int) -> int:
        return max(0, num_computed_tokens - self.window + 1) // self.block_size

    def most_blocks(self, num_tokens: int, max_step_tokens: int) -> int:
        inside = min(num_tokens, self.window - 1 + max_step_tokens)
        return min(super().most_blocks(num_tokens, 0), super().most_blocks(inside, 0) + 1)

    def find_longest_cache_hit(self, block_hashes: Sequence[bytes]) -> list[int]:
        """The longest prefix whose window is in the cache; what lies before the window need not be.

        So the search goes from right to left, until enough blocks in a row are found to hold window - 1 tokens.
        """
        wanted = -(-(self.window - 1) // self.block_size)
        hits = [NULL_BLOCK] * len(block_hashes)
        end = len(hits)  # hits[:end] is the candidate; everything from the current index to end is cached
        for index in reversed(range(len(hits))):
            if end - index > wanted:
                break
            block = self.block_pool.get_cached_block(block_hashes[index])
            if block is None:
                end = index
            else:
                hits[index] = block
        return hits[:end]

    def allocate_slots(self, request: Request, *args, **kwargs) -> int | None:
        """Frees what no token will attend to again, whether or not the new slots can be had."""
        self._free_skipped(request)
        return super().allocate_slots(request, *args, **kwargs)

    def _free_skipped(self, request: Request) -> None:
        table = self.block_tables.get(request.request_id, [])
        skipped = []
        for index in reversed(range(min(len(table), self.num_skipped_blocks(request.num_computed_tokens)))):
            if table[index] == NULL_BLOCK:  # so are all before it
                break
            skipped.append(table[index])
            table[index] = NULL_BLOCK
        self.block_pool.free_blocks(skipped)
