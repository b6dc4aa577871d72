"""The fast CPU path: the decoder served from the file's own 4-bit blocks, projections that share an input fused.

Three changes against the exact path, each a swapped module: q, k and v become one product, gate and up become one, and
every product computes from the stored blocks (`formats.linear`) in bf16. The decoder itself is untouched.
"""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from labcore.core.errors import InputError
from labcore.formats.linear import Int4BlockLinear, Q8BlockHead
from labcore.model.llama import Attend, Llama, rotate
from labcore.model.loader import Checkpoint, GGUFCheckpoint, replace_module


def serve_blocks(model: Llama, checkpoint: Checkpoint) -> None:
    """A `loader.load_model` transform: every projection and the head compute from the GGUF file's blocks.

    Needs a GGUF file with Q4_0 or Q4_1 projections without biases or q/k norms, and a tied Q8_0 embedding.
    Raises InputError or DataError naming what the file has instead.
    """
    config = checkpoint.config
    if not isinstance(checkpoint, GGUFCheckpoint):
        raise InputError("quantization='gguf' serves a GGUF file; this checkpoint is a safetensors folder")
    if config.qkv_bias or config.output_bias or config.qk_norm or not config.tied_embeddings:
        raise InputError(
            "quantization='gguf' serves models without biases and q/k norms, with a tied head; use the exact path"
        )
    for i in range(config.n_layers):
        attention, mlp = f"layers.{i}.self_attn", f"layers.{i}.mlp"
        q, k, v, o, gate, up, down = (
            f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj", f"{attention}.o_proj",
            f"{mlp}.gate_proj", f"{mlp}.up_proj", f"{mlp}.down_proj",
        )  # fmt: skip
        fused = FusedAttention(
            i, config.n_heads, config.n_kv_heads, stacked(checkpoint, q, k, v), stacked(checkpoint, o)
        )
        replace_module(model, attention, fused)
        replace_module(model, mlp, FusedMLP(stacked(checkpoint, gate, up), stacked(checkpoint, down)))
    table = checkpoint.tensor("embed_tokens.weight").bfloat16()
    model.embed_tokens.weight = nn.Parameter(table, requires_grad=False)
    model.lm_head = Q8BlockHead(*checkpoint.blocks("embed_tokens.weight"), table)


def stacked(checkpoint: GGUFCheckpoint, *names: str) -> Int4BlockLinear:
    """One layer that computes the named projections side by side; they must share a block format."""
    raws, formats = zip(*(checkpoint.blocks(f"{name}.weight") for name in names), strict=True)
    if len(set(formats)) > 1:
        raise InputError(
            f"{' and '.join(names)} are stored in different formats, {[f.name for f in formats]}; use the exact path"
        )
    return Int4BlockLinear(np.concatenate(raws), formats[0])


class FusedAttention(nn.Module):
    """`llama.Attention` with one product for q, k and v, and one rotation for q and k."""

    def __init__(self, index: int, n_heads: int, n_kv_heads: int, qkv_proj: nn.Module, o_proj: nn.Module):
        super().__init__()
        self.index, self.heads = index, (n_heads, n_kv_heads, n_kv_heads)
        self.qkv_proj, self.o_proj = qkv_proj, o_proj

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        heads = self.qkv_proj(x).unflatten(-1, (sum(self.heads), -1))
        turned = rotate(heads[:, : -self.heads[2]], rotation)
        q, k = turned.split(self.heads[:2], dim=1)
        return self.o_proj(attend(self.index, q, k, heads[:, -self.heads[2] :]).flatten(-2))


class FusedMLP(nn.Module):
    """`llama.MLP` with one product for gate and up."""

    def __init__(self, gate_up_proj: nn.Module, down_proj: nn.Module):
        super().__init__()
        self.gate_up_proj, self.down_proj = gate_up_proj, down_proj

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(F.silu(gate) * up)
