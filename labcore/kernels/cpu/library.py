"""The C library behind the CPU kernels: compiled once for this machine, kept in the cache folder, typed for ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from labcore.core.errors import InputError
from labcore.core.files import atomic_write, cache_dir

SOURCE = Path(__file__).with_name("decoder.c")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared")
POINTER, LONG, INT = ctypes.c_void_p, ctypes.c_long, ctypes.c_int


class Linear(ctypes.Structure):
    """`linear` of linear.h."""

    _fields_ = (
        ("panels", POINTER), ("norm", POINTER), ("eps", ctypes.c_float), ("gated", INT), ("bits", INT),
        ("columns", LONG), ("outputs", LONG),
    )  # fmt: skip


class DecoderLayer(ctypes.Structure):
    """`decoder_layer` of decoder.c."""

    _fields_ = (("qkv", Linear), ("output", Linear), ("gate_up", Linear), ("down", Linear))


class DecodePassLayout(ctypes.Structure):
    """`decode_pass` of attention.h."""

    _fields_ = (
        ("keys", POINTER), ("values", POINTER), ("blocks", POINTER), ("lengths", POINTER),
        ("sequences", LONG), ("max_blocks", LONG), ("longest", LONG),
        ("kv_heads", LONG), ("group", LONG), ("size", LONG), ("block_size", LONG),
        ("layer_stride", LONG), ("block_stride", LONG), ("token_stride", LONG), ("head_stride", LONG),
        ("scale", ctypes.c_float),
    )  # fmt: skip


@functools.cache
def cpu_features() -> frozenset[str]:
    """Instruction-set flags of this CPU as Linux names them; empty where /proc/cpuinfo does not exist."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))


@functools.cache
def why_unavailable() -> str | None:
    """One sentence on why this machine cannot run the compiled kernels; None if it can."""
    try:
        library()
    except InputError as error:
        return str(error)
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernels. Raises InputError where the CPU lacks AVX2, or there is no compiler, or it refuses."""
    if platform.machine() not in ("x86_64", "AMD64") or not {"avx2", "fma", "f16c"} <= cpu_features():
        raise InputError("the compiled kernels need x86-64 Linux with AVX2, FMA and F16C")
    loaded, layer = ctypes.CDLL(str(compiled(SOURCE))), ctypes.POINTER(DecoderLayer)
    for name, arguments in {
        "block_linear": (ctypes.POINTER(Linear), POINTER, POINTER, LONG, INT),
        "before_attention": (layer, *[POINTER] * 4, *[LONG] * 3, INT),
        "after_attention": (layer, POINTER, POINTER, LONG, INT),
        "decode_attention": (ctypes.POINTER(DecodePassLayout), LONG, *[POINTER] * 3, LONG, LONG, POINTER, INT),
        "decode_step": (layer, LONG, LONG, ctypes.POINTER(DecodePassLayout), *[POINTER] * 3, INT),
    }.items():
        getattr(loaded, name).argtypes = arguments
        getattr(loaded, name).errcheck = _no_memory
    return loaded


def _no_memory(failed: int, function, arguments) -> None:
    if failed:
        raise MemoryError(f"no memory for the activations of {function.__name__}")


def compiled(source: Path) -> Path:
    """The shared library of a C file and the headers beside it, compiled unless the cache folder already has it.

    Its name is a hash of sources, flags and CPU, so a cache shared between machines holds one for each.
    Raises InputError when there is no compiler ($CC, cc, gcc or clang) or it refuses.
    """
    texts = (path.read_text() for path in (source, *sorted(source.parent.glob("*.h"))))
    identity = "\n".join((*texts, *FLAGS, platform.machine(), *sorted(cpu_features())))
    target = cache_dir() / "kernels" / f"{source.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    compilers = (shutil.which(name) for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name)
    if (program := next(filter(None, compilers), None)) is None:
        raise InputError("the compiled kernels need a C compiler (cc, gcc or clang) on the path, or its name in CC")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / target.name
        run = subprocess.run([program, *FLAGS, str(source), "-o", str(built), "-lm"], capture_output=True, text=True)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["no message"]
            said = next((line for line in lines if "error" in line), lines[0])
            raise InputError(f"{program} could not compile {source.name}: {said}")
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(target, built.read_bytes())
    return target
