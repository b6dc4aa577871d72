"""Writing k-quants: how ggml chooses the scales of Q2_K … Q6_K when it has no importance matrix.

A super-block of 256 weights has 8 or 16 sub-blocks. Each first gets its own scale (and minimum) by a small search; the
super-block then stores those in 4 to 8 bits, relative to one fp16 number, and every code is rounded once more against
the scales as they were stored. Three searches do it: `scale_and_minimum` (Q2_K, Q4_K, Q5_K), `scale_by_descent` (Q3_K)
and `scale_by_trial` (Q6_K).

The searches work on all sub-blocks at once: x is float32 [weights, sub-blocks], a column a sub-block, so that a sum
over the first axis adds element after element, as C's loops do. The bytes are those of ggml but for a rare super-block.
Source: ggml/src/ggml-quants.c, make_qkx2_quants, make_q3_quants, make_qx_quants and quantize_row_q*_K_ref.
"""

from collections.abc import Callable

import numpy as np

from labcore.formats.blocks import pack_codes, record

ZERO = np.float32(1e-15)  # a sub-block whose largest weight is below it counts as zeros (GROUP_MAX_EPS)
TENTH = np.float32(0.1)


def scale_and_minimum(
    x: np.ndarray, highest: int, weight: np.ndarray, first: float, trials: int, absolute: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset ≥ 0, float32 [sub-blocks], so that x ≈ scale · code - offset with codes 0 … highest.

    Trial t cuts the range into first + t/10 + highest steps, rounds, and fits scale and minimum to those codes by
    weighted least squares; the smallest weighted error wins, squared or `absolute`. The range of the next trial begins
    at the best minimum so far: the search has a memory, and trials are not independent.
    """
    minimum, largest = np.minimum(x.min(0), 0), x.max(0)
    flat = largest == minimum
    scale = 1 / (np.float32(highest) / _nonzero(largest - minimum))
    sum_w, sum_x = weight.sum(0), (weight * x).sum(0)

    def trial(steps):
        return _round(steps / _nonzero(largest - minimum) * (x - minimum), 0, highest)

    def error(codes, scale, minimum):
        difference = scale * codes + minimum - x
        return (weight * (np.abs(difference) if absolute else difference * difference)).sum(0)

    best = error(trial(np.float32(highest)), scale, minimum)
    for t in range(trials + 1):
        codes = trial(np.float32(first) + TENTH * np.float32(t) + np.float32(highest))
        new_scale, new_minimum, solvable = _least_squares(codes, x, weight, sum_w, sum_x)
        new_error = error(codes, new_scale, new_minimum)
        better = solvable & (new_error < best) & ~flat
        best = np.where(better, new_error, best)
        scale, minimum = np.where(better, new_scale, scale), np.where(better, new_minimum, minimum)
    return np.where(flat, np.float32(0), scale), 0 - minimum  # not -minimum, which makes -0 of 0


def _least_squares(codes, x, weight, sum_w, sum_x) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale and minimum ≤ 0 of the smallest weighted squared error, and whether the 2 × 2 system has a solution."""
    weighted = weight * codes
    sum_l, sum_l2, sum_xl = weighted.sum(0), (weighted * codes).sum(0), (weighted * x).sum(0)
    determinant = sum_w * sum_l2 - sum_l * sum_l
    scale = (sum_w * sum_xl - sum_x * sum_l) / _nonzero(determinant)
    minimum = (sum_l2 * sum_x - sum_l * sum_xl) / _nonzero(determinant)
    above = minimum > 0  # only an offset can be stored: then the line goes through zero
    scale = np.where(above, sum_xl / _nonzero(sum_l2), scale)
    return scale, np.where(above, np.float32(0), minimum), determinant > 0


def scale_by_trial(x: np.ndarray, highest: int) -> np.ndarray:
    """Scale of either sign, float32 [sub-blocks], so that x ≈ scale · code with codes -highest … highest - 1.

    The weight of the largest magnitude is put on -highest and on 18 places around it; each time the scale is fitted by
    least squares under the weights x², and the one that explains most of the weighted energy is kept.
    """
    largest = _signed_largest(x)
    energy, scale, best = x * x, 0, 0
    for step in (0, *range(-9, 0), *range(1, 10)):
        inverse = -(np.float32(highest) + TENTH * np.float32(step)) / _nonzero(largest)
        codes = _round(inverse * x, -highest, highest - 1)
        xl, l2 = (energy * x * codes).sum(0), (energy * codes * codes).sum(0)
        better = (l2 > 0) & (xl * xl > best * l2)
        fitted = xl / _nonzero(l2)
        scale, best = np.where(better, fitted, scale), np.where(better, fitted * xl, best)
    return np.where(np.abs(largest) < ZERO, np.float32(0), scale)


def scale_by_descent(x: np.ndarray, highest: int, rounds: int = 5) -> np.ndarray:
    """Like `scale_by_trial`, by coordinate descent: each code in turn moves if that helps, up to `rounds` times over.

    What grows is (Σ x³·code)² / Σ x²·code², the part of the weighted energy that the best scale explains.
    """
    largest = _signed_largest(x)
    codes = _round(np.float32(-highest) / _nonzero(largest) * x, -highest, highest - 1)
    energy = x * x
    xl, l2 = (energy * x * codes).sum(0), (energy * codes * codes).sum(0)
    for _ in range(rounds):
        before = codes.copy()
        for i, (w, xi) in enumerate(zip(energy, x, strict=True)):
            rest_xl, rest_l2 = xl - w * xi * codes[i], l2 - w * codes[i] * codes[i]
            code = _round(xi * rest_l2 / _nonzero(rest_xl), -highest, highest - 1)
            new_xl, new_l2 = rest_xl + w * xi * code, rest_l2 + w * code * code
            move = (rest_xl > 0) & (code != codes[i]) & (new_l2 > 0) & (new_xl * new_xl * l2 > xl * xl * new_l2)
            codes[i], xl, l2 = np.where(move, code, codes[i]), np.where(move, new_xl, xl), np.where(move, new_l2, l2)
        if (codes == before).all():
            break
    return np.where(np.abs(largest) < ZERO, np.float32(0), xl / _nonzero(l2))


def _signed_largest(x: np.ndarray) -> np.ndarray:
    """The element of the largest magnitude of each column, with its sign; the first of equals."""
    return np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]


