"""File and number formats: GGUF, ggml's blocks, safetensors, GPTQ and AWQ checkpoints; integers, FP8, FP4, NF4."""

from labcore.formats.blocks import FORMATS, BlockFormat, block_format, dequantize
from labcore.formats.gguf import GGUFFile, TensorInfo
from labcore.formats.safetensors_folder import SafetensorsFolder

__all__ = ["FORMATS", "BlockFormat", "GGUFFile", "SafetensorsFolder", "TensorInfo", "block_format", "dequantize"]
