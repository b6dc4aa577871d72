"""How a kernel's output is judged: dtypes, poisoned outputs, and the "twice torch's own error" rule."""

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Relative Frobenius error of a right kernel, four times what was seen: interpreted, and on a GPU.
BARS = {
    "cpu": {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 6e-3},
    "cuda": {torch.float32: 5e-6, torch.float16: 6e-4, torch.bfloat16: 4e-3},
}


def poisoned(*shape: int, dtype: torch.dtype = torch.float32, device: str = DEVICE) -> Tensor:
    """An output nobody has written: NaN throughout, for integers the largest number. What stays unwritten shows."""
    if dtype.is_floating_point:
        return torch.full(shape, torch.nan, device=device).to(dtype)
    return torch.full(shape, torch.iinfo(dtype).max, dtype=dtype, device=device)


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Frobenius norm of the difference over that of the reference; 0 for two zeros."""
    difference, size = (ours.double() - reference.double()).norm(), reference.double().norm()
    return float(difference / size) if size > 0 else float(difference)


def close_as_torch(ours: Tensor, same_dtype_torch: Tensor, reference: Tensor, *, bar: float | None = None) -> None:
    """Assert that `ours` errs at most twice as much as torch does in the same dtype, plus two roundings.

    ours, same_dtype_torch: in the dtype under test. reference: the same computed in float32, or in float64 if that
    dtype is float32 (else torch's own error is nil, and a few units in the last place stand for it). Infinities (of an
    lse) must be the same. `bar`: relative Frobenius error allowed, BARS of the dtype by default.
    Source of the rule: flash-attention, hopper/test_flash_attn.py.
    """
    assert ours.shape == reference.shape, f"shape {tuple(ours.shape)}, expected {tuple(reference.shape)}"
    assert ours.dtype == same_dtype_torch.dtype, f"dtype {ours.dtype}, expected {same_dtype_torch.dtype}"
    assert not ours.isnan().any(), f"{int(ours.isnan().sum())} of {ours.numel()} outputs are NaN: never written, or 0/0"
    device, dtype = ours.device.type, ours.dtype
    ours, torch_way, reference = (one.detach().double().cpu() for one in (ours, same_dtype_torch, reference))
    finite = reference.isfinite()
    assert torch.equal(ours[~finite], reference[~finite]), "infinite where the reference is not, or not where it is"
    if not finite.any():
        return
    ours, torch_way, reference = ours[finite], torch_way[finite], reference[finite]
    eps = torch.finfo(dtype).eps
    error, allowed = (ours - reference).abs().max(), (torch_way - reference).abs().max()
    if dtype == torch.float32 and allowed < 8 * eps * reference.abs().max():
        allowed = 8 * eps * reference.abs().max()
    limit = 2 * allowed + eps * reference.abs().max()  # two roundings of half a unit each
    assert error <= limit, f"largest error {error:.3g}, allowed {limit:.3g} (torch in {dtype}: {allowed:.3g})"
    bar = BARS[device][dtype] if bar is None else bar
    relative = relative_error(ours, reference)
    assert relative <= bar, f"relative Frobenius error {relative:.3g}, allowed {bar:.3g}"
