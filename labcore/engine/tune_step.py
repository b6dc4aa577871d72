"""Which launch choices make a decoding step short: tried within a model's captured step, not one kernel by itself.

    python -m labcore.engine.tune_step llama-3-8b [gemv merge …] --out tuned.json

Alone a kernel has the memory to itself; in a step its neighbours begin early and end late, and what won alone may lose
there. Every rule of `_config` is varied on its own, over random weights; see `kernels.tune` for single kernels. The
request is of no use afterwards: a step that is replayed feeds a newer token at the same place.
"""

import argparse
import importlib
import json
import statistics
from collections.abc import Iterable
from pathlib import Path

import torch

from labcore.bench.cuda_run import reason
from labcore.bench.cuda_timing import Clock, CudaClock
from labcore.core.files import atomic_write
from labcore.engine.bench_gpu import PROMPT, one_request
from labcore.engine.engine_core import EngineCore
from labcore.engine.gpu_evidence import prompts, wait
from labcore.engine.random_model import random_engine, token_requests
from labcore.kernels import _config
from labcore.kernels._compat import capability
from labcore.kernels.tune import chosen, show

MODULES = {"gemv": "gemv", "decode": "attention_decode", "splits": "attention_decode", "merge": "merge_states"}
REPLAYS = 24  # of a step, for its median
AHEAD, ROOM = 32, 500  # tokens until one graph serves all steps, and those that capturing may use up


def step_seconds(core: EngineCore, clock: Clock) -> float:
    """Median seconds of the decoding step that `core` would do next, captured anew."""
    wait(core.runner.batch.device.type)  # a graph that is thrown away must not be running
    core.runner.graphs.graphs.clear()
    for _ in range(2):  # one may still be under way
        core.step()
    (graph,) = core.runner.graphs.graphs.values()
    return statistics.median(clock.events([graph.replay] * REPLAYS))


def sweep(core: EngineCore, kind: str, candidates: Iterable[dict], clock: Clock) -> dict[str, list[dict]]:
    """Of each rule of `kind`, by its condition: the seconds of a step with each candidate, fastest first.

    launch None is the present choice. What fails has its reason instead of a time; a step that failed ends its request,
    and with it the sweep.
    """
    rules, found, candidates = _config.rules(kind, capability(core.runner.batch.device)), {}, list(candidates)
    for at, (where, present) in enumerate(rules):
        tried = []
        for launch in [None, *(one for one in candidates if one != present)]:
            varied = [(one, launch if launch and i == at else old) for i, (one, old) in enumerate(rules)]
            entry = {"launch": launch, "seconds": None, "why": None}
            try:
                with chosen(kind, varied):
                    entry["seconds"] = step_seconds(core, clock)
            except Exception as error:
                entry["why"] = reason(error)
            tried.append(entry)
        found[f"{kind} {where or 'otherwise'}"] = sorted(tried, key=lambda one: one["seconds"] or float("inf"))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="an id of labcore.facts.models: llama-3-8b, qwen3-0.6b, …")
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(MODULES)}; gemv without any")
    parser.add_argument("--out", type=Path, help="JSON with all times")
    args = parser.parse_args()
    if unknown := set(args.kinds) - set(MODULES):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(MODULES)}")
    core, clock, results = random_engine(args.model, **one_request(PROMPT + ROOM + 2)), CudaClock(), {}
    (request,) = token_requests(prompts([PROMPT], core.runner.model.config.vocab), [ROOM])
    core.add_request(request)
    while request.num_output_tokens < AHEAD:
        core.step()
    for kind in args.kinds or ["gemv"]:
        module = importlib.import_module(f"labcore.kernels.{MODULES[kind]}")
        for name, tried in sweep(core, kind, module.candidates(kind, capability("cuda")), clock).items():
            results[name] = tried
            show(name, tried)
            if args.out:
                found = {"device": torch.cuda.get_device_name(), "model": args.model, "cases": results}
                atomic_write(args.out, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
