"""Every shipped kernel, compiled for four chips without one: no spills, shared memory that fits, instructions meant,
and no register given away while a product reads it.

Compilation happens in processes of their own: here kernels are interpreted. `make test` compiles the first variant of
each kernel with the installed Triton; LABCORE_TRITON_36=folder adds the release in that folder, LABCORE_SOAK=1 takes
every variant. Triton's own cache makes a second run quick.
"""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from labcore.kernels import _compile, _sass  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
OLDER = os.environ.get("LABCORE_TRITON_36")
SOAK = bool(os.environ.get("LABCORE_SOAK"))
RELEASES = ["installed", *(["3.6"] if OLDER else [])]
JOBS = os.environ.get("LABCORE_JOBS", "1")


def run_python(*arguments: str, release: str = "installed") -> str:
    """What a process without the interpreter prints; its complaint fails the test."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([OLDER] if release == "3.6" else [])])
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout, result.stderr
    return result.stdout


@functools.cache
def compiled(release: str) -> tuple[str, dict]:
    """(Triton's version, {chip: {module: {variant: report}}}) of the slice, or under soak of everything."""
    which = "--all" if SOAK else "--slice"
    printed = run_python("-m", "labcore.kernels._compile", which, "--jobs", JOBS, release=release)
    ((version, chips),) = json.loads(printed).items()
    return version, chips


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("cc", _compile.CHIPS)
def test_what_is_shipped_compiles_without_spills_and_fits(cc, release):
    version, chips = compiled(release)
    assert release == "installed" or version.startswith(release), f"{OLDER} holds Triton {version}"
    found = [
        f"{module}, {name}: {problem}"
        for module, variants in chips[f"sm{cc}"].items()
        for name, report in variants.items()
        for problem in _compile.problems(report, cc)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("release", RELEASES)
def test_rotations_round_as_often_as_torch_does(release):
    reports = compiled(release)[1]["sm90"]["rope"]
    assert reports and not [name for name, report in reports.items() if "fma.bf16" in report["instructions"]]


def test_the_slice_has_every_kernel_of_every_module():
    """On the newest chip, all; on one older chip, all that are shipped for it."""
    newest = {(module, v.kernel_name) for module, v in _compile.shipped(90)}
    assert {(module, v.kernel_name) for module, v in _compile.shipped(90, which=_compile.SLICE)} == newest
    older = [(m, v.kernel_name) for cc in (75, 80, 89) for m, v in _compile.shipped(cc, which=_compile.SLICE)]
    assert len(set(older)) == len(older) > 15
    assert {"norm", "attention_prefill", "attention_decode", "attention_paged", "w4a16", "gemm8", "kv_quant"} <= {
        module for module, _ in newest
    }


RECORDED = json.loads(_compile.RESOURCES.read_text()) if _compile.RESOURCES.exists() else {}
RENEW = "run `make resources`, and with another Triton `PYTHONPATH=folder python -m labcore.kernels._compile --write`"


@pytest.mark.parametrize("cc", _compile.CHIPS)
@pytest.mark.parametrize("version", ["3.6.0", "3.7.1"])
def test_the_recorded_resources_are_of_what_is_shipped(version, cc):
    recorded = RECORDED[version][f"sm{cc}"]
    expected: dict = {}
    for module, variant in _compile.shipped(cc, which=_compile.FIRST):
        expected.setdefault(module, {})[variant.name] = variant.launch
    found = {module: {name: one["launch"] for name, one in variants.items()} for module, variants in recorded.items()}
    stale = [module for module in {*found, *expected} if found.get(module) != expected.get(module)]
    assert not stale, f"resources.json is stale for Triton {version}, {sorted(stale)}: {RENEW}"


@pytest.mark.parametrize("release", RELEASES)
def test_the_recorded_resources_are_what_the_compiler_says_today(release):
    version, chips = compiled(release)
    if version not in RECORDED:
        pytest.skip(f"nothing is recorded for Triton {version}")
    stale = [
        f"{chip} {module}, {name}"
        for chip, modules in chips.items()
        for module, variants in modules.items()
        for name, report in variants.items()
        if name in RECORDED[version][chip].get(module, {}) and RECORDED[version][chip][module][name] != report
    ]
    assert not stale, f"resources.json is stale for Triton {version}: {stale}; {RENEW}"


@functools.cache
def sample(release: str = "installed") -> dict:
    """The reports of sample_kernels on an H200, and under "ptxas" the version of the assembler."""
    code = (
        "import json; from tests.kernels.sample_kernels import variants; from labcore.kernels._compile import *\n"
        "reports = {v.name: compile_variant(v, 90) for v in variants((9, 0))}\n"
        "print(json.dumps(reports | {'ptxas': triton.knobs.nvidia.ptxas.version}))"
    )
    return json.loads(run_python("-c", code, release=release))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("good", None),
        ("spills", "spills: "),
        ("no wgmma", "lacks ['wgmma']"),
        ("does not compile", "does not compile: "),
        ("too much shared memory", "bytes of shared memory, a H200 has 232448"),
    ],
)
def test_each_defect_is_reported(name, complaint):
    found = _compile.problems(sample()[name], 90)
    assert (found == []) if complaint is None else (len(found) == 1 and complaint in found[0]), found


