"""The fast path without a C compiler: the file's own 4-bit blocks in torch's int4 kernel, bf16 activations.

Three changes against the exact path, each a swapped module: q, k and v become one product, gate and up become one, and
every product computes from the stored blocks (`formats.linear`) in bf16. The decoder itself is untouched.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from labcore.formats.linear import Int4BlockLinear, Q8BlockHead
from labcore.model.fast import plain_gguf, stacked
from labcore.model.llama import Attend, Llama, rotate
from labcore.model.loader import Checkpoint, GGUFCheckpoint, replace_module


def serve_blocks(model: Llama, checkpoint: Checkpoint) -> None:
    """A `loader.load_model` transform, for dtype bfloat16: every product computes from the GGUF file's blocks.

    Needs what `fast.plain_gguf` asks for, Q4_0 or Q4_1 projections and a Q8_0 table; DataError names another format.
    """
    config = plain_gguf(checkpoint).config
    for i in range(config.n_layers):
        attention, mlp = f"layers.{i}.self_attn", f"layers.{i}.mlp"
        q, k, v, o, gate, up, down = (
            f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj", f"{attention}.o_proj",
            f"{mlp}.gate_proj", f"{mlp}.up_proj", f"{mlp}.down_proj",
        )  # fmt: skip
        fused = FusedAttention(i, config.n_heads, config.n_kv_heads, linear(checkpoint, q, k, v), linear(checkpoint, o))
        replace_module(model, attention, fused)
        replace_module(model, mlp, FusedMLP(linear(checkpoint, gate, up), linear(checkpoint, down)))
    table = checkpoint.tensor("embed_tokens.weight").bfloat16()
    model.embed_tokens.weight = nn.Parameter(table, requires_grad=False)
    model.lm_head = Q8BlockHead(*checkpoint.blocks("embed_tokens.weight"), table)


def linear(checkpoint: GGUFCheckpoint, *names: str) -> Int4BlockLinear:
    """One layer that computes the named projections side by side."""
    return Int4BlockLinear(*stacked(checkpoint, *(f"{name}.weight" for name in names)))


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
