"""The decoder in few launches, for a GPU: ten a layer where the plain one has about thirty.

    norm · q, k and v as one product · q/k norm, rotation and cache write · attention (two) · output + residual
    norm · gate and up as one product · SwiGLU · down + residual

One token alone needs seven: its products take their norm, SwiGLU and residual along (`kernels.gemv`).
At decode a layer's small operators cost what their launches cost, whatever they compute, and one product of three
matrices fills a GPU that three would not. The residual additions ride in the products (beta = 1 of a GEMM), so the
stream is rounded once where the plain decoder rounds twice. Nothing else differs from `llama`, and the weights are the
same memory: the plain modules keep working, as views of the joint matrices. The joint products are vLLM's
QKVParallelLinear and MergedColumnParallelLinear.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from labcore.kernels.activation import silu_mul
from labcore.kernels.gemv import gemv
from labcore.kernels.norm import rms_norm
from labcore.kernels.rope import rope_
from labcore.model.config import DecoderConfig
from labcore.model.llama import Attend, Block, Llama, RMSNorm, RotaryEmbedding


def fused(model: Llama) -> Llama:
    """`model` with fused layers, over the same weights; a model whose layers were swapped for others is left alone."""
    if not all(type(layer) is Block for layer in model.layers):
        return model
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.layers = nn.ModuleList(FusedBlock(layer, model.config) for layer in model.layers)
    twin.lm_head = Product(model.lm_head)
    twin.rope = RotaryTable(model.config, model.norm.weight.device)
    return twin


class Angles(NamedTuple):
    """cos, sin: float32 [context, head_dim/2] of every position; positions: int64 [tokens], the row of each token."""

    cos: Tensor
    sin: Tensor
    positions: Tensor


class RotaryTable(nn.Module):
    """`llama.RotaryEmbedding`, computed once for all positions."""

    def __init__(self, config: DecoderConfig, device: torch.device):
        super().__init__()
        cos, sin = RotaryEmbedding(config)(torch.arange(config.context, device=device))
        self.cos, self.sin = cos[:, 0].contiguous(), sin[:, 0].contiguous()

    def forward(self, positions: Tensor) -> Angles:
        return Angles(self.cos, self.sin, positions)


class FusedBlock(nn.Module):
    """A `llama.Block`. Where `attend` can, it turns and stores the joint product in one launch (`kv.paged_attend`)."""

    def __init__(self, block: Block, config: DecoderConfig):
        super().__init__()
        attention, mlp = block.self_attn, block.mlp
        self.index, self.heads = block.index, (config.n_heads, config.n_kv_heads, config.n_kv_heads)
        self.before, self.between = block.input_layernorm, block.post_attention_layernorm
        self.qkv = together(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gate_up = together(mlp.gate_proj, mlp.up_proj)
        self.output, self.down = attention.o_proj, mlp.down_proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm

    def forward(self, x: Tensor, angles: Angles, attend: Attend) -> Tensor:
        """The layer's output [tokens, hidden], in the memory of x [tokens, hidden]."""
        qkv = product(x, self.qkv, norm=self.before).unflatten(-1, (sum(self.heads), -1))
        x = product(self._attend(qkv, angles, attend).flatten(-2), self.output, onto=x)
        return product(product(x, self.gate_up, norm=self.between, gated=True), self.down, onto=x)

    def _attend(self, qkv: Tensor, angles: Angles, attend: Attend) -> Tensor:
        """Attention output of the joint heads qkv [tokens, heads + 2 · kv_heads, head_dim], which are overwritten."""
        norms = {}
        if isinstance(self.q_norm, RMSNorm):
            norms = {"q_weight": self.q_norm.weight, "k_weight": self.k_norm.weight, "eps": self.q_norm.eps}
        if getattr(attend, "joint_dtype", None) == qkv.dtype:
            return attend.joint(self.index, qkv, angles, norms)
        q, k, v = qkv.split(self.heads, dim=1)
        if norms:
            q, k = normalized(q.contiguous(), self.q_norm), normalized(k.contiguous(), self.k_norm)
        return attend(self.index, *rope_(q, k, *angles), v)


def normalized(x: Tensor, norm: RMSNorm) -> Tensor:
    """norm(x), x [..., size], by the kernel."""
    return rms_norm(x, norm.weight, norm.eps)


def product(
    x: Tensor, linear: nn.Module, *, norm: RMSNorm | None = None, gated: bool = False, onto: Tensor | None = None
) -> Tensor:
    """linear(norm(x)) [tokens, out] of x [tokens, in].

    gated: the outputs are gate and up side by side, and become their SwiGLU, [tokens, out/2]. onto: a tensor
    [tokens, out] to which the product is added, in place.
    """
    plain = type(linear) is nn.Linear and linear.bias is None
    if plain and len(x) == 1:
        before = {} if norm is None else {"norm": norm.weight, "eps": norm.eps}
        return gemv(x, linear.weight, **before, gated=gated, residual=onto, out=onto)
    if norm is not None:
        x = normalized(x, norm)
    if onto is not None:
        return onto.addmm_(x, linear.weight.t()) if plain else onto.add_(linear(x))
    return silu_mul(linear(x)) if gated else linear(x)


class Product(nn.Module):
    """`product` with a layer, as a module."""

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.linear)


class Beside(nn.Module):
    """Several linear layers of the same input, whose outputs stand beside each other."""

    def __init__(self, layers: tuple[nn.Module, ...]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], -1)


def together(*layers: nn.Module) -> nn.Module:
    """One layer whose output is that of all `layers`, one after the other.

    Plain linear layers become one product, and their weights views of its matrix; others (quantized ones) stay apart.
    """
    if not all(type(layer) is nn.Linear for layer in layers):
        return Beside(layers)
    one = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=False, device="meta")
    for name in ("weight", "bias"):
        parts = [getattr(layer, name) for layer in layers]
        if parts[0] is not None:
            setattr(one, name, nn.Parameter(_joined(parts), requires_grad=False))
            pieces = getattr(one, name).split([layer.out_features for layer in layers])
            for layer, piece in zip(layers, pieces, strict=True):
                setattr(layer, name, nn.Parameter(piece, requires_grad=False))
    return one


def _joined(parts: list[Tensor]) -> Tensor:
    """All rows in one tensor; without a copy where they lie one after the other already."""
    first, end = parts[0], parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return torch.cat([part.detach() for part in parts])
        end += part.nbytes
    shape = (sum(len(part) for part in parts), *first.shape[1:])
    return first.detach().as_strided(shape, first.stride(), first.storage_offset())
