"""Paged keys and values in fewer bits: each token of each head is quantized when it is written, and never again.

A step turns the blocks that its tables name back into numbers, once a layer, and attends to those. So the cache is
smaller, not the traffic of a step on this path; a kernel that reads codes would save both.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, AttentionShape
from labcore.core.errors import InputError
from labcore.formats.fp8 import NAN
from labcore.formats.packing import pack, packed_bytes, unpack
from labcore.kv.quantized import KVFormat
from labcore.kv.quantized_store import TOKEN, Scheme
from labcore.kv.storage import KVStorage, Read

LARGEST = 2.0**14  # any group of smaller numbers has scales that half precision can store


class QuantizedKVStorage(KVStorage):
    """keys, values: [codes, parameters…], uint8 [n_layers, num_blocks, block_size, n_kv_heads, packed bytes of
    head_dim] and [n_layers, num_blocks, block_size, n_kv_heads, groups]. `dtype` is the type attention computes in.

    Raises InputError for a format that needs more than one token to quantize one, as KIVI's keys do: with scales shared
    along the tokens, a block could only be written when it is full.
    """

    def __init__(
        self,
        n_layers: int,
        shape: AttentionShape,
        *,
        format: KVFormat,
        num_host_blocks: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.shape, self.format, self.dtype = shape, format, dtype
        self.keys, self.values = (
            _empty(scheme, n_layers, shape, shape.num_blocks, device) for scheme in (format.keys, format.values)
        )
        self.host_keys, self.host_values = (
            _empty(scheme, n_layers, shape, num_host_blocks, "cpu") for scheme in (format.keys, format.values)
        )

    @property
    def joint_dtype(self) -> None:
        """Only `write` knows how to make codes."""

    @property
    def arrays(self) -> list[tuple[Tensor, Tensor]]:
        pairs = (self.keys, self.host_keys), (self.values, self.host_values)
        return [pair for device, host in pairs for pair in zip(device, host, strict=True)]

    def write(self, layer: int, slot_mapping: Tensor, k: Tensor, v: Tensor) -> None:
        """Quantize and store. A token that cannot be is stored as NaN, so that it spoils no request but its own."""
        for scheme, arrays, new in ((self.format.keys, self.keys, k), (self.format.values, self.values, v)):
            broken = ~(new.abs() <= LARGEST).flatten(1).all(1)
            new = new.masked_fill(broken[:, None, None], 0)
            codes, *parameters = scheme.format.quantize(new, -1, scheme.group or self.shape.head_dim)
            codes[broken] = NAN  # for a format without parameters; to the others one code is as good as another
            for parameter in parameters:
                parameter[broken] = torch.nan
            for array, one in zip(arrays, (pack(codes, scheme.format.bits), *parameters), strict=True):
                array[layer].flatten(0, 1).index_copy_(0, slot_mapping, one)

    def view(self, metadata: AttentionMetadata) -> tuple[AttentionMetadata, AttentionShape, Read]:
        """Only the blocks that the step's tables name, numbered anew; block 0 remains the one of zeros."""
        table = metadata.block_table
        used, renamed = torch.cat((table.new_zeros(1), table.flatten())).unique(return_inverse=True)
        shape = replace(self.shape, num_blocks=len(used))

        def read(layer: int) -> tuple[Tensor, Tensor]:
            return (
                self._dequantized(self.format.keys, self.keys, layer, used),
                self._dequantized(self.format.values, self.values, layer, used),
            )

        return replace(metadata, block_table=renamed[1:].view(table.shape).to(table.dtype)), shape, read

    def decode_pass(self, metadata: AttentionMetadata) -> None:
        """The compiled kernel reads numbers, not codes."""

    def _dequantized(self, scheme: Scheme, arrays: Sequence[Tensor], layer: int, blocks: Tensor) -> Tensor:
        """[blocks, block_size, n_kv_heads, head_dim], the first of them zeros."""
        size = self.shape.head_dim
        packed, *parameters = (array[layer].index_select(0, blocks) for array in arrays)
        codes = unpack(packed, scheme.format.bits, size)
        numbers = scheme.format.dequantize(codes, *parameters, axis=-1, group=scheme.group or size).to(self.dtype)
        numbers[0] = 0
        return numbers


def _empty(scheme: Scheme, n_layers: int, shape: AttentionShape, blocks: int, device) -> list[Tensor]:
    """Codes and parameters of so many blocks."""
    group = scheme.group or shape.head_dim
    if scheme.axis != TOKEN or scheme.residual or scheme.sinks or shape.head_dim % group:
        raise InputError(
            f"{scheme}: a paged cache quantizes each token alone; use axis='token', residual=0 and a group that "
            f"divides head_dim={shape.head_dim}"
        )
    heads = n_layers, blocks, shape.block_size, shape.n_kv_heads
    codes = torch.empty(*heads, packed_bytes(shape.head_dim, scheme.format.bits), dtype=torch.uint8, device=device)
    scales = [
        torch.empty(*heads, shape.head_dim // group, dtype=dtype, device=device) for dtype in scheme.format.parameters
    ]
    return [codes, *scales]
