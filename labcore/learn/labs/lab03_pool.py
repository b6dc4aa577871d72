"""Lab 3, memory: a queue that can lose its middle, blocks with several holders, tables that copy before they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from labcore.kv.block_pool import BlockPool, FreeBlockQueue, KVCacheBlock
from labcore.learn.exercises import Attempt, Exercise, Fault
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab03_references as ref

LAB = "lab03"
LINKS = "prev_free_block", "next_free_block"
READ = 4  # links of a block that a removal needs, and as many again to check them


class Handed:
    """A check hands out the thing itself, and what it names in `along`: what a function leaves in it is looked at."""

    along: tuple = ()

    def __deepcopy__(self, memo: dict) -> Handed:
        memo.update((id(one), one) for one in self.along)
        return self


class WatchedBlock(KVCacheBlock):
    """A block that counts how often its links are read."""

    reads = 0

    def __getattribute__(self, name: str):
        if name in LINKS:
            WatchedBlock.reads += 1
        return super().__getattribute__(name)

    def __repr__(self) -> str:
        return f"block {self.block_id}"


class Queue(Handed, FreeBlockQueue):
    """The engine's queue of free blocks."""

    def __init__(self, blocks: list[KVCacheBlock]):
        super().__init__(blocks)
        self.along = tuple(blocks)

    def __repr__(self) -> str:
        return f"the queue of {len(self.along)} free blocks"


def removes(size: int, *places: int) -> Callable[[Attempt], None]:
    """A stage: `size` free blocks, numbered in the order of reuse, those at `places` taken out one after the other."""

    def stage(attempt: Attempt) -> None:
        blocks = [WatchedBlock(number) for number in range(1, size + 1)]
        queue, left = Queue(blocks), list(range(1, size + 1))
        for place in places:
            one_removal(attempt, queue, blocks[left.pop(place) - 1], left)
        queue.append(blocks[0] if blocks[0].block_id not in left else KVCacheBlock(0))
        if len(list(queue)) != len(left) + 1:
            raise Fault("a block that was removed cannot be appended again: are its neighbours really linked?")

    return stage


def one_removal(attempt: Attempt, queue: Queue, block: KVCacheBlock, left: list[int]) -> None:
    """Take out one block; Fault for whatever the queue says wrongly afterwards."""
    call, size = f"remove({queue!r}, block {block.block_id})", queue.num_free_blocks
    WatchedBlock.reads = 0
    block.block_hash = b"what it holds"
    attempt(queue, block)
    reads = WatchedBlock.reads
    if queue.num_free_blocks != size - 1:
        raise Fault(f"{call} left num_free_blocks at {queue.num_free_blocks}, expected {size - 1}")
    forth, back = walk(queue, "next_free_block"), walk(queue, "prev_free_block")
    if forth != left:
        raise Fault(f"{call}: forwards the queue now reads {describe(forth)}, expected {describe(left)}")
    if back != left[::-1]:
        raise Fault(
            f"{call}: forwards the queue is right, backwards it reads {describe(back)}: the next block has to point "
            "back, too"
        )
    if block.prev_free_block is not None or block.next_free_block is not None:
        raise Fault(f"{call}: the block still points into the queue; a block that is held has neither neighbour")
    if block.block_hash is None:
        raise Fault(f"{call}: the block has lost its hash; a prefix hit takes it out of the queue for what it holds")
    if reads > 2 * READ:
        raise Fault(
            f"{call} read {reads} links to take out one block: do not search for it, it knows its own neighbours"
        )


def walk(queue: FreeBlockQueue, link: str) -> list[int]:
    """Numbers of the blocks without a hash in the direction of `link`, and no more of them than there can be."""
    ring, numbers = queue._plain, []
    block = getattr(ring, link)
    while block is not ring and isinstance(block, KVCacheBlock) and len(numbers) < 200:
        numbers.append(block.block_id)
        block = getattr(block, link)
    return numbers


class Pool(Handed, BlockPool):
    """The engine's pool of blocks, in the state that a stage describes."""

    def __init__(self, num_usable_blocks: int, holders: dict[int, int], hashed: Sequence[int] = ()):
        super().__init__(num_usable_blocks + 1)
        for number in hashed:
            self.free_queue.remove(self.blocks[number])
            self.cache_block(number, bytes([number]) * 32)
            self.free_queue.append(self.blocks[number])
        for number, count in holders.items():
            for _ in range(count):
                self.touch([number])

    def __repr__(self) -> str:
        return f"a pool with {self.num_free_blocks} of {self.num_usable_blocks} blocks free"

    @property
    def free(self) -> list[int]:
        """Numbers of the free blocks in the order of reuse."""
        return [block.block_id for block in self.free_queue]

    @property
    def counts(self) -> dict[int, int]:
        """Holders of each block that has any."""
        return {block.block_id: block.ref_cnt for block in self.blocks if block.ref_cnt}


