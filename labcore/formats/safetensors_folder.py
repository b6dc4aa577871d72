"""A checkpoint folder as the Hugging Face hub ships it: config.json, tokenizer.json and *.safetensors shards.

The safetensors library maps the shards into memory; a tensor is copied when it is asked for.
Source: huggingface/safetensors README (format), transformers' model.safetensors.index.json (sharding).
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from labcore.core.errors import DataError

if TYPE_CHECKING:
    import torch


class SafetensorsFolder:
    """Read access to a folder of safetensors shards.

    `config` is the parsed config.json; `files` maps tensor names to the shard that holds them. Raises DataError when
    the folder lacks a file, a shard is damaged, or the index names a shard that is not there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise DataError(f"{self.path}: no such folder")
        self.config = self.json("config.json")
        self._open = {}  # shard -> safetensors handle
        self.files = self._index()

    def json(self, name: str) -> dict:
        """The parsed JSON file `name` of the folder."""
        file = self.path / name
        if not file.is_file():
            raise DataError(f"{self.path}: the checkpoint folder has no {name}")
        try:
            parsed = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{file}: not valid JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise DataError(f"{file}: holds a {type(parsed).__name__}, not a JSON object")
        return parsed

    def tensor(self, name: str) -> "torch.Tensor":
        """The tensor as stored (shape and dtype of the file), on the CPU."""
        if name not in self.files:
            raise DataError(f"{self.path}: no tensor {name!r} among the folder's {len(self.files)}")
        return self._shard(self.files[name]).get_tensor(name)

    def _index(self) -> dict[str, Path]:
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            shards = {self.path / shard for shard in self.json(index.name).get("weight_map", {}).values()}
        else:
            shards = set(self.path.glob("*.safetensors"))
        if not shards:
            raise DataError(f"{self.path}: the checkpoint folder holds no *.safetensors file")
        return {name: shard for shard in sorted(shards) for name in self._shard(shard).keys()}

    def _shard(self, shard: Path):
        if shard not in self._open:
            try:
                from safetensors import SafetensorError, safe_open
            except ImportError:
                raise DataError(f"{shard}: reading safetensors needs the library: pip install safetensors") from None
            try:
                self._open[shard] = safe_open(shard, framework="pt")
            except (SafetensorError, OSError) as error:
                raise DataError(f"{shard}: not a readable safetensors file: {error}") from None
        return self._open[shard]
