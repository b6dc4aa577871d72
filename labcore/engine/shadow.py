"""The shadow KV: a model runner without a model, which knows for every slot exactly which tokens it stands for.

What a real model stores for a token depends on the whole prefix up to it, so the shadow stores just that prefix, as a
number. It carries out plans as the real runner does, and compares every slot that a row would attend to with the prefix
that ought to be there: a block freed too early, shared wrongly, hashed too soon or not copied is found at the first
read. The next token is a function of the prefix that was read, so that answers can be compared across configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from labcore.core.draft import Branch, Draft
from labcore.core.request import Request
from labcore.core.step_plan import PENDING, Move, ScheduledRequest, StepOutput, StepPlan
from labcore.engine.check import Violation
from labcore.engine.tree_rows import accepted_slots, step_branches
from labcore.kv.manager import KVCacheManager
from labcore.kv.prefix_hash import hash_block, root_hash

UNWRITTEN = -1


class Prefixes:
    """Token sequences as numbers, equal exactly if the sequences (and their salts) are equal."""

    def __init__(self) -> None:
        self.longer: dict[tuple[int, int], int] = {}
        self.roots: dict[str, int] = {}
        self.parent: list[int] = []
        self.token: list[int] = []
        self.digest: list[int] = []  # the same in every process, unlike the numbers
        self.salt: list[str] = []

    def _new(self, parent: int, token: int, digest: int, salt: str) -> int:
        self.parent.append(parent)
        self.token.append(token)
        self.digest.append(digest)
        self.salt.append(salt)
        return len(self.parent) - 1

    def root(self, salt: str) -> int:
        """The empty sequence."""
        if salt not in self.roots:
            self.roots[salt] = self._new(UNWRITTEN, UNWRITTEN, 1, salt)
        return self.roots[salt]

    def extend(self, prefix: int, token: int) -> int:
        """`prefix` and one more token."""
        key = prefix, token
        if key not in self.longer:
            digest = (self.digest[prefix] * 6364136223846793005 + token + 1442695040888963407) % 2**64
            self.longer[key] = self._new(prefix, token, digest, self.salt[prefix])
        return self.longer[key]


class ShadowRunner:
    """Carries out plans; execute(plan) is what a model runner's is.

    vocabulary: tokens are 0 … vocabulary - 1. propose(request, right): a draft for the next step, a chain or a tree,
    given a function that tells the right tokens. fails(request): whether its sampler raises. device, host: one prefix
    number per slot.
    """

    def __init__(
        self,
        manager: KVCacheManager,
        num_host_blocks: int = 0,
        vocabulary: int = 3,
        window: int | None = None,
        propose: Callable[[Request, Callable[[int], list[int]]], Draft] | None = None,
        fails: Callable[[Request], bool] | None = None,
    ):
        self.manager, self.vocabulary, self.window = manager, vocabulary, window
        self.propose, self.fails = propose, fails
        self.size = manager.block_size
        self.device = [UNWRITTEN] * (len(manager.block_pool.blocks) * self.size)
        self.host = [UNWRITTEN] * (num_host_blocks * self.size)
        self.prefixes = Prefixes()
        self.known: dict[str, list[int]] = {}  # request id -> the prefix that ends with each of its tokens
        self.latest: dict[str, int] = {}  # request id -> the token sampled last
        self.hashes: dict[int, bytes] = {}
        self.forgotten = False  # whether a failure made the prefix cache forget heads whose tails it still knows

    def execute(self, plan: StepPlan) -> StepOutput:
        """Move, write, read, sample. Raises Violation("E6") if a slot to be read holds anything but its prefix."""
        self.move(plan)
        written = [self.write(row) for row in plan.scheduled]
        branches, end = step_branches(plan.scheduled), 0
        for row, prefixes in zip(plan.scheduled, written, strict=True):
            end += row.num_tokens
            self.read(row, prefixes)
            for token in range(end - row.num_draft_tokens, end):
                if token in branches:
                    self.read_branch(row, prefixes[row.start + row.num_tokens - (end - token)], branches[token])
        self.check_cached_blocks()
        self.check_reuse_order()
        output = StepOutput()
        for row, prefixes in zip(plan.scheduled, written, strict=True):
            if row.wants_token:
                self.sample(row, prefixes, output)
        for request_id in plan.finished:
            self.known.pop(request_id, None)
        return output

    def move(self, plan: StepPlan) -> None:
        """Carry out the moves in order."""
        for kind, source, target in plan.moves:
            reads = self.host if kind is Move.SWAP_IN else self.device
            writes = self.host if kind is Move.SWAP_OUT else self.device
            block = reads[source * self.size : (source + 1) * self.size]
            writes[target * self.size : (target + 1) * self.size] = block

    def write(self, row: ScheduledRequest) -> list[int]:
        """Store the row's tokens; returns the prefixes that stand in the request's places up to the last of them."""
        prefixes = self.prefixes_of(row.request)[: row.start + row.num_tokens]
        known = len(prefixes)
        for node, token in enumerate(row.token_ids[known - row.start :]):  # drafts, or one that is pending
            parent = node - 1 if row.parents is None else row.parents[node]
            token = self.latest[row.request.request_id] if token == PENDING else token
            prefixes.append(self.prefixes.extend(prefixes[known + parent], token))
        for slot, prefix in zip(row.slots(self.size), prefixes[row.start :], strict=True):
            self.device[slot] = prefix
        return prefixes

    def read(self, row: ScheduledRequest, prefixes: list[int]) -> None:
        """Compare every slot that the row attends to."""
        size, first = self.size, 0 if self.window is None else max(0, row.start - self.window + 1)
        for index in range(first // size, -(-len(prefixes) // size)):
            begin, end = max(first, index * size), min(len(prefixes), (index + 1) * size)
            slot = row.block_ids[index] * size + begin % size
            found = self.device[slot : slot + end - begin]
            if found != prefixes[begin:end]:
                what = f"block {row.block_ids[index]} for positions {begin} to {end - 1}"
                raise Violation("E6", f"{row.request} reads {what}, which holds something else")

    def read_branch(self, row: ScheduledRequest, prefix: int, branch: Branch) -> None:
        """Follow a node back through what it attends to: every token has to continue the one before it."""
        for place in (*reversed(branch.places), branch.known - 1):
            slot = row.block_ids[place // self.size] * self.size + place % self.size
            if self.device[slot] != prefix:
                raise Violation("E6", f"{row.request} has a draft node that attends to place {place}, which is not its")
            prefix = self.prefixes.parent[prefix]

    def sample(self, row: ScheduledRequest, prefixes: list[int], output: StepOutput) -> None:
        """The accepted drafts and one token more; then proposals for the next step."""
        request = row.request
        if self.fails and self.fails(request):
            output.failed[request.request_id], self.forgotten = "the sampler raised", True
            self.latest[request.request_id] = 0  # the row of a plan made before this is known computes something
            return
        known = row.start + row.num_tokens - row.num_draft_tokens
        prefix, drafted, path = prefixes[known - 1], prefixes[known:], []
        tokens = [self.next_token(request, prefix)]
        while (longer := self.prefixes.extend(prefix, tokens[-1])) in drafted:
            prefix = longer
            path.append(drafted.index(prefix))
            tokens.append(self.next_token(request, prefix))
        self.keep_accepted(row, path)
        output.sampled[request.request_id], self.latest[request.request_id] = tokens, tokens[-1]
        if self.propose:
            last = self.prefixes.extend(prefix, tokens[-1])
            output.drafts[request.request_id] = self.propose(request, lambda n: self.continued(request, last, n))

    def keep_accepted(self, row: ScheduledRequest, path: list[int]) -> None:
        """Move the accepted drafts to their places. What is left in the other slots is wiped: nobody may read it."""
        for source, target in zip(*accepted_slots(row, path, self.size), strict=True):
            self.device[target] = self.device[source]
        for slot in row.slots(self.size)[row.num_tokens - row.num_draft_tokens + len(path) :]:
            self.device[slot] = UNWRITTEN

    def next_token(self, request: Request, prefix: int) -> int:
        """What the "model" says after `prefix`; the seed of the request makes parallel samples differ."""
        seed = request.sampling_params.seed or 0
        return (
            (self.prefixes.digest[prefix] ^ seed * 0x9E3779B97F4A7C15) * 0xD1342543DE82EF95 % 2**64 >> 40
        ) % self.vocabulary

    def continued(self, request: Request, prefix: int, count: int) -> list[int]:
        """The next `count` tokens that the "model" will say."""
        tokens = []
        for _ in range(count):
            tokens.append(self.next_token(request, prefix))
            prefix = self.prefixes.extend(prefix, tokens[-1])
        return tokens

    def answer(self, request: Request) -> tuple[int, ...]:
        """The whole answer to `request`, from its prompt alone: what any engine has to say, however it schedules."""
        prefix, tokens = self.prefixes_of(request)[request.num_prompt_tokens - 1], []
        while len(tokens) < request.max_total_tokens - request.num_prompt_tokens:
            tokens.append(self.next_token(request, prefix))
            if tokens[-1] in request.stop_ids:
                break
            prefix = self.prefixes.extend(prefix, tokens[-1])
        return tuple(tokens)

    def prefixes_of(self, request: Request) -> list[int]:
        """One number per known token."""
        known = self.known.setdefault(request.request_id, [])
        for token in request.all_token_ids[len(known) :]:
            before = known[-1] if known else self.prefixes.root(request.cache_salt)
            known.append(self.prefixes.extend(before, token))
        return known

    def check_cached_blocks(self) -> None:
        """A4, A5: what the prefix cache can find is full, computed, and what its hash says."""
        parent = self.prefixes.parent
        for block in self.manager.block_pool.blocks:
            if block.block_hash is not None:
                content = self.device[block.block_id * self.size : (block.block_id + 1) * self.size]
                if UNWRITTEN in content or any(parent[b] != a for a, b in pairwise(content)):
                    raise Violation("A5", f"block {block.block_id} is cached but not computed")
                if self.hash_of(content[-1]) != block.block_hash:
                    raise Violation("A4", f"block {block.block_id} is cached under another prefix's hash")

    def check_reuse_order(self) -> None:
        """A8: a cached block is reused before the one it continues, without which it could not be found.

        A window frees from the front instead: what it has passed is needed least. And after a failed request tails
        without a head are left, which go in their turn.
        """
        if self.window is not None or self.forgotten:
            return
        place = {block.block_id: index for index, block in enumerate(self.manager.block_pool.free_queue)}
        for number, index in place.items():
            if self.manager.block_pool.blocks[number].block_hash is None:
                continue
            before = self.prefixes.parent[self.device[number * self.size]]
            if self.prefixes.token[before] == UNWRITTEN:
                continue
            heads = self.manager.block_pool.cached.get(self.hash_of(before), ())
            if heads and all(place.get(head, index + 1) < index for head in heads):
                raise Violation("A8", f"block {number} outlives every copy of the block it continues")

    def hash_of(self, prefix: int) -> bytes:
        """The chain hash of a prefix that ends with a full block, from the definition."""
        if prefix not in self.hashes:
            tokens, start = [], prefix
            for _ in range(self.size):
                tokens.append(self.prefixes.token[start])
                start = self.prefixes.parent[start]
            salt = self.prefixes.salt[start]
            before = root_hash(salt) if self.prefixes.token[start] == UNWRITTEN else self.hash_of(start)
            self.hashes[prefix] = hash_block(before, tokens[::-1])
        return self.hashes[prefix]
