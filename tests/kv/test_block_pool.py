"""The block pool against a model that keeps plain lists: whatever is done to it, in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labcore.core.errors import InputError
from labcore.kv.block_pool import NULL_BLOCK, BlockPool, FreeBlockQueue, KVCacheBlock

NUM_BLOCKS = 8


class PoolMachine(RuleBasedStateMachine):
    """A1–A3, A8, A9 and A11: the model knows the holders, the hashes, and the order of reuse as two lists."""

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(NUM_BLOCKS)
        self.holders = dict.fromkeys(range(1, NUM_BLOCKS), 0)
        self.hashes: dict[int, bytes] = {}
        self.plain, self.cached = list(range(1, NUM_BLOCKS)), []  # free without and with a hash, next to reuse first

    @property
    def free(self) -> list[int]:
        return self.plain + self.cached

    @rule(count=st.integers(0, NUM_BLOCKS))
    def allocate(self, count):
        expected = self.free[:count]
        if count > len(self.free):
            before = self.state()
            with pytest.raises(InputError, match=f"cannot take {count} blocks: {len(self.free)} are free"):
                self.pool.get_new_blocks(count)
            assert self.state() == before
            return
        assert self.pool.get_new_blocks(count) == expected
        self.plain, self.cached = self.plain[count:], self.cached[max(0, count - len(self.plain)) :]
        for block in expected:
            self.holders[block] = 1
            self.hashes.pop(block, None)

    @rule(block=st.integers(1, NUM_BLOCKS - 1), content=st.sampled_from([b"x", b"y", b"z"]))
    def fill(self, block, content):
        if self.holders[block] and block not in self.hashes:
            self.pool.cache_block(block, content)
            self.hashes[block] = content

    @rule(content=st.sampled_from([b"x", b"y", b"z"]))
    def hit(self, content):
        found = self.pool.get_cached_block(content)
        same = [block for block, its in self.hashes.items() if its == content]
        assert found == (same[0] if same else None)
        if found is not None:
            self.pool.touch([found, NULL_BLOCK])
            self.holders[found] += 1
            self.cached = [block for block in self.cached if block != found]

    @rule(blocks=st.lists(st.integers(1, NUM_BLOCKS - 1), unique=True))
    def release(self, blocks):
        held = [block for block in blocks if self.holders[block]]
        self.pool.free_blocks([*held, NULL_BLOCK])
        for block in held:
            self.holders[block] -= 1
            if not self.holders[block]:
                (self.cached if block in self.hashes else self.plain).append(block)

    @rule(block=st.integers(1, NUM_BLOCKS - 1))
    def forget(self, block):
        self.pool.forget(block)
        self.hashes.pop(block, None)
        if block in self.cached:
            self.cached.remove(block)
            self.plain.append(block)

    @precondition(lambda self: any(count == 0 for count in self.holders.values()))
    @rule(data=st.data())
    def free_twice(self, data):
        block = data.draw(st.sampled_from(self.free))
        before = self.state()
        with pytest.raises(RuntimeError, match=f"block {block} is freed twice"):
            self.pool.free_blocks([block])
        assert self.state() == before

    @rule()
    def reset(self):
        idle = not any(self.holders.values())
        before = self.state()
        assert self.pool.reset_prefix_cache() == idle
        if idle:
            self.hashes.clear()
            self.plain, self.cached = self.free, []
        else:
            assert self.state() == before

    def state(self):
        blocks = [(block.ref_cnt, block.block_hash) for block in self.pool.blocks]
        return (
            blocks,
            [block.block_id for block in self.pool.free_queue],
            {k: [*v] for k, v in self.pool.cached.items()},
        )

    @invariant()
    def agrees_with_the_model(self):
        blocks, queue, cached = self.state()
        assert [count for count, _ in blocks] == [0, *self.holders.values()]
        assert {n: its for n, (_, its) in enumerate(blocks) if its is not None} == self.hashes
        assert queue == self.free
        assert self.pool.num_free_blocks == len(self.free)
        assert sorted(n for numbers in cached.values() for n in numbers) == sorted(self.hashes)


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestPool = PoolMachine.TestCase


def test_after_a_reset_no_block_waits_behind_the_others_for_what_it_held():
    pool = BlockPool(4)
    pool.cache_block(pool.get_new_blocks(1)[0], b"x")
    pool.free_blocks([1])
    assert pool.reset_prefix_cache()
    pool.free_blocks(pool.get_new_blocks(1))
    assert [block.block_id for block in pool.free_queue] == [3, 1, 2]


def test_the_queue_takes_out_any_block_and_keeps_the_rest_in_order():
    blocks = [KVCacheBlock(number) for number in range(5)]
    queue = FreeBlockQueue(blocks)
    queue.remove(blocks[2])
    queue.remove(blocks[4])
    assert [block.block_id for block in queue] == [0, 1, 3]
    queue.append(blocks[2])
    assert [queue.popleft().block_id for _ in range(4)] == [0, 1, 3, 2]
    assert queue.num_free_blocks == 0
    with pytest.raises(InputError, match="no block is free"):
        queue.popleft()


def test_the_null_block_is_never_handed_out_counted_or_freed():
    pool = BlockPool(4)
    assert pool.get_new_blocks(3) == [1, 2, 3]
    pool.touch([NULL_BLOCK])
    pool.free_blocks([NULL_BLOCK])
    assert pool.blocks[NULL_BLOCK].ref_cnt == 0 and pool.num_free_blocks == 0 and not pool.is_free(NULL_BLOCK)


def test_equal_blocks_are_both_kept_and_the_older_is_found_first():
    pool = BlockPool(4)
    first, second, _ = pool.get_new_blocks(3)
    pool.cache_block(first, b"same")
    pool.cache_block(second, b"same")
    assert pool.get_cached_block(b"same") == first
    pool.free_blocks([first])
    pool.get_new_blocks(1)  # evicts the older
    assert pool.get_cached_block(b"same") == second