@pytest.mark.parametrize("release", RELEASES)
def test_registers_given_away_too_early_are_reported(release):
    version = sample(release)["ptxas"]
    if tuple(map(int, version.split("."))) >= (13, 3):
        pytest.skip(f"ptxas {version} no longer gives the registers of a product in flight away: 13.3 was the first")
    (problem,) = _compile.problems(sample(release)["gives registers away"], 90)
    assert re.fullmatch(r"gives registers away too early, \d+ times; the first: .+ writes R\d+, which .+", problem)


@pytest.mark.parametrize("release", RELEASES)
def test_without_its_waits_a_shipped_kernel_is_reported(release):
    """So the check is not blind, whatever ptxas does: prefill has weights of the softmax as left operands."""
    code = (
        "from labcore.kernels import _compile\n"
        "_compile.overwritten = print  # shows the SASS, and finds nothing in it\n"
        "_compile.compile_variant(next(_compile.shipped(90, 'attention_prefill'))[1], 90)"
    )
    lines = run_python("-c", code, release=release).splitlines(keepends=True)
    assert not _sass.overwritten("".join(lines))
    assert _sass.overwritten("".join(line for line in lines if "WARPGROUP.DEPBAR" not in line))


def sass(*lines: str) -> str:
    """As nvdisasm prints it: labels at the beginning of a line, instructions after their address."""
    return "\n".join(line if line.endswith(":") else f"\t/*{at:04x}*/\t{line} ;" for at, line in enumerate(lines))


WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"
PRODUCT = "HGMMA.64x64x16.F32.BF16 R24, R8, gdesc[UR4], R24, gsb0"  # reads R8 to R11
OTHER = "HGMMA.64x64x16.F32.BF16 R24, R12, gdesc[UR4], R24, gsb0"
SHARED = "HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8], R24, gsb0"
LOAD = "LDS R8, [R2]"


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ([PRODUCT, LOAD, WAIT], ["LDS R8, [R2] writes R8"]),
        ([PRODUCT, WAIT, LOAD], []),
        ([SHARED, LOAD, WAIT], []),
        ([".L_x_0:", LOAD, PRODUCT, "@P0 BRA `(.L_x_0)", WAIT], ["LDS R8, [R2] writes R8"]),
        ([".L_x_0:", LOAD, PRODUCT, WAIT, "@P0 BRA `(.L_x_0)"], []),
        ([".L_x_0:", PRODUCT, LOAD, "@P0 BRA `(.L_x_0)", WAIT], ["LDS R8, [R2] writes R8"]),
        (["@P0 BRA `(.L_x_0)", PRODUCT, ".L_x_0:", LOAD], ["LDS R8, [R2] writes R8"]),
        ([PRODUCT, OTHER, "WARPGROUP.DEPBAR.LE gsb0, 0x1", LOAD, "MOV R12, R2"], ["MOV R12, R2 writes R12"]),
        ([PRODUCT.removesuffix(", gsb0"), OTHER, "WARPGROUP.DEPBAR.LE gsb0, 0x1", LOAD], ["LDS R8, [R2] writes R8"]),
        ([PRODUCT.removesuffix(", gsb0"), LOAD], ["LDS R8, [R2] writes R8"]),
    ],
)
def test_a_register_is_lost_between_its_product_and_the_wait(lines, lost):
    assert _sass.overwritten(sass(*lines)) == [f"{one}, which a product in flight still reads" for one in lost]


