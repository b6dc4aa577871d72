"""A prefix cache as a radix tree of token sequences, SGLang's alternative to hashing blocks; kept for comparison.

An edge carries a run of tokens and their blocks, so a lookup walks the prompt instead of hashing it, and what shares a
prefix hangs below it: the order of eviction, leaves before what they continue, is in the shape and need not be kept by
hand. Both find the same prefixes (a test says so). Source: SGLang, arXiv:2312.07104, section 3; mini-sglang's
kvcache/radix_cache.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from labcore.core.errors import InputError


@dataclass(eq=False)
class RadixNode:
    """tokens: what this edge adds, a multiple of the block size; blocks: where their keys and values are.

    children: by the tokens of their first block; locks: running requests that use this node or one below it.
    """

    tokens: tuple[int, ...] = ()
    blocks: list[int] = field(default_factory=list)
    parent: RadixNode | None = None
    children: dict[tuple[int, ...], RadixNode] = field(default_factory=dict)
    locks: int = 0
    last_used: int = 0

    def path(self) -> Iterator[RadixNode]:
        """This node and those above it, without the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class RadixCache:
    """Blocks of finished prefixes by their tokens. The cache owns the blocks it holds, until `evict` returns them."""

    def __init__(self, block_size: int):
        self.block_size = block_size
        self.root = RadixNode()
        self._clock = 0

    def match_prefix(self, tokens: Sequence[int]) -> tuple[list[int], RadixNode]:
        """Blocks of the longest cached prefix of `tokens`, and the node at which it ends (the root if there is none).

        An edge of which only the beginning matches is split there, so that the node covers the match exactly.
        """
        tokens, size = tuple(tokens), self.block_size
        node, blocks = self.root, []
        self._clock += 1
        while child := node.children.get(tokens[len(blocks) * size : (len(blocks) + 1) * size]):
            rest = tokens[len(blocks) * size :]
            count = 0
            while (
                count < len(child.blocks)
                and rest[count * size : (count + 1) * size] == child.tokens[count * size : (count + 1) * size]
            ):
                count += 1
            node = child if count == len(child.blocks) else self._split(child, count)
            node.last_used = self._clock
            blocks += node.blocks
            if node is not child:
                break
        return blocks, node

    def _split(self, node: RadixNode, count: int) -> RadixNode:
        """Cut the edge of `node` after `count` blocks; returns the new upper half."""
        size = self.block_size
        upper = RadixNode(node.tokens[: count * size], node.blocks[:count], node.parent, {}, node.locks)
        node.parent.children[upper.tokens[:size]] = upper
        node.tokens, node.blocks, node.parent = node.tokens[count * size :], node.blocks[count:], upper
        upper.children[node.tokens[:size]] = node
        return upper

    def insert(self, tokens: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """Keep `blocks`, which hold `tokens`. Returns those of them whose tokens are cached in another block already.

        The caller still owns what is returned: a table that names such a block must be turned to the cached one before
        it is freed. Raises InputError unless the tokens fill the blocks.
        """
        size = self.block_size
        if len(tokens) != len(blocks) * size:
            raise InputError(f"{len(tokens)} tokens do not fill {len(blocks)} blocks of {size}")
        there, node = self.match_prefix(tokens)
        if len(there) < len(blocks):
            rest = tuple(tokens[len(there) * size :])
            leaf = RadixNode(rest, list(blocks[len(there) :]), node, {}, 0, self._clock)
            node.children[rest[:size]] = leaf
        return [mine for mine, cached in zip(blocks, there, strict=False) if mine != cached]

    def lock(self, node: RadixNode) -> None:
        """A request starts to use everything from the root to `node`; none of it will be evicted."""
        for part in node.path():
            part.locks += 1

    def unlock(self, node: RadixNode) -> None:
        """The opposite of `lock`."""
        for part in node.path():
            part.locks -= 1

    def evict(self, num_blocks: int) -> list[int]:
        """Give up leaves, least recently used first, until at least `num_blocks` blocks are free; returns them.

        Fewer if the rest is locked. A parent whose last child went is a leaf, and its turn comes by its own time.
        """
        # last_used never ties among leaves: one operation stamps one path
        leaves = [(node.last_used, node) for node in self.nodes() if not node.children and not node.locks]
        heapify(leaves)
        freed: list[int] = []
        while leaves and len(freed) < num_blocks:
            _, node = heappop(leaves)
            freed += reversed(node.blocks)
            parent = node.parent
            del parent.children[node.tokens[: self.block_size]]
            if parent is not self.root and not parent.children and not parent.locks:
                heappush(leaves, (parent.last_used, parent))
        return freed

    def nodes(self) -> Iterator[RadixNode]:
        """Every node but the root, parents before children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack += node.children.values()

    @property
    def num_blocks(self) -> int:
        """Blocks that the cache owns."""
        return sum(len(node.blocks) for node in self.nodes())
