"""What a measurement ran on: the device, the versions, the commit. Never the machine's name, user or paths."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import labcore
from labcore.core.errors import InputError

PACKAGES = ("numpy", "torch", "triton")
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16", "i8mm")
_CPUINFO = Path("/proc/cpuinfo")
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def cuda_available() -> bool:
    """True if torch is installed and sees an NVIDIA GPU."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def describe(kind: str) -> dict:
    """The device section of a run for kind "cpu" or "cuda"; a GPU run carries its host CPU under "host"."""
    return {**_gpu(), "host": _cpu()} if kind == "cuda" else _cpu()


def _cpu() -> dict:
    info = _CPUINFO.read_text() if _CPUINFO.is_file() else ""
    flags = set(re.findall(r"\S+", "".join(re.findall(r"^(?:flags|Features)\s*:(.*)$", info, re.M)[:1])))
    return {
        "kind": "cpu",
        "slug": "cpu",
        "name": _cpu_name(info),
        "cores": _physical_cores(info),
        "threads": usable_threads(),
        "memory_bytes": memory_bytes(),
        "last_level_cache_bytes": last_level_cache_bytes(),
        "features": [feature for feature in CPU_FEATURES if feature in flags],
    }


def _cpu_name(info: str) -> str:
    if found := re.search(r"^model name\s*:\s*(.+)$", info, re.M):
        return found[1].strip()
    if platform.system() == "Darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            return asked.stdout.strip()
    return platform.processor() or platform.machine()


def _physical_cores(info: str) -> int | None:
    package_ids = re.findall(r"^physical id\s*:\s*(\d+)", info, re.M)
    core_ids = re.findall(r"^core id\s*:\s*(\d+)", info, re.M)
    pairs = set(zip(package_ids, core_ids, strict=False))
    return len(pairs) or None


def usable_threads() -> int:
    """Hardware threads this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(count: int) -> None:
    """Raises InputError unless this process may run `count` threads side by side."""
    if not 1 <= count <= usable_threads():
        raise InputError(f"--threads {count} is not between 1 and the {usable_threads()} threads this process may use")


def memory_bytes() -> int | None:
    """Physical memory in bytes, None where the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def last_level_cache_bytes() -> int | None:
    """Size of the largest cache one core sees, in bytes; None where the system does not say."""
    sizes = [file.read_text().strip() for file in _CACHES.glob("index*/size")]
    scale = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(size[:-1]) * scale[size[-1]] for size in sizes if size[-1:] in scale), default=None)


def _gpu() -> dict:
    import torch

    card = torch.cuda.get_device_properties(0)
    asked = _nvidia_smi("driver_version,clocks.sm,power.draw")
    return {
        "kind": "cuda",
        "slug": slug(card.name),
        "name": card.name,
        "cc": [card.major, card.minor],
        "sms": card.multi_processor_count,
        "l2_bytes": card.L2_cache_size,
        "memory_bytes": card.total_memory,
        **dict(zip(("driver", "sm_clock_mhz", "power_w"), asked, strict=False)),
    }


def _nvidia_smi(fields: str) -> list[str]:
    """Values of a read-only query for the first GPU; empty where nvidia-smi is missing or refuses."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [value.strip() for value in asked.stdout.strip().split(",")] if asked.returncode == 0 else []


def slug(name: str) -> str:
    """The device as it stands in a file name: "NVIDIA H200" becomes "h200", "Tesla T4" becomes "t4"."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    return "".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "amd", "instinct")) or "gpu"


def versions() -> dict[str, str]:
    """Versions of Python, labcore and the packages that decide speed; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "system": platform.system(), "labcore": labcore.__version__}
    for package in PACKAGES:
        if (version := package_version(package)) is not None:
            found[package] = version
    return found


def package_version(package: str) -> str | None:
    """Installed version of a distribution, without importing it; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout labcore runs from, and whether the package's files differ from it; (None, None) outside.

    Only files under labcore/ count as dirty: they are what was measured, a new result file is not. A copy without its
    history is told by LABCORE_COMMIT: the commit's hash, with "-dirty" behind it if files differ.
    Raises InputError for a LABCORE_COMMIT that is no hash.
    """
    package = Path(labcore.__file__).parent
    if (package.parent / ".git").exists():
        commit = _git(package.parent, "rev-parse", "HEAD")
        changes = _git(package.parent, "status", "--porcelain", "--", package.name)
        if commit is not None and changes is not None:
            return commit, bool(changes)
    return _stated_commit()


def _stated_commit() -> tuple[str | None, bool | None]:
    stated = os.environ.get("LABCORE_COMMIT", "")
    if not stated:
        return None, None
    found = re.fullmatch(r"([0-9a-f]{7,40})(-dirty)?", stated)
    if found is None:
        raise InputError(f"LABCORE_COMMIT={stated!r} is no commit; give its hash, such as $(git rev-parse HEAD)")
    return found[1], found[2] is not None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        asked = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None
