"""The decoder served by compiled kernels: the file's own 4-bit blocks, fp32 activations, four products a layer.

Against the exact path the list of layers is swapped for one module, `CompiledStack`, whose products read the stored
blocks and fold in the norm, the SwiGLU and the residual addition beside them (`kernels.cpu`). Attention stays the
`attend` argument of the pass, so every cache works unchanged; if that argument carries a `DecodePass`, the whole step
is one compiled call.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from labcore.formats.blocks import BlockFormat, dequantize
from labcore.kernels.cpu.decoder import CompiledLayers
from labcore.kernels.cpu.linear import FEW_ROWS, BlockLinear
from labcore.model.fast import plain_gguf, stacked
from labcore.model.llama import Attend, Llama, rotate
from labcore.model.loader import Checkpoint, GGUFCheckpoint


def serve_blocks(model: Llama, checkpoint: Checkpoint) -> None:
    """A `loader.load_model` transform, for dtype float32: every product computes from the GGUF file's blocks.

    Needs what `fast.plain_gguf` asks for, in Q4_0, Q4_1 or Q8_0; DataError names another format, InputError says why
    the kernels cannot run here.
    """
    checkpoint = plain_gguf(checkpoint)
    config = checkpoint.config
    model.layers = nn.ModuleList([CompiledStack(all_products(checkpoint), config.n_heads, config.n_kv_heads)])
    raw, format = checkpoint.blocks("embed_tokens.weight")
    model.embed_tokens = BlockEmbedding(raw, format)
    model.lm_head = BlockLinear(raw, format)
    checkpoint.file.drop_pages()


class CompiledStack(nn.Module):
    """Layers of a `Llama`, all of them or some, each as four products: q, k and v together; output; gate and up
    together; down. `attend` knows them by their places in the stack, counted from `first`."""

    def __init__(self, layers: Iterable[nn.ModuleList], n_heads: int, n_kv_heads: int, first: int = 0):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.first = n_heads, n_kv_heads, first
        self.products = nn.ModuleList(layers)
        self.layers = CompiledLayers([tuple(four) for four in self.products])

    def subset(self, layers: Sequence[int], first: int = 0) -> "CompiledStack":
        """A stack of these layers over the same weights."""
        return CompiledStack([self.products[i] for i in layers], self.n_heads, self.n_kv_heads, first)

    @property
    def index(self) -> int:
        """The last layer, as `attend` knows it."""
        return self.first + self.layers.count - 1

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        if len(x) > FEW_ROWS and self.products[0][0].packed is not None:
            return self._many_rows(x, rotation, attend)
        if (decode := getattr(attend, "decode_pass", None)) is not None:
            self.layers.decode_step(decode, self.n_heads, x, *rotation, self.first)
            return x
        n, n_kv = self.n_heads, self.n_kv_heads
        for i in range(self.layers.count):
            heads = self.layers.before_attention(i, x, *rotation, n_turned=n + n_kv)
            attended = attend(self.first + i, heads[:, :n], heads[:, n : n + n_kv], heads[:, n + n_kv :])
            self.layers.after_attention(i, attended, x)
        return x

    def _many_rows(self, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        """The same in torch, whose packed bf16 products win where the CPU has instructions for them."""
        n, n_kv = self.n_heads, self.n_kv_heads
        for i, (qkv, output, gate_up, down) in enumerate(self.products):
            q, k, v = qkv(x).unflatten(-1, (n + 2 * n_kv, -1)).split((n, n_kv, n_kv), dim=1)
            x = x + output(attend(self.first + i, rotate(q, rotation), rotate(k, rotation), v).flatten(-2))
            x = x + down(gate_up(x))
        return x


def split_at(model: Llama, taps: Iterable[int]) -> None:
    """Let `model.run` tap these layers: a compiled stack becomes one for each stretch that ends with one of them."""
    if len(model.layers) == 1 and isinstance(stack := model.layers[0], CompiledStack):
        ends = sorted({tap + 1 for tap in taps} | {stack.layers.count})
        model.layers = nn.ModuleList(stack.subset(range(begin, end), begin) for begin, end in pairwise([0, *ends]))


def all_products(checkpoint: GGUFCheckpoint) -> Iterator[nn.ModuleList]:
    """The products of every layer."""
    for i in range(checkpoint.config.n_layers):
        yield products(checkpoint, i)
        checkpoint.file.drop_pages()  # packed now: the file need not stay in memory beside it


def products(checkpoint: GGUFCheckpoint, index: int) -> nn.ModuleList:
    """The four products of layer `index`, with the norms and the SwiGLU that stand before them."""
    layer, eps = f"layers.{index}", checkpoint.config.norm_eps
    before, between = (
        {"norm": checkpoint.tensor(f"{layer}.{name}_layernorm.weight"), "eps": eps}
        for name in ("input", "post_attention")
    )
    qkv = (f"{layer}.self_attn.{name}_proj.weight" for name in "qkv")
    gate_up = (f"{layer}.mlp.{name}_proj.weight" for name in ("gate", "up"))
    return nn.ModuleList(
        [
            BlockLinear(*stacked(checkpoint, *qkv), **before),
            BlockLinear(*checkpoint.blocks(f"{layer}.self_attn.o_proj.weight")),
            BlockLinear(*stacked(checkpoint, *gate_up), **between),
            BlockLinear(*checkpoint.blocks(f"{layer}.mlp.down_proj.weight"), gated=True),
        ]
    )


class BlockEmbedding(nn.Module):
    """Rows of a table that stays in the file's blocks; only the rows of a pass are dequantized."""

    def __init__(self, raw: np.ndarray, format: BlockFormat):
        super().__init__()
        self.raw, self.format = raw, format

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids: int64 [tokens]; returns fp32 [tokens, hidden]."""
        return torch.from_numpy(dequantize(self.raw[token_ids.numpy()], self.format))
