"""`labcore bench quant`: the table of methods, ours beside the authors' code, and what quantizing costs and brings.

Rows `quant.<model>.<method>.<bits>` hold a perplexity, and in their configuration its interval, KL and the bytes; none
of that depends on the clock. The others are losses and times.
"""

from __future__ import annotations

from dataclasses import asdict

import torch

from labcore.bench.record import Row, RunBuilder
from labcore.model.loader import open_checkpoint
from labcore.quant.awq import awq_search
from labcore.quant.gptq import damped, gptq, layer_loss
from labcore.quant.reference_runs import BLOCK, GROUP, layer, recorded
from labcore.quant.spec import QuantSpec
from labcore.quant.table import LENGTH, SUBJECTS, Entry, Subject, entries

METHOD = f"windows of {LENGTH} tokens, each from its own beginning; exp of the mean -ln p of all tokens but the first"
REAL = "smollm2-135m"


def suite(run: RunBuilder) -> None:
    """The table of both models, then the comparisons. Finished rows of the table are taken from the cache folder."""
    gptq_row(run)
    awq_row(run)
    for subject in SUBJECTS.values():
        rows = {}
        for entry in entries(subject, say=run.say):
            table_row(run, subject, entry)
            rows[entry.name] = entry
        if subject.name == REAL:
            seconds_row(run, subject, rows["gptq-act.4"], rows["rtn.4"])


def table_row(run: RunBuilder, subject: Subject, entry: Entry) -> None:
    """One method on one model. Right if the whole model was swapped and the unquantized row differs from itself by
    nothing."""
    whole = 7 * _layers(subject)
    swapped = entry.swapped == (0 if entry.name == "float" else whole)
    itself = entry.name != "float" or abs(entry.kl) < 1e-6
    run.add(
        Row(
            key=f"quant.{subject.name}.{entry.name}",
            what=entry.what,
            ours=[[entry.perplexity]],
            unit="1",
            kind="value",
            threads=run.threads,
            bytes=float(entry.linear_bytes),
            shape={
                "model": subject.name,
                "calibration": [subject.calibration, LENGTH],
                "evaluation": [subject.evaluation, LENGTH],
            },
            config=asdict(entry),
            correct={
                "pass": swapped and itself,
                "how": f"{entry.swapped} of {whole} linears swapped; the unquantized model is at KL 0 from itself",
            },
            method=METHOD,
        )
    )


def _layers(subject: Subject) -> int:
    return open_checkpoint(subject.path()).config.n_layers


def gptq_row(run: RunBuilder) -> None:
    """The loss of our GPTQ beside that of the authors' weights, on the same Hessian."""
    w, x = layer()
    h = 2 * x.T @ x
    exact = damped(h.double(), 0.01)
    ours, theirs, away = [], [], 0.0
    for one in recorded()["gptq"]:
        spec = QuantSpec(one["bits"], one["group"], one["symmetric"])
        found = gptq(w, h, spec, block=BLOCK, order=one["order"], groups=one["groups"]).weight.dequantize()
        away = max(away, (found - torch.tensor(one["weight"])).abs().max().item())
        ours.append([layer_loss(w.double(), found.double(), exact)])
        theirs.append([layer_loss(w.double(), torch.tensor(one["weight"], dtype=torch.float64), exact)])
    run.add(
        Row(
            key="quant.gptq.loss",
            what="½ tr(ΔW H ΔWᵀ) of a small layer, six settings",
            ours=ours,
            baseline=theirs,
            baseline_name=f"IST-DASLab/gptq {recorded()['sources']['IST-DASLab/gptq']}, recorded",
            unit="1",
            kind="overhead",
            target={"must": 1.001},
            correct={"pass": away < 1e-4, "error": away, "bar": "1e-4: the same weights, element by element"},
            shape={"out": w.shape[0], "in": w.shape[1], "tokens": len(x)},
            method="one value a setting",
        )
    )


def awq_row(run: RunBuilder) -> None:
    """The loss that our search ends at beside that of the authors' search."""
    w, x = layer()
    theirs = recorded()["awq"]
    found = awq_search([w], x.abs().mean(0), x, QuantSpec(theirs["bits"], GROUP))
    run.add(
        Row(
            key="quant.awq.loss",
            what="mean squared output error of a small layer with the scale that the search chose",
            ours=[[min(found.curve)]],
            baseline=[[min(theirs["curve"])]],
            baseline_name=f"mit-han-lab/llm-awq {recorded()['sources']['mit-han-lab/llm-awq']}, recorded",
            unit="1",
            kind="overhead",
            target={"must": 1.001},
            correct={"pass": len(found.curve) == 20, "how": "the whole grid was tried"},
            shape={"out": w.shape[0], "in": w.shape[1], "tokens": len(x)},
            method="one value",
        )
    )


def seconds_row(run: RunBuilder, subject: Subject, entry: Entry, rounded: Entry) -> None:
    """How long GPTQ took for the whole real model, calibration included, when its row of the table was made."""
    run.add(
        Row(
            key="quant.gptq.seconds",
            what="GPTQ of every linear of SmolLM2-135M, 4 bits, groups of 64, act-order",
            ours=[[entry.seconds]],
            unit="s",
            kind="value",
            target={"must": 240.0},
            dtype="fp32",
            threads=run.threads,
            shape={"model": subject.name, "linears": entry.swapped, "tokens": subject.calibration * LENGTH},
            correct={
                "pass": entry.swapped == 7 * _layers(subject) and entry.kl < rounded.kl,
                "how": f"KL {entry.kl:.3f} to the unquantized model; rounding to nearest leaves {rounded.kl:.3f}",
            },
            method="one run",
        )
    )
