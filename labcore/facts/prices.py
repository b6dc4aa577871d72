"""What an hour of a GPU and a million tokens of an API cost, once, somewhere. Data: prices.toml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from labcore.core.errors import DataError
from labcore.facts.hardware import hardware
from labcore.facts.lookup import read_toml, require_id, require_source

API_SOURCE = "PyPI package litellm 1.106.2, model_prices_and_context_window_backup.json"
API_AS_OF = "2026-11"


@dataclass(frozen=True)
class GpuPrice:
    """US dollars for one GPU and one hour. terms: how it is rented."""

    id: str
    hardware: str
    usd_per_hour: float
    terms: str
    source: str
    as_of: str

    def __post_init__(self) -> None:
        require_source(f"price {self.id}", self.source, self.as_of)
        hardware(self.hardware)
        if not self.usd_per_hour > 0:
            raise DataError(f"price {self.id}: usd_per_hour={self.usd_per_hour!r} must be above 0")


@dataclass(frozen=True)
class ApiPrice:
    """US dollars per million tokens; None where the source lists none.

    cache_read: a token of a cached prefix; cache_write_5m and cache_write_1h: a token stored for that long; batch_*:
    the asynchronous batch interface.
    """

    id: str
    provider: str
    model: str
    input: float
    output: float
    cache_read: float | None = None
    cache_write_5m: float | None = None
    cache_write_1h: float | None = None
    batch_input: float | None = None
    batch_output: float | None = None
    source: str = API_SOURCE
    as_of: str = API_AS_OF


@cache
def _catalogue() -> dict[str, GpuPrice | ApiPrice]:
    rows = read_toml("prices.toml")
    prices = {id: GpuPrice(id=id, **row) for id, row in rows["gpu"].items()}
    return prices | {id: ApiPrice(id=id, **row) for id, row in rows["api"].items()}


def price_ids() -> tuple[str, ...]:
    """The ids of all known prices: provider.device for GPUs, provider.model for APIs."""
    return tuple(_catalogue())


def price(id: str) -> GpuPrice | ApiPrice:
    """The price with that id. Raises InputError naming close ids."""
    require_id("price", id, price_ids())
    return _catalogue()[id]
