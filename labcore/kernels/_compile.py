"""Compile kernels for chips that are not here, and read from the result what they will use of one.

    python -m labcore.kernels._compile --cc 90 --module norm     the first variant of each of its kernels, as JSON
    python -m labcore.kernels._compile --all                     every shipped variant, for four chips
    python -m labcore.kernels._compile --write                   each kernel's first, for four chips, to resources.json

Triton's wheel brings NVIDIA's assembler, so registers, stack, shared memory and the kinds of instructions are known
without a GPU. Every kernel module has `variants(cc)`, all it ships for a chip; of each kernel, the first stands for
the others in quick checks. Needs a process without TRITON_INTERPRET.
"""

import argparse
import importlib
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from labcore.core.errors import InputError
from labcore.core.files import atomic_write
from labcore.kernels._compat import has_early, has_mma, interpreting
from labcore.kernels._sass import overwritten

RESOURCES = Path(__file__).with_name("resources.json")
CHIPS = {75: "T4", 80: "A100", 89: "L4", 90: "H200"}
SHARED_LIMIT = {75: 64 << 10, 80: 163 << 10, 89: 99 << 10, 90: 227 << 10}  # bytes a CTA can have
SM_SHARED = {75: 64 << 10, 80: 164 << 10, 89: 100 << 10, 90: 228 << 10}  # of which each CTA costs 1 KiB more from 80 on
SM_WARPS = {75: 32, 80: 64, 89: 48, 90: 64}
SM_REGISTERS = 65536
INSTRUCTIONS = {
    "wgmma": r"wgmma\.mma_async",
    "mma.sync": r"\bmma\.sync",
    "cp.async": r"cp\.async\.c[ag]\.shared",
    "tma": r"cp\.async\.bulk\.tensor",
    "setmaxnreg": r"setmaxnreg",
    "cvt": r"\bcvt\.",
    "fma.bf16": r"\bfma\.rn\.bf16",
    "pdl.wait": r"griddepcontrol\.wait",
    "pdl.launch": r"griddepcontrol\.launch_dependents",
}


@dataclass(frozen=True)
class Variant:
    """One way a kernel is shipped: its argument types, compile-time values and launch options.

    signature: argument -> type as Triton writes it ("*bf16", "i32", "fp32"); "i32:16" for an integer that is a multiple
    of 16 whenever this variant is launched. Pointers are taken to be aligned to 16 bytes, as torch's are.
    constexprs: compile-time arguments, None for a pointer that is not passed. expects: INSTRUCTIONS it must contain.
    """

    name: str
    kernel: object
    signature: dict[str, str]
    constexprs: dict[str, object]
    num_warps: int = 4
    num_stages: int = 3
    maxnreg: int | None = None
    enable_fp_fusion: bool = True
    expects: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, name: str, kernel, signature: dict[str, str], launch: dict[str, int], expects=(), **constexprs):
        """The variant that a `_config` entry launches: keys in capitals are compile-time values of the kernel."""
        values = {key: value for key, value in launch.items() if key.isupper()}
        options = {key: value for key, value in launch.items() if not key.isupper()}
        return cls(name, kernel, signature, constexprs | values, **options, expects=frozenset(expects))

    @property
    def kernel_name(self) -> str:
        return getattr(self.kernel, "fn", self.kernel).__name__

    @property
    def options(self) -> dict[str, int]:
        chosen = {"num_warps": self.num_warps, "num_stages": self.num_stages}
        chosen |= {} if self.maxnreg is None else {"maxnreg": self.maxnreg}
        return chosen if self.enable_fp_fusion else chosen | {"enable_fp_fusion": False}

    @property
    def launch(self) -> dict[str, object]:
        """What distinguishes it, in a form JSON can hold."""
        values = {key: value for key, value in self.constexprs.items() if isinstance(value, (int, float, str))}
        return dict(sorted(values.items())) | self.options


def half(cc: tuple[int, int]) -> str:
    """The 16-bit type, as Triton writes it, in which variants for a chip of capability cc are compiled: fp16 where
    there are no tensor cores for bf16 (Turing)."""
    return "bf16" if has_mma(cc) else "fp16"


