"""How many parameters a decoder has, counted weight by weight from its config.

Counts the language model as transformers builds it: tied embeddings once, no vision tower, no multi-token-prediction
head, no quantization scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labcore.core.errors import DataError

if TYPE_CHECKING:
    from labcore.facts.model import ModelConfig


def total(c: ModelConfig) -> int:
    """All parameters. Raises DataError if the architecture is not one whose every weight is known here."""
    w = _weights(c)
    attention = sum(_linear_attention(c) if layer.kind == "linear" else _attention(c) for layer in c.layers)
    norms = (c.n_layers * w.norms_per_layer + 1) * c.hidden * w.norm_vectors
    return embeddings(c) + attention + _feed_forward(c) + norms


def embeddings(c: ModelConfig) -> int:
    """Rows that tokens are looked up in and scored against, once if tied, and learned positions. DataError as total."""
    return c.vocab * c.hidden * (1 if c.tied_embeddings else 2) + _weights(c).positions * c.hidden


def active(c: ModelConfig) -> int:
    """Parameters one token passes through: all but the experts its router did not choose, in every MoE layer."""
    every = total(c)
    if c.moe is None:
        return every
    idle = c.moe.n_experts - c.moe.top_k
    return every - (c.n_layers - c.moe.dense_layers) * idle * _mlp(c, c.moe.moe_intermediate)


def _weights(c: ModelConfig):
    if c.weights is None:
        raise DataError(
            f"{c.id}: cannot count the parameters exactly, because the weights of model_type {c.model_type!r} are not "
            "described here; take the count from the checkpoint's index"
        )
    return c.weights


def _attention(c: ModelConfig) -> int:
    if c.mla is not None:
        return _latent_attention(c)
    w = c.weights
    queries, keys = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    projected = queries * (2 if w.attention_gate else 1) + 2 * keys
    matrices = c.hidden * projected + queries * c.hidden
    biases = projected * w.qkv_bias + c.hidden * w.output_bias
    return matrices + biases + 2 * c.head_dim * w.qk_norm + c.n_heads * w.sinks


def _latent_attention(c: ModelConfig) -> int:
    m, w = c.mla, c.weights
    queries = c.n_heads * (m.nope_dim + m.rope_dim)
    if m.q_rank is None:
        query = c.hidden * queries
    else:
        query = c.hidden * m.q_rank + m.q_rank + m.q_rank * queries + m.q_rank * w.qkv_bias
    down = c.hidden * (m.kv_rank + m.rope_dim) + m.kv_rank + (m.kv_rank + m.rope_dim) * w.qkv_bias
    up = m.kv_rank * c.n_heads * (m.nope_dim + m.value_dim)
    return query + down + up + c.n_heads * m.value_dim * c.hidden + c.hidden * w.output_bias


def _linear_attention(c: ModelConfig) -> int:
    d = c.delta_net
    values = d.value_heads * d.value_dim
    projections = c.hidden * (d.channels + values + 2 * d.value_heads)  # q k v, output gate, beta and decay
    convolution = d.channels * d.conv_kernel
    decay_and_norm = 2 * d.value_heads + d.value_dim
    return projections + convolution + decay_and_norm + values * c.hidden


def _feed_forward(c: ModelConfig) -> int:
    if c.moe is None:
        return c.n_layers * _mlp(c, c.intermediate)
    m, w = c.moe, c.weights
    router = c.hidden * m.n_experts + m.n_experts * w.router_bias
    shared = (_mlp(c, m.shared_intermediate) if m.shared_intermediate else 0) + c.hidden * w.shared_gate
    sparse = router + m.n_experts * _mlp(c, m.moe_intermediate) + shared
    dense = _mlp(c, c.intermediate) if m.dense_layers else 0
    return (c.n_layers - m.dense_layers) * sparse + m.dense_layers * dense


def _mlp(c: ModelConfig, width: int) -> int:
    w = c.weights
    inward = 2 if w.gated_mlp else 1
    return (inward + 1) * c.hidden * width + (inward * width + c.hidden) * w.mlp_bias
