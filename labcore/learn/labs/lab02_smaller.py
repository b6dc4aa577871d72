"""Lab 2, a smaller cache: one latent instead of heads, and codes instead of numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.labs import lab02_references as ref
from labcore.learn.labs.lab02_tools import expanded_attention

LAB = "lab02"


def drawn_latents(
    generator: np.random.Generator, heads: int, tokens: int, d_c: int = 6, d_h: int = 4, d_v: int = 5
) -> tuple[Tensor, ...]:
    """Arguments of `latent_attention`, with d_R = 2."""
    shapes = (heads, d_h), (heads, 2), (tokens, d_c), (tokens, 2), (heads, d_h, d_c), (heads, d_v, d_c)
    return tuple(torch.tensor(generator.standard_normal(shape)) for shape in shapes)


def at_scale(scale: float, *args: Tensor) -> Tensor:
    """The step with its scores scaled by `scale`, by way of longer or shorter queries."""
    q_nope, q_rope, *rest = args
    factor = scale * (q_nope.shape[1] + q_rope.shape[1]) ** 0.5
    return expanded_attention(factor * q_nope, factor * q_rope, *rest)


class Results(TorchDispatchMode):
    """Counts the elements of every new tensor that an operation makes, within an einsum too; views cost nothing."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.storages = {x.untyped_storage().data_ptr(): x for x in known}  # kept alive, so that none is reused
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.storages:
            self.storages[result.untyped_storage().data_ptr()] = result
            self.elements += result.numel()
        return result


def never_expands(attempt: Attempt) -> None:
    """Stage: a long cache. A key and a value for every head and token are 2 · 64 numbers, their scores only one."""
    args = drawn_latents(np.random.default_rng(1), heads=4, tokens=500, d_h=64, d_v=64)
    with Results(*args) as results:
        attempt.function(*args)
    if results.elements > 4 * 500 * 32:
        raise Fault(
            f"the values are right, but {attempt.exercise.name} formed {results.elements:,} numbers over 500 tokens "
            "and 4 heads of 64 channels: those are keys or values of every token; take q_nope through W_uk instead"
        )


def column(*values: float) -> Tensor:
    return torch.tensor(values).float()[:, None]


def by(x: Tensor, bits: int, axis: int, group: int, levels: int | None = None, rounding=torch.round):
    """`quantize` with its parts as arguments, to be got wrong on purpose."""
    if x.shape[axis] % group:
        raise ValueError(f"{x.shape[axis]} elements are not whole groups of {group}")
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    zero, top = groups.amin(axis, keepdim=True), groups.amax(axis, keepdim=True)
    scale = (top - zero) / (2**bits - 1 if levels is None else levels)
    codes = rounding(((groups - zero) / scale).nan_to_num(0.0)).to(torch.uint8)
    return codes.flatten(axis - 1, axis), scale.squeeze(axis), zero.squeeze(axis)


