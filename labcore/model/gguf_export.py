"""From a Hugging Face folder to a GGUF file that llama.cpp runs: `python -m labcore.model.gguf_export FOLDER FILE`.

The mirror image of `loader.GGUFCheckpoint`: names, metadata, the tokenizer, and for the llama architecture the rows of
q and k interleaved, so that a rotary pair is two neighbours. Matrices are written in the block format asked for, or the
one llama.cpp falls back to; norms and biases stay fp32.
Source: llama.cpp, convert_hf_to_gguf.py (LlamaModel.permute and set_gguf_parameters).
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from labcore.core.errors import DataError, FetchError, InputError
from labcore.formats.gguf_writer import Tensor, Value, write_gguf
from labcore.formats.safetensors_folder import SafetensorsFolder
from labcore.model import pretokenizer
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.loader import SafetensorsCheckpoint, gguf_name
from labcore.model.tokenizer import CONTROL, END_FIELDS, USER_DEFINED, Tokenizer

NORMAL, UNUSED = 1, 5  # tokenizer.ggml.token_type, beside CONTROL


def export_gguf(folder: str | Path, path: str | Path, choose: Callable[[str], str] = lambda name: "F16") -> Path:
    """Write the checkpoint in `folder` to the GGUF file `path`; `choose(GGUF tensor name)` names a matrix's format.

    DataError for a folder that cannot be read, or whose tokenizer llama.cpp has no name for.
    """
    checkpoint = SafetensorsCheckpoint(folder)
    config = checkpoint.config
    with torch.device("meta"):
        names = [name for name, _ in Llama(config).named_parameters()]  # a tied head is not among them
    tensors = {}
    for name in names:
        x = checkpoint.tensor(name).float().numpy()
        if config.architecture == "llama" and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            x = _interleaved(x, config.head_dim)
        stored = gguf_name(name)
        tensors[stored] = Tensor.encode(x, choose(stored) if x.ndim == 2 else "F32")
    if config.rope_factors is not None:
        tensors["rope_freqs.weight"] = Tensor.encode(np.array(config.rope_factors, np.float32))
    metadata = _description(config) | _vocabulary(checkpoint.folder, checkpoint.tokenizer())
    return write_gguf(path, metadata, tensors)


def _interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Row i + j·head_dim/2 of each head goes to 2i + j: the inverse of what the loader does."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def _description(config: DecoderConfig) -> dict[str, Value]:
    """The decoder's shape in GGUF's words."""
    arch = config.architecture
    fields: dict[str, Value] = {
        "block_count": config.n_layers,
        "context_length": config.context,
        "embedding_length": config.hidden,
        "feed_forward_length": config.intermediate,
        "attention.head_count": config.n_heads,
        "attention.head_count_kv": config.n_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope_theta),
        "vocab_size": config.vocab,
    }
    return {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in fields.items()}}


def _vocabulary(folder: SafetensorsFolder, tokenizer: Tokenizer) -> dict[str, Value]:
    """The tokenizer in GGUF's words; DataError for a pre-tokenizer that has no name in llama.cpp."""
    spec = folder.json("tokenizer.json")
    stages = pretokenizer.from_json(spec.get("pre_tokenizer"))
    names = [name for name in pretokenizer.BY_NAME if pretokenizer.by_name(name) == stages]
    if not names:
        raise DataError(f"{folder.path}: llama.cpp has no name for this tokenizer's pre-tokenizer")
    texts = {i: text for text, i in spec["model"]["vocab"].items()} | {i: text for text, i in tokenizer.special.items()}
    special = set(tokenizer.special.values())
    kinds = [
        CONTROL if i in tokenizer.hidden
        else USER_DEFINED if i in special
        else NORMAL if i in texts
        else UNUSED
        for i in range(tokenizer.vocab_size)
    ]  # fmt: skip
    ends = sorted(tokenizer.eos_ids, key=lambda i: (i != tokenizer.eos_id, i))  # the tokenizer's own first
    if not ends:
        raise DataError(f"{folder.path}: the tokenizer names no end-of-sequence token, which GGUF needs")
    if len(ends) > len(END_FIELDS):
        raise DataError(f"{folder.path}: {len(ends)} tokens end an answer; GGUF names {len(END_FIELDS)}")
    optional = {"tokenizer.ggml.bos_token_id": tokenizer.bos_id, "tokenizer.chat_template": tokenizer.chat_template}
    return {
        **{key: value for key, value in optional.items() if value is not None},
        **dict(zip(END_FIELDS, ends, strict=False)),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": names[0],
        "tokenizer.ggml.tokens": [texts.get(i, f"[PAD{i}]") for i in range(tokenizer.vocab_size)],
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"]],
        "tokenizer.ggml.add_bos_token": tokenizer.add_bos,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Export, and print the file's path; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="Hugging Face folder: config.json, tokenizer.json, *.safetensors")
    parser.add_argument("file", type=Path, help="GGUF file to write")
    parser.add_argument("--type", default="F16", help="block format of the matrices, such as Q4_K (default: F16)")
    options = parser.parse_args(arguments)
    try:
        print(export_gguf(options.folder, options.file, lambda name: options.type))
    except (InputError, FetchError) as error:
        print(f"labcore.model.gguf_export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
