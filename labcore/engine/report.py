"""How close a run was to this machine's limits, and where the rest of its time went.

A step cannot be faster than reading its weights and the keys and values it attends to, nor than its arithmetic. The sum
of these floors is the run's least time; the other stages of the engine loop, and what the model takes beyond its floor,
are the rest.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch

from labcore.bench.timing import measure
from labcore.engine.stats import STAGES, RunStats, StepRecord
from labcore.kv.storage import KVStorage
from labcore.model.llama import Llama
from labcore.model.stats import layer_parameters, read_bandwidth, weight_bytes_per_pass


@dataclass(frozen=True)
class Machine:
    """Ceilings: bandwidth in B/s, flops in FLOP/s."""

    bandwidth: float
    flops: float

    @classmethod
    def measured(cls, model: Llama) -> Machine:
        """This machine at a glance: an array that no cache holds is summed, two square matrices are multiplied."""
        device = model.norm.weight.device
        sync = torch.cuda.synchronize if device.type == "cuda" else None
        size = 8192 if device.type == "cuda" else 1024
        square = torch.randn(size, size, device=device, dtype=model.norm.weight.dtype)
        seconds = statistics.median(measure(lambda: square @ square, rounds=5, sync=sync))
        return cls(read_bandwidth(device), 2 * size**3 / seconds)


@dataclass(frozen=True)
class Cost:
    """What the model costs: bytes of all weights and of a cached token; FLOP of a token's way through the layers, of
    its logits, and of one query-key pair in all layers."""

    weight_bytes: int
    kv_bytes: float
    layer_flops: int
    head_flops: int
    pair_flops: int

    @classmethod
    def of(cls, model: Llama, storage: KVStorage) -> Cost:
        c = model.config
        return cls(
            weight_bytes_per_pass(model),
            storage.nbytes_per_block / storage.shape.block_size,
            2 * layer_parameters(model),
            2 * c.hidden * c.vocab,
            4 * c.n_layers * c.n_heads * c.head_dim,
        )

    def bytes(self, step: StepRecord) -> float:
        """Read, and written to the cache."""
        return self.weight_bytes + (step.context + step.tokens) * self.kv_bytes

    def flops(self, step: StepRecord) -> float:
        logits = step.sampled + step.drafted - step.accepted
        return self.layer_flops * step.tokens + self.head_flops * logits + self.pair_flops * step.pairs

    def least_seconds(self, step: StepRecord, machine: Machine) -> float:
        """The roofline's floor under one step."""
        return max(self.bytes(step) / machine.bandwidth, self.flops(step) / machine.flops)


def summary(stats: RunStats, cost: Cost, machine: Machine | None = None) -> str:
    """A run for people: a line of rates for prompts and one for answers; with `machine` what each kind of step moved
    and computed, the share of the roofline that it reached, and where the rest of the time went."""
    cached = f" ({stats.cached_tokens} cached)" if stats.cached_tokens else ""
    lines = [
        f"prompt {stats.prompt_tokens} tokens{cached} in {stats.prefill_seconds:.2f} s "
        f"({stats.prefill_rate:.0f} tokens/s)",
        *_roofline(stats, cost, machine, decode=False),
    ]
    if stats.decode_tokens:
        line = f"then {stats.decode_tokens} tokens at {stats.decode_rate:.1f} tokens/s"
        if machine is not None:
            rate = stats.read_rate(cost.weight_bytes, cost.kv_bytes)
            share = f"({rate / machine.bandwidth:.0%} of measured bandwidth)"
            line += f", reading {rate / 1e9:.1f} of {machine.bandwidth / 1e9:.1f} GB/s {share}"
        lines += [line, *_roofline(stats, cost, machine, decode=True)]
    if drafted := stats.total("drafted"):
        lines.append(
            f"{stats.total('accepted')} of {drafted} draft tokens accepted: {stats.acceptance_length:.2f} tokens a "
            f"verification, {stats.decode_passes} passes for {stats.decode_tokens} tokens"
        )
    if stats.preemptions:
        lines.append(f"{stats.preemptions} preemptions, {stats.total('swapped')} blocks swapped")
    return "\n".join(lines)


def _roofline(stats: RunStats, cost: Cost, machine: Machine | None, decode: bool) -> list[str]:
    """One line about the decode steps, or about the others; the largest part of the lost time first."""
    steps = [step for step in stats.steps if step.decode == decode]
    taken = sum(step.duration for step in steps)
    if machine is None or not taken:
        return []
    least = sum(cost.least_seconds(step, machine) for step in steps)
    lost = {stage: sum(step.seconds[stage] for step in steps) for stage in STAGES}
    lost["model beyond its floor"] = lost.pop("model") - least
    ordered = sorted(lost.items(), key=lambda item: -item[1])
    parts = [f"{stage} {seconds / taken:.0%}" for stage, seconds in ordered if stage != "draft" or seconds]
    moved, computed = sum(map(cost.bytes, steps)), sum(map(cost.flops, steps))
    count = "1 step" if len(steps) == 1 else f"{len(steps)} steps"
    return [
        f"  {count}, {moved / 1e9:.2f} GB and {computed / 1e9:.1f} GFLOP: {least / taken:.0%} of the roofline; the "
        f"rest: {', '.join(parts)}"
    ]