def symmetric(x: Tensor, bits: int, axis: int, group: int):
    """A grid around 0, as weights often have it."""
    groups = x.unflatten(axis, (x.shape[axis] // group, group))
    scale = groups.abs().amax(axis, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = (groups / scale).nan_to_num(0.0).round() + 2 ** (bits - 1)
    zero = -scale * 2 ** (bits - 1)
    return codes.to(torch.uint8).flatten(axis - 1, axis), scale.squeeze(axis), zero.squeeze(axis)


EXERCISES = (
    Exercise(
        id="kv.absorb",
        lab=LAB,
        title="Absorb the up-projections",
        asked="MLA caches one latent a token. Does every decode step have to rebuild all keys and values from it?",
        spec="Write `latent_attention(q_nope, q_rope, latent, k_rope, W_uk, W_uv)`: one decode step of multi-head "
        "latent attention, returning [n_heads, d_v]. Queries: `q_nope` [n_heads, d_h], `q_rope` [n_heads, d_R]. Cached "
        "for each token, shared by all heads: `latent` [tokens, d_c], `k_rope` [tokens, d_R]. Head h's key of token t "
        "is the pair (W_uk[h] @ latent[t], k_rope[t]) and its value W_uv[h] @ latent[t], with `W_uk` [n_heads, d_h, "
        "d_c] and `W_uv` [n_heads, d_v, d_c]. Scores are scaled by 1/√(d_h + d_R). **Form no key and no value**: no "
        "product over tokens may involve W_uk or W_uv.",
        reference=ref.latent_attention,
        stages=(
            oracle(
                *(
                    torch.tensor(a, dtype=torch.float64)
                    for a in ([[1.0]], [[0.0]], [[2.0]], [[7.0]], [[[5.0]]], [[[3.0]]])
                ),
                gives=torch.tensor([[6.0]], dtype=torch.float64),
            ),
            trap(
                *drawn_latents(np.random.default_rng(0), heads=3, tokens=5),
                says="compare term by term with the expanded form above: q·(W c) = (Wᵀq)·c",
            ),
            trap(
                *(
                    torch.tensor(a, dtype=torch.float64)
                    for a in ([[2000.0]], [[0.0]], [[1.0], [0.0]], [[0.0], [0.0]], [[[1.0]]], [[[3.0]]])
                ),
                says="the scores are 2,000/√2 and 0, and exp of the first overflows: take the largest off first",
                gives=torch.tensor([[3.0]], dtype=torch.float64),
            ),
            agrees(
                lambda g: drawn_latents(g, int(g.integers(1, 5)), int(g.integers(1, 9)), int(g.integers(2, 9))), n=40
            ),
            never_expands,
        ),
        mistakes=(
            Mistake(
                "absorbing changes where the product is taken, not the scale: √(d_h + d_R), not √(d_c + d_R)",
                lambda *a: at_scale((a[2].shape[1] + a[1].shape[1]) ** -0.5, *a),
            ),
            Mistake(
                "the rotary part is in the scale as well: √(d_h + d_R)",
                lambda *a: at_scale(a[0].shape[1] ** -0.5, *a),
            ),
            Mistake("scores are divided by √(d_h + d_R)", lambda *a: at_scale(1.0, *a)),
            Mistake(
                "the rotary part of the scores is missing: q_rope · k_rope",
                lambda *a: expanded_attention(a[0], 0 * a[1], *a[2:]),
            ),
            Mistake(
                "the latent part of the scores is missing: the query in the latent's coordinates, times the latent",
                lambda *a: expanded_attention(0 * a[0], *a[1:]),
            ),
        ),
        hints=(
            "A dot product with a product: q · (W c) = (Wᵀ q) · c. The right side needs W once per query instead of "
            "once per token. Where is the second such product?",
            "q_latent = q_nope through W_uk, [n_heads, d_c]. Scores = (q_latent @ latentᵀ + q_rope @ k_ropeᵀ) · scale; "
            "softmax over tokens. Average the latents with these weights, and only then apply W_uv.",
            '`q_latent = torch.einsum("hd,hdc->hc", q_nope, W_uk)`',
        ),
        difficulty=3,
        importance=3,
        minutes=(10, 15),
        seconds=30.0,  # the first count of results imports for some seconds
    ),
    Exercise(
        id="kv.quantize",
        lab=LAB,
        title="Which axis shares a scale?",
        asked="You may store the KV cache in 4 or 2 bits. How do you choose the scales for keys, and how for values?",
        spec="Write `quantize(x, bits, axis, group)` for x float32 [tokens, channels]. `group` consecutive elements "
        "along `axis` share a scale and a zero: axis −2 runs over tokens (scales **per channel**), axis −1 over "
        "channels (scales **per token**). A group's smallest element has code 0 and its largest 2^bits − 1, the others "
        "the nearest code: x ≈ scale · code + zero. Return **(codes, scale, zero)**: codes uint8 shaped like x; scale "
        "and zero float32, x's shape with `axis` divided by `group`, which divides it. A group of equal elements has "
        "scale 0 and codes 0.",
        reference=ref.quantize,
        stages=(
            oracle(
                torch.tensor([[1.0, 1.5, 4.5, 7.0]]),  # no tie: the spec does not say which way those go
                2,
                -1,
                4,
                gives=(torch.tensor([[0, 0, 2, 3]], dtype=torch.uint8), torch.tensor([[2.0]]), torch.tensor([[1.0]])),
            ),
            trap(
                torch.tensor([[0.0, 100.0], [3.0, 103.0]]),
                2,
                -2,
                2,
                says="axis −2: the two tokens of a channel share a scale; channel 0 has zero 0, channel 1 has 100",
            ),
            trap(column(0, 3, 10, 40), 2, -2, 2, says="4 tokens in groups of 2 are two scales, not one"),
            trap(column(5, 5, 1, 4), 2, -2, 2, says="equal elements: the scale is 0, and 0/0 must not get out"),
            trap(column(-3, 0, 12, 12), 4, -2, 4, says="zero is the group's minimum, −3 here"),
            trap(
                column(0, 1e-12, 2e-12, 3e-12),
                2,
                -2,
                4,
                says="a scale has no least value: these four elements take the codes 0, 1, 2, 3; only a scale of 0 is "
                "an exception",
            ),
            agrees(
                lambda g: (
                    torch.tensor(g.standard_normal((8, 4)), dtype=torch.float32),
                    int(g.choice([2, 3, 4, 8])),
                    -int(g.integers(1, 3)),
                    int(g.choice([2, 4])),
                ),
                n=60,
            ),
        ),
        mistakes=(
            Mistake("2^bits codes span 2^bits − 1 steps", lambda x, b, a, g: by(x, b, a, g, levels=2**b)),
            Mistake("take the nearest code, do not cut off", lambda x, b, a, g: by(x, b, a, g, rounding=torch.floor)),
            Mistake(
                "one scale for the whole axis; every `group` elements have their own",
                lambda x, b, a, g: by(x, b, a, x.shape[a]),
            ),
            Mistake("the grid runs from the group's minimum to its maximum, not around 0", symmetric),
            Mistake("that is the other axis: −2 runs over tokens", lambda x, b, a, g: by(x, b, -3 - a, g)),
        ),
        hints=(
            "Split the axis into groups, so that the elements of a group lie along an axis of their own; then minimum "
            "and maximum are reductions over that axis.",
            "groups = x.unflatten(axis, (n // group, group)); the group's elements lie along `axis` again. zero = "
            "minimum, scale = (maximum − minimum)/(2^bits − 1), codes = rounded (x − zero)/scale, with 0/0 → 0. Undo "
            "with flatten(axis − 1, axis), and squeeze(axis) for scale and zero.",
            "`groups = x.unflatten(axis, (x.shape[axis] // group, group))`",
        ),
        difficulty=2,
        importance=2,
        minutes=(8, 12),
        rel_tol=1e-5,
        abs_tol=1e-6,
    ),
)
