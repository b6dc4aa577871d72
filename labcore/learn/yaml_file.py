"""A YAML file of the book, or one sentence about why it is none."""

from __future__ import annotations

from pathlib import Path

import yaml

from labcore.core.errors import DataError


def read_yaml(path: Path) -> object:
    """What the file holds. Raises DataError with one sentence if it cannot be read or is not YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
