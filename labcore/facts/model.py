"""The shape of a language model and the memory arithmetic that follows from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labcore.core.errors import InputError
from labcore.facts import config_json, parameters
from labcore.facts.layers import MLA, GatedDeltaNet, LayerAttention, MoE, Weights


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only language model. All sizes are numbers of elements; `context` is in tokens.

    layers: what each of the n_layers layers keeps of the past, in order. head_dim is the width of a query or key head.
    intermediate: width of the dense MLP. context: longest context the config claims, None where it names none.
    n_kv_heads: as published; it does not decide the cache size of MLA, whose layers keep a latent instead.
    """

    id: str
    name: str
    model_type: str
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied_embeddings: bool
    layers: tuple[LayerAttention, ...]
    context: int | None = None
    moe: MoE | None = None
    mla: MLA | None = None
    delta_net: GatedDeltaNet | None = None
    weights: Weights | None = None
    source: str = ""
    as_of: str = ""
    note: str = ""

    @classmethod
    def from_hf(
        cls, config: str | os.PathLike | Mapping[str, Any], name: str | None = None, **facts: str
    ) -> ModelConfig:
        """Read a Hugging Face config.json: its path, the folder it lies in, or its content as a dict.

        Nested `text_config`s are entered; what a config leaves out takes the default of its model_type's class.
        `facts` sets id, source, as_of and note. Raises DataError naming file and field if one is missing,
        contradicts another, or asks for a cache that this reader does not understand.
        """
        return cls(**(config_json.read(config, name) | facts))

    def parameters(self) -> int:
        """Exact number of parameters of the language model; DataError where the architecture is not known weight by
        weight. Embeddings count once if tied; vision towers and multi-token-prediction heads do not count."""
        return parameters.total(self)

    def embedding_parameters(self) -> int:
        """Parameters of the embedding and of the output head (once if tied): what most formats leave in 16 bits."""
        return parameters.embeddings(self)

    def active_parameters(self) -> int:
        """Parameters one token passes through: everything except the experts that were not chosen."""
        return parameters.active(self)

    def weight_bytes(self, bytes_per_weight: float = 2) -> float:
        """Bytes of all weights at a uniform width."""
        return self.parameters() * _positive("bytes_per_weight", bytes_per_weight)

    @property
    def n_kv_layers(self) -> int:
        """Layers that keep something for every token (or every token of their window)."""
        return sum(layer.kv_elements > 0 for layer in self.layers)

    def kv_bytes_per_token(self, bytes_per_element: float = 2) -> float:
        """Bytes one more token adds to one sequence's cache while no window is full: κ = 2·n_ℓ·n_kv·d_h·b_kv, or its
        counterpart where layers differ. `kv_bytes` knows what windows drop."""
        return sum(layer.kv_elements for layer in self.layers) * _positive("bytes_per_element", bytes_per_element)

    def kv_bytes(self, tokens: int, bytes_per_element: float = 2) -> float:
        """Bytes of keys and values (or latents) of one sequence of `tokens` tokens, each layer up to its window.

        Linear-attention layers keep no keys and values; their constant size is `state_bytes`.
        """
        if not (tokens >= 0 and tokens % 1 == 0):
            raise InputError(f"tokens={tokens!r} must be a whole number, 0 or more")
        elements = sum(layer.kv_elements * layer.tokens_kept(tokens) for layer in self.layers)
        return elements * _positive("bytes_per_element", bytes_per_element)

    def state_bytes(self, recurrent_bytes: float = 4, conv_bytes: float = 2) -> float:
        """Bytes of one sequence's linear-attention state, the same at any length; 0 without such layers.

        Engines keep the recurrent matrices in FP32 (`mamba_ssm_dtype`) and the convolution window in 16 bits.
        """
        recurrent = sum(layer.recurrent_elements for layer in self.layers)
        return recurrent * recurrent_bytes + sum(layer.conv_elements for layer in self.layers) * conv_bytes

    def __repr__(self) -> str:
        return f"ModelConfig({self.id!r})"


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise InputError(f"{name}={value!r} must be above 0 (2 for FP16 and BF16, 1 for FP8 and INT8)")
    return value
