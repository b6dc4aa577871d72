"""A Llama decoder's layers in compiled code (decoder.c): the two halves around attention, or a whole decode step."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from labcore.kernels.cpu.attention import DecodePass
from labcore.kernels.cpu.library import DecoderLayer, library
from labcore.kernels.cpu.linear import BlockLinear


class CompiledLayers:
    """Every layer's four products, as (qkv with its norm, output, gate and up with its norm, down with its SwiGLU)."""

    def __init__(self, layers: Sequence[tuple[BlockLinear, BlockLinear, BlockLinear, BlockLinear]]):
        self._library, self.count = library(), len(layers)
        self._alive = layers
        structs = (DecoderLayer(*(product.struct for product in layer)) for layer in layers)
        self.structs = (DecoderLayer * len(layers))(*structs)
        self.at = [ctypes.pointer(struct) for struct in self.structs]

    def before_attention(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, n_turned: int) -> Tensor:
        """Heads [rows, heads, head_dim] = qkv(x), the first n_turned of them rotated as `model.llama.rotate` does.

        x: fp32 [rows, hidden], contiguous; cos, sin: fp32 [rows, 1, head_dim/2].
        """
        rows, size = len(x), 2 * cos.shape[2]
        heads = torch.empty((rows, self.structs[layer].qkv.outputs // size, size))
        self._library.before_attention(
            self.at[layer], x.data_ptr(), cos.data_ptr(), sin.data_ptr(), heads.data_ptr(), rows, n_turned, size,
            torch.get_num_threads(),
        )  # fmt: skip
        return heads

    def after_attention(self, layer: int, attended: Tensor, x: Tensor) -> None:
        """x += output(attended), then x += down(gate_up(x)), in place.

        attended: fp32 [rows, heads, head_dim]; x: fp32 [rows, hidden], contiguous.
        """
        attended = attended.contiguous()
        threads = torch.get_num_threads()
        self._library.after_attention(self.at[layer], attended.data_ptr(), x.data_ptr(), len(x), threads)

    def decode_step(
        self, decode: DecodePass, n_heads: int, x: Tensor, cos: Tensor, sin: Tensor, first: int = 0
    ) -> None:
        """x [sequences, hidden] through all layers, in place: one call instead of three a layer. The first of them is
        layer `first` of the cache."""
        self._library.decode_step(
            self.structs,
            self.count,
            first,
            decode.serve(n_heads),
            cos.data_ptr(),
            sin.data_ptr(),
            x.data_ptr(),
            decode.threads,
        )
