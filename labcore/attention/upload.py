"""Arrays of the host to a device, without waiting for what the device is doing.

A copy from ordinary memory waits until the stream is idle, so a step's inputs would arrive after the step before it. A
copy from pinned memory is queued like a kernel; all arrays of a step go in one. torch keeps pinned buffers for reuse,
and reuses one only when the copies from it are done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; where each array of a buffer begins


class Packed:
    """Arrays of these shapes and types, by name, side by side in one buffer on `device`.

    tensors: the views of it; their addresses never change, so that a CUDA graph can read them.
    """

    def __init__(self, arrays: Mapping[str, tuple[Sequence[int], np.dtype | type]], device: torch.device):
        self.places, end = {}, 0
        for name, (shape, dtype) in arrays.items():
            begin = -(-end // ALIGNMENT) * ALIGNMENT
            end = begin + int(np.prod(shape)) * np.dtype(dtype).itemsize
            self.places[name] = slice(begin, end), tuple(shape), np.dtype(dtype)
        self.buffer = torch.empty(max(end, 1), dtype=torch.uint8, device=device)
        self.tensors = {
            name: self.buffer[place].view(_torch(dtype)).view(shape)
            for name, (place, shape, dtype) in self.places.items()
        }

    def send(self, arrays: Mapping[str, np.ndarray], padding: Mapping[str, int] | None = None) -> dict[str, Tensor]:
        """Queue a copy of all arrays; returns `tensors`. An array may be smaller than its place, along any dimension:
        the rest of the place gets `padding[name]`, or 0."""
        staging = torch.empty(self.buffer.shape, dtype=torch.uint8, pin_memory=self.buffer.is_cuda)
        host = staging.numpy()
        for name, (place, shape, dtype) in self.places.items():
            target, array = host[place].view(dtype).reshape(shape), arrays[name]
            if array.shape != shape:
                target[...] = (padding or {}).get(name, 0)
            target[tuple(map(slice, array.shape))] = array
        self.buffer.copy_(staging, non_blocking=True)
        return self.tensors


def upload(arrays: Mapping[str, np.ndarray], device: torch.device | str) -> dict[str, Tensor]:
    """The arrays as tensors on `device`."""
    device = torch.device(device)
    if device.type != "cuda":
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return Packed({name: (array.shape, array.dtype) for name, array in arrays.items()}, device).send(arrays)


def _torch(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype
