"""The fast CPU path: the decoder served from a GGUF file's own blocks instead of from dequantized weights.

Two ways, judged by KL and top-1 agreement against the exact path: `compiled` (C kernels, fp32 activations) where the
machine can compile and run it, `torch_blocks` (torch's int4 kernel, bf16 activations) elsewhere.
"""

import numpy as np
import torch

from labcore.core.errors import InputError
from labcore.formats.blocks import BlockFormat
from labcore.kernels.cpu.library import why_unavailable
from labcore.model.loader import Checkpoint, GGUFCheckpoint, Transform


def fast_path() -> tuple[Transform, torch.dtype]:
    """The transform that serves blocks on this machine, and the dtype to load the rest of the model in."""
    from labcore.model import compiled, torch_blocks  # both build on this module

    if why_unavailable() is None:
        return compiled.serve_blocks, torch.float32
    return torch_blocks.serve_blocks, torch.bfloat16


def plain_gguf(checkpoint: Checkpoint) -> GGUFCheckpoint:
    """`checkpoint`, if it is a GGUF file without biases and q/k norms, with a tied head; InputError otherwise."""
    config = checkpoint.config
    if not isinstance(checkpoint, GGUFCheckpoint):
        raise InputError("quantization='gguf' serves a GGUF file; this checkpoint is a safetensors folder")
    if config.qkv_bias or config.output_bias or config.qk_norm or not config.tied_embeddings:
        raise InputError(
            "quantization='gguf' serves models without biases and q/k norms, with a tied head; use the exact path"
        )
    return checkpoint


def stacked(checkpoint: GGUFCheckpoint, *names: str) -> tuple[np.ndarray, BlockFormat]:
    """The raw rows of the named parameters, one after the other; InputError unless they share a block format."""
    raws, formats = zip(*(checkpoint.blocks(name) for name in names), strict=True)
    if len(set(formats)) > 1:
        raise InputError(
            f"{' and '.join(names)} are stored in different formats, {[f.name for f in formats]}; use the exact path"
        )
    return np.concatenate(raws), formats[0]
