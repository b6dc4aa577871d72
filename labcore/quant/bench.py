"""`labcore bench quant`: the table of methods, ours beside the authors' code, and what quantizing costs and brings.

Rows `quant.<model>.<method>.<bits>` hold a perplexity, and in their configuration its interval, KL and the bytes; none
of that depends on the clock. The others are losses and times.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch.nn import functional as F

from labcore.bench.record import Row, RunBuilder
from labcore.bench.timing import alternate
from labcore.core.errors import InputError
from labcore.kernels.cpu.library import why_unavailable
from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.loader import load_model, open_checkpoint
from labcore.quant.awq import awq_search
from labcore.quant.calibrate import linears
from labcore.quant.gptq import damped, gptq, layer_loss
from labcore.quant.reference_runs import BLOCK, GROUP, layer, recorded
from labcore.quant.rtn import quantize_weight
from labcore.quant.serve import served_layer
from labcore.quant.spec import QuantSpec
from labcore.quant.table import LENGTH, SUBJECTS, Entry, Subject, entries

METHOD = f"windows of {LENGTH} tokens, each from its own beginning; exp of the mean -ln p of all tokens but the first"
REAL = "smollm2-135m"


def suite(run: RunBuilder) -> None:
    """The table of both models, then the comparisons. Finished rows of the table are taken from the cache folder."""
    gptq_row(run)
    awq_row(run)
    int4_row(run)
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


@torch.inference_mode()
def int4_row(run: RunBuilder) -> None:
    """One token through every linear of the real model: 4-bit codes in compiled kernels beside fp32 weights in torch.

    The kernels' peer ought to be bf16, which a CPU without bf16 instructions multiplies an order of magnitude slower
    than fp32: so the bytes are compared with those of fp32.
    """
    if why := why_unavailable():
        raise InputError(why)
    model = load_model(open_checkpoint(SUBJECTS[REAL].path()))
    floats = [one.weight for one in linears(model).values()]
    rounded = [quantize_weight(w, QuantSpec(4, 32, symmetric=True)).stored() for w in floats]
    codes = [served_layer(weight) for weight in rounded]
    inputs = [torch.randn(1, w.shape[1], generator=torch.Generator().manual_seed(0)) for w in floats]
    took = alternate(
        {
            "ours": lambda: [linear(x) for linear, x in zip(codes, inputs, strict=True)],
            "fp32": lambda: [F.linear(x, w) for w, x in zip(floats, inputs, strict=True)],
        },
        rounds=7,
    )
    small, large = sum(linear.panels.nbytes for linear in codes), sum(w.nbytes for w in floats)
    errors = []
    for weight, linear, x in zip(rounded, codes, inputs, strict=True):
        exact = F.linear(x, weight.dequantize())
        errors.append(((linear(x) - exact).abs().max() / exact.abs().max()).item())
    run.add(
        Row(
            key="quant.int4.decode",
            what="one token through all 210 linears of SmolLM2-135M, 4 bits in groups of 32, in compiled kernels",
            ours=took["ours"],
            baseline=took["fp32"],
            baseline_name="torch, fp32 weights",
            unit="s",
            kind="speedup",
            target={"must": 0.75 * large / small},  # no `ideal`: 66 MB may lie in a cache that 425 MB does not fit into
            dtype="int4",
            threads=run.threads,
            bytes=float(small),
            shape={"linears": len(floats), "bytes_fp32": large, "bytes_int4": small, "rows": 1},
            correct={
                "pass": max(errors) < 1e-3 and all(isinstance(one, BlockLinear) for one in codes),
                "error": max(errors),
                "bar": "1e-3 of the largest output, against the dequantized weights",
            },
            notes="fp32 weights, not bf16, so that no bf16 instructions are needed; the bar: 0.75 of the bytes' ratio",
        )
    )
