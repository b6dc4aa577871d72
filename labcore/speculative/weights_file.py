"""Weights of a draft: a GGUF file, its matrices in Q8_0 blocks, which the compiled kernels read as they are stored.

Beside the tensors, which have the names of the module's parameters, the file keeps what was known when it was made:
the ids of the draft vocabulary, the target's sizes, the draft's own, and what training measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from labcore.core.errors import DataError
from labcore.formats.blocks import BlockFormat
from labcore.formats.gguf import GGUFFile
from labcore.formats.gguf_writer import Tensor as Stored
from labcore.formats.gguf_writer import write_gguf
from labcore.kernels.cpu.linear import BlockLinear
from labcore.model.compiled import CompiledStack, products
from labcore.model.config import DecoderConfig
from labcore.model.llama import Llama
from labcore.model.loader import replace_module
from labcore.speculative.reduced_head import ReducedHead

FORMAT = "Q8_0"
WEIGHTS = Path(__file__).with_name("weights")
Module = TypeVar("Module", bound=nn.Module)
# method -> a parameter by which its files are known; EAGLE-3 has what EAGLE has, and comes first
KNOWN_BY = {
    "eagle3": "fuse.weight",
    "eagle": "join.weight",
    "medusa": "heads.0.inner.weight",
    "draft_model": "down.weight",
}


class Weights:
    """A file of draft weights, opened for `target` and, unless None, `method`. Raises DataError if the file is damaged
    or was made for a model of another shape or for another method.

    The methods `blocks`, `tensor` and the field `config` are those of a checkpoint (`model.loader`), so that the
    compiled layers of the target serve a draft's layers, too.
    """

    def __init__(self, path: str | Path, target: Llama, method: str | None = None):
        self.file, self.target = GGUFFile(path), target
        self.names, self.facts = set(self.file.tensors), json.loads(self.file.field("draft.facts"))
        wanted = [self.facts["target"][key] for key in ("hidden", "vocab")]
        if wanted != [target.config.hidden, target.config.vocab]:
            raise DataError(
                f"{path}: made for a target of hidden size {wanted[0]} and {wanted[1]} tokens; this one has "
                f"{target.config.hidden} and {target.config.vocab}"
            )
        made_for = next((name for name, parameter in KNOWN_BY.items() if parameter in self.names), "no known method")
        if method not in (None, made_for):
            raise DataError(f"{path}: its weights are for {made_for}, not for {method}; give a file of that method")
        self.config = DecoderConfig(**self.facts["config"]) if "config" in self.facts else None

    def fact(self, name: str):
        """What the file says of `name`. Raises DataError if it says nothing."""
        if name not in self.facts:
            raise DataError(f"{self.file.path}: says nothing of its {name}; give it to `write_weights` among the facts")
        return self.facts[name]

    def blocks(self, name: str) -> tuple[np.ndarray, BlockFormat]:
        """The matrix as stored."""
        return self.file.raw(name), self.file.info(name).format

    def tensor(self, name: str) -> Tensor:
        """The parameter, float32."""
        return torch.from_numpy(self.file.tensor(name))

    def head(self) -> ReducedHead:
        """The target's LM head over the draft vocabulary."""
        return ReducedHead(self.target, torch.from_numpy(self.file.field("draft.token_ids").astype(np.int64)))

    def fill(self, module: Module) -> Module:
        """`module` with these weights, in evaluation mode: computed from the stored blocks if the target is served by
        compiled kernels, else in float32 where the target is."""
        for name, parameter in module.named_parameters():
            if self.file.info(name).shape != parameter.shape:
                raise DataError(
                    f"{self.file.path}: tensor {name}: shape {self.file.info(name).shape} in the file, "
                    f"{tuple(parameter.shape)} by its facts"
                )
        compiled = isinstance(self.target.layers[0], CompiledStack)
        if compiled and self.config is not None:
            layers = [products(self, i) for i in range(self.config.n_layers)]
            module.layers = nn.ModuleList([CompiledStack(layers, self.config.n_heads, self.config.n_kv_heads)])
        for name, one in list(module.named_modules()):
            if isinstance(one, nn.Linear) and compiled:
                replace_module(module, name, BlockLinear(*self.blocks(f"{name}.weight")))
        for name, parameter in module.named_parameters():
            parameter.data = self.tensor(name)
        return module.to(self.target.norm.weight.device).eval().requires_grad_(False)


def write_weights(path: str | Path, module: nn.Module, head: ReducedHead, facts: Mapping) -> Path:
    """Write what `Weights` reads: the parameters of `module`, matrices in Q8_0 and vectors in float32, the draft
    vocabulary of `head`, and `facts`, which JSON can hold. InputError for weights that are not finite."""
    config = getattr(module, "config", None)
    facts = {
        "target": {"hidden": head.width, "vocab": head.vocab},
        **({} if config is None else {"config": asdict(config)}),
        **facts,
    }
    tensors = {
        name: Stored.encode(parameter.detach().numpy(), FORMAT if parameter.ndim > 1 else "F32")
        for name, parameter in module.named_parameters()
    }
    metadata = {"draft.facts": json.dumps(facts), "draft.token_ids": head.token_ids.numpy().astype(np.int32)}
    return write_gguf(path, metadata, tensors)
