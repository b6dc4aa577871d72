"""The parts a decoder is described with: what each layer keeps of the past, experts, and which weights exist."""

from dataclasses import dataclass
from typing import Literal

AttentionKind = Literal["full", "sliding", "mla", "linear"]


@dataclass(frozen=True)
class LayerAttention:
    """What one layer keeps of a sequence, in elements (numbers), whatever their width in bytes.

    kv_elements: written for every token: 2·n_kv·d_h for keys and values, d_c + d_R for MLA's latent, 0 for linear
    layers and for layers that read the cache of an earlier one.
    window: a sliding layer keeps the newest `window` tokens and no more. recurrent_elements and conv_elements: a linear
    layer's state, the same size for one token and for a million.
    """

    kind: AttentionKind
    kv_elements: int = 0
    window: int | None = None
    recurrent_elements: int = 0
    conv_elements: int = 0

    def tokens_kept(self, tokens: int) -> int:
        """How many of `tokens` tokens this layer still holds keys and values of."""
        if self.kind == "linear":
            return 0
        return tokens if self.window is None else min(tokens, self.window)


@dataclass(frozen=True)
class MLA:
    """Multi-head latent attention: per token one latent of kv_rank and one shared rotary key of rope_dim are kept.

    q_rank: rank of the compressed query, None if it is not compressed; nope_dim and value_dim are per head.
    Source: DeepSeek-V2, arXiv:2405.04434, section 2.1.
    """

    kv_rank: int
    rope_dim: int
    q_rank: int | None
    nope_dim: int
    value_dim: int


@dataclass(frozen=True)
class GatedDeltaNet:
    """The linear-attention layer of Qwen3-Next and Qwen3.5; state = value_heads matrices of key_dim × value_dim.

    conv_kernel: width of the causal convolution over queries, keys and values, whose last conv_kernel - 1 inputs are
    kept too. Source: arXiv:2412.06464; transformers, models/qwen3_next/modeling_qwen3_next.py.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int

    @property
    def channels(self) -> int:
        """Width of the convolution: all queries, keys and values of one token."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class MoE:
    """Mixture of experts: a router picks top_k of n_experts per token in every layer that is not dense.

    moe_intermediate: width of one expert; n_shared: experts every token passes, together shared_intermediate wide;
    dense_layers: layers with an ordinary MLP instead.
    """

    n_experts: int
    top_k: int
    moe_intermediate: int
    n_shared: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0


@dataclass(frozen=True)
class Weights:
    """Which weights a known architecture has beyond its matrices; what `parameters()` needs and a config leaves out.

    norm_vectors: 1 for RMSNorm (scale), 2 for LayerNorm (scale, shift); positions: rows of a learned position table;
    attention_gate: query projection twice as wide, its other half gates the output; sinks: one logit per head.
    """

    gated_mlp: bool = True
    norm_vectors: int = 1
    norms_per_layer: int = 2
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    positions: int = 0
    attention_gate: bool = False
    sinks: bool = False
    router_bias: bool = False
    shared_gate: bool = False
