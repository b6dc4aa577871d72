"""EAGLE as a proposer: its layer follows the target through every pass, then grows a draft tree on its own.

The layer's keys and values lie in the target's blocks: the pair (feature of token t, token t+1) in the slot of token t.
So blocks are shared, copied and freed once for both. Where a request hits a cached prefix and goes on differently, the
last slot of the prefix knows the other request's next token: a draft may be a little worse for it, an answer never.
Sources: see `eagle_head`, `draft_tree`; keys and values after vLLM 0.9.2, vllm/v1/spec_decode/eagle.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from labcore.attention.metadata import Branch
from labcore.core.draft import Draft
from labcore.core.errors import InputError
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.speculative.draft_tree import GrowingTree
from labcore.speculative.eagle_head import EagleHead, tap_layers
from labcore.speculative.paged_draft import pass_inputs
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep, Target
from labcore.speculative.reduced_head import ReducedHead
from labcore.speculative.weights_file import WEIGHTS, Weights


@dataclass(slots=True)
class Growing:
    """A request whose draft grows. end: the first position that the draft has not stored; features: what it put out
    for the root and for every node that was expanded, in that order."""

    row: SpeculationRow
    end: int
    tree: GrowingTree
    features: list[Tensor] = field(default_factory=list)

    def feature(self, node: int) -> Tensor:
        """What the draft put out for the pair that ends in `node`, -1: the root."""
        return self.features[0 if node < 0 else 1 + self.tree.expanded.index(node)]


class EagleProposer(Proposer):
    """Trees of up to `num_tokens` nodes, `depth` deep, of which the `width` likeliest nodes of a depth are expanded;
    width 1 and num_tokens = depth is a chain."""

    storage: KVStorage

    def __init__(self, target: Target, layer: EagleHead, head: ReducedHead, num_tokens: int, depth: int, width: int):
        for name, value in (("num_tokens", num_tokens), ("depth", depth), ("width", width)):
            if value < 1:
                raise InputError(f"{name}={value}: must be 1 or more")
        self.embed, self.layer, self.head = target.model.embed_tokens, layer, head
        self.device = head.token_ids.device
        self.num_tokens, self.depth, self.width = num_tokens, depth, width
        self.num_lookahead_tokens = (depth - 1) * width  # nodes that are expanded
        self.num_branch_tokens = max(0, num_tokens - depth)
        if layer.fuse is None:
            self.reads_hidden = True
        else:
            self.taps = tap_layers(target.model.config.n_layers)

    @property
    def nbytes_per_token(self) -> int:
        config = self.layer.config
        return 2 * config.n_kv_heads * config.head_dim * 4  # bytes of a float32, the widest that a cache stores

    def attach(self, storage: KVStorage) -> None:
        host = storage.arrays[0][1].shape[1]
        self.storage = KVStorage(1, storage.shape, num_host_blocks=host, dtype=storage.dtype, device=self.device)

    @torch.inference_mode()
    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        self.storage.move(step.moves)
        growing = going = self._follow(step)
        for depth in range(self.depth):
            going = [one for one in going if depth < one.row.room and self._fits(one)]
            if going and depth:
                self._expand(going)
            if going:
                self._guess(going)
        return {one.row.request_id: one.tree.draft(min(self.num_tokens, one.row.room)) for one in growing}

    def _follow(self, step: SpeculationStep) -> list[Growing]:
        """Run over what the target has just computed and keeps; the requests that want a draft, their roots done."""
        positions, rows, starts, following = step.inputs.positions.tolist(), [], [], []
        for row in step.rows:
            start = positions[row.kept[0]]
            if next_ := row.token_ids[start + 1 : start + 1 + len(row.kept)]:
                rows.append(row)
                starts.append(start)
                following.append(next_)
        if not rows:
            return []
        kept = [i for row, next_ in zip(rows, following, strict=True) for i in row.kept[: len(next_)]]
        kept = torch.tensor(kept, device=self.device)
        hidden = None if step.hidden is None else step.hidden[kept].float()
        features = self.layer.features(hidden, [step.features[tap][kept].float() for tap in self.taps])
        out = self._run(following, starts, [row.block_ids for row in rows], features)
        ends = torch.tensor([len(next_) for next_ in following]).cumsum(0).tolist()
        return [
            Growing(row, start + len(next_), GrowingTree(self.width), [out[end - 1]])
            for row, start, next_, end in zip(rows, starts, following, ends, strict=True)
            if row.room > 0
        ]

    def _fits(self, one: Growing) -> bool:
        """Whether every node that is to be expanded has a slot; near the end of an answer a wide tree runs out."""
        return one.end + len(one.tree.expanded) <= len(one.row.block_ids) * self.storage.shape.block_size

    def _guess(self, growing: Sequence[Growing]) -> None:
        """Candidates behind every node of every frontier."""
        x = torch.stack([one.feature(node) for one in growing for node in one.tree.frontier])
        count = max(self.width, -(-self.num_tokens // self.depth))
        tokens, logprobs = (part.tolist() for part in self.head.likeliest(self.layer.ready(x), count))
        for one in growing:
            rows = len(one.tree.frontier)
            one.tree.grow(tokens[:rows], logprobs[:rows])
            del tokens[:rows], logprobs[:rows]

    def _expand(self, growing: Sequence[Growing]) -> None:
        """Run the nodes of every frontier, each in a lookahead slot of its own, attending to its branch only."""
        nodes = [one.tree.frontier for one in growing]
        token_ids = [[one.tree.token_ids[node] for node in some] for one, some in zip(growing, nodes, strict=True)]
        parents = [
            one.feature(one.tree.parents[node]) for one, some in zip(growing, nodes, strict=True) for node in some
        ]
        starts = [one.end + len(one.tree.expanded) - len(some) for one, some in zip(growing, nodes, strict=True)]
        branches = [
            Branch(one.end, tuple(one.end + one.tree.expanded.index(above) for above in one.tree.branch(node)))
            for one, some in zip(growing, nodes, strict=True)
            for node in some
        ]
        out = iter(self._run(token_ids, starts, [one.row.block_ids for one in growing], torch.stack(parents), branches))
        for one, some in zip(growing, nodes, strict=True):
            one.features += [next(out) for _ in some]

    def _run(
        self,
        token_ids: Sequence[Sequence[int]],
        starts: Sequence[int],
        block_tables: Sequence[list[int]],
        features: Tensor,
        branches: Sequence[Branch] = (),
    ) -> Tensor:
        """The layer over pairs of `features` and the tokens that follow them, in places starts[i], starts[i] + 1, … of
        request i. branches: what each attends to, and so where it stands; none: each to everything before it."""
        nodes = dict(enumerate(branches)) if self.width > 1 else None  # the branch of a chain is all that is before it
        size = self.storage.shape.block_size
        inputs = pass_inputs(token_ids, starts, block_tables, size, self.device, nodes)
        attend = PagedAttend(self.storage, inputs.metadata, None)
        return self.layer(self.embed(inputs.token_ids).float(), features, inputs.positions, attend)


def eagle(
    target: Target, num_tokens: int = 3, depth: int = 3, width: int = 1, weights: str | None = None
) -> EagleProposer:
    """EAGLE's layer over the target's last hidden state. weights: a file trained for this target, None for that of
    SmolLM2-135M which comes with the package."""
    return _build("eagle", target, weights, num_tokens, depth, width)


def eagle3(
    target: Target, num_tokens: int = 3, depth: int = 3, width: int = 1, weights: str | None = None
) -> EagleProposer:
    """The same over a mixture of three layers, trained on its own outputs."""
    return _build("eagle3", target, weights, num_tokens, depth, width)


def _build(method: str, target: Target, weights: str | None, num_tokens: int, depth: int, width: int) -> EagleProposer:
    file = Weights(weights or WEIGHTS / f"{method}.gguf", target.model, method)
    layer = file.fill(EagleHead(file.config, fused=method == "eagle3"))
    return EagleProposer(target, layer, file.head(), num_tokens, depth, width)
