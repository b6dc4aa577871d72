"""A low-rank cache: one latent vector a token and layer, from which keys and values of all heads are made again.

This is what multi-head latent attention does (`mla.py`), done to a model that was not trained for it: its stacked key
and value projections are replaced by their best approximation of lower rank. Source of the idea: DeepSeek-V2,
arXiv:2405.04434, section 2.1; of doing it afterwards: TransMLA, arXiv:2502.07864, and MHA2MLA, arXiv:2502.14837.
"""

import torch
from torch import Tensor

from labcore.core.errors import InputError
from labcore.kv.contiguous import Span, causal_attention
from labcore.kv.lossy import LossyKVCache, Rotate


class LatentKVCache(LossyKVCache):
    """c = basisᵀ [k; v] is kept, [k; v] ≈ basis c is attended to.

    basis: [n_layers, 2 · n_kv_heads · head_dim, rank], orthonormal columns; a token's keys of all heads come first, its
    values after them. latents: [n_layers, slots, capacity, rank].

    With `rotate`, the latent is taken before rotation and every key is turned again on every read. Without it, keys
    are compressed as they are attended to, turned by their positions; the latent could then be absorbed into the
    query's projection, but the turned keys of many positions do not fit into as few dimensions.
    """

    def __init__(
        self,
        basis: Tensor,
        n_kv_heads: int,
        head_dim: int,
        *,
        rotate: Rotate | None,
        slots: int,
        capacity: int,
    ):
        super().__init__(slots=slots, capacity=capacity, device=basis.device)
        if basis.dim() != 3 or basis.shape[1] != 2 * n_kv_heads * head_dim:
            raise InputError(
                f"basis of shape {tuple(basis.shape)}; {n_kv_heads} heads of {head_dim} need "
                f"[n_layers, {2 * n_kv_heads * head_dim}, rank]"
            )
        self.basis, self.rotate, self.raw = basis, rotate, rotate is not None
        self.heads = 2, n_kv_heads, head_dim
        self.latents = basis.new_empty(basis.shape[0], slots, capacity, basis.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes reserved, used or not. The basis is a weight, shared by all sequences."""
        return self.latents.nbytes

    def attend(self, layer: int, span: Span, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        basis, latents = self.basis[layer], self.latents[layer, span.slot]
        latents[span.past : span.total] = torch.cat((k.flatten(1), v.flatten(1)), dim=1) @ basis
        keys, values = (latents[: span.total] @ basis.T).unflatten(1, self.heads).unbind(1)
        if self.rotate is not None:
            positions = torch.arange(span.total, device=self.device)
            keys, q = self.rotate(keys, positions), self.rotate(q, positions[span.past :])
        return causal_attention(q, keys.transpose(0, 1), values.transpose(0, 1))

    def can_truncate(self, slot: int, length: int) -> bool:
        """Nothing is ever dropped."""
        return True


def principal_basis(covariance: Tensor, rank: int) -> Tensor:
    """The `rank` directions [..., size, rank] that hold the most of a covariance [..., size, size]."""
    if not 1 <= rank <= covariance.shape[-1]:
        raise InputError(f"rank={rank}: must be 1 to {covariance.shape[-1]}")
    return torch.linalg.eigh(covariance).eigenvectors[..., -rank:].flip(-1)
