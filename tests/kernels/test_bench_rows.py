"""Every GPU suite at toy sizes on a CPU: inputs, checks, baselines, valid rows, all keys.

Nothing is timed, and the kernels' torch references stand in for them: their own tests interpret them.
"""

import importlib

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.bench.ceilings import Ceiling  # noqa: E402
from labcore.bench.cuda_run import CudaRun  # noqa: E402
from labcore.bench.hooks import exists  # noqa: E402
from labcore.bench.suites import CUDA_SUITES  # noqa: E402
from labcore.kernels.bench_inputs import Heads, causal_pairs  # noqa: E402
from tests.kernels.checks import DEVICE  # noqa: E402

HEADS = Heads(q=4, kv=2, dim=32)
TOY = {
    "decode": {
        "HEADS": HEADS,
        "SHAPES": {"b1": (2, 24), "b2": (1, 40), "b3": (1, 9), "b4": (1, 17)},
        "CHUNK": 16,
        "SPLITS": (1, 3),
    },
    "attention": {
        "LLAMA_8B": HEADS,
        "LLAMA_70B": Heads(q=6, kv=2, dim=16),
        "WINDOW": 9,
        "BATCHES": {"a1": [20] * 2, "a3": [17], "a4": [33], "a5": [3, 17, 8]},
        "LADDER": [6] * 2,
    },
    "paged": {
        "HEADS": HEADS,
        "PREFILL": [20] * 2,
        "DECODE": (2, 20),
        "CHUNK": 9,
        "CONTEXT": 14,
        "BESIDE": (2, 11),
    },
    "w4a16": {"LARGE": (64, 256), "LAYER": {"qkv": (48, 128), "down": (32, 256)}},
    "gemm8": {"SQUARE": 128, "DECODE": (16, 128, 256), "DEPTHS": (256,), "SMALL": 128},
    "kv_quant": {"HEADS": Heads(q=4, kv=2, dim=64), "SHAPE": (2, 40)},
    "pointwise": {"HEADS": HEADS, "TOKENS": 12, "HIDDEN": 64, "INTERMEDIATE": 96},
    "sampling": {"VOCAB": 300, "PLAIN": 2, "FILTERED": 2},
}


class Stopwatch:
    """Every call is made once and takes a second."""

    def events(self, calls):
        calls[0]()
        return [1.0] * len(calls)

    graph = None


def toy_run():
    names = {f"{move}_bandwidth": "B/s" for move in ("read", "copy")} | {
        f"matmul.{dtype}": "FLOP/s" for dtype in ("bf16", "fp8", "int8")
    }
    found = [Ceiling(name, 1, "bf16", "stand-in", "N", 1e15, "1", unit, (1.0, 1.0)) for name, unit in names.items()]
    return CudaRun(DEVICE if DEVICE == "cpu" else "cpu", 1, found, ["test"], clock=Stopwatch()), found


@pytest.mark.skipif(DEVICE == "cuda", reason="the suites themselves run where there is a GPU")
@pytest.mark.parametrize("name", TOY)
def test_every_row_of_a_suite(name, monkeypatch):
    where = CUDA_SUITES[name].split(":")[0]
    if not exists(where):
        pytest.skip(f"{where} is not there")
    suite = importlib.import_module(where)
    for constant, value in TOY[name].items():
        assert hasattr(suite, constant), f"{where} has no {constant}"
        monkeypatch.setattr(suite, constant, value)
    monkeypatch.setattr("labcore.kernels._compat.interpreting", lambda: False)
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr("labcore.bench.cuda_rows.alternate", stand_in)
    run, ceilings = toy_run()
    run.attempt_all(suite.ROWS)
    missing = [one for one in run.skipped if one["suite"] not in CPU_CANNOT]
    assert not missing, missing
    finished = run.finish(ceilings)
    for key in suite.ROWS:
        if key not in CPU_CANNOT:
            assert any(row["key"].startswith(key) for row in finished["rows"]), key
    assert all(row["correct"]["pass"] for row in finished["rows"])


CPU_CANNOT = {"gpu.e1": "torch._scaled_mm with a scale a row", "gpu.e3": "torch._scaled_mm with a scale a row"}


def stand_in(programs, clock, rounds=5, samples=6, graph=None):
    """`alternate` for a machine without a GPU."""
    from labcore.bench.cuda_timing import Timing

    for calls in programs.values():
        for call in calls:
            call()
    return Timing({name: [[1.0] * samples] * rounds for name in programs}, "stand-in")


def test_visible_pairs_are_counted():
    for queries, keys, window in [(5, 5, None), (3, 7, None), (5, 5, 2), (4, 9, 3), (6, 6, 6)]:
        seen = sum(
            key <= place and (window is None or key > place - window)
            for place in range(keys - queries, keys)
            for key in range(keys)
        )
        assert causal_pairs(queries, keys, window) == seen