def _round(x: np.ndarray, low: int, high: int) -> np.ndarray:
    """Whole numbers as float32, half to even, between low and high."""
    return np.clip(np.rint(x), low, high)


def _nonzero(x: np.ndarray) -> np.ndarray:
    """A divisor: where it is 0, the quotient is not used, and 1 stands in."""
    return np.where(x == 0, np.float32(1), x)


# --- the five formats: search, quantize the scales, round the codes against them -------------------------------------


def q2_k(x: np.ndarray) -> np.ndarray:
    sub = _columns(x, 16)
    scale, offset = scale_and_minimum(sub, 3, np.abs(sub), -0.5, 15, absolute=True)
    d, scales = _stored_scales(scale.reshape(-1, 16), 15)
    dmin, mins = _stored_scales(offset.reshape(-1, 16), 15)
    codes = _codes(x, d[:, None] * scales, dmin[:, None] * mins, 0, 3)
    packed = (scales | mins << 4).astype(np.uint8)
    return record("Q2_K", d=d, dmin=dmin, scales=packed, qs=pack_codes(codes, bits=2, run=32))


def q3_k(x: np.ndarray) -> np.ndarray:
    d, scales = _signed_scales(scale_by_descent(_columns(x, 16), 4).reshape(-1, 16), 32)
    codes = _codes(x, d[:, None] * scales, None, -4, 3)
    zeros = (scales == 0).all(1)  # a super-block of zeros is stored as zero bytes
    biased = np.where(zeros[:, None], 0, scales + 32).astype(np.uint8)
    packed = np.concatenate((pack_codes(biased & 15, bits=4, run=8), pack_codes(biased >> 4, bits=2, run=4)), axis=1)
    hmask, qs = pack_codes(codes >> 2, bits=1, run=32), pack_codes(codes & 3, bits=2, run=32)
    return record("Q3_K", d=d, scales=packed, hmask=hmask, qs=qs)


