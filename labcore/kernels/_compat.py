"""Where a Triton kernel can run, and what to do where it cannot. Asks no driver before a CUDA tensor is at hand."""

import functools
import os
import warnings

import torch
from torch import Tensor

from labcore.core.errors import InputError

BACKENDS = ("auto", "triton", "torch")
OLDEST = (7, 5)  # Turing (T4): below it nothing here is compiled in the tests


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter: on any machine, slowly. Triton reads the variable at import."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def capability(device: torch.device | str) -> tuple[int, int] | None:
    """The compute capability that a kernel on `device` is compiled for, (9, 0) for an H200.

    None for everything but an NVIDIA GPU, and under the interpreter, which compiles for none.
    """
    device = torch.device(device)
    if device.type != "cuda" or torch.version.hip or interpreting():
        return None
    return _capability(torch.cuda.current_device() if device.index is None else device.index)


@functools.cache
def _capability(index: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(index)


@functools.cache
def multiprocessors(device: torch.device) -> int:
    """Of a GPU; in the interpreter a small number, so that its tests split."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def has_mma(cc: tuple[int, int] | None) -> bool:
    """Tensor cores that Triton (3.3 and later) can use: Ampere and newer."""
    return cc is not None and cc >= (8, 0)


def has_fp8(cc: tuple[int, int] | None) -> bool:
    """8-bit floating point (e4m3) in hardware: Ada and newer."""
    return cc is not None and cc >= (8, 9)


def has_early(cc: tuple[int, int] | None) -> bool:
    """Programmatic dependent launch, a kernel that begins before the one ahead of it has ended: Hopper and newer."""
    return cc is not None and cc >= (9, 0)


def early_launch(cc: tuple[int, int] | None) -> dict[str, bool]:
    """The launch arguments of a kernel that begins early where it can, and whose EARLY says whether it has to wait."""
    return {"EARLY": True, "launch_pdl": True} if has_early(cc) else {"EARLY": False}


def choose(backend: str, tensor: Tensor, *, mma: bool = False, fp8: bool = False, what: str = "this kernel") -> str:
    """ "triton" or "torch": which of the two computes `what` on `tensor`'s device.

    "auto" takes Triton where it runs, which for a CPU tensor is the interpreter. On a GPU that cannot (`mma`: it needs
    tensor cores; `fp8`: it needs e4m3) it takes torch, with one warning per reason; a CPU tensor needs none.
    Raises InputError for "triton" where that cannot run, and for any other word.
    """
    if backend == "torch":
        return "torch"
    if backend not in BACKENDS:
        raise InputError(f"backend={backend!r}: choose 'auto', 'triton' or 'torch'")
    obstacle = _obstacle(tensor.device, mma, fp8)
    if obstacle is None:
        return "triton"
    if backend == "triton":
        raise InputError(f"backend='triton', but {what} cannot run there: {obstacle}; use backend='auto' or 'torch'")
    if tensor.device.type != "cpu":
        _warn_once(f"{what} runs in torch: {obstacle}")
    return "torch"


def _obstacle(device: torch.device, mma: bool, fp8: bool) -> str | None:
    """Why Triton cannot run on `device`; None if it can."""
    if interpreting() and device.type in ("cpu", "cuda"):
        return None
    if device.type == "cpu":
        return "the tensor is on the CPU, where Triton only runs with TRITON_INTERPRET=1 set before the first import"
    cc = capability(device)
    if cc is None:
        return f"these kernels are for NVIDIA GPUs, and the tensor is on {device}" + (
            f" under ROCm {torch.version.hip}" if torch.version.hip else ""
        )
    chip = f"{device} has compute capability {cc[0]}.{cc[1]}"
    if cc < OLDEST:
        return f"{chip}, and Triton needs {OLDEST[0]}.{OLDEST[1]} or more"
    if mma and not has_mma(cc):
        return f"{chip}, and Triton uses tensor cores from 8.0 on only"
    if fp8 and not has_fp8(cc):
        return f"{chip}, and e4m3 arithmetic begins at 8.9"
    return None


@functools.cache  # of what was said, nothing is said twice
def _warn_once(sentence: str) -> None:
    warnings.warn(sentence, UserWarning, stacklevel=4)
