"""Every method and width on one model, one calibration text, one evaluation text: `python -m labcore.quant.table`.

The baseline was trained in floating point, so what a row loses is what its method lost. SmolLM2's file holds 4-bit
weights already: there Q4_1 loses nothing, because its grid is the one that the weights lie on.
A finished row is kept in the cache folder until code, checkpoint or protocol change, so that a run that was stopped
goes on where it stopped.
"""

import argparse
import copy
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import labcore
from labcore.core.errors import InputError
from labcore.core.files import atomic_write, cache_dir
from labcore.model.checkpoints import fetch
from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.quant import corpus, windows
from labcore.quant.apply import bits_per_weight, stored_bytes
from labcore.quant.baseline import baseline
from labcore.quant.calibrate import linears
from labcore.quant.evaluate import Reference, evaluate
from labcore.quant.variants import variants

LENGTH = 512  # tokens of a window


@dataclass(frozen=True)
class Subject:
    """A model of the table; calibration, evaluation: numbers of windows. rows: variants; None: all."""

    name: str
    what: str
    path: Callable[[], Path]
    calibration: int
    evaluation: int
    rows: tuple[str, ...] | None = None


SUBJECTS = {
    "baseline": Subject("baseline", "trained in float by this package", baseline, 32, 64),
    "smollm2-135m": Subject(
        "smollm2-135m",
        "already in 4 bits: dequantized from Q4_1",
        lambda: fetch("smollm2-135m"),
        16,
        8,
        ("q8_0.8", "q4_1.4", "q4_0.4", "rtn.4", "nf4.4", "gptq-act.4", "w8a8-token.8", "w8a8-static.8", "llm-int8.8"),
    ),
}


@dataclass(frozen=True)
class Entry:
    """One row: `low` and `high` bound the perplexity, 95 %; kl in nats per token; excess: ln of the ratio of the
    perplexities, with its interval; linear_bytes, model_bytes: as stored; seconds: to quantize."""

    name: str
    what: str
    perplexity: float
    low: float
    high: float
    kl: float
    kl_low: float
    kl_high: float
    top1: float
    excess: float
    excess_low: float
    excess_high: float
    linear_bytes: int
    model_bytes: int
    bits_per_weight: float
    swapped: int
    seconds: float


class Laboratory:
    """One model with its texts, ready to judge variants."""

    def __init__(self, subject: Subject):
        checkpoint = open_checkpoint(subject.path())
        self.subject, self.model, tokenizer = subject, load_model(checkpoint), checkpoint.tokenizer()
        self.calibration = windows.cut(tokenizer.encode(corpus.text("calibration")), LENGTH, subject.calibration)
        self.rows = windows.cut(tokenizer.encode(corpus.text("evaluation")), LENGTH, subject.evaluation)
        self._reference: Reference | None = None

    @property
    def reference(self) -> Reference:
        if self._reference is None:
            self._reference = Reference(self.model, self.rows)
        return self._reference

    def judge(self, name: str, what: str, apply: Callable[[Llama, Tensor], object]) -> Entry:
        """Apply a variant to a copy of the model and evaluate it."""
        model = copy.deepcopy(self.model)
        begun = time.perf_counter()
        apply(model, self.calibration)
        seconds = time.perf_counter() - begun
        found = evaluate(model, self.reference)
        perplexity, divergence = found.perplexity, found.divergence
        return Entry(
            name,
            what,
            *(perplexity.value, perplexity.low, perplexity.high),
            *(divergence.kl.value, divergence.kl.low, divergence.kl.high, divergence.top1),
            *(divergence.excess.value, divergence.excess.low, divergence.excess.high),
            *stored_bytes(model),
            bits_per_weight(model),
            sum(hasattr(layer, "stored") for layer in linears(model).values()),
            seconds,
        )


def entries(
    subject: Subject, names: Sequence[str] | None = None, say: Callable[[str], object] = print
) -> Iterator[Entry]:
    """The rows of one model, the unquantized one first. names: variants to take; None: the subject's own."""
    known = variants()
    chosen = list(subject.rows or known) if names is None else list(names)
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(f"no method {unknown[0]!r}; the methods are {', '.join(known)}")
    if not subject.path().exists():
        raise InputError(f"{subject.name} has no checkpoint at {subject.path().name}; train or fetch it first")
    kept, laboratory = Kept(subject), None
    for count, name in enumerate(["float", *chosen]):
        entry = kept.get(name)
        if entry is None:
            say(f"  {subject.name}: {name}, row {count + 1} of {len(chosen) + 1}")
            laboratory = laboratory or Laboratory(subject)
            one = known.get(name)
            what, apply = (one.what, one.apply) if one else (subject.what, lambda model, rows: None)
            entry = kept.put(laboratory.judge(name, what, apply))
        yield entry


class Kept:
    """Finished rows of a subject on disk, one file for what they depend on: code, checkpoint, protocol, torch.

    A checkpoint that is one file came with its own checksum and is not read for this.
    """

    def __init__(self, subject: Subject):
        protocol = subject.calibration, subject.evaluation, LENGTH, torch.__version__, torch.get_num_threads()
        digest = hashlib.sha256(repr(protocol).encode())
        package = Path(labcore.__file__).parent
        sources = [path for room in ("formats", "model", "quant") for path in sorted((package / room).rglob("*.py"))]
        files = sorted(subject.path().iterdir()) if subject.path().is_dir() else []
        for path in [*sources, *files]:
            digest.update(path.read_bytes())
        self.path = cache_dir() / "quant" / f"{subject.name}-{digest.hexdigest()[:16]}.json"
        self.found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}

    def get(self, name: str) -> Entry | None:
        return Entry(**self.found[name]) if name in self.found else None

    def put(self, entry: Entry) -> Entry:
        self.found[entry.name] = asdict(entry)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, json.dumps(self.found, indent=1) + "\n")
        return entry


HEADER = f"{'method.bits':<22} {'bits/w':>7} {'MB':>7} {'perplexity':>10} {'95 %':>17} {'KL':>8} {'top-1':>6}"


def line(entry: Entry) -> str:
    """One row for people."""
    between = f"{entry.low:.2f} - {entry.high:.2f}"
    return (
        f"{entry.name:<22} {entry.bits_per_weight:>7.3f} {entry.model_bytes / 1e6:>7.2f} {entry.perplexity:>10.3f} "
        f"{between:>17} {entry.kl:>8.4f} {entry.top1:>6.3f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SUBJECTS, nargs="*", default=list(SUBJECTS), help="default: both")
    parser.add_argument("--methods", nargs="*", metavar="METHOD.BITS", help="default: all that suit the model")
    options = parser.parse_args(arguments)
    try:
        for model in options.model:
            rows = entries(SUBJECTS[model], options.methods, say=lambda text: print(text, file=sys.stderr))
            for count, entry in enumerate(rows):
                print(line(entry) if count else f"{model}\n{HEADER}\n{line(entry)}", flush=True)
    except InputError as error:
        print(f"labcore.quant.table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
