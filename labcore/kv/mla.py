"""Multi-head latent attention by hand: what is cached is one latent and one rotary key a token, shared by all heads.

Two ways to attend to it give the same numbers. *Expanded* makes every head's keys and values again and attends as
usual. *Absorbed* moves the up-projections to the other side of the products, where they meet one query instead of all
cached tokens: every head then attends to the latents themselves. Source: DeepSeek-V2, arXiv:2405.04434, section 2.1 and
appendix C; its compression of queries and its norm on the latent are left out, since neither changes the argument.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from labcore.kv.lossy import Rotate


@dataclass(frozen=True)
class LatentAttention:
    """The weights of one layer, named as in the paper; d_c: latent, d_r: rotary key, d_h: head."""

    w_q: Tensor  # [n_heads, d_h, hidden]
    w_qr: Tensor  # [n_heads, d_r, hidden]
    w_dkv: Tensor  # [d_c, hidden]
    w_kr: Tensor  # [d_r, hidden]
    w_uk: Tensor  # [n_heads, d_h, d_c]
    w_uv: Tensor  # [n_heads, d_h, d_c]
    w_o: Tensor  # [hidden, n_heads · d_h]
    rotate: Rotate

    def compress(self, h: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """What the cache keeps of h [tokens, hidden]: latents [tokens, d_c] and rotated keys [tokens, d_r]."""
        rotary = (h @ self.w_kr.T)[:, None]  # one head
        return h @ self.w_dkv.T, self.rotate(rotary, positions)[:, 0]

    def queries(self, h: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The two parts of every head's query: content [n_heads, tokens, d_h] and rotary [n_heads, tokens, d_r]."""
        rotary = torch.einsum("hrx,tx->thr", self.w_qr, h)
        return torch.einsum("hdx,tx->htd", self.w_q, h), self.rotate(rotary, positions).transpose(0, 1)

    def expanded(self, h: Tensor, positions: Tensor, latents: Tensor, rotary_keys: Tensor) -> Tensor:
        """Attention of the newest tokens h [new, hidden] to all cached ones: keys and values of every head are made
        from latents [tokens, d_c] and rotary_keys [tokens, d_r], whose last `new` belong to h. Returns like h."""
        content, rotary = self.queries(h, positions)
        keys = torch.einsum("hdc,tc->htd", self.w_uk, latents)
        values = torch.einsum("hdc,tc->htd", self.w_uv, latents)
        probabilities = self._softmax(content @ keys.transpose(1, 2) + rotary @ rotary_keys.T)
        return self._output(probabilities @ values)

    def absorbed(self, h: Tensor, positions: Tensor, latents: Tensor, rotary_keys: Tensor) -> Tensor:
        """The same, in latent space: q·(W c) = (Wᵀ q)·c before the softmax, and Σ p (W c) = W Σ p c behind it."""
        content, rotary = self.queries(h, positions)
        in_latent_space = torch.einsum("hdc,htd->htc", self.w_uk, content)
        probabilities = self._softmax(in_latent_space @ latents.T + rotary @ rotary_keys.T)
        mixed = probabilities @ latents  # [n_heads, new, d_c]
        return self._output(torch.einsum("hdc,htc->htd", self.w_uv, mixed))

    def _softmax(self, products: Tensor) -> Tensor:
        """Causal attention probabilities from q·k [n_heads, new, tokens]; the last `new` tokens are the queries'."""
        new, tokens = products.shape[1:]
        hidden = torch.ones(new, tokens, dtype=torch.bool, device=products.device).triu(tokens - new + 1)
        scale = sqrt(self.w_uk.shape[1] + self.w_kr.shape[0])
        return (products / scale).masked_fill(hidden, -torch.inf).softmax(-1)

    def _output(self, heads: Tensor) -> Tensor:
        return heads.transpose(0, 1).flatten(1) @ self.w_o.T


def random_latent_attention(
    *, hidden: int, n_heads: int, d_h: int, d_c: int, d_r: int, rotate: Rotate, seed: int = 0
) -> LatentAttention:
    """A layer with random float64 weights, scaled so that its scores have the spread of a trained layer's."""
    generator = torch.Generator().manual_seed(seed)

    def weight(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / sqrt(shape[-1])

    return LatentAttention(
        w_q=weight(n_heads, d_h, hidden),
        w_qr=weight(n_heads, d_r, hidden),
        w_dkv=weight(d_c, hidden),
        w_kr=weight(d_r, hidden),
        w_uk=weight(n_heads, d_h, d_c),
        w_uv=weight(n_heads, d_h, d_c),
        w_o=weight(hidden, n_heads * d_h),
        rotate=rotate,
    )