def frees(
    holders: dict[int, int], ids: list[int], counts: dict[int, int], free: list[int], says: str, hashed=()
) -> Callable[[Attempt], None]:
    """A stage: in a pool of 5 blocks with these `holders`, freeing `ids` leaves these counts and this queue."""

    def stage(attempt: Attempt) -> None:
        pool = Pool(5, holders, hashed)
        hashes = [block.block_hash for block in pool.blocks]
        cached = {one: dict(numbers) for one, numbers in pool.cached.items()}
        call = f"free_blocks(pool, {describe(ids)}) with the holders {describe(holders)}"
        attempt(pool, ids)
        if pool.counts != counts:
            raise Fault(f"{call} left the holders {describe(pool.counts)}, expected {describe(counts)}: {says}")
        if pool.free != free:
            raise Fault(f"{call} left the queue {describe(pool.free)}, expected {describe(free)}: {says}")
        if [block.block_hash for block in pool.blocks] != hashes or pool.cached != cached:
            raise Fault(f"{call} erased a hash: a free block can still be hit until somebody else needs it")

    return stage


def freed_twice(attempt: Attempt) -> None:
    """A stage: a block without a holder is refused."""
    pool = Pool(5, {1: 1, 2: 1})
    attempt(pool, [1])
    refused(attempt, pool, [2, 1])
    refused(attempt, Pool(5, {1: 1}), [1, 1])


def refused(attempt: Attempt, pool: Pool, ids: list[int]) -> None:
    """Fault unless freeing `ids`, block 1 without a holder left among them, raises RuntimeError."""
    try:
        attempt.function(pool, ids)
    except RuntimeError:
        return
    except Exception as error:
        raise Fault(
            f"freeing block 1 twice raised {type(error).__name__}; RuntimeError is what the spec asks"
        ) from None
    raise Fault(
        f"block 1 was freed twice and nothing happened; the queue is now {describe(pool.free)}. Two requests will be "
        "given that block: raise RuntimeError"
    )


def random_frees(attempt: Attempt) -> None:
    """A stage: fifty random frees, against the library."""
    rng = Random(0)
    for _ in range(50):
        holders = {number: rng.randint(1, 3) for number in rng.sample(range(1, 6), rng.randint(1, 5))}
        ids = rng.sample(sorted(holders), rng.randint(1, len(holders)))
        right = Pool(5, holders)
        right.free_blocks(ids)
        frees(holders, ids, right.counts, right.free, "every holder gives up one reference, in the order of the list")(
            attempt
        )


class TablePool(Pool):
    """A pool and the table that grows."""

    def __init__(self, usable: int, table: list[int], shared: Sequence[int] = (), taken: int = 0):
        holders = dict.fromkeys(table, 1)
        for number in shared:  # as often as there are others
            holders[number] = holders.get(number, 0) + 1
        others = [number for number in range(usable, 0, -1) if number not in holders][:taken]
        super().__init__(usable, holders | dict.fromkeys(others, 1))
        self.table = table
        self.along = (table,)


def grows(
    usable: int,
    table: list[int],
    computed: int,
    new: int,
    size: int,
    *,
    shared: Sequence[int] = (),
    taken: int = 0,
    says: str = "",
) -> Callable[[Attempt], None]:
    """A stage: `table` grows in a pool of `usable` blocks, of which other requests hold `shared` and `taken` more."""

    def stage(attempt: Attempt) -> None:
        pool, wanted = (TablePool(usable, list(table), shared, taken) for _ in range(2))
        want = ref.grow(wanted, wanted.table, computed, new, size)
        call = f"grow(pool, {describe(table)}, {computed}, {new}, {size})"
        others = (
            f", {', '.join(f'block {number}' for number in dict.fromkeys(shared))} held by others too" if shared else ""
        )
        call += f" ({pool.num_free_blocks} free{others})"
        before = pool.counts, pool.free
        got = attempt(pool, pool.table, computed, new, size)
        if want is None:
            if got is not None:
                raise Fault(f"{call} gave {describe(got)}, expected None: {says}")
            if (pool.counts, pool.free) != before or pool.table != list(table):
                raise Fault(f"{call} gave None and took blocks all the same: count first, then take")
            return
        if got is None:
            raise Fault(f"{call} gave None, and the free blocks are enough: {says}")
        if not isinstance(got, list) or not all(isinstance(one, tuple) and len(one) == 2 for one in got):
            raise Fault(f"{call} gave {describe(got)}, expected a list of (source, target)")
        if not all(isinstance(number, int) for number in pool.table):
            raise Fault(f"{call} left the table {describe(pool.table)}; get_new_blocks gives a list, not a number")
        compare(call, pool, list(table), got, wanted, want, before[0], says)

    return stage


