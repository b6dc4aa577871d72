"""Where a model's keys and values lie: the covariances from which `labcore.kv.latent` takes its bases.

Keys are taken before rotation unless said otherwise. A covariance here is the mean of x xᵀ, not centred.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import ContiguousKVCache
from labcore.model.llama import Llama, rotate


def rotary(model: Llama):
    """rotate(x [tokens, heads, head_dim], positions [tokens]) as the model does it, for caches that rotate keys."""
    return lambda x, positions: rotate(x, model.rope(positions))


def weight_covariance(model: Llama) -> Tensor:
    """W Wᵀ of each layer's stacked key and value projections W, [n_layers, 2 · n_kv_heads · head_dim, same].

    Its leading directions are W's left singular vectors: the best basis for inputs that favour no direction.
    InputError for a model that does something to keys behind their projection.
    """
    if model.config.qkv_bias or model.config.qk_norm:
        raise InputError(
            "this model adds a bias to its keys or normalizes them; its projections alone do not give them"
        )
    weights = torch.stack([torch.cat((b.self_attn.k_proj.weight, b.self_attn.v_proj.weight)) for b in model.layers])
    return weights @ weights.transpose(1, 2)


@torch.inference_mode()
def activation_covariance(model: Llama, ids: Sequence[int], rotated: bool = False) -> Tensor:
    """The covariance of the keys and values that `ids` have in each layer, shaped like `weight_covariance`.

    rotated: of the keys as they are attended to, turned by their positions.
    """
    config = model.config
    cache = ContiguousKVCache(config.n_layers, config.n_kv_heads, config.head_dim, slots=1, capacity=len(ids))
    attend, found = cache.extend([(0, len(ids))]), []
    back = model.rope(-attend.positions)

    def watching(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = k if rotated else rotate(k, back)
        both = torch.cat((keys.flatten(1), v.flatten(1)), dim=1)
        found.append(both.T @ both / len(ids))
        return attend(layer, q, k, v)

    model(torch.tensor(ids), attend.positions, watching, wanted=attend.last)
    return torch.stack(found)
