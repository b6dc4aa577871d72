"""Paged decoding by the compiled kernel, which walks the block tables itself."""

from torch import Tensor

from labcore.attention.sdpa import SDPAAttention
from labcore.kernels.cpu.attention import DecodePass


class CompiledAttention(SDPAAttention):
    """A backend (see `metadata`) for the caches that `kernels.cpu.attention` supports, without a window.

    Long chunks go through SDPA. A step without any runs faster as one `DecodePass` over all layers.
    """

    def _grouped(self, rows: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
        return [rows] if rows else []

    def _group(self, lengths: Tensor, requests: Tensor, tokens: Tensor) -> tuple:
        newest = self._slots(requests, lengths - 1)
        return tokens, self.metadata.block_table[requests].long(), lengths, newest

    def _attend_rows(
        self, q: Tensor, key_cache: Tensor, value_cache: Tensor, tables: Tensor, lengths: Tensor, newest: Tensor
    ) -> Tensor:
        caches = key_cache, value_cache
        one_layer = (cache[None].transpose(2, 3) for cache in caches)
        stored = (cache.flatten(0, 1)[newest] for cache in caches)  # the kernel stores the newest token once more
        return DecodePass(*one_layer, tables, lengths)(0, q, *stored)
