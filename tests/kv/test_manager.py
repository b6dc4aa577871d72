"""Block tables: what they share, what they copy, and that a failed allocation changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import BlockMove, Move
from labcore.kv.manager import KVCacheManager
from labcore.kv.sliding_manager import SlidingWindowManager


def request(name, prompt, **named):
    return Request(name, prompt, SamplingParams(max_tokens=100), **named)


def snapshot(manager):
    pool = manager.block_pool
    return (
        {name: list(table) for name, table in manager.block_tables.items()},
        dict(manager.num_cached_blocks),
        [(block.ref_cnt, block.block_hash) for block in pool.blocks],
        [block.block_id for block in pool.free_queue],
        {block_hash: list(numbers) for block_hash, numbers in pool.cached.items()},
        list(manager.moves),
    )


def start(manager, one, tokens=None, **named):
    """Admit `one` as a scheduler does, computing `tokens` of what its hits leave; the first changed index."""
    hits, computed = manager.get_computed_blocks(one)
    new = one.num_tokens - computed if tokens is None else tokens
    first = manager.allocate_slots(one, new, hits, computed, **named)
    if first is not None:
        one.num_computed_tokens = computed + new
    return first


def go_on(manager, one, token):
    """Compute the last token and append another; True if there was room."""
    if manager.allocate_slots(one, one.num_tokens - one.num_computed_tokens) is None:
        return False
    one.num_computed_tokens = one.num_tokens
    one.append_token(token)
    return True


class ManagerMachine(RuleBasedStateMachine):
    """A2, A3, A5, A9, A10 and A12 under starts, steps, forks, drafts and frees in any order."""

    manager_class = staticmethod(lambda: KVCacheManager(num_blocks=10, block_size=2))

    def __init__(self):
        super().__init__()
        self.manager = self.manager_class()
        self.live: list[Request] = []
        self.started = 0

    def atomically(self, one, *args, **named):
        before = snapshot(self.manager)
        first = self.manager.allocate_slots(one, *args, **named)
        if first is None:
            assert snapshot(self.manager) == before, "a failed allocation changed something"
        return first

    @rule(prompt=st.lists(st.integers(0, 1), min_size=1, max_size=10), reserve=st.integers(0, 3))
    def start(self, prompt, reserve):
        self.started += 1
        one = request(f"r{self.started}", prompt)
        hits, computed = self.manager.get_computed_blocks(one)
        assert computed == 2 * len(hits) < len(prompt)
        free = self.manager.block_pool.num_free_blocks
        needed = -(-len(prompt) // 2) - sum(not self.manager.block_pool.is_free(block) for block in hits)
        first = self.atomically(one, len(prompt) - computed, hits, computed, num_reserved_blocks=reserve)
        assert (first is None) == (needed + reserve > free)
        if first is not None:
            one.num_computed_tokens = len(prompt)
            one.append_token(0)
            self.live.append(one)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), drafts=st.integers(0, 3), accepted=st.integers(0, 3), token=st.integers(0, 1))
    def step(self, data, drafts, accepted, token):
        one = data.draw(st.sampled_from(self.live))
        first = self.atomically(one, 1 + drafts, num_draft_tokens=drafts)
        if first is not None:
            one.num_computed_tokens += 1 + drafts
            accepted = min(accepted, drafts)
            self.manager.rollback(one, drafts - accepted)
            for _ in range(accepted + 1):
                one.append_token(token)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def fork(self, data):
        parent = data.draw(st.sampled_from(self.live))
        self.started += 1
        child = request(f"r{self.started}", parent.all_token_ids[: parent.num_prompt_tokens])
        blocks, shared = self.manager.fork(parent, child)
        assert shared == child.num_tokens - 1
        if self.atomically(child, 1, blocks, shared) is not None:
            child.num_computed_tokens = child.num_tokens
            child.append_token(1)
            self.live.append(child)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def free(self, data):
        one = data.draw(st.sampled_from(self.live))
        self.live.remove(one)
        self.manager.free(one)

    @invariant()
    def tables_and_counts_agree(self):
        pool, tables = self.manager.block_pool, self.manager.block_tables
        assert tables.keys() == {one.request_id for one in self.live} == self.manager.num_cached_blocks.keys()
        entries = [block for table in tables.values() for block in table if block]
        assert [block.ref_cnt for block in pool.blocks] == [entries.count(block.block_id) for block in pool.blocks]
        assert {block.block_id for block in pool.free_queue} == set(range(1, len(pool.blocks))) - set(entries)
        for one in self.live:
            table = tables[one.request_id]
            assert 2 * len(table) >= one.num_computed_tokens
            tail = one.num_computed_tokens // 2  # only what lies wholly before may be found by others
            assert all(pool.blocks[block].block_hash is None for block in table[max(tail, one.num_tokens // 2) :])

    def teardown(self):
        for one in self.live:
            self.manager.free(one)
        assert self.manager.block_pool.num_free_blocks == self.manager.block_pool.num_usable_blocks
        assert not self.manager.block_tables and not self.manager.num_cached_blocks


ManagerMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25)
TestManager = ManagerMachine.TestCase


class UncachedMachine(ManagerMachine):
    """The same without prefix caching: forks still share."""

    manager_class = staticmethod(lambda: KVCacheManager(num_blocks=10, block_size=2, enable_caching=False))


UncachedMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=25)
TestUncached = UncachedMachine.TestCase


def test_a_prefix_hit_shares_full_blocks_and_computes_at_least_one_token():
    manager = KVCacheManager(num_blocks=11, block_size=4)
    first = request("a", [*range(12), 90, 91])
    assert start(manager, first) == 0
    assert manager.block_tables["a"] == [1, 2, 3, 4]
    other = request("b", [*range(12), 80])
    assert manager.get_computed_blocks(other) == ([1, 2, 3], 12)
    start(manager, other)
    assert manager.block_tables["b"] == [1, 2, 3, 5]
    assert [manager.block_pool.blocks[block].ref_cnt for block in (1, 2, 3, 4, 5)] == [2, 2, 2, 1, 1]
    whole = request("c", list(range(12)))  # all of it is cached, yet the last block is computed again
    assert manager.get_computed_blocks(whole) == ([1, 2], 8)
    manager.free(first)
    manager.free(other)
    assert [block.block_id for block in manager.block_pool.free_queue] == [6, 7, 8, 9, 10, 4, 5, 3, 2, 1]


def test_salted_requests_share_only_with_their_own_kind():
    manager = KVCacheManager(num_blocks=20, block_size=2)
    start(manager, request("a", [1, 2, 3, 4, 5], cache_salt="tenant 1"))
    assert manager.get_computed_blocks(request("b", [1, 2, 3, 4, 5], cache_salt="tenant 2")) == ([], 0)
    assert manager.get_computed_blocks(request("c", [1, 2, 3, 4, 5])) == ([], 0)
    assert manager.get_computed_blocks(request("d", [1, 2, 3, 4, 5], cache_salt="tenant 1"))[1] == 4


def test_whoever_writes_first_into_a_forked_block_gets_the_copy():
    for child_first in (True, False):
        manager = KVCacheManager(num_blocks=10, block_size=4)
        parent = request("p", list(range(6)))
        start(manager, parent)
        parent.append_token(7)
        child = request("c", list(range(6)), fork_of=parent)
        blocks, shared = manager.fork(parent, child)
        assert (blocks, shared) == ([1, 2], 5)
        manager.block_pool.touch(blocks)  # held by a third for the moment, so that both have to copy
        if child_first:
            assert manager.allocate_slots(child, 1, blocks, shared) == 0
            assert manager.block_tables == {"p": [1, 2], "c": [1, 3]}
            assert manager.take_moves() == [BlockMove(Move.COPY, 2, 3)] and not manager.take_moves()
        assert manager.allocate_slots(parent, 1) == 1
        assert manager.block_tables["p"] == [1, 4 if child_first else 3]
        manager.block_pool.free_blocks(reversed(blocks))
        for one in (parent, child):
            manager.free(one)
        assert manager.block_pool.num_free_blocks == 9


def test_a_block_that_drafts_complete_is_found_only_once_they_are_accepted():
    manager = KVCacheManager(num_blocks=10, block_size=4)
    one = request("a", [1, 2, 3])
    start(manager, one)
    one.append_token(4)
    manager.allocate_slots(one, 3, num_draft_tokens=2)
    one.num_computed_tokens += 3
    assert manager.get_computed_blocks(request("b", [1, 2, 3, 4, 5]))[1] == 4  # token 4 is certain
    one.append_token(5)
    manager.rollback(one, 2)
    assert one.num_computed_tokens == 4
    manager.allocate_slots(one, 4, num_draft_tokens=3)  # 5 and drafts 6, 7, 8 fill the second block
    assert manager.get_computed_blocks(request("c", [1, 2, 3, 4, 5, 6, 7, 8, 9]))[1] == 4


def test_lookahead_slots_are_there_and_never_beyond_the_longest_the_request_may_become():
    manager = KVCacheManager(num_blocks=20, block_size=2)
    one = Request("a", [1, 2, 3], SamplingParams(max_tokens=3))
    manager.allocate_slots(one, 3, num_lookahead_tokens=2)
    assert len(manager.block_tables["a"]) == 3
    one.num_computed_tokens = 3
    manager.allocate_slots(one, 1, num_lookahead_tokens=20)
    assert len(manager.block_tables["a"]) == 3  # 6 tokens at most


def test_what_a_failed_step_was_to_fill_is_forgotten():
    manager = KVCacheManager(num_blocks=10, block_size=2)
    one = request("a", [1, 2, 3, 4, 5])
    start(manager, one)
    manager.discard(manager.block_tables["a"])
    assert manager.get_computed_blocks(request("b", [1, 2, 3, 4, 5])) == ([], 0)
    manager.free(one)
    manager.discard([1])
    assert manager.block_pool.num_free_blocks == 9


WINDOW = 5


@given(st.data())
@settings(max_examples=80)
def test_a_window_keeps_what_is_attended_to_and_frees_the_rest(data):
    size = data.draw(st.integers(1, 4))
    manager = SlidingWindowManager(num_blocks=40, block_size=size, window=WINDOW)
    one = request("a", [0])
    start(manager, one)
    one.append_token(0)
    for step in data.draw(st.lists(st.integers(1, 4), max_size=12)):
        for _ in range(step - 1):
            one.append_token(0)
        attended = max(0, one.num_computed_tokens - WINDOW + 1)
        assert go_on(manager, one, 0)
        table = manager.block_tables["a"]
        forgotten = attended // size
        assert table[:forgotten] == [0] * forgotten and 0 not in table[forgotten:]
        assert len(table) == -(-one.num_computed_tokens // size)
        assert manager.block_pool.num_usable_blocks - manager.block_pool.num_free_blocks == len(table) - forgotten
        assert len(table) - forgotten <= manager.most_blocks(one.num_tokens, 4)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.integers(1, 9), st.integers(1, 3))
def test_a_window_needs_only_the_blocks_of_the_window(cached, window, size):
    manager = SlidingWindowManager(num_blocks=20, block_size=size, window=window)
    one = request("a", list(range(size * len(cached) + 1)))
    hashes = [bytes([index]) for index in range(len(cached))]
    for index, here in enumerate(cached):
        if here:
            manager.block_pool.cache_block(index + 1, hashes[index])
    wanted = -(-(window - 1) // size)
    longest = max(n for n in range(len(cached) + 1) if all(cached[max(0, n - wanted) : n]))
    hits = manager.find_longest_cache_hit(hashes)
    assert len(hits) == longest
    assert hits[max(0, longest - wanted) :] == list(range(max(0, longest - wanted) + 1, longest + 1))
    assert set(hits[: max(0, longest - wanted)]) <= {0}
    assert one.num_tokens > len(hits) * size


def test_a_fork_whose_parents_window_has_moved_on_shares_nothing():
    manager = SlidingWindowManager(num_blocks=40, block_size=2, window=3)
    parent = request("p", [0] * 6)
    start(manager, parent)
    child = request("c", [0] * 6, fork_of=parent)
    assert manager.fork(parent, child) == ([1, 2, 3], 5)
    for _ in range(4):
        parent.append_token(0)
        go_on(manager, parent, 0)
    assert manager.fork(parent, child) == ([], 0)


def test_zero_blocks_needed_is_not_a_failure_when_the_pool_is_empty():
    manager = KVCacheManager(num_blocks=2, block_size=4)
    one = request("a", [1, 2])
    start(manager, one)
    one.append_token(3)
    assert manager.block_pool.num_free_blocks == 0
    assert manager.allocate_slots(one, 1) == 1
    one.num_computed_tokens = 3
    one.append_token(4)
    one.append_token(5)
    assert manager.allocate_slots(one, 2) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_forks_free_in_any_order(order):
    manager = KVCacheManager(num_blocks=12, block_size=4)
    parent = request("p", list(range(7)))
    start(manager, parent)
    family = [parent]
    for name in "ab":
        child = request(name, list(range(7)), fork_of=parent)
        assert manager.allocate_slots(child, 1, *manager.fork(parent, child)) == 0
        family.append(child)
    for index in order:
        manager.free(family[index])
    assert manager.block_pool.num_free_blocks == 11