def compare(
    call: str,
    pool: TablePool,
    before: list[int],
    got: list,
    wanted: TablePool,
    want: list,
    holders: dict[int, int],
    says: str,
) -> None:
    """Fault unless the reader's pool, table and copies are as they should be, whatever numbers the new blocks have."""
    if len(pool.table) != len(wanted.table):
        raise Fault(f"{call} left a table of {len(pool.table)} blocks, expected {len(wanted.table)}: {says}")
    if [source for source, _ in got] != [source for source, _ in want]:
        raise Fault(f"{call} gave the copies {describe(got)}, expected {describe(want)}: {says}")
    for source, target in got:
        if pool.table[before.index(source)] != target:
            raise Fault(f"{call} copies {source} to {target}, and the table does not name {target} in its place")
    kept = [new if old == new else None for old, new in zip(before, wanted.table, strict=False)]
    if any(k is not None and k != mine for k, mine in zip(kept, pool.table, strict=False)):
        raise Fault(f"{call} left the table {describe(pool.table)}, expected {describe(wanted.table)}: {says}")
    counts = [{number: one.counts.get(number, 0) for number in holders} for one in (pool, wanted)]
    if counts[0] != counts[1]:
        raise Fault(
            f"{call} left the holders {describe(counts[0])}, expected {describe(counts[1])}: whoever copies a block "
            "gives up its own share of it, and nobody else's"
        )
    fresh = sorted(pool.counts.keys() - holders.keys()), sorted(set(pool.table) - set(before))
    if fresh[0] != fresh[1] or any(pool.counts[number] != 1 for number in fresh[1]):
        raise Fault(f"{call} took the blocks {describe(fresh[0])}, and the table names {describe(fresh[1])} of them")


def random_growth(attempt: Attempt) -> None:
    """A stage: sixty random tables."""
    rng = Random(1)
    for _ in range(60):
        size, usable, length = rng.randint(1, 5), rng.randint(4, 8), rng.randint(0, 3)
        table = rng.sample(range(1, usable + 1), length)
        computed = rng.randint(max(0, (length - 1) * size + 1), length * size) if length else 0
        shared = table[:-1] if rng.random() < 0.3 else table if rng.random() < 0.5 else []
        taken = rng.randint(0, usable - length)
        says = "whole blocks, private where they are written, all of it or nothing"
        grows(usable, table, computed, rng.randint(1, 8), size, shared=shared, taken=taken, says=says)(attempt)


