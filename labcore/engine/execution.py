"""What carries out the steps: plain torch; on a GPU fused layers, captured steps, and a host that is a step ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from labcore.attention.metadata import AttentionShape, Backend
from labcore.attention.sdpa import SDPAAttention
from labcore.attention.select import HEAD_DIMS, triton_serves
from labcore.core.errors import InputError
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.engine.engine_core import EngineCore
from labcore.engine.runner import ModelRunner
from labcore.engine.scheduler import Scheduler
from labcore.kernels._compat import interpreting
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.model.tokenizer import Tokenizer


@dataclass(frozen=True)
class ExecutionConfig:
    """Switches of the path on a GPU; None is on where it can be, True is refused where it cannot. None of them changes
    what is computed.

    triton: attention and the layers' small operators by `labcore.kernels` (`fused`), else by torch; cuda_graphs: replay
    decoding steps, where nothing but the fused layers writes to the cache. The third switch is SchedulerConfig's
    async_scheduling (`overlap`). Steps with speculation are neither fused nor captured; triton=False still keeps
    the kernels out of their attention.
    """

    triton: bool | None = None
    cuda_graphs: bool | None = None

    def on(self, device: torch.device, shape: AttentionShape) -> ExecutionConfig:
        """Every switch True or False. Raises InputError for one that cannot be on."""
        native = triton_serves(shape, device)
        interpreted = interpreting() and shape.head_dim in HEAD_DIMS and find_spec("triton") is not None
        if self.triton and not (native or interpreted):
            raise InputError(
                f"triton=True on {device} with head_dim={shape.head_dim}: the kernels need Triton, an NVIDIA GPU of "
                "compute capability 8.0 or more (or TRITON_INTERPRET=1), and a power of two from 16 to 256"
            )
        triton = native if self.triton is None else self.triton
        if self.cuda_graphs and not (triton and native):
            raise InputError(f"cuda_graphs=True on {device} with triton={triton}: graphs need a GPU and triton=True")
        graphs = triton and native if self.cuda_graphs is None else self.cuda_graphs
        return replace(self, triton=triton, cuda_graphs=graphs)


def backend_of_speculation(execution: ExecutionConfig, device: torch.device, backend: Backend | None) -> Backend | None:
    """What attends in steps with drafts; None: the fastest there is. Raises InputError for a switch that would do
    nothing there."""
    for name in "triton", "cuda_graphs":
        if getattr(execution, name):
            raise InputError(
                f"{name}=True with speculation: steps with drafts are neither fused nor captured; leave out {name} or "
                "speculative"
            )
    without_triton = execution.triton is False and device.type == "cuda"
    return SDPAAttention if backend is None and without_triton else backend


def no_graphs(fused_layers: bool, dtype: torch.dtype, storage: KVStorage, backend: Backend | None) -> str | None:
    """Why decoding steps of a model of this dtype cannot be captured, and what to change; None: they can.

    A row of padding has slot -1, which the joint kernel of fused layers skips and no other writer does.
    """
    if backend is not None:
        name = getattr(backend, "__name__", backend)
        return f"backend={name}: only the engine's own choice is captured; drop backend="
    if not fused_layers:
        return "layers that a transform changed: only a plain model's are fused; drop transform="
    if storage.joint_dtype != dtype:
        kind = "quantized values" if storage.joint_dtype is None else storage.joint_dtype
        return f"a cache of {kind} beside {dtype} weights: graphs need one type for both; use kv_cache_dtype='auto'"
    return None


def new_engine(
    model: Llama,
    storage: KVStorage,
    limits: SchedulerConfig,
    cache: CacheConfig,
    tokenizer: Tokenizer | None,
    backend: Backend | None,
    execution: ExecutionConfig,
) -> EngineCore:
    """An engine without speculation, executed as `execution` and `limits.async_scheduling` say."""
    device = model.norm.weight.device
    asked, execution = execution, execution.on(device, storage.shape)
    graphs = False
    if execution.triton:
        from labcore.attention.triton_backend import TritonAttention
        from labcore.model.fused import FusedBlock, fused

        model = fused(model)
        plain = all(type(layer) is FusedBlock for layer in model.layers)
        obstacle = no_graphs(plain, model.norm.weight.dtype, storage, backend)
        if asked.cuda_graphs and obstacle:
            raise InputError(f"cuda_graphs=True with {obstacle}, or leave cuda_graphs out")
        graphs = execution.cuda_graphs and obstacle is None
        backend = backend or TritonAttention
    elif device.type == "cuda" and backend is None:
        backend = SDPAAttention
    parts = model, storage, limits, cache, backend
    scheduler = Scheduler(limits, cache)
    if device.type != "cuda" and not limits.async_scheduling:
        return EngineCore(scheduler, ModelRunner(*parts), tokenizer)
    from labcore.engine.device_runner import DeviceRunner
    from labcore.engine.overlap import OverlappedEngine

    engine = OverlappedEngine if limits.async_scheduling else EngineCore
    return engine(scheduler, DeviceRunner(*parts, graphs=graphs), tokenizer)