def early_instructions(cc: tuple[int, int]) -> tuple[str, ...]:
    """The INSTRUCTIONS that a kernel which begins early needs on a chip of capability cc, the wait first: no test on a
    CPU would miss it."""
    return ("pdl.wait", "pdl.launch") if has_early(cc) else ()


ALL, FIRST, SLICE = "all", "first", "slice"  # every variant; each kernel's first; of those, what a quick test takes


def shipped(cc: int, module: str | None = None, which: str = ALL) -> Iterator[tuple[str, Variant]]:
    """(module, variant) of what is shipped for compute capability cc (90 for 9.0).

    SLICE has every kernel on the newest chip, and on one of the older, by its name.
    """
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if found.ispkg or found.name.startswith(("_", "bench_")) or module not in (None, found.name):
            continue
        source = importlib.import_module(f"labcore.kernels.{found.name}")
        seen = set()
        for variant in source.variants(divmod(cc, 10)) if hasattr(source, "variants") else ():
            name = variant.kernel_name
            if which == ALL or (name not in seen and (which == FIRST or cc in (max(CHIPS), _older_chip(name)))):
                yield found.name, variant
            seen.add(name)


def _older_chip(kernel_name: str) -> int:
    older = sorted(CHIPS)[:-1]
    return older[sum(kernel_name.encode()) % len(older)]


def compile_variant(variant: Variant, cc: int) -> dict[str, object]:
    """Compile for `cc`: kernel, launch, expects, and `resources`, or the "error" of a compiler that refused."""
    names = variant.kernel.arg_names
    if unknown := set(names) ^ (set(variant.signature) | set(variant.constexprs)):
        raise InputError(f"{variant.kernel_name}, variant {variant.name}: {sorted(unknown)} is missing or no argument")
    types = {name: variant.signature.get(name, "constexpr") for name in names}
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, kind in enumerate(types.values())
        if kind.startswith("*") or kind.endswith(":16")
    }
    signature = {name: kind.partition(":")[0] for name, kind in types.items()}
    source = ASTSource(variant.kernel, signature, variant.constexprs, aligned)
    try:
        with redirect_stdout(io.StringIO()):  # Triton prints a refused program in full
            compiled = triton.compile(source, target=GPUTarget("cuda", cc, 32), options=variant.options)
    except Exception as error:  # the compiler raises what it likes; the report and the tests name the variant
        found = {"error": f"{type(error).__name__}: {str(error)[:600]}"}
    else:
        found = resources(compiled)
    return {"kernel": variant.kernel_name, "launch": variant.launch, "expects": sorted(variant.expects), **found}


