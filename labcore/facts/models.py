"""The models the book computes with, each read from its published config. Index: models.toml, configs: configs/."""

from functools import cache

from labcore.facts.lookup import FOLDER, read_toml, require_id, require_source
from labcore.facts.model import ModelConfig


@cache
def _index() -> dict[str, dict[str, str]]:
    return read_toml("models.toml")


def model_ids() -> tuple[str, ...]:
    """The ids of all known models."""
    return tuple(_index())


@cache
def _read(id: str) -> ModelConfig:
    row = _index()[id]
    require_source(f"model {id}", row["source"], row["as_of"])
    facts = {key: row[key] for key in ("source", "as_of", "note") if key in row}
    return ModelConfig.from_hf(FOLDER / "configs" / f"{id}.json", name=row["name"], id=id, **facts)


def model(id: str) -> ModelConfig:
    """The model with that id. Raises InputError naming close ids."""
    require_id("model", id, model_ids())
    return _read(id)
