"""The decoder: embedding, n_layers of (attention, MLP), norm, head. Llama, SmolLM2, Qwen2 and Qwen3.

Tokens are flat: a pass works on [tokens], the new tokens of every sequence in the batch one after the other, with no
padding. Whatever depends on which token belongs to which sequence — keeping keys and values, masking, attending —
happens inside `attend(layer, q, k, v)`, an argument of the pass. So the same decoder serves a contiguous cache, a paged
one, or none, and never learns which.

Module and parameter names are those of Hugging Face checkpoints without the leading "model."; every projection is a
plain nn.Linear, so that quantization and tensor parallelism can swap it.
Sources: Llama (arXiv:2302.13971), RoPE (2104.09864), GQA (2305.13245), SwiGLU (2002.05202), RMSNorm (1910.07467).
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.model.config import DecoderConfig

# attend(layer index, q [tokens, n_heads, head_dim], k and v [tokens, n_kv_heads, head_dim]) -> like q
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Llama(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)
        if config.tied_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.rope = RotaryEmbedding(config)

    def forward(self, token_ids: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None) -> Tensor:
        """Logits [wanted, vocab] after the tokens at the indices `wanted` of the pass (None: after every token).

        token_ids, positions: int64 [tokens]; a position counts from 0 within its own sequence.
        """
        x, _ = self.run(token_ids, positions, attend)
        if wanted is not None:
            x = x[wanted]
        return self.lm_head(self.norm(x))

    def run(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, taps: Collection[int] = ()
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The same up to the last layer: its output [tokens, hidden], and copies of those of the layers `taps`.

        Compiled layers are one stack, with one output; `compiled.split_at` splits it.
        """
        x = self.embed_tokens(token_ids)
        rotation, tapped = self.rope(positions), {}
        for layer in self.layers:
            x = layer(x, rotation, attend)
            if taps and layer.index in taps:
                tapped[layer.index] = x.clone()
        return x, tapped


class Block(nn.Module):
    """One layer: attention and MLP, each reading a normalized copy of the residual stream and adding to it."""

    def __init__(self, config: DecoderConfig, index: int):
        super().__init__()
        self.index = index
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Attention(nn.Module):
    """Grouped-query attention: n_heads queries share n_kv_heads keys and values."""

    def __init__(self, config: DecoderConfig, index: int):
        super().__init__()
        self.index, self.head_dim = index, config.head_dim
        queries, keys = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, queries, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden, keys, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden, keys, bias=config.qkv_bias)
        self.o_proj = nn.Linear(queries, config.hidden, bias=config.output_bias)
        self.q_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        q = self.q_norm(self.q_proj(x).unflatten(-1, (-1, self.head_dim)))
        k = self.k_norm(self.k_proj(x).unflatten(-1, (-1, self.head_dim)))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        attended = attend(self.index, rotate(q, rotation), rotate(k, rotation), v)
        return self.o_proj(attended.flatten(-2))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Embedding(nn.Embedding):
    """nn.Embedding that draws no start values without memory to put them in; torch would load its compiler for that."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight, over the last dimension."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class RotaryEmbedding(nn.Module):
    """The angles by which a head's coordinate pairs turn at each position: position · theta^(-2i/head_dim)."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [tokens, 1, head_dim/2], of `positions` [tokens]."""
        angles = positions[:, None, None].float() * self.frequencies(positions.device)
        return angles.cos(), angles.sin()

    def frequencies(self, device: torch.device) -> Tensor:
        """Radians per position, float32 [head_dim/2], fastest first."""
        size = self.config.head_dim
        exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
        frequencies = 1.0 / self.config.rope_theta**exponents  # theta**-x rounds differently: 1e-4 in the logits
        if self.config.rope_factors is not None:
            frequencies = frequencies / torch.tensor(self.config.rope_factors, device=device)
        return frequencies


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pair (i, i + head_dim/2) of every head of x [tokens, heads, head_dim] by its angle."""
    cos, sin = (angle.to(x.dtype) for angle in rotation)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