EXERCISES = (
    Exercise(
        id="paging.remove",
        lab=LAB,
        title="A queue that can lose its middle",
        asked="Free blocks wait in LRU order, and a prefix hit takes one out of the middle. What does that cost?",
        spec="Write `remove(self, block)`, a method of `FreeBlockQueue`: take a free `block` out of the queue, "
        "wherever it stands. The queue is a ring through the blocks themselves: each has `prev_free_block` and "
        "`next_free_block`, and at both ends stands the queue's own marker, a block like any other. Afterwards the "
        "neighbours are linked, both links of `block` are `None`, and `self.num_free_blocks` is one lower. In "
        "**O(1)**: do not walk.",
        reference=FreeBlockQueue.remove,
        stages=(
            removes(3, 1),
            removes(3, 0),
            removes(3, 2),
            removes(1, 0),
            removes(6, 2, 2, 0, 2),
            removes(60, 40),
        ),
        hints=(
            "Why a ring and not an array: the block you are handed already knows the two blocks beside it.",
            "Let the block before point forwards to the block behind, and the block behind point backwards to the "
            "block before. The marker makes the two ends ordinary cases.",
            "`block.prev_free_block.next_free_block = block.next_free_block`",
        ),
        difficulty=1,
        importance=2,
        minutes=(4, 6),
        changes_inputs=True,
    ),
    Exercise(
        id="paging.free_blocks",
        lab=LAB,
        title="Who holds this block?",
        asked="Several requests hold one block. One of them finishes. What happens to the block?",
        spec="Write `free_blocks(self, block_ids)`, a method of `BlockPool`: take one holder from each block, in the "
        "order of the list. `self.blocks[number].ref_cnt` counts a block's holders; one that loses its last joins the "
        "free queue with `self.free_queue.append(block)` and **keeps its hash**, so that it can still be hit. Block 0 "
        "is the null block, which tables use as a placeholder: pass over it. Raise `RuntimeError` for a block without "
        "a holder.",
        reference=BlockPool.free_blocks,
        stages=(
            frees({1: 1}, [1], {}, [2, 3, 4, 5, 1], "its only holder is gone, so it is free, and reused last"),
            frees({1: 2}, [1], {1: 1}, [2, 3, 4, 5], "somebody else still holds block 1: it is not free"),
            frees({1: 1, 2: 1, 3: 1}, [3, 2, 1], {}, [4, 5, 3, 2, 1], "first in the list, first to be reused"),
            frees(
                {1: 1, 2: 1}, [0, 2, 0, 1], {}, [3, 4, 5, 2, 1], "the null block belongs to nobody and is never free"
            ),
            frees({4: 2, 5: 1}, [4, 5], {4: 1}, [1, 2, 3, 5], "hits stay possible", hashed=[4, 5]),
            frees({1: 2, 2: 1}, [1, 2, 1], {}, [3, 4, 5, 2, 1], "named twice, block 1 gives up two holders in turn"),
            freed_twice,
            random_frees,
        ),
        hints=(
            "Two events that look alike: a holder goes, and the last holder goes. Only the second one frees anything.",
            "For each number: skip the null block, refuse a count of zero, subtract one, and append the block to the "
            "queue when nothing is left.",
            "`block = self.blocks[number]`",
        ),
        difficulty=1,
        importance=3,
        minutes=(5, 8),
        changes_inputs=True,
    ),
    Exercise(
        id="paging.grow",
        lab=LAB,
        title="Copy before you write",
        asked="Three samples of one prompt share its blocks. The first of them writes its own token. What happens?",
        spec="Write `grow(pool, table, num_computed, num_new, block_size)`: make room for `num_new` ≥ 1 tokens behind "
        "the `num_computed` that stand in `table`, a list of block numbers, in place. Position p lies in block "
        "`table[p // block_size]`. A block that is **written** must have one holder: if the first one to be written "
        "has more, put a new block in its place, give up your share of the old one, and note the copy. Return the "
        "list of copies (source, target), at most one here. If too few blocks are free return `None` and change "
        "**nothing**. At hand: `pool.blocks[b].ref_cnt`, `pool.num_free_blocks`, `pool.get_new_blocks(count)`, "
        "`pool.free_blocks(list)`.",
        reference=ref.grow,
        stages=(
            grows(5, [], 0, 5, 4, says="5 tokens in blocks of 4 take 2"),
            grows(5, [], 0, 8, 4, says="8 tokens fill 2 blocks of 4 exactly"),
            grows(5, [3], 2, 1, 4, says="the last block has room"),
            grows(5, [3], 4, 1, 4, says="the last block is full, so the next token starts another"),
            grows(5, [3], 2, 1, 4, shared=[3], says="position 2 would be written into a block with two holders"),
            grows(5, [3], 2, 1, 4, shared=[3, 3], says="three requests hold block 3: more than one, too"),
            grows(5, [2, 4], 6, 1, 4, shared=[2], says="block 2 is full and only read; the written one is private"),
            grows(5, [2, 4], 5, 6, 4, shared=[2, 4], says="one copy of the written block, and one block more"),
            grows(5, [2], 4, 3, 4, shared=[2], says="the shared block is full; nobody writes into it"),
            grows(3, [1], 3, 6, 4, taken=1, says="two blocks are needed and one is free"),
            grows(3, [1], 3, 1, 4, shared=[1], taken=2, says="the copy needs a block as well"),
            grows(4, [1], 3, 4, 4, shared=[1], taken=2, says="the copy and one block more are needed"),
            grows(4, [1], 3, 4, 4, shared=[1], taken=1, says="two blocks are needed and two are free"),
            random_growth,
        ),
        hints=(
            "Three numbers decide everything: which block is the first to be written, whether anybody else holds it, "
            "and how many blocks the table lacks at the end.",
            "first = num_computed // block_size; shared = it exists and has ref_cnt > 1; new = blocks of all tokens, "
            "rounded up, less len(table). If new + shared exceed what is free: None. Then copy, then extend.",
            "`new = -(-(num_computed + num_new) // block_size) - len(table)`",
        ),
        difficulty=3,
        importance=3,
        minutes=(12, 18),
        changes_inputs=True,
    ),
)
