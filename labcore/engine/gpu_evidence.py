"""What the engine's GPU rows share: prompts, and evidence that answers are right.

A row's answers are checked in one pass of the plain decoder over prompt and answer: each token must be what that pass
would have chosen, or close to it, since bf16 decides ties either way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from labcore.bench.cuda_run import CudaRun
from labcore.core.errors import DataError
from labcore.core.request import Request
from labcore.model.llama import Llama

MEAN_REGRET, WORST_REGRET = 0.02, 0.5  # in standard deviations of the logits; a wrong token has 3 to 5


@torch.inference_mode()
def judge(plain: Llama, requests: Sequence[Request]) -> dict:
    """Evidence that the answers are the model's own: how far each token is from the best of a pass over all of them."""
    regrets, equal = [], []
    for request in requests:
        tokens = torch.tensor(request.all_token_ids[:-1], device=plain.norm.weight.device)
        answer = torch.tensor(request.output_token_ids, device=tokens.device)
        positions = torch.arange(len(tokens), device=tokens.device)
        wanted = positions[request.num_prompt_tokens - 1 :]
        logits = plain(tokens, positions, _causal, wanted=wanted).float()
        chosen = logits.gather(1, answer[:, None])[:, 0]
        regrets.append((logits.amax(-1) - chosen) / logits.std(-1))
        equal.append(logits.argmax(-1) == answer)
    regret = torch.cat(regrets)
    mean, worst = regret.mean().item(), regret.max().item()
    return {
        "pass": bool(mean <= MEAN_REGRET and worst <= WORST_REGRET),
        "how": "regret of each greedy token in one plain bf16 pass over prompt and answer, in deviations of the logits",
        "mean": float(f"{mean:.3g}"),
        "worst": float(f"{worst:.3g}"),
        "bar": f"mean {MEAN_REGRET}, worst {WORST_REGRET}",
        "tokens": len(regret),
        "top1_equal": round(torch.cat(equal).float().mean().item(), 4),
    }


def _causal(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over one whole sequence, without a cache."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def require_answers(requests: Sequence[Request], lengths: Sequence[int]) -> None:
    """Raises DataError unless every request has exactly as many tokens as it was asked for."""
    for request, length in zip(requests, lengths, strict=True):
        if request.num_output_tokens != length:
            why = request.error or "no error was reported"
            raise DataError(f"{request.request_id} has {request.num_output_tokens} of {length} tokens: {why}")


def prompts(lengths: Sequence[int], vocab: int, seed: int = 0) -> list[list[int]]:
    """Random tokens."""
    random = np.random.default_rng(seed + 1)
    return [random.integers(vocab, size=length).tolist() for length in lengths]


def dtype_on(run: CudaRun) -> torch.dtype:
    """bf16; float32 on a CPU, where tests run."""
    return torch.bfloat16 if run.device == "cuda" else torch.float32


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
