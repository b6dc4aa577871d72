"""Peers that several test files compare with, loaded once per process and without repeating their own work."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest


@functools.cache
def gguf_reader(path: str):
    """The gguf package's reader of the file at `path`."""
    gguf = pytest.importorskip("gguf", reason="the oracle package gguf is not installed")
    return gguf.GGUFReader(path)


@functools.cache
def transformers_model(path: Path):
    """transformers' own model of the GGUF file at `path`: its dequantization, un-permutation and config, fp32.

    It reads the file's metadata twice and builds the table of tensor names anew for each of 397 modules. Both are pure
    functions: kept results halve the loading time.
    """
    pytest.importorskip("transformers", reason="the oracle package transformers is not installed")
    gguf = pytest.importorskip("gguf", reason="transformers needs gguf to read the file")
    from labcore.model import peers

    gguf_reader(str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", lambda same: gguf_reader(str(same)))
        patch.setattr(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map))
        return peers.transformers_model(path)
