"""Groups: runs of consecutive elements along one axis that share a scale.

Axes count from the end (-1 is the last), so that batch dimensions may stand in front.
"""

from torch import Tensor

from labcore.core.errors import InputError


def split(x: Tensor, axis: int, group: int) -> Tensor:
    """x [..., n, ...] as [..., n/group, group, ...]: the elements of a group lie along `axis` of the result."""
    if axis >= 0:
        raise InputError(f"axis={axis}: count axes from the end; -1 is the last")
    if group < 1:
        raise InputError(f"group={group}: a group has at least one element")
    if x.shape[axis] % group:
        raise InputError(f"{x.shape[axis]} elements along axis {axis} are not a whole number of groups of {group}")
    return x.unflatten(axis, (x.shape[axis] // group, group))


def join(groups: Tensor, axis: int) -> Tensor:
    """The inverse of `split`."""
    return groups.flatten(axis - 1, axis)


def check_finite(x: Tensor, what: str) -> None:
    """InputError, naming the first place, if x holds NaN or infinity."""
    finite = x.isfinite()
    if not finite.all():
        place = (~finite).nonzero()[0].tolist()
        raise InputError(f"{what} {place} is {x[tuple(place)].item()}; quantization needs finite numbers")
