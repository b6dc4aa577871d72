"""What lab 5 gives its reader: numbers like a layer's, the grid points of a row, and a real model's layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from labcore.model.llama import Llama
from labcore.model.loader import load_model, open_checkpoint
from labcore.quant import corpus, windows
from labcore.quant.apply import set_weight
from labcore.quant.baseline import baseline
from labcore.quant.calibrate import true_sequential
from labcore.quant.gptq import damped, hessian, inverse_factor
from labcore.quant.rtn import choose_grid, from_codes, to_codes
from labcore.quant.spec import QuantSpec

LENGTH = 256  # tokens of a window


def matrix(*rows: tuple[float, ...]) -> Tensor:
    """float64 [rows, columns]."""
    return torch.tensor(rows, dtype=torch.float64)


def drawn_weight(seed: int, out: int, columns: int) -> Tensor:
    """Normal numbers, float64 [out, columns]."""
    return torch.randn(out, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn_inputs(seed: int, tokens: int, columns: int, loud: float = 1.0) -> Tensor:
    """Inputs whose channels move together, float64 [tokens, columns]; channel 1 is `loud` times as large."""
    x = drawn_weight(seed, tokens, columns) + drawn_weight(seed + 1, tokens, 1)
    x[:, 1] *= loud
    return x


def drawn_hessian(seed: int, columns: int) -> Tensor:
    """2/n XᵀX of such inputs, damped by 1 %: positive definite, float64 [columns, columns]."""
    return damped(hessian(drawn_inputs(seed, 4 * columns, columns)), 0.01)


def nearest(column: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The grid points closest to the weights; scale and zero broadcast against them."""
    return from_codes(to_codes(column, scale, zero, QuantSpec(bits)), scale, zero)


def row_grid(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero of every row of w [out, in], one of each a row: [out] and [out]."""
    return choose_grid(w, QuantSpec(bits))


def upper_factor(h: Tensor) -> Tensor:
    """U, upper triangular, with UᵀU = H⁻¹."""
    return inverse_factor(h, 0.0)[0]


def small_model() -> tuple[Llama, Tensor, Tensor]:
    """The float baseline, calibration windows [8, 257] and evaluation windows [24, 257] of its corpus."""
    checkpoint = open_checkpoint(baseline())
    encode = checkpoint.tokenizer().encode
    texts = (
        windows.cut(encode(corpus.text(split)), LENGTH, n) for split, n in (("calibration", 8), ("evaluation", 24))
    )
    return load_model(checkpoint), *texts


def with_weights(model: Llama, rows: Tensor, new: Callable[[Tensor, Tensor], Tensor]) -> Llama:
    """A copy whose every linear of a block has new(w, H), in the order of computation: each sees those before it.

    w: float64 [out, in]; H: float64 [in, in] of the calibration windows `rows`, damped by 1 %.
    """
    changed = copy.deepcopy(model)

    def visit(group: dict, x: Tensor) -> None:
        h = damped(hessian(x.double()), 0.01)
        for linear in group.values():
            set_weight(linear, new(linear.weight.detach().double(), h).float())

    true_sequential(changed, rows[:, :-1], visit)
    return changed


@torch.no_grad()
def surprises(model: Llama, rows: Tensor) -> Tensor:
    """Mean -ln p of the tokens of each window, float64 [windows]."""
    logp = (windows.logits(model, row[None, :-1]).double().log_softmax(-1) for row in rows)
    return torch.stack([-one.gather(1, row[1:, None]).mean() for one, row in zip(logp, rows, strict=True)])
