"""The radix tree against the plainest prefix cache there is, and against block hashing."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.sampling_params import SamplingParams
from labcore.kv.manager import KVCacheManager
from labcore.kv.radix import RadixCache

SIZE = 2
prompts = st.lists(st.integers(0, 1), min_size=SIZE, max_size=8 * SIZE)


class RadixMachine(RuleBasedStateMachine):
    """The model maps every cached prefix, in whole blocks, to the block that ends it and when it was used last."""

    def __init__(self):
        super().__init__()
        self.cache = RadixCache(SIZE)
        self.model: dict[tuple[int, ...], list[int]] = {}  # prefix -> [block, last used]
        self.locked: list = []
        self.clock = self.next_block = 0

    def hits(self, tokens) -> list[tuple[int, ...]]:
        ends = range(SIZE, len(tokens) // SIZE * SIZE + 1, SIZE)
        found = []
        for end in ends:
            if tuple(tokens[:end]) not in self.model:
                break
            found.append(tuple(tokens[:end]))
        return found

    def use(self, tokens) -> list[int]:
        self.clock += 1
        found = self.hits(tokens)
        for prefix in found:
            self.model[prefix][1] = self.clock
        return [self.model[prefix][0] for prefix in found]

    @rule(tokens=prompts)
    def match(self, tokens):
        blocks, node = self.cache.match_prefix(tokens)
        assert blocks == self.use(tokens)
        assert [block for part in reversed(list(node.path())) for block in part.blocks] == blocks

    @rule(tokens=prompts)
    def insert(self, tokens):
        tokens = tokens[: len(tokens) // SIZE * SIZE]
        mine = list(range(self.next_block, self.next_block + len(tokens) // SIZE))
        self.next_block += len(mine)
        known = len(self.use(tokens))
        assert self.cache.insert(tokens, mine) == mine[:known]
        for index in range(known, len(mine)):
            self.model[tuple(tokens[: (index + 1) * SIZE])] = [mine[index], self.clock]

    @rule(tokens=prompts)
    def lock(self, tokens):
        _, node = self.cache.match_prefix(tokens)
        self.use(tokens)
        self.cache.lock(node)
        self.locked.append((node, self.hits(tokens)))

    @rule(data=st.data())
    def unlock(self, data):
        if self.locked:
            node, _ = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
            self.cache.unlock(node)

    @rule(count=st.integers(1, 5))
    def evict(self, count):
        freed = self.cache.evict(count)
        gone = {prefix for prefix, (block, _) in self.model.items() if block in freed}
        kept = self.model.keys() - gone
        in_use = {prefix for _, prefixes in self.locked for prefix in prefixes}
        assert len(freed) == len(gone) and not gone & in_use
        assert len(gone) >= count or not kept - in_use
        assert all(prefix[:-SIZE] in kept for prefix in kept if len(prefix) > SIZE), "a tail outlives its head"
        leaves = [p for p in kept - in_use if not any(other[: len(p)] == p for other in kept if other != p)]
        for prefix in gone:  # what went had not been used after any leaf that stays
            assert all(self.model[prefix][1] <= self.model[leaf][1] for leaf in leaves)
        for prefix in gone:
            del self.model[prefix]

    @invariant()
    def holds_what_the_model_holds(self):
        assert self.cache.num_blocks == len(self.model)
        for node in self.cache.nodes():
            assert len(node.tokens) == SIZE * len(node.blocks) > 0
            assert node.parent.children[node.tokens[:SIZE]] is node
            assert node.parent is self.cache.root or node.parent.locks >= node.locks


RadixMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20)
TestRadix = RadixMachine.TestCase


def test_an_edge_is_split_where_prompts_part():
    cache = RadixCache(2)
    assert cache.insert([1, 1, 2, 2, 3, 3], [10, 11, 12]) == []
    assert cache.insert([1, 1, 2, 2, 4, 4], [20, 21, 22]) == [20, 21]
    assert cache.match_prefix([1, 1, 2, 2, 4, 4, 5])[0] == [10, 11, 22]
    assert sorted(node.blocks for node in cache.nodes()) == [[10, 11], [12], [22]]
    assert cache.evict(1) == [12]


def test_it_finds_what_block_hashing_finds():
    cache, manager = RadixCache(4), KVCacheManager(32, 4)
    stem = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    for number, prompt in enumerate([stem, [*stem, 1, 2, 3], stem[:4] * 3, [9, 9, 9, 9, *stem]]):
        request = Request(str(number), prompt, SamplingParams())
        hits, computed = manager.get_computed_blocks(request)
        most = (len(prompt) - 1) // 4 * 4  # a tree may say "all of it"; the last token is computed in any case
        assert computed == 4 * len(cache.match_prefix(prompt[:most])[0])
        assert manager.allocate_slots(request, len(prompt) - computed, hits, computed) is not None
        request.num_computed_tokens = len(prompt)
        cache.insert(prompt[: len(prompt) // 4 * 4], manager.block_tables[str(number)][: len(prompt) // 4])


def test_tokens_must_fill_their_blocks():
    with pytest.raises(InputError, match="5 tokens do not fill 2 blocks of 3"):
        RadixCache(3).insert([1, 2, 3, 4, 5], [1, 2])
