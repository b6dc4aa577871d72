"""A recorded run of the roofline suite as a machine of round figures would give it: 20 GB/s, 100 GFLOP/s, fp32."""

from __future__ import annotations

from typing import Any

from labcore.bench.ceilings import Ceiling
from labcore.bench.record import Row, RunBuilder

BETA, RATE = 20e9, 100e9
WEIGHTS, CACHE, PRODUCTS = 538e6, 3.1e6, 269e6  # of SmolLM2-135M: B, B a sequence, FLOP a token
SECONDS = {1: 0.040, 2: 0.055, 8: 0.080, 64: 0.400}  # one decode step, by batch
PARTS = {"linear": 0.7, "attention": 0.2, "other": 0.1}


def measured_run(**device: Any) -> dict[str, Any]:
    """The validated run; `device` changes fields of its device."""
    kept = {"read_bandwidth": (BETA, "B/s"), "matmul.fp32": (RATE, "FLOP/s")}
    ceilings = [Ceiling(n, 2, "fp32", "op", "1", r, "1", u, (1.0,)) for n, (r, u) in kept.items()]
    builder = RunBuilder("cpu", 2, ceilings, ["roofline"])
    for batch, seconds in SECONDS.items():
        read, flops = WEIGHTS + batch * CACHE, batch * PRODUCTS
        shares = {part: share * seconds for part, share in PARTS.items()}
        builder.add(
            Row(
                **_common(f"cpu.roofline.b{batch:02d}", seconds, read, flops),
                shape={"model": "smollm2-135m", "batch": batch, "context": 66},
                config={"seconds": shares, "operators": {"linear": 211, "attention": 400, "other": 900}},
            )
        )
    prefill = _common("cpu.roofline.prefill", 0.9, WEIGHTS, 256 * PRODUCTS)
    builder.add(Row(**prefill, shape={"model": "smollm2-135m", "tokens": 256}))
    run = builder.finish(ceilings)
    run["device"] |= {"name": "AMD EPYC", "memory_bytes": 16 * 2**30, **device}
    return run


def _common(key: str, seconds: float, read: float, flops: float) -> dict[str, Any]:
    return {
        "key": key,
        "what": key,
        "ours": [[seconds]],
        "unit": "s",
        "kind": "fraction_of_ceiling",
        "floor": max(read / BETA, flops / RATE),
        "floor_formula": "max(bytes / read_bandwidth, FLOP / matmul.fp32)",
        "dtype": "fp32",
        "threads": 2,
        "bytes": read,
        "flops": flops,
        "correct": {"pass": True, "how": "made up"},
    }
