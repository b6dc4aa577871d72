"""min-p, top-k and top-p: which tokens are too unlikely to be drawn.

All three keep the likeliest tokens down to some logit, so each is a threshold; equal logits share their fate. They
apply in vLLM's order: min-p, then top-k, then top-p over what the two have left. Finding top-p's threshold needs the
likeliest tokens in order, but seldom many, so a few are sorted first and more only if their probability falls short.
Sources: top-p, Holtzman et al., arXiv:1904.09751; min-p, Nguyen et al., arXiv:2407.01082; vLLM 0.9.2,
vllm/v1/sample/sampler.py and ops/topk_topp_sampler.py.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.sampling_params import SamplingParams

FIRST_SORTED = 256


def truncate(scaled: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """`scaled` [rows, vocab] (logits over temperature, the row's largest being 0) with -inf for what is cut off."""
    cut = [i for i, one in enumerate(params) if 0 < one.top_k < scaled.shape[1] or one.top_p < 1 or one.min_p > 0]
    if not cut:
        return scaled
    rows = scaled[cut]
    rows = rows.masked_fill(rows < threshold(rows, [params[i] for i in cut])[:, None], -torch.inf)
    return scaled.index_copy(0, torch.tensor(cut, device=scaled.device), rows)


def threshold(scaled: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """float32 [rows]: the smallest value of each row that is kept, or something between it and the next smaller."""
    vocab, new = scaled.shape[1], lambda values, **kind: torch.tensor(values, device=scaled.device, **kind)
    lowest = new([one.min_p for one in params]).log()
    top_k = new([one.top_k if 0 < one.top_k < vocab else 0 for one in params])
    count = min(vocab, max(FIRST_SORTED, int(top_k.max())))
    if top_k.any():
        kth = scaled.topk(count).values.gather(1, (top_k - 1).clamp(min=0)[:, None])[:, 0]
        lowest = lowest.maximum(kth.where(top_k > 0, -torch.inf))
    top_p = new([one.top_p for one in params], dtype=torch.float64)  # in float32 it may be 0, which keeps nothing
    if (top_p == 1).all():
        return lowest
    wanted = top_p * scaled.exp().where(scaled >= lowest[:, None], 0).sum(-1, dtype=torch.float64)
    while True:
        values = scaled.topk(count).values
        mass = values.exp().where(values >= lowest[:, None], 0).double()
        before = mass.cumsum(-1) - mass  # of everything likelier; the token that crosses top_p is kept
        if count == vocab or (before[:, -1] + mass[:, -1] >= wanted).where(top_p < 1, True).all():
            last = (before < wanted[:, None]).sum(-1, keepdim=True) - 1
            return lowest.maximum(values.gather(1, last)[:, 0].where(top_p < 1, -torch.inf))
        count = min(vocab, 8 * count)
