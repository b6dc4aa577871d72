"""Where a decoder's pass meets the paged cache."""

from collections.abc import Mapping

from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, Backend
from labcore.attention.select import fastest
from labcore.kv.storage import KVStorage


class PagedAttend:
    """The `attend` of one pass: stores the new keys and values of a layer, then attends through the block tables.

    decode_pass: the compiled kernel for a pass with one new token per request, all layers; a fast model runs the whole
    step through it (`model.compiled`). None where it does not apply. joint_dtype: of the products that `joint` takes.
    """

    def __init__(self, storage: KVStorage, metadata: AttentionMetadata, backend: Backend | None):
        self.storage, self.slots = storage, metadata.slot_mapping
        self.joint_dtype = None
        self.decode_pass = storage.decode_pass(metadata) if backend is None else None
        if self.decode_pass is None:
            metadata, shape, self.read = storage.view(metadata)
            self.joint_dtype = storage.joint_dtype
            self.attend = (backend or fastest(shape, storage.dtype, metadata.block_table.device))(metadata, shape)

    def joint(self, layer: int, qkv: Tensor, angles: tuple[Tensor, Tensor, Tensor], norms: Mapping) -> Tensor:
        """The same from the joint heads of q, k and v (`model.fused`), which are neither normalized nor turned yet.

        qkv: [tokens, n_heads + 2 · n_kv_heads, head_dim], overwritten; angles, norms: as for `kernels.rope`.
        """
        from labcore.kernels.rope import rope_write_kv

        caches = self.read(layer)
        return self.attend(rope_write_kv(qkv, *angles, *caches, self.slots, **norms), *caches)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.decode_pass is not None:
            return self.decode_pass(layer, q.float(), k.float(), v.float()).to(q.dtype)
        self.storage.write(layer, self.slots, k, v)
        return self.attend(q, *self.read(layer))
