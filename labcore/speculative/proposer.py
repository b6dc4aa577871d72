"""What every proposer is given, and what it gives back. The engine knows no more about speculation than this file.

Once a step, after the target has sampled, the runner shows a proposer all rows of the pass and asks for the drafts of
the next one. A draft changes how many passes an answer takes, never its law; one that is chosen without chance does not
change the answer either (unless acceptance="typical").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from labcore.attention.metadata import StepInputs
from labcore.core.draft import Draft
from labcore.core.sampling_params import SamplingParams
from labcore.core.step_plan import BlockMove
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Target:
    """What a proposer may know of the engine it is built for. Limits are those of `engine.config`."""

    model: Llama
    tokenizer: Tokenizer | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 8192
    block_size: int = 16


@dataclass(slots=True)
class SpeculationRow:
    """One request in the pass that has just run.

    token_ids: prompt (the first num_prompt_tokens) and answer, this step's new tokens included. begin, end: the row's
    tokens in the pass are inputs.token_ids[begin:end]. kept: indices in the pass of the tokens that stay, in order; a
    rejected draft is left out. Position p of the request lies in slot block_ids[p // S] * S + p % S, and
    inputs.positions[kept] are the positions of what stays, accepted drafts in their places already. chosen: the
    target's likeliest token after the last known token and after every draft node, [1 + nodes]; empty for a chunk.
    room: most draft tokens of any use; 0: propose nothing (a chunk of a prompt, a request that opted out or ended),
    but the row may still be observed. cache_salt: what one request said may serve another of the same salt only.
    """

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    begin: int
    end: int
    kept: list[int]
    block_ids: list[int]
    chosen: list[int]
    room: int
    cache_salt: str = ""


@dataclass(slots=True)
class SpeculationStep:
    """One pass. hidden: [tokens, hidden], what the LM head read (after the final norm), all tokens of the pass; None
    unless `reads_hidden`. features: layer index -> its output [tokens, hidden], for the layers in `taps`. moves: block
    copies since the last step: a proposer with keys and values in the same blocks carries them out first."""

    rows: list[SpeculationRow]
    inputs: StepInputs
    hidden: Tensor | None = None
    features: dict[int, Tensor] = field(default_factory=dict)
    moves: list[BlockMove] = field(default_factory=list)


class Proposer:
    """num_tokens: most nodes of a draft; num_branch_tokens: those of them beside its longest branch, 0 for chains;
    num_lookahead_tokens: slots behind the step's tokens that it writes; taps: layers whose outputs it reads;
    reads_hidden: whether it needs `hidden`; nbytes_per_token: what it stores for each cached token beside the target's
    keys and values."""

    num_tokens: int = 0
    num_branch_tokens: int = 0
    num_lookahead_tokens: int = 0
    taps: tuple[int, ...] = ()
    reads_hidden: bool = False
    nbytes_per_token: int = 0

    def attach(self, storage: KVStorage) -> None:
        """Called once, when the target's cache exists: one with keys and values of its own makes room for as many
        blocks of the same size."""

    def propose(self, step: SpeculationStep) -> dict[str, Draft]:
        """Drafts for the next step by request id; requests may be left out. Called once a step, after sampling, also
        when no row has room."""
        raise NotImplementedError

    def forget(self, request_ids: Iterable[str]) -> None:
        """These requests finished or were preempted; a preempted one comes back under the same id."""