def q4_k(x: np.ndarray) -> np.ndarray:
    d, dmin, scales, codes = _scales_and_mins(x, 15, -1.0, 20)
    return record("Q4_K", d=d, dmin=dmin, scales=scales, qs=pack_codes(codes, bits=4, run=32))


def q5_k(x: np.ndarray) -> np.ndarray:
    d, dmin, scales, codes = _scales_and_mins(x, 31, -0.5, 15)
    qh, qs = pack_codes(codes >> 4, bits=1, run=32), pack_codes(codes & 15, bits=4, run=32)
    return record("Q5_K", d=d, dmin=dmin, scales=scales, qh=qh, qs=qs)


def q6_k(x: np.ndarray) -> np.ndarray:
    d, scales = _signed_scales(scale_by_trial(_columns(x, 16), 32).reshape(-1, 16), 128)
    codes = _codes(x, d[:, None] * scales, None, -32, 31)
    ql, qh = pack_codes(codes & 15, bits=4, run=64), pack_codes(codes >> 4, bits=2, run=32)
    return record("Q6_K", d=d, scales=scales.astype(np.int8), ql=ql, qh=qh)


ENCODERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
}  # fmt: skip


def _scales_and_mins(x: np.ndarray, highest: int, first: float, trials: int):
    """What Q4_K and Q5_K share: d and dmin as stored, the 12 bytes of 6-bit scales and mins, and the codes."""
    sub = _columns(x, 32)
    weight = np.sqrt((sub * sub).sum(0) / np.float32(32)) + np.abs(sub)
    scale, offset = scale_and_minimum(sub, highest, weight, first, trials, absolute=False)
    d, scales = _stored_scales(scale.reshape(-1, 8), 63)
    dmin, mins = _stored_scales(offset.reshape(-1, 8), 63)
    codes = _codes(x, d[:, None] * scales, dmin[:, None] * mins, 0, highest)
    high = scales[:, 4:] >> 4 << 6, mins[:, 4:] >> 4 << 6  # see blocks._scale_and_min
    packed = (scales[:, :4] | high[0], mins[:, :4] | high[1], scales[:, 4:] & 15 | (mins[:, 4:] & 15) << 4)
    return d, dmin, np.concatenate(packed, axis=1).astype(np.uint8), codes


def _columns(x: np.ndarray, size: int) -> np.ndarray:
    """x [blocks, 256] with a sub-block of `size` weights in each column."""
    return np.ascontiguousarray(x.reshape(-1, size).T)


def _stored_scales(scale: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """d float32 [blocks], as fp16 keeps it, and whole numbers 0 … levels [blocks, sub-blocks]: scale ≈ d · number."""
    largest = scale.max(-1)
    inverse = np.float32(levels) / _nonzero(largest)
    numbers = _round(inverse[:, None] * scale, 0, levels).astype(np.int32)
    return _through_fp16(largest / np.float32(levels)), numbers


def _signed_scales(scale: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """The same for scales of either sign and numbers -levels … levels - 1: the largest magnitude takes -levels."""
    largest = _signed_largest(scale.T)
    inverse = np.float32(-levels) / _nonzero(largest)
    numbers = _round(inverse[:, None] * scale, -levels, levels - 1).astype(np.int32)
    return _through_fp16(np.where(largest == 0, np.float32(0), 1 / inverse)), numbers


def _codes(x: np.ndarray, scale: np.ndarray, offset: np.ndarray | None, low: int, high: int) -> np.ndarray:
    """x [blocks, 256] rounded against the scales [blocks, sub-blocks] as stored, counted from `low`; uint8."""
    sub, scale = x.reshape(*scale.shape, -1), scale[:, :, None]
    steps = (sub if offset is None else sub + offset[:, :, None]) / _nonzero(scale)
    codes = np.where(scale == 0, np.float32(0), _round(steps, low, high) - low)
    return codes.reshape(x.shape).astype(np.uint8)


def _through_fp16(d: np.ndarray) -> np.ndarray:
    return d.astype(np.float16).astype(np.float32)
