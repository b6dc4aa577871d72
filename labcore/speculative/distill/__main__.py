"""`python -m labcore.speculative.distill`: the committed drafts of SmolLM2-135M, from prompts to weights.

Examples go to the cache and an interrupted run goes on there; each draft is trained, judged on held-out topics and
written with what was measured. What the committed ones measured lies beside them, in weights/*.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from labcore.core.files import atomic_write, cache_dir
from labcore.model.checkpoints import fetch
from labcore.model.fast import fast_path
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.speculative.distill.data import coverage, draft_vocabulary
from labcore.speculative.distill.fit import Recipe
from labcore.speculative.distill.generate import Example, examples, generate
from labcore.speculative.distill.passages import passages
from labcore.speculative.distill.prompts import prompts
from labcore.speculative.distill.train_draft import agreement, train_draft
from labcore.speculative.distill.train_eagle import chain_accuracies, train_eagle
from labcore.speculative.distill.train_medusa import accuracies, train_medusa
from labcore.speculative.reduced_head import ReducedHead
from labcore.speculative.weights_file import WEIGHTS, write_weights

MODEL, EXAMPLES, VOCABULARY, MEDUSA_HEADS = "smollm2-135m", 806, 8192, 3
RECIPES = {
    "medusa": Recipe(epochs=2, rate=2e-3),
    "eagle": Recipe(epochs=6),
    "eagle3": Recipe(epochs=2.5),
    "draft": Recipe(epochs=4, context=160, rate=1.5e-3),
}


def train(
    name: str, target: Llama, head: ReducedHead, some: list[Example], held_out: list[Example], say: Callable
) -> tuple[nn.Module, dict]:
    """One draft of RECIPES, and what is known of it: its losses, and how often it is right on held-out topics."""
    recipe = RECIPES[name]
    if name == "medusa":
        module, losses = train_medusa(head, some, MEDUSA_HEADS, recipe, say)
        measured = {"accuracies": accuracies(module, head, held_out)}
    elif name == "draft":
        module, losses = train_draft(target, head, some, recipe, say)
        right, overlap = agreement(module, target, head, held_out)
        measured = {"accuracy": right, "overlap": overlap}
    else:
        module, losses = train_eagle(target, head, some, name == "eagle3", recipe, say)
        measured = {"chain_accuracies": chain_accuracies(module, target, head, held_out)}
    return module, {"recipe": asdict(recipe), "losses": losses, **measured}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m labcore.speculative.distill", description=__doc__)
    parser.add_argument("drafts", nargs="*", default=list(RECIPES), help=f"of {', '.join(RECIPES)}; all if none")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights")
    parser.add_argument("--epochs", type=float, help="instead of the recipe's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint, folder = open_checkpoint(fetch(MODEL)), cache_dir() / "distill" / MODEL
    if len(list(folder.glob("*.npz"))) < EXAMPLES:
        transform, dtype = fast_path()
        fast = load_model(checkpoint, dtype=dtype, transform=transform)
        generate(fast, checkpoint.tokenizer(), prompts(passages())[:EXAMPLES], folder, print)
    target = load_model(checkpoint)
    every = list(islice(examples(folder), EXAMPLES))
    some, held_out = ([one for one in every if one.held_out == side] for side in (False, True))
    head = ReducedHead(target, draft_vocabulary(some, VOCABULARY, target.config.vocab))
    for name in arguments.drafts:
        begun = time.perf_counter()
        if arguments.epochs is not None:
            RECIPES[name] = replace(RECIPES[name], epochs=arguments.epochs)
        module, facts = train(name, target, head, some, held_out, lambda line, name=name: print(f"{name}: {line}"))
        facts |= {
            "examples": len(some),
            "answer_tokens": sum(len(one.token_ids) - one.num_prompt_tokens for one in some),
            "coverage": round(coverage(held_out, head.token_ids), 4),
            "minutes": round((time.perf_counter() - begun) / 60, 1),
        }
        path = write_weights(arguments.out / f"{name}.gguf", module, head, facts)
        atomic_write(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
