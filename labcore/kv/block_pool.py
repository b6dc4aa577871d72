"""Blocks of the paged KV cache: who holds them, which are free, and what the free ones still remember.

A block is its number; `pool.blocks[number]` is its record. No tensor appears here. A freed block keeps its hash, and so
its contents, until the block is needed: free memory and prefix cache are one thing.
After vLLM 0.9.2, vllm/v1/core/block_pool.py; blocks without a hash are reused first, as later versions do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from labcore.core.errors import InputError

NULL_BLOCK = 0  # stands in tables for what a sliding window has forgotten; never allocated, written or freed


@dataclass(slots=True, eq=False)
class KVCacheBlock:
    """ref_cnt: live table entries that name it; block_hash: set while the prefix cache can find it."""

    block_id: int
    ref_cnt: int = 0
    block_hash: bytes | None = None
    prev_free_block: KVCacheBlock | None = field(default=None, repr=False)
    next_free_block: KVCacheBlock | None = field(default=None, repr=False)


class FreeBlockQueue:
    """Free blocks in the order of reuse: those without a hash, then hashed ones, each by the time they were freed.

    Two rings through the blocks themselves: O(1) also for the removal from the middle that a prefix hit needs."""

    def __init__(self, blocks: Iterable[KVCacheBlock]):
        self.num_free_blocks = 0
        self._plain, self._hashed = self._rings = KVCacheBlock(-1), KVCacheBlock(-1)  # where the rings begin and end
        for ring in self._rings:
            ring.prev_free_block = ring.next_free_block = ring
        for block in blocks:
            self.append(block)

    def append(self, block: KVCacheBlock) -> None:
        """Put `block` last in its ring."""
        ring = self._plain if block.block_hash is None else self._hashed
        last = ring.prev_free_block
        last.next_free_block, block.prev_free_block = block, last
        block.next_free_block, ring.prev_free_block = ring, block
        self.num_free_blocks += 1

    def remove(self, block: KVCacheBlock) -> None:
        """Take `block` out, wherever it is."""
        block.prev_free_block.next_free_block = block.next_free_block
        block.next_free_block.prev_free_block = block.prev_free_block
        block.prev_free_block = block.next_free_block = None
        self.num_free_blocks -= 1

    def popleft(self) -> KVCacheBlock:
        """Take out the block to reuse first. Raises InputError when none is free."""
        for block in self:
            self.remove(block)
            return block
        raise InputError("no block is free")

    def __iter__(self) -> Iterator[KVCacheBlock]:
        for ring in self._rings:
            block = ring.next_free_block
            while block is not ring:
                yield block
                block = block.next_free_block


class BlockPool:
    """All blocks: `num_blocks` of them, block 0 being the null block.

    cached: hash -> ids of the blocks that hold those tokens, oldest first. Requests that compute equal blocks at the
    same time keep one each: a table that has been handed out is never rewritten."""

    def __init__(self, num_blocks: int):
        self.blocks = [KVCacheBlock(number) for number in range(num_blocks)]
        self.num_usable_blocks = num_blocks - 1
        self.free_queue = FreeBlockQueue(self.blocks[NULL_BLOCK + 1 :])
        self.cached: dict[bytes, dict[int, None]] = {}

    @property
    def num_free_blocks(self) -> int:
        return self.free_queue.num_free_blocks

    def is_free(self, number: int) -> bool:
        """True if nobody holds `number`."""
        return number != NULL_BLOCK and self.blocks[number].ref_cnt == 0

    def get_cached_block(self, block_hash: bytes) -> int | None:
        """A block with these contents, in use or free; None if there is none."""
        return next(iter(self.cached.get(block_hash, ())), None)

    def get_new_blocks(self, count: int) -> list[int]:
        """Take `count` free blocks; what they remembered is forgotten. Raises InputError if there are fewer."""
        if count > self.num_free_blocks:
            raise InputError(f"cannot take {count} blocks: {self.num_free_blocks} are free")
        taken = [self.free_queue.popleft() for _ in range(count)]
        for block in taken:
            block.ref_cnt = 1
            self.forget(block.block_id)
        return [block.block_id for block in taken]

    def touch(self, block_ids: Iterable[int]) -> None:
        """Add one holder to each block; a free one leaves the queue with its contents."""
        for number in block_ids:
            if self.is_free(number):
                self.free_queue.remove(self.blocks[number])
            self.blocks[number].ref_cnt += number != NULL_BLOCK

    def free_blocks(self, block_ids: Iterable[int]) -> None:
        """Take one holder from each block, first what should be reused first. RuntimeError for one without a holder."""
        for number in block_ids:
            block = self.blocks[number]
            if number == NULL_BLOCK:
                continue
            if block.ref_cnt == 0:
                raise RuntimeError(f"block {number} is freed twice")
            block.ref_cnt -= 1
            if block.ref_cnt == 0:
                self.free_queue.append(block)

    def cache_block(self, number: int, block_hash: bytes) -> None:
        """Let the prefix cache find `number`, which holds, or after this step will hold, a full block."""
        self.blocks[number].block_hash = block_hash
        self.cached.setdefault(block_hash, {})[number] = None

    def forget(self, number: int) -> None:
        """Let the prefix cache find `number` no more, whoever holds it; a free one joins those to reuse first."""
        block = self.blocks[number]
        if block.block_hash is not None:
            same = self.cached[block.block_hash]
            del same[number]
            if not same:
                del self.cached[block.block_hash]
            block.block_hash = None
            if self.is_free(number):
                self.free_queue.remove(block)
                self.free_queue.append(block)

    def reset_prefix_cache(self) -> bool:
        """Forget every block's contents, as after new weights. False, and nothing changes, while any is in use."""
        if self.num_free_blocks != self.num_usable_blocks:
            return False
        for block in [block for block in self.free_queue if block.block_hash is not None]:
            self.forget(block.block_id)
        return True
