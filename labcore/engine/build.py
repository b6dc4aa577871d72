"""From a model's name and options to an engine that is ready to serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import torch

from labcore.attention.metadata import AttentionShape, Backend
from labcore.core.errors import InputError
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.engine_core import EngineCore
from labcore.engine.execution import ExecutionConfig, backend_of_speculation, new_engine
from labcore.engine.scheduler import Scheduler
from labcore.engine.speculative_runner import SpeculativeRunner
from labcore.engine.verify import ACCEPTANCE
from labcore.kernels._compat import capability, has_mma
from labcore.kv.storage import KVStorage
from labcore.model.checkpoints import fetch
from labcore.model.compiled import split_at
from labcore.model.llama import Llama
from labcore.model.loader import Transform, load_model, open_checkpoint
from labcore.model.tokenizer import Tokenizer
from labcore.speculative.build import build_proposer
from labcore.speculative.proposer import Proposer, Target

CONFIGS = CacheConfig, SchedulerConfig, ExecutionConfig
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KV_FORMATS = {"int8": "INT8", "int4": "INT4", "fp8": "FP8"}  # kv_cache_dtype -> its format in kv.quantized
CPU_CACHE_BYTES = 2**30  # reserved, not used: memory is taken from the system when a block is first written
GPU_CACHE_SHARE = 0.9  # of the memory that is free once the weights are there


def build_engine(
    model: str | Path,
    *,
    device: str | None,
    dtype: str,
    quantization: str | None,
    transform: Transform | None,
    kv_cache_dtype: str,
    speculative: Mapping | None,
    progress: bool,
    **options,
) -> EngineCore:
    """The engine of `LLM`, whose options these are."""
    if dtype not in ("auto", *DTYPES):
        raise InputError(f"dtype={dtype!r}: must be one of auto, {', '.join(DTYPES)}")
    if quantization not in (None, "gguf"):
        raise InputError(f"quantization={quantization!r}: must be None or 'gguf'")
    _check_options(options)
    if quantization == "gguf":
        if device not in (None, "cpu") or transform is not None:
            raise InputError(
                "quantization='gguf' runs on the CPU and is a transform itself; drop device= and transform="
            )
        from labcore.model.fast import fast_path

        device = "cpu"
        transform, load_as = fast_path()
    place = _device(device)
    if quantization is None:
        load_as = _own_dtype(place) if dtype == "auto" else DTYPES[dtype]
    checkpoint = open_checkpoint(fetch(model, progress=progress))
    tokenizer = checkpoint.tokenizer()
    decoder = load_model(checkpoint, dtype=load_as, device=place, transform=transform, progress=progress)
    return assemble(decoder, tokenizer, kv_cache_dtype=kv_cache_dtype, speculative=speculative, **options)


def assemble(
    model: Llama,
    tokenizer: Tokenizer | None = None,
    *,
    kv_cache_dtype: str = "auto",
    backend: Backend | None = None,
    speculative: Mapping | None = None,
    **options,
) -> EngineCore:
    """An engine around a loaded model.

    kv_cache_dtype: "auto" is float32 on a CPU, whose attention computes in it, and the model's own type on a GPU; or a
    torch type; or "int8", "int4", "fp8". backend: as for ModelRunner. speculative: {"method": a key of
    `speculative.build.METHODS`, its options, and "acceptance": "exact" or "typical"}. num_blocks, unless given: what
    fits into CPU_CACHE_BYTES, or into GPU_CACHE_SHARE of the free memory, and can be used at all. Other options are
    fields of CacheConfig, SchedulerConfig and ExecutionConfig; async_scheduling, unless given, is on where it can be:
    on a GPU, without speculation. Raises InputError for an option that does not exist or makes no sense.
    """
    _check_options(options)
    cache, limits, execution = ({k: v for k, v in options.items() if k in _names(one)} for one in CONFIGS)
    device = _current(model.norm.weight.device)
    if limits.get("async_scheduling") is None:
        limits["async_scheduling"] = device.type == "cuda" and speculative is None
    longest = limits.pop("max_model_len", None) or model.config.context
    if longest > model.config.context:
        raise InputError(f"max_model_len={longest}: this model's context is {model.config.context}")
    limits, execution = SchedulerConfig(max_model_len=longest, **limits), ExecutionConfig(**execution)
    started = CacheConfig(**{"num_blocks": 2} | cache)
    proposer = None
    if speculative is not None:
        if limits.async_scheduling:
            raise InputError("async_scheduling=True with speculation: how many tokens a step yields is not known ahead")
        backend = backend_of_speculation(execution, device, backend)
        speculative, acceptance = _acceptance(speculative)
        proposer = _proposer(speculative, model, tokenizer, limits, started)
        limits = replace(
            limits,
            num_lookahead_tokens=max(limits.num_lookahead_tokens, proposer.num_lookahead_tokens),
            num_branch_tokens=max(limits.num_branch_tokens, proposer.num_branch_tokens),
        )
    if cache.get("num_blocks") is None:
        beside = 0 if proposer is None else proposer.nbytes_per_token
        started = replace(started, num_blocks=_num_blocks(model, kv_cache_dtype, started, limits, beside))
    cache = started
    room = (cache.num_blocks - 1) * cache.block_size - limits.num_branch_tokens
    limits = replace(limits, max_model_len=min(longest, room))
    storage = new_storage(model, cache, kv_cache_dtype)
    if proposer is None:
        return new_engine(model, storage, limits, cache, tokenizer, backend, execution)
    parts = model, storage, limits, cache, backend
    runner = SpeculativeRunner(*parts, proposer=proposer, acceptance=acceptance)
    return EngineCore(Scheduler(limits, cache), runner, tokenizer)


def _acceptance(speculative: Mapping) -> tuple[dict, str]:
    """The proposer's options, and the rule that is the runner's."""
    if not isinstance(speculative, Mapping):
        raise InputError(f"speculative={speculative!r}: must be a mapping such as {{'method': 'ngram'}}")
    options = dict(speculative)
    acceptance = options.pop("acceptance", "exact")
    if acceptance not in ACCEPTANCE:
        raise InputError(f"acceptance={acceptance!r}: must be one of {', '.join(ACCEPTANCE)}")
    return options, acceptance


def _proposer(
    speculative: dict, model: Llama, tokenizer: Tokenizer | None, limits: SchedulerConfig, cache: CacheConfig
) -> Proposer:
    """The proposer, for a model whose layers it can tap."""
    target = Target(
        model,
        tokenizer,
        limits.max_num_seqs,
        limits.max_num_batched_tokens,
        limits.max_model_len,
        cache.block_size,
    )
    proposer = build_proposer(speculative, target)
    if proposer.taps:
        split_at(model, proposer.taps)
    return proposer


def new_storage(model: Llama, cache: CacheConfig, kv_cache_dtype: str = "auto") -> KVStorage:
    """The tensors behind `cache` for this model."""
    config, weight = model.config, model.norm.weight
    heads = config.n_heads, config.n_kv_heads, config.head_dim
    shape = AttentionShape(*heads, cache.num_blocks, cache.block_size, cache.sliding_window)
    own = torch.float32 if weight.device.type == "cpu" else weight.dtype
    common = {"num_host_blocks": cache.num_host_blocks, "device": weight.device}
    if kv_cache_dtype in KV_FORMATS:
        from labcore.kv import quantized
        from labcore.kv.quantized_storage import QuantizedKVStorage

        format = getattr(quantized, KV_FORMATS[kv_cache_dtype])
        return QuantizedKVStorage(config.n_layers, shape, format=format, dtype=own, **common)
    types = {"auto": own, **DTYPES}
    if kv_cache_dtype not in types:
        raise InputError(f"kv_cache_dtype={kv_cache_dtype!r}: must be one of {', '.join([*types, *KV_FORMATS])}")
    return KVStorage(config.n_layers, shape, dtype=types[kv_cache_dtype], **common)


def _num_blocks(
    model: Llama, kv_cache_dtype: str, cache: CacheConfig, limits: SchedulerConfig, bytes_beside: int
) -> int:
    """Blocks that the memory budget holds, with so many bytes a token beside them, and no more than all requests
    together can use."""
    device = model.norm.weight.device
    if device.type == "cpu":
        budget = CPU_CACHE_BYTES
    else:
        torch.cuda.empty_cache()  # what torch keeps for later is not counted as free
        budget = GPU_CACHE_SHARE * torch.cuda.mem_get_info(device)[0]
    each = new_storage(model, replace(cache, num_host_blocks=0), kv_cache_dtype).nbytes_per_block
    each += bytes_beside * cache.block_size
    slots = limits.max_model_len + limits.num_lookahead_tokens + limits.num_branch_tokens
    most = limits.max_num_seqs * -(-slots // cache.block_size)
    return 1 + max(1, min(int(budget / each) - 1, most))


def _names(config: type) -> set[str]:
    return {field.name for field in fields(config)}


def _check_options(options: dict) -> None:
    known = set().union(*map(_names, CONFIGS))
    if unknown := sorted(set(options) - known):
        raise InputError(f"option {unknown[0]!r} is unknown; besides LLM's own there are {', '.join(sorted(known))}")


def _own_dtype(device: torch.device) -> torch.dtype:
    """What "auto" is on this device."""
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if has_mma(capability(device)) else torch.float16  # a T4 has no bf16


def _device(device: str | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        raise InputError(f"device={device!r} cannot be used: {str(error).splitlines()[0]}") from None
    return _current(chosen)


def _current(device: torch.device) -> torch.device:
    """The device, if it is the one on which kernels, events and graphs are launched. Raises InputError for another."""
    if device.type == "cuda" and device.index not in (None, torch.cuda.current_device()):
        raise InputError(
            f"device='{device}': kernels and graphs run on the current GPU, {torch.cuda.current_device()}; start with "
            f"CUDA_VISIBLE_DEVICES={device.index} and pass device='cuda'"
        )
    return device
