"""The shape of a Llama-family decoder, read from a GGUF file's metadata or a Hugging Face config.json."""

import math
from dataclasses import dataclass

import numpy as np

from labcore.core.errors import DataError
from labcore.formats.gguf import GGUFFile

# architecture -> (bias on q, k and v; RMSNorm on each query and key head)
VARIANTS = {"llama": (False, False), "qwen2": (True, False), "qwen3": (False, True)}


@dataclass(frozen=True)
class DecoderConfig:
    """Everything the decoder needs to know. Sizes are numbers of elements, `context` is in tokens.

    `rope_factors` divides each of the head_dim/2 rotary frequencies (context extension); None leaves them alone.
    """

    architecture: str
    n_layers: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    rope_theta: float
    norm_eps: float
    rope_factors: tuple[float, ...] | None = None
    tied_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        for name in ("n_layers", "hidden", "n_heads", "n_kv_heads", "head_dim", "intermediate", "vocab", "context"):
            _count(getattr(self, name), name)
        if self.n_heads % self.n_kv_heads:
            raise DataError(f"{self.n_heads} query heads cannot share {self.n_kv_heads} key-value heads evenly")
        if self.head_dim % 2:
            raise DataError(f"head_dim is {self.head_dim}; rotary embedding needs an even number")
        if self.rope_factors is not None and len(self.rope_factors) != self.head_dim // 2:
            raise DataError(f"{len(self.rope_factors)} rope factors for {self.head_dim // 2} frequencies")

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> "DecoderConfig":
        """Configuration from GGUF metadata; DataError for another architecture or a feature not implemented."""
        arch = _known(file.architecture, str(file.path))
        get = lambda key, default=None: file.field(f"{arch}.{key}", default)  # noqa: E731
        heads = _count(get("attention.head_count"), f"{file.path}: {arch}.attention.head_count")
        hidden = _count(get("embedding_length"), f"{file.path}: {arch}.embedding_length")
        head_dim = get("attention.key_length", hidden // heads)
        if get("rope.dimension_count", head_dim) != head_dim:
            raise DataError(f"{file.path}: rotary embedding over part of a head is not implemented")
        scaling, factors = get("rope.scaling.type", "none"), None
        if scaling == "linear":
            factors = (get("rope.scaling.factor"),) * (head_dim // 2)
        elif scaling != "none":
            raise DataError(f"{file.path}: rope scaling {scaling!r} is not implemented; 'linear' and Llama 3's are")
        if "rope_freqs.weight" in file.tensors:  # llama.cpp stores Llama 3's scaling as a tensor of divisors
            factors = tuple(file.tensor("rope_freqs.weight").tolist())
        qkv_bias, qk_norm = VARIANTS[arch]
        return cls(
            architecture=arch,
            n_layers=get("block_count"),
            hidden=hidden,
            n_heads=heads,
            n_kv_heads=get("attention.head_count_kv", heads),
            head_dim=head_dim,
            intermediate=get("feed_forward_length"),
            vocab=file.info("token_embd.weight").shape[0],
            context=get("context_length"),
            rope_theta=get("rope.freq_base", 10_000.0),
            rope_factors=factors,
            norm_eps=get("attention.layer_norm_rms_epsilon"),
            tied_embeddings="output.weight" not in file.tensors,
            qkv_bias=qkv_bias or "blk.0.attn_q.bias" in file.tensors,
            output_bias="blk.0.attn_output.bias" in file.tensors,
            qk_norm=qk_norm,
        )

    @classmethod
    def from_hf(cls, config: dict, source: str = "config.json") -> "DecoderConfig":
        """Configuration from the parsed config.json of a Llama, Qwen2 or Qwen3 model; same errors."""
        arch = _known(config.get("model_type"), source)
        try:
            names = "num_attention_heads", "hidden_size"
            heads, hidden = (_count(config[name], f"{source}: {name}") for name in names)
            head_dim = config.get("head_dim") or hidden // heads
            rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
            default_bias, qk_norm = VARIANTS[arch]
            bias = config.get("attention_bias", default_bias) if arch != "qwen2" else True
            theta = rope.get("rope_theta") or config.get("rope_theta", 10_000.0)
            _refuse_unimplemented(config, source)
            return cls(
                architecture=arch,
                n_layers=config["num_hidden_layers"],
                hidden=hidden,
                n_heads=heads,
                n_kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=head_dim,
                intermediate=config["intermediate_size"],
                vocab=config["vocab_size"],
                context=config["max_position_embeddings"],
                rope_theta=theta,
                rope_factors=_rope_factors(rope, theta, head_dim, source),
                norm_eps=config["rms_norm_eps"],
                tied_embeddings=config.get("tie_word_embeddings", False),
                qkv_bias=bias,
                output_bias=bias and arch != "qwen2",
                qk_norm=qk_norm,
            )
        except KeyError as error:
            raise DataError(f"{source}: field {error} is missing") from None


def _count(value: object, name: str) -> int:
    """`value`, if it is a whole number of something; DataError with `name` otherwise."""
    if type(value) is not int or value < 1:
        raise DataError(f"{name} is {value!r}; it must be 1 or more, an integer")
    return value


def _known(architecture: str | None, source: str) -> str:
    if architecture not in VARIANTS:
        raise DataError(f"{source}: architecture {architecture!r} is not implemented; {', '.join(VARIANTS)} are")
    return architecture


def _refuse_unimplemented(config: dict, source: str) -> None:
    if config.get("hidden_act", "silu") != "silu":
        raise DataError(f"{source}: hidden_act {config['hidden_act']!r} is not implemented; 'silu' is")
    if config.get("mlp_bias"):
        raise DataError(f"{source}: mlp_bias is not implemented")
    if config.get("use_sliding_window"):
        raise DataError(f"{source}: use_sliding_window is not implemented")


def _rope_factors(rope: dict, theta: float, head_dim: int, source: str) -> tuple[float, ...] | None:
    """Divisors of the rotary frequencies for the scaling that config.json asks for."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind == "linear":
        return (rope["factor"],) * (head_dim // 2)
    if kind == "llama3":
        return llama3_factors(
            theta,
            head_dim,
            factor=rope["factor"],
            low=rope["low_freq_factor"],
            high=rope["high_freq_factor"],
            trained_context=rope["original_max_position_embeddings"],
        )
    raise DataError(f"{source}: rope scaling {kind!r} is not implemented; 'linear' and 'llama3' are")


def llama3_factors(
    theta: float, head_dim: int, *, factor: float, low: float, high: float, trained_context: int
) -> tuple[float, ...]:
    """Llama 3's context extension: slow frequencies are divided by `factor`, fast ones kept, a ramp in between.

    A frequency that turns more than `high` times within the trained context is kept, one that turns less than `low`
    times is divided. Source: meta-llama/llama-models, llama3/model.py `apply_scaling`.
    """
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = trained_context * frequencies / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return tuple((1 / (kept + (1 - kept) / factor)).tolist())
