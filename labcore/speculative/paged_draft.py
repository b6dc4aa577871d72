"""Drafts token by token from a decoder whose keys and values lie in the target's own blocks.

A draft's cache has as many blocks of the same size as the target's, and uses the same block tables: position p of a
request lies in the same slot of both. So sharing, copying, swapping and freeing blocks is decided once, for both; what
a slot of the draft's cache holds is told by its stamp (`stamps`). After a pass of the target the draft runs over what
it lacks of each request, which is usually the last token alone, and then over its own tokens one after the other, in
the lookahead slots behind. After vLLM's EAGLE proposer (0.9.2, vllm/v1/spec_decode/eagle.py), whose draft layers share
the block table, too.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from labcore.attention.metadata import StepInputs
from labcore.attention.step_inputs import step_inputs
from labcore.core.draft import Branch, Draft
from labcore.kv.block_pool import NULL_BLOCK
from labcore.kv.paged_attend import PagedAttend
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.sampling.sampler import law, pick
from labcore.speculative.proposer import Proposer, SpeculationRow, SpeculationStep
from labcore.speculative.stamps import ROOT, Stamps


@dataclass(slots=True)
class Chain:
    """A request's draft as it grows. pending: tokens to run next, the first of them at position `start`; prefix: the
    number (see `stamps`) of everything that is stamped; count: how many tokens are to be drafted; laws: what they were
    drawn from, nothing for a greedy request."""

    row: SpeculationRow
    pending: list[int]
    start: int
    count: int
    prefix: int = ROOT
    drafted: list[int] = field(default_factory=list)
    laws: list[Tensor] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.drafted) == self.count

    @property
    def draft(self) -> Draft:
        return Draft(self.drafted, laws=torch.stack(self.laws) if self.laws else None)


class ChainProposer(Proposer):
    """Chains of up to `num_tokens` tokens, each what `model` says after the one before it.

    vocabulary: the target's token id of each of the model's logits, None: they are the same. A greedy request gets the
    likeliest tokens, any other gets tokens drawn with its own temperature and truncation, by random numbers that are
    the draft's own. A subclass says what is to be run (`chain`), and sets `storage` when it is attached.
    """

    storage: KVStorage

    def __init__(self, model: Llama, vocabulary: Sequence[int] | None = None, *, num_tokens: int):
        self.model, device = model, model.norm.weight.device
        self.vocabulary = None if vocabulary is None else torch.tensor(vocabulary, device=device)
        self.num_tokens = self.num_lookahead_tokens = num_tokens
        self.keys: dict[str, int] = {}  # request id -> the key of its random numbers

    def chain(self, row: SpeculationRow, num_computed: int) -> Chain | None:
        """What to run for a row, of whose tokens the target has computed so many; None: nothing."""
        raise NotImplementedError

    def ran(self, chain: Chain, slots: Iterable[int]) -> None:
        """The pending tokens of a chain have been run, their keys and values stored in `slots`."""

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        positions = step.inputs.positions.tolist()
        found = (self.chain(row, positions[row.kept[-1]] + 1) for row in step.rows)
        chains = going = sorted(filter(None, found), key=lambda chain: -chain.count)  # who stops first stands last
        while going:
            logits = self._run(going)
            going = [chain for chain in going if not chain.done]
            if going:
                self._choose(going, logits)
                going = [chain for chain in going if not chain.done]  # nobody needs what follows a last token
        return {chain.row.request_id: chain.draft for chain in chains if chain.count}

    def forget(self, request_ids: Iterable[str]) -> None:
        for name in request_ids:
            self.keys.pop(name, None)

    def _run(self, chains: Sequence[Chain]) -> Tensor:
        """One pass over everything pending; logits after the last token of each chain that is not done."""
        inputs = pass_inputs(
            [chain.pending for chain in chains],
            [chain.start for chain in chains],
            [chain.row.block_ids for chain in chains],
            self.storage.shape.block_size,
            self.model.norm.weight.device,
        )
        attend = PagedAttend(self.storage, inputs.metadata, None)
        wanted = inputs.wanted[: sum(not chain.done for chain in chains)]
        logits = self.model(inputs.token_ids, inputs.positions, attend, wanted=wanted)
        slots = iter(inputs.metadata.slot_mapping.tolist())
        for chain in chains:
            self.ran(chain, [next(slots) for _ in chain.pending])
            chain.start, chain.pending = chain.start + len(chain.pending), []
        return logits

    def _choose(self, chains: Sequence[Chain], logits: Tensor) -> None:
        """One more token for each chain, from its row of logits."""
        tokens = logits.argmax(-1)
        if drawn := [i for i, chain in enumerate(chains) if not chain.row.params.greedy]:
            laws = law(logits[drawn], [chains[i].row.params for i in drawn])
            numbers = torch.tensor([self._number(chains[i]) for i in drawn], dtype=torch.float64, device=laws.device)
            tokens[drawn] = pick(laws, numbers)
            if self.vocabulary is not None:
                laws = laws.new_zeros(len(laws), self.model.config.vocab).index_copy_(1, self.vocabulary, laws)
            for i, one in zip(drawn, laws, strict=True):
                chains[i].laws.append(one)
        if self.vocabulary is not None:
            tokens = self.vocabulary[tokens]
        for chain, token in zip(chains, tokens.tolist(), strict=True):
            chain.drafted.append(token)
            chain.pending = [token]

    def _number(self, chain: Chain) -> float:
        """The random number for the place behind a chain: a function of the request's seed and of the position.

        The target never draws from it, and a place is verified once, so a draft that is made a second time, after a
        preemption perhaps, may use it again.
        """
        name, seed = chain.row.request_id, chain.row.params.seed
        if name not in self.keys:
            self.keys[name] = secrets.randbits(64) if seed is None else seed
        return float(np.random.Generator(np.random.Philox(key=self.keys[name], counter=chain.start)).random())


class PagedDraft(ChainProposer):
    """A draft with keys and values of its own, in the target's blocks."""

    stamps: Stamps

    @property
    def nbytes_per_token(self) -> int:
        config, weight = self.model.config, self.model.norm.weight
        return 2 * config.n_layers * config.n_kv_heads * config.head_dim * weight.itemsize

    def attach(self, storage: KVStorage) -> None:
        config, host = self.model.config, storage.arrays[0][1].shape[1]
        heads = {"n_heads": config.n_heads, "n_kv_heads": config.n_kv_heads, "head_dim": config.head_dim}
        shape, device = replace(storage.shape, **heads), self.model.norm.weight.device
        self.storage = KVStorage(config.n_layers, shape, num_host_blocks=host, dtype=storage.dtype, device=device)
        self.stamps = Stamps(shape.num_blocks, host, shape.block_size)

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        self.storage.move(step.moves)
        self.stamps.move(step.moves)
        try:
            return super().propose(step)
        except BaseException:
            self.stamps.clear()  # slots were stamped for a pass that did not end
            raise

    def chain(self, row: SpeculationRow, num_computed: int) -> Chain | None:
        """A chunk of a prompt is followed at once; later tokens, when the request may speculate.

        Slots are stamped before they are written: a later row of the step, which hits the same prefix, may read them in
        the same pass.
        """
        if row.room:
            end = len(row.token_ids)
        elif num_computed <= row.num_prompt_tokens:
            end = num_computed
        else:
            return None
        count, size, table = min(self.num_tokens, row.room), self.stamps.block_size, row.block_ids
        if end + count > self.model.config.context:
            return None
        checked = end - 1 if count else end  # the last token is run in any case, for its logits are wanted
        start, prefix = self.stamps.lag(row.request_id, row.token_ids, table, checked)
        if start == end or table[self.storage.shape.first_visible(start) // size] == NULL_BLOCK:
            return None  # nothing to run; or a sliding window has forgotten what it would need
        pending = row.token_ids[start:end]
        slots = [table[place // size] * size + place % size for place in range(start, end)]
        return Chain(row, pending, start, count, self.stamps.write(prefix, pending, slots))

    def ran(self, chain: Chain, slots: Iterable[int]) -> None:
        if chain.drafted:
            chain.prefix = self.stamps.write(chain.prefix, chain.pending, slots)

    def forget(self, request_ids: Iterable[str]) -> None:
        names = list(request_ids)
        super().forget(names)
        self.stamps.forget(names)


def pass_inputs(
    token_ids: Sequence[Sequence[int]],
    starts: Sequence[int],
    block_tables: Sequence[Sequence[int]],
    block_size: int,
    device: torch.device | str = "cpu",
    branches: Mapping[int, Branch] | None = None,
) -> StepInputs:
    """A pass over the given tokens of some requests, those of request i in places starts[i], starts[i] + 1, …;
    `wanted` is the last of each. branches: see AttentionMetadata. ValueError for a block table that is too short."""
    counts = np.array([len(tokens) for tokens in token_ids])
    lengths = np.array(starts) + counts
    tables = np.zeros((len(counts), -(-int(lengths.max()) // block_size)), np.int32)
    for row, table, length in zip(tables, block_tables, lengths.tolist(), strict=True):
        used = -(-length // block_size)
        row[:used] = table[:used]
    flat = np.array([token for tokens in token_ids for token in tokens], np.int64)
    return step_inputs(flat, counts, lengths, tables, block_size, branches=branches, device=device)