def resources(compiled) -> dict[str, object]:
    """warps; registers and stack bytes (spills) a thread; shared bytes a CTA; how often each of INSTRUCTIONS occurs;
    "overwritten", only where wgmma loses registers that it still reads: which instructions take them (see _sass)."""
    counts = {name: len(re.findall(pattern, compiled.asm["ptx"])) for name, pattern in INSTRUCTIONS.items()}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _printed(triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
        # code only, without an analysis of jumps (-ndf) that takes a third of the time and says nothing used here
        sass = _printed(triton.knobs.nvidia.nvdisasm.path, "-c", "-ndf", file.name) if counts["wgmma"] else ""
    registers, stack = (int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("REG", "STACK"))
    lost = overwritten(sass)
    return {
        "warps": compiled.metadata.num_warps,
        "registers": registers,
        "stack": stack,
        "shared": compiled.metadata.shared,
        "instructions": {name: count for name, count in counts.items() if count},
        **({"overwritten": lost} if lost else {}),
    }


def _printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def problems(report: dict, cc: int) -> list[str]:
    """What forbids to ship a variant with this report: one sentence each."""
    if "error" in report:
        return [f"does not compile: {report['error']}"]
    found = []
    if report["stack"]:
        found.append(f"spills: {report['stack']} bytes of stack a thread, with {report['registers']} registers")
    if report["shared"] > SHARED_LIMIT[cc]:
        found.append(f"needs {report['shared']} bytes of shared memory, a {CHIPS[cc]} has {SHARED_LIMIT[cc]}")
    if missing := set(report["expects"]) - set(report["instructions"]):
        found.append(f"lacks {sorted(missing)}, has {report['instructions']}")
    if lost := report.get("overwritten"):
        found.append(f"gives registers away too early, {len(lost)} times; the first: {lost[0]}")
    return found


def ctas_per_sm(cc: int, warps: int, registers: int, shared: int) -> int:
    """How many CTAs fit on one multiprocessor: bounded by warps, registers (given out 8 a thread) and shared memory."""
    by_registers = SM_REGISTERS // (-(-registers // 8) * 8 * 32 * warps)
    by_shared = SM_SHARED[cc] // (shared + (1024 if cc >= 80 else 0)) if shared else by_registers
    return min(SM_WARPS[cc] // warps, by_registers, by_shared)


def compile_all(chips: list[int], module: str | None = None, which: str = ALL, jobs: int = 1) -> dict:
    """{"sm90": {module: {variant: what it uses}}} for each chip, compiled by `jobs` processes."""
    work = [(cc, name, variant.name, which) for cc in chips for name, variant in shipped(cc, module, which)]
    if repeated := {item for item in work if work.count(item) > 1}:
        raise InputError(f"two variants share a name: {sorted(repeated)}")
    if jobs > 1:
        with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
            reports = list(pool.map(_compile_named, work))
    else:
        reports = [_compile_named(item) for item in work]
    result: dict = {f"sm{cc}": {} for cc in chips}
    for (cc, name, variant, _), report in zip(work, reports, strict=True):
        result[f"sm{cc}"].setdefault(name, {})[variant] = report
    return result


def _compile_named(item: tuple[int, str, str, str]) -> dict[str, object]:
    """Kernels cannot be sent to a process, their names can."""
    cc, module, name, which = item
    variant = next(one for _, one in shipped(cc, module, which) if one.name == name)
    return compile_variant(variant, cc)


def write_resources(found: dict) -> None:
    """Replace this Triton's part of resources.json, whole or not at all."""
    known = json.loads(RESOURCES.read_text()) if RESOURCES.exists() else {}
    known[triton.__version__] = found
    atomic_write(RESOURCES, _lines(dict(sorted(known.items()))) + "\n")


def _lines(tree: dict, depth: int = 0) -> str:
    """JSON with a line for each variant: Triton, chip and module are levels of indentation."""
    if depth == 4:
        return json.dumps(tree, sort_keys=True)
    pad = " " * (depth + 1)
    inner = ",\n".join(f"{pad}{json.dumps(key)}: {_lines(value, depth + 1)}" for key, value in tree.items())
    return "{\n" + inner + "\n" + pad[1:] + "}" if tree else "{}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m labcore.kernels._compile", description=__doc__.split("\n")[0])
    parser.add_argument("--cc", type=int, nargs="+", choices=list(CHIPS), default=list(CHIPS))
    parser.add_argument("--module", help="one kernel module; all by default")
    which = parser.add_mutually_exclusive_group()
    for name, help in (
        (ALL, "every variant"),
        (SLICE, "what a quick test takes"),
        (FIRST, "each kernel's first (default)"),
    ):
        which.add_argument(f"--{name}", dest="which", action="store_const", const=name, help=help, default=FIRST)
    parser.add_argument("--write", action="store_true", help="each kernel's first, for all chips, into resources.json")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    if interpreting():
        parser.error("TRITON_INTERPRET is set: unset it, an interpreted kernel cannot be compiled")
    if chosen.write:
        found = compile_all(list(CHIPS), which=FIRST, jobs=chosen.jobs)
        write_resources(found)
    else:
        found = compile_all(chosen.cc, chosen.module, chosen.which, chosen.jobs)
        print(json.dumps({triton.__version__: found}, indent=1))
    bad = 0
    for chip, modules in found.items():
        for module, variants in modules.items():
            for name, report in variants.items():
                for problem in problems(report, int(chip.removeprefix("sm"))):
                    bad = 1
                    print(f"{chip} {module} {name}: {problem}", file=sys.stderr)
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
