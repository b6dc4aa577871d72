"""What accelerators can do according to their makers: dense peaks, bandwidth, memory. Data: hardware.toml."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from labcore.core.errors import DataError, InputError
from labcore.facts.lookup import read_toml, require_id, require_source

DTYPES = ("fp32", "tf32", "bf16", "fp16", "fp8", "int8", "int4", "fp4")


@dataclass(frozen=True)
class Hardware:
    """One device. Sizes are bytes, rates bytes/s and FLOP/s (integer formats: OP/s), power watts.

    peak: dense rate of each number format the device computes in, never the doubled figure for structured sparsity;
    a format it lacks is absent. memory_bytes: the figure on the box. usable_bytes: what the driver reports, where
    somebody published it. interconnect_bandwidth: to its peers, ONE direction, half of the two-way total that
    datasheets print. sms: streaming multiprocessors (AMD: compute units).
    """

    id: str
    name: str
    kind: str
    memory_bytes: int
    bandwidth: float
    peak: Mapping[str, float]
    source: str
    as_of: str
    usable_bytes: int | None = None
    interconnect: str = ""
    interconnect_bandwidth: float | None = None
    tdp_w: float | None = None
    sms: int | None = None
    compute_capability: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        row = f"hardware {self.id}"
        require_source(row, self.source, self.as_of)
        if self.kind not in ("gpu", "tpu", "cpu"):
            raise DataError(f"{row}: kind={self.kind!r} is not gpu, tpu or cpu")
        if not self.peak or set(self.peak) - set(DTYPES):
            raise DataError(f"{row}: peak has {sorted(self.peak)}; use some of {', '.join(DTYPES)}")
        for name in ("memory_bytes", "bandwidth", "interconnect_bandwidth", "usable_bytes", "tdp_w", "sms"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"{row}: {name}={value!r} must be above 0")
        for dtype, rate in self.peak.items():
            if not rate > 0:
                raise DataError(f"{row}: peak.{dtype}={rate!r} must be above 0; leave out a format the device lacks")
        object.__setattr__(self, "peak", MappingProxyType(dict(self.peak)))

    @property
    def capacity_bytes(self) -> int:
        """The memory to plan with: what the driver reports where that is known, else the figure on the box."""
        return self.usable_bytes or self.memory_bytes

    def flops(self, dtype: str) -> float:
        """Dense peak in FLOP/s of a number format. Raises InputError naming the formats the device has."""
        if dtype not in self.peak:
            raise InputError(f"{self.name} does not compute in {dtype!r}: it has {', '.join(self.peak)}")
        return self.peak[dtype]


@cache
def _catalogue() -> dict[str, Hardware]:
    return {id: Hardware(id=id, **row) for id, row in read_toml("hardware.toml").items()}


def hardware_ids() -> tuple[str, ...]:
    """The ids of all known devices, oldest generation first."""
    return tuple(_catalogue())


def hardware(id: str) -> Hardware:
    """The device with that id. Raises InputError naming close ids."""
    require_id("hardware", id, hardware_ids())
    return _catalogue()[id]
