"""Where a decoder's pass meets the paged cache."""

from torch import Tensor

from labcore.attention.metadata import AttentionMetadata, Backend
from labcore.attention.select import fastest
from labcore.kv.storage import KVStorage


class PagedAttend:
    """The `attend` of one pass: stores the new keys and values of a layer, then attends through the block tables.

    decode_pass: the compiled kernel for a pass with one new token per request, all layers; a fast model runs the whole
    step through it (`model.compiled`). None where it does not apply.
    """

    def __init__(self, storage: KVStorage, metadata: AttentionMetadata, backend: Backend | None):
        self.storage, self.slots = storage, metadata.slot_mapping
        self.decode_pass = storage.decode_pass(metadata) if backend is None else None
        if self.decode_pass is None:
            metadata, shape, self.read = storage.view(metadata)
            self.attend = (backend or fastest(shape, storage.dtype, metadata.block_table.device))(metadata, shape)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.decode_pass is not None:
            return self.decode_pass(layer, q.float(), k.float(), v.float()).to(q.dtype)
        self.storage.write(layer, self.slots, k, v)
        return self.attend(q, *self.read(layer))
