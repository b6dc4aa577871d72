"""What carries out the steps: plain torch; on a GPU fused layers, captured steps, and a host that is a step ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch

from labcore.attention.metadata import AttentionShape, Backend
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
    """Switches of the path on a GPU; None is on where it can be. None of them changes what is computed.

    triton: attention and the layers' small operators by `labcore.kernels` (`fused`), else by torch; cuda_graphs: replay
    decoding steps, where nothing but the fused layers writes to the cache. The third switch is SchedulerConfig's
    async_scheduling (`overlap`). Steps with speculation go past all three.
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
    execution = execution.on(device, storage.shape)
    graphs = False
    if execution.triton:
        from labcore.attention.triton_backend import TritonAttention
        from labcore.model.fused import FusedBlock, fused

        model = fused(model)
        # a row of padding has slot -1, which the joint kernel of fused layers skips and no other writer does
        joint = all(type(layer) is FusedBlock for layer in model.layers)
        joint = joint and storage.joint_dtype == model.norm.weight.dtype
        graphs = execution.cuda_graphs and joint and backend is None
        backend = backend or TritonAttention
    elif device.type == "cuda" and backend is None:
        from labcore.attention.sdpa import SDPAAttention

        backend = SDPAAttention
    parts = model, storage, limits, cache, backend
    scheduler = Scheduler(limits, cache)
    if device.type != "cuda" and not limits.async_scheduling:
        return EngineCore(scheduler, ModelRunner(*parts), tokenizer)
    from labcore.engine.device_runner import DeviceRunner
    from labcore.engine.overlap import OverlappedEngine

    engine = OverlappedEngine if limits.async_scheduling else EngineCore
    return engine(scheduler, DeviceRunner(*parts, graphs=graphs), tokenizer)
