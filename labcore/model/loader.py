"""From a checkpoint to a running decoder.

A checkpoint knows its configuration and hands out parameters by their name in `llama.Llama`. `load_model` builds the
decoder without memory behind it (meta device), lets `transform` swap modules it can serve better from the checkpoint's
own storage, and fills what is left. Nothing is dequantized that a swapped-in module does not need.
"""

import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from labcore.core.errors import DataError
from labcore.formats.blocks import BlockFormat, dequantize
from labcore.formats.gguf import GGUFFile
from labcore.formats.safetensors_folder import SafetensorsFolder
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer


class Checkpoint(Protocol):
    """What `load_model` asks of a checkpoint."""

    config: DecoderConfig

    def tensor(self, name: str) -> torch.Tensor:
        """Parameter `name`, in floating point, on the CPU."""

    def tokenizer(self) -> Tokenizer: ...


Transform = Callable[[Llama, Checkpoint], None]

GGUF_NAMES = {  # our parameter -> GGUF tensor; "layers.N." becomes "blk.N."
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


class GGUFCheckpoint:
    """A GGUF file seen through the decoder's parameter names."""

    def __init__(self, path: str | Path):
        self.file = GGUFFile(path)
        self.config = DecoderConfig.from_gguf(self.file)
        self.shapes = parameter_shapes(self.config)

    def blocks(self, name: str) -> tuple[np.ndarray, BlockFormat]:
        """The parameter as stored: raw uint8 [rows, bytes per row] and its block format.

        Rows are in the decoder's order: llama.cpp's converter interleaves the rows of q and k of the llama architecture
        so that rotary pairs are neighbours (2i, 2i+1); here they are (i, i + head_dim/2) again. Only whole rows move,
        so blocks stay intact. DataError for a tensor whose shape is not the configuration's: compiled kernels compute
        addresses from it and check nothing.
        """
        stored = gguf_name(untied(name, self.config))
        raw, info, wanted = self.file.raw(stored), self.file.info(stored), self.shapes[name]
        if info.shape != wanted:
            raise DataError(
                f"{self.file.path}: tensor {stored}: shape {info.shape} in the file, {wanted} by configuration"
            )
        format = info.format
        if self.config.architecture == "llama" and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            if raw.ndim == 1:  # a bias: one number per row
                raw = raw.reshape(-1, format.layout.itemsize)
                return self._halves(raw).reshape(-1), format
            raw = self._halves(raw)
        return raw, format

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(dequantize(*self.blocks(name)))

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_gguf(self.file)

    def _halves(self, rows: np.ndarray) -> np.ndarray:
        """Undo the interleaving of rotary pairs: row 2i + j of each head goes to i + j·head_dim/2."""
        pairs = rows.reshape(-1, self.config.head_dim // 2, 2, rows.shape[-1])
        return pairs.swapaxes(1, 2).reshape(rows.shape)


class SafetensorsCheckpoint:
    """A Hugging Face folder seen through the decoder's parameter names."""

    def __init__(self, path: str | Path):
        self.folder = SafetensorsFolder(path)
        self.config = DecoderConfig.from_hf(self.folder.config, str(Path(path) / "config.json"))

    @cached_property
    def unknown(self) -> list[str]:
        """Tensors of the folder that the decoder has no use for, such as biases or the scales of quantized weights."""
        known = {hub_name(untied(name, self.config)) for name in parameter_shapes(self.config)} | {"lm_head.weight"}
        return [name for name in self.folder.files if name not in known and not name.endswith(".inv_freq")]

    def tensor(self, name: str) -> torch.Tensor:
        """DataError for a folder with tensors that this decoder would leave out of the model."""
        if self.unknown:
            kind = (self.folder.config.get("quantization_config") or {}).get("quant_method")
            why = f"; its weights are quantized ({kind}), load the original" if kind else ""
            raise DataError(
                f"{self.folder.path}: {self.unknown[0]} and {len(self.unknown) - 1} other tensors are no part of a "
                f"{self.config.architecture} model as config.json describes it{why}"
            )
        return self.folder.tensor(hub_name(untied(name, self.config)))

    def tokenizer(self) -> Tokenizer:
        from labcore.model.tokenizer_json import tokenizer_from_folder

        return tokenizer_from_folder(self.folder)


def open_checkpoint(path: str | Path) -> GGUFCheckpoint | SafetensorsCheckpoint:
    """The checkpoint at `path`: a folder is Hugging Face's, a file is GGUF."""
    return SafetensorsCheckpoint(path) if Path(path).is_dir() else GGUFCheckpoint(path)


def load_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    transform: Transform | None = None,
    progress: bool = False,
) -> Llama:
    """The decoder with `checkpoint`'s weights, in evaluation mode.

    `transform(model, checkpoint)` may replace submodules (see `replace_module`) before any weight is read; parameters
    that are still on the meta device afterwards are filled, cast to `dtype`. `progress` draws a line on a terminal's
    stderr. Raises DataError when a tensor is missing or has another shape than the configuration says.
    """
    with torch.device("meta"):
        model = Llama(checkpoint.config).eval().requires_grad_(False)
    if transform is not None:
        transform(model, checkpoint)
    waiting = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    for count, name in enumerate(waiting, start=1):
        if progress and sys.stderr.isatty():
            end = "\n" if count == len(waiting) else ""
            print(f"\rloading tensor {count} of {len(waiting)}", end=end, file=sys.stderr)
        _assign(model, name, checkpoint.tensor(name).to(device=device, dtype=dtype))
    if isinstance(model.lm_head, nn.Linear) and checkpoint.config.tied_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the submodule with the dotted `name` was."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def gguf_name(name: str) -> str:
    """The GGUF tensor that holds our parameter: "layers.3.mlp.up_proj.weight" is "blk.3.ffn_up.weight"."""
    module, _, kind = name.rpartition(".")
    if module.startswith("layers."):
        _, index, module = module.split(".", 2)
        return f"blk.{index}.{GGUF_NAMES[module]}.{kind}"
    return f"{GGUF_NAMES[module]}.{kind}"


def hub_name(name: str) -> str:
    """The tensor of a Hugging Face folder that holds our parameter: all but the head lies under "model."."""
    return name if name.startswith("lm_head.") else f"model.{name}"


def parameter_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of the decoder, a tied head included."""
    with torch.device("meta"):
        parameters = Llama(config).named_parameters(remove_duplicate=False)
    return {name: tuple(parameter.shape) for name, parameter in parameters}


def untied(name: str, config: DecoderConfig) -> str:
    """A tied head is stored once, as the embedding."""
    return "embed_tokens.weight" if config.tied_embeddings and name == "lm_head.weight" else name


def _assign(model: nn.Module, name: str, value: torch.Tensor) -> None:
    module_name, _, kind = name.rpartition(".")
    module = model.get_submodule(module_name)
    expected = getattr(module, kind).shape
    if value.shape != expected:
        raise DataError(f"tensor {name}: shape {tuple(value.shape)} in the file, {tuple(expected)} by configuration")
    setattr(module, kind, nn.Parameter(value, requires_grad=False))