@pytest.mark.parametrize(
    ("instruction", "registers"),
    [
        ("@!P1 IMAD.MOV.U32 R8, RZ, RZ, R2", {8}),
        ("SHFL.IDX PT, R9, R2, R3, 0x1f", {9}),
        ("ISETP.GE.AND P0, PT, R8, R9, PT", set()),
        ("FCHK P0, R8, R9", set()),
        ("BAR.SYNC.DEFER_BLOCKING R8, 0x80", set()),
        ("STS.128 [R8], R8", set()),
        ("STG.E.64 desc[UR4][R8.64], R8", set()),
        ("R2UR UR8, R8", set()),
        ("LDG.E.128 R4, desc[UR4][R2.64]", {4, 5, 6, 7}),
        ("LDSM.16.MT88.4 R8, [R2]", {8, 9, 10, 11}),
        ("LDSM.16.M88.2 R8, [R2]", {8, 9}),
        ("IMAD.WIDE.U32 R8, R2, 0x4, R4", {8, 9}),
        ("CS2R R8, SRZ", {8, 9}),
        ("CS2R.32 R8, SR_CLOCKLO", {8}),
        ("SHF.R.U64 R8, R2, 0x4, R3", {8}),
    ],
)
def test_what_an_instruction_writes(instruction, registers):
    ((opcode, operands),) = _sass.followed(sass(instruction))
    assert _sass.written(opcode, operands) == registers


def test_a_report_says_what_a_kernel_uses():
    report = sample()["good"]
    assert set(report) == {"kernel", "launch", "expects", "warps", "registers", "stack", "shared", "instructions"}
    assert report["kernel"] == "product" and report["launch"] == {"N": 64, "num_stages": 3, "num_warps": 4}
    assert report["warps"] == 4 and 32 < report["registers"] < 128
    assert report["shared"] == 3 * 2 * 64 * 64 * 2  # stages, operands, elements, bytes
    assert report["instructions"]["wgmma"] == 4  # 64 / 16 steps along K


def test_how_many_ctas_share_a_multiprocessor():
    assert _compile.ctas_per_sm(90, 4, 106, 39_424) == 4  # by registers: 65536 / (112 · 128)
    assert _compile.ctas_per_sm(90, 8, 128, 98_336) == 2  # by both
    assert _compile.ctas_per_sm(90, 8, 138, 98_336) == 1  # by registers
    assert _compile.ctas_per_sm(90, 4, 32, 0) == 16  # by registers, with no shared memory at all
    assert _compile.ctas_per_sm(75, 8, 32, 1024) == 4  # by the 32 warps of a T4
    assert _compile.ctas_per_sm(89, 4, 64, 50_000) == 2  # by shared memory


def test_names_are_unique_and_a_wrong_signature_is_refused():
    code = (
        "from tests.kernels.sample_kernels import *; from labcore.kernels._compile import *\n"
        "try: compile_variant(Variant('x', product, SIGNATURE, {}), 90)\n"
        "except InputError as error: print(error)"
    )
    assert "product, variant x: ['N'] is missing" in run_python("-c", code)
    names = [(cc, module, variant.name) for cc in _compile.CHIPS for module, variant in _compile.shipped(cc)]
    assert len(set(names)) == len(names)
