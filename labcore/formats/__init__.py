"""File and number formats: GGUF containers, ggml block layouts, safetensors folders."""

from labcore.formats.blocks import FORMATS, BlockFormat, block_format, dequantize
from labcore.formats.gguf import GGUFFile, TensorInfo
from labcore.formats.safetensors_folder import SafetensorsFolder

__all__ = ["FORMATS", "BlockFormat", "GGUFFile", "SafetensorsFolder", "TensorInfo", "block_format", "dequantize"]
