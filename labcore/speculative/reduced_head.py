"""The target's own LM head, restricted to the tokens that a draft may propose.

A draft reads a head of 49152 rows for nothing: most answers are made of a few thousand tokens. What the reduced head
leaves out is never proposed and costs acceptance, not correctness.
Source: FR-Spec, arXiv:2502.14856; EAGLE-3's draft vocabulary (SafeAILab/EAGLE, `d2t`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.compiled import BlockEmbedding
from labcore.model.llama import Llama


class ReducedHead(nn.Module):
    """Logits of the draft vocabulary. token_ids: int64 [draft vocab], the target's ids, sorted, a multiple of 8.

    A tied target that serves blocks lends their rows as they are stored; of any other a float copy is made.
    """

    def __init__(self, target: Llama, token_ids: Tensor):
        super().__init__()
        self.register_buffer("token_ids", token_ids)
        self.vocab, self.width = target.config.vocab, target.config.hidden
        table = target.embed_tokens if target.config.tied_embeddings else target.lm_head
        if isinstance(table, BlockEmbedding):
            self.product = BlockLinear(table.raw[token_ids.numpy()], table.format)
        else:
            rows = table(token_ids) if target.config.tied_embeddings else table.weight[token_ids]
            self.product = nn.Linear(*rows.T.shape, bias=False, device="meta")
            self.product.weight = nn.Parameter(rows.detach().float(), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: fp32 [rows, hidden], as the target's head reads it; returns [rows, draft vocab]."""
        return self.product(hidden)

    def likeliest(self, hidden: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The `count` likeliest tokens of each row, by the target's ids, and their log-probabilities, [rows, count]."""
        values, places = self(hidden).log_softmax(-1).topk(count, dim=-1)
        return self.token_ids[places], values

    def places(self, token_ids: Tensor) -> Tensor:
        """Where the draft vocabulary, which is sorted, has these tokens, int64 like them; -1 where it lacks one."""
        places = torch.searchsorted(self.token_ids, token_ids).clamp(max=len(self.token_ids) - 1)
        return torch.where(self.token_ids[places] == token_ids, places, -1)

    def everything(self, hidden: Tensor) -> Tensor:
        """Logits [rows, vocab] of the whole vocabulary, -inf for a token that is never proposed."""
        logits = hidden.new_full((len(hidden), self.vocab), -torch.inf)
        return logits.index_copy_(1, self.token_ids, self(hidden))
