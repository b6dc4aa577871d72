"""Rotary position embedding of queries and keys in place, and the form a decoder layer wants: with the cache write.

A head's coordinates i and i + D/2 (GPT-NeoX's halves, as in Llama and Qwen) are turned by the angle of (position, i).
The fused form takes the joint product of a layer, [tokens, heads of q, k and v, D], normalizes the heads of q and k if
the model does (Qwen3), turns them, leaves q in place and writes k and v where they are needed: in the paged cache.
That is one launch instead of up to seven, and k and v travel once.

Rounding follows Llama's code: cos and sin in the model's dtype, and every product and sum rounded. A compiler has
other ideas: products that are only rounded to bf16 become products of bf16 numbers, and those, with the sum behind
them, one fused instruction that rounds once. That is closer to the truth and not what the model was trained with, so
fusion is turned off.

Sources: RoFormer, arXiv:2104.09864; transformers, models/llama/modeling_llama.py, apply_rotary_pos_emb; vLLM's
rotary_embedding and reshape_and_cache.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labcore.core.errors import InputError
from labcore.kernels._checks import check_tensor
from labcore.kernels._compat import capability, choose, early_launch, has_early
from labcore.kernels._compile import Variant, early_instructions, half
from labcore.kernels._config import pick, rules
from labcore.kernels.norm import rms_norm_reference

FEW_TOKENS = 64  # below, the heads of a token are spread over more programs
EVERY_ROUNDING = {"enable_fp_fusion": False}  # of a product and of the sum behind it


def rotate_reference(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
    """The specification: x [tokens, heads, D] turned by row `positions` of cos and sin [positions, D/2]."""
    cos, sin = (table[positions].to(x.dtype)[:, None] for table in (cos, sin))
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_write_kv_reference(qkv, cos, sin, positions, k_cache, v_cache, slots, q_weight=None, k_weight=None, eps=1e-6):
    """The specification of `rope_write_kv`."""
    n_kv = k_cache.shape[2]
    q, k, v = qkv.split((qkv.shape[1] - 2 * n_kv, n_kv, n_kv), dim=1)
    turned_q = q if q_weight is None else rms_norm_reference(q, q_weight, eps)
    turned_k = k if k_weight is None else rms_norm_reference(k, k_weight, eps)
    stored = slots >= 0
    k_cache.flatten(0, 1)[slots[stored]] = rotate_reference(turned_k, cos, sin, positions)[stored]
    v_cache.flatten(0, 1)[slots[stored]] = v[stored]
    return q.copy_(rotate_reference(turned_q, cos, sin, positions))


# [book: rope]
@triton.jit
def _turn(a, b, cos, sin):
    """Both halves of some heads, [heads, D/2] each, turned by angles [D/2]; each product rounds, as in torch."""
    kind: tl.constexpr = a.dtype
    cos, sin = cos.to(kind).to(tl.float32)[None, :], sin.to(kind).to(tl.float32)[None, :]
    a, b = a.to(tl.float32), b.to(tl.float32)
    a_cos, b_sin = (a * cos).to(kind).to(tl.float32), (b * sin).to(kind).to(tl.float32)
    b_cos, a_sin = (b * cos).to(kind).to(tl.float32), (a * sin).to(kind).to(tl.float32)
    return (a_cos - b_sin).to(kind), (b_cos + a_sin).to(kind)


@triton.jit
def _rope_kernel(
    q_ptr, k_ptr, cos_ptr, sin_ptr, position_ptr, q_stride, k_stride,
    N_Q: tl.constexpr, N_K: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Program (token, group) turns HEADS heads of one token: groups of q first, then of k."""
    token, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, triton.next_power_of_2(HALF))
    angle = tl.load(position_ptr + token).to(tl.int64) * HALF + lane
    cos = tl.load(cos_ptr + angle, mask=lane < HALF, other=0.0)
    sin = tl.load(sin_ptr + angle, mask=lane < HALF, other=0.0)
    Q_GROUPS: tl.constexpr = (N_Q + HEADS - 1) // HEADS
    if group < Q_GROUPS:
        head = group * HEADS + tl.arange(0, HEADS)
        _turn_heads(q_ptr + token * q_stride, head, N_Q, lane, cos, sin, HALF)
    else:
        head = (group - Q_GROUPS) * HEADS + tl.arange(0, HEADS)
        _turn_heads(k_ptr + token * k_stride, head, N_K, lane, cos, sin, HALF)


@triton.jit
def _turn_heads(row_ptr, head, N: tl.constexpr, lane, cos, sin, HALF: tl.constexpr):
    """Turn the heads `head` of the N that one token has at row_ptr, in place."""
    here = (head < N)[:, None] & (lane < HALF)[None, :]
    at = row_ptr + head[:, None] * (2 * HALF) + lane[None, :]
    a = tl.load(at, mask=here, other=0.0)
    b = tl.load(at + HALF, mask=here, other=0.0)
    a, b = _turn(a, b, cos, sin)
    tl.store(at, a, mask=here)
    tl.store(at + HALF, b, mask=here)


# [/book]


# [book: rope-write]
@triton.jit
def _rope_write_kernel(
    qkv_ptr, cos_ptr, sin_ptr, position_ptr, slot_ptr, k_cache_ptr, v_cache_ptr, q_weight_ptr, k_weight_ptr,
    stride, eps, N_Q: tl.constexpr, N_KV: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    """Program (token, group) has HEADS heads of one token; q goes back in place, k and v to the token's slot.

    EARLY: it is launched before the product it turns has ended, and waits for that here (`kernels.gemv`);
    what follows is launched then.
    """
    if EARLY:
        gdc_wait()
        gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    lane = tl.arange(0, triton.next_power_of_2(HALF))
    is_q, is_k, is_v = head < N_Q, (head >= N_Q) & (head < N_Q + N_KV), head >= N_Q + N_KV
    inside = (lane < HALF)[None, :]
    here = (head < N_Q + 2 * N_KV)[:, None] & inside
    at = qkv_ptr + token * stride + head[:, None] * (2 * HALF) + lane[None, :]
    a = tl.load(at, mask=here, other=0.0)  # [HEADS, lanes]: coordinates 0 : D/2
    b = tl.load(at + HALF, mask=here, other=0.0)  # and D/2 : D
    turned_a, turned_b = a, b
    if q_weight_ptr is not None:
        turned_a, turned_b = _normalize(a, b, is_q, q_weight_ptr, k_weight_ptr, lane, eps, HALF)
    angle = tl.load(position_ptr + token).to(tl.int64) * HALF + lane
    cos = tl.load(cos_ptr + angle, mask=lane < HALF, other=0.0)
    sin = tl.load(sin_ptr + angle, mask=lane < HALF, other=0.0)
    turned_a, turned_b = _turn(turned_a, turned_b, cos, sin)
    tl.store(at, turned_a, mask=is_q[:, None] & inside)
    tl.store(at + HALF, turned_b, mask=is_q[:, None] & inside)

    slot = tl.load(slot_ptr + token).to(tl.int64)  # -1: padding of a CUDA graph's batch, stored nowhere
    row = slot * (N_KV * 2 * HALF) + lane[None, :]
    to_k = row + (head - N_Q)[:, None] * (2 * HALF)
    to_v = to_k - N_KV * 2 * HALF
    stored = (slot >= 0) & inside
    tl.store(k_cache_ptr + to_k, turned_a, mask=is_k[:, None] & stored)
    tl.store(k_cache_ptr + to_k + HALF, turned_b, mask=is_k[:, None] & stored)
    tl.store(v_cache_ptr + to_v, a, mask=is_v[:, None] & here & stored)
    tl.store(v_cache_ptr + to_v + HALF, b, mask=is_v[:, None] & here & stored)


@triton.jit
def _normalize(a, b, is_q, q_weight_ptr, k_weight_ptr, lane, eps, HALF: tl.constexpr):
    """RMSNorm of each head, given as two halves [heads, D/2], with the weight of q or of k."""
    kind: tl.constexpr = a.dtype
    wide_a, wide_b = a.to(tl.float32), b.to(tl.float32)
    scale = tl.rsqrt((tl.sum(wide_a * wide_a, 1) + tl.sum(wide_b * wide_b, 1)) / (2 * HALF) + eps)[:, None]
    unit_a, unit_b = (wide_a * scale).to(kind).to(tl.float32), (wide_b * scale).to(kind).to(tl.float32)
    inside = lane < HALF
    q_a = tl.load(q_weight_ptr + lane, mask=inside, other=0.0)
    q_b = tl.load(q_weight_ptr + HALF + lane, mask=inside, other=0.0)
    k_a = tl.load(k_weight_ptr + lane, mask=inside, other=0.0)
    k_b = tl.load(k_weight_ptr + HALF + lane, mask=inside, other=0.0)
    weight_a = tl.where(is_q[:, None], q_a[None, :], k_a[None, :]).to(tl.float32)
    weight_b = tl.where(is_q[:, None], q_b[None, :], k_b[None, :]).to(tl.float32)
    return (unit_a * weight_a).to(kind), (unit_b * weight_b).to(kind)


# [/book]


def rope_(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, *, backend: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Turn q [tokens, heads, D] and k [tokens, kv_heads, D] in place, in one launch; returns both.

    cos, sin: [positions, D/2], contiguous; positions: int64 or int32 [tokens], the row of each token. q and k may be
    views into one joint product: their heads must be contiguous, their tokens need not be.
    """
    for name, x in (("q", q), ("k", k)):
        _check_heads(name, x)
    _check_angles(q, cos, sin, positions)
    if k.shape[0] != q.shape[0] or k.shape[2] != q.shape[2] or k.dtype != q.dtype:
        raise InputError(f"k is {k.dtype} {tuple(k.shape)}: it needs the tokens, D and dtype of q, {tuple(q.shape)}")
    if choose(backend, q, what="rope_") == "torch":
        for x in (q, k):
            x.copy_(rotate_reference(x, cos, sin, positions))
        return q, k
    launch = _launch(q)
    groups = sum(triton.cdiv(x.shape[1], launch["HEADS"]) for x in (q, k))
    if len(q):
        _rope_kernel[len(q), groups](
            q, k, cos, sin, positions, q.stride(0), k.stride(0),
            N_Q=q.shape[1], N_K=k.shape[1], HALF=q.shape[2] // 2, **launch,
        )  # fmt: skip
    return q, k


def rope_write_kv(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    backend: str = "auto",
) -> Tensor:
    """Turn q in place, turn k, and write k and v of every token into its slot of the paged cache; returns the view q.

    qkv: [tokens, heads + 2 · kv_heads, D], the heads of q, then k, then v. Caches: [pages, page, kv_heads, D],
    contiguous, of qkv's dtype; slots: int64 [tokens], page · page size + offset, -1 to store nothing. k and v in qkv
    are left as they were. q_weight, k_weight: [D], both or neither: RMSNorm of each head of q and k first, with eps.
    """
    _check_heads("qkv", qkv)
    _check_angles(qkv, cos, sin, positions)
    _check_caches(qkv, k_cache, v_cache, slots, q_weight, k_weight)
    n_kv = k_cache.shape[2]
    n_q = qkv.shape[1] - 2 * n_kv
    if choose(backend, qkv, what="rope_write_kv") == "torch":
        return rope_write_kv_reference(qkv, cos, sin, positions, k_cache, v_cache, slots, q_weight, k_weight, eps)
    launch, cc = _launch(qkv), capability(qkv.device)
    launch |= early_launch(cc if len(qkv) < FEW_TOKENS else None)
    if len(qkv):
        _rope_write_kernel[len(qkv), triton.cdiv(qkv.shape[1], launch["HEADS"])](
            qkv, cos, sin, positions, slots, k_cache, v_cache, q_weight, k_weight, qkv.stride(0), eps,
            N_Q=n_q, N_KV=n_kv, HALF=qkv.shape[2] // 2, **launch,
        )  # fmt: skip
    return qkv[:, :n_q]


def _launch(x: Tensor) -> dict[str, int]:
    return pick("rope", capability(x.device), few_tokens=len(x) < FEW_TOKENS) | EVERY_ROUNDING


def _check_heads(name: str, x: Tensor) -> None:
    if x.dim() != 3 or x.shape[2] % 2:
        raise InputError(f"{name} is {tuple(x.shape)}: it must be [tokens, heads, D] with an even D")
    if x.stride(2) != 1 or (x.shape[1] > 1 and x.stride(1) != x.shape[2]):
        raise InputError(f"{name} has strides {x.stride()}: a token's heads must be contiguous; {name}.contiguous()")


def _check_angles(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> None:
    for name, table in (("cos", cos), ("sin", sin)):
        if table.dim() != 2 or table.shape[1] != x.shape[2] // 2 or not table.is_contiguous():
            raise InputError(f"{name} is {tuple(table.shape)}: make it contiguous, [positions, {x.shape[2] // 2}]")
    if positions.shape != x.shape[:1] or not positions.is_contiguous() or positions.is_floating_point():
        raise InputError(
            f"positions is {positions.dtype} {tuple(positions.shape)}: make it contiguous int64 [{len(x)}]"
        )


def _check_caches(qkv: Tensor, k_cache, v_cache, slots: Tensor, q_weight, k_weight) -> None:
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if cache.dim() != 4 or cache.shape[3] != qkv.shape[2] or cache.dtype != qkv.dtype or not cache.is_contiguous():
            raise InputError(
                f"{name} is {cache.dtype} {tuple(cache.shape)}: "
                f"make it contiguous {qkv.dtype} [pages, page, kv_heads, {qkv.shape[2]}]"
            )
    if v_cache.shape != k_cache.shape or qkv.shape[1] <= 2 * k_cache.shape[2]:
        raise InputError(
            f"caches {tuple(k_cache.shape)} and {tuple(v_cache.shape)} do not fit qkv {tuple(qkv.shape)}, "
            "which needs heads of q beside one of k and one of v for each kv head"
        )
    check_tensor("slots", slots, torch.int64, qkv.shape[:1])
    if (q_weight is None) != (k_weight is None):
        raise InputError("one of q_weight and k_weight is given: a model normalizes both q and k, or neither")
    for name, weight in (("q_weight", q_weight), ("k_weight", k_weight)):
        if weight is not None:
            check_tensor(name, weight, qkv.dtype, qkv.shape[2:])


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc: Llama 3 8B's heads, and Qwen3's, which it normalizes."""
    kind = f"*{half(cc)}"
    angles = {"cos_ptr": kind, "sin_ptr": kind, "position_ptr": "*i64"}
    apart = angles | {"q_ptr": kind, "k_ptr": kind, "q_stride": "i32:16", "k_stride": "i32:16"}
    joint = angles | {"qkv_ptr": kind, "slot_ptr": "*i64", "k_cache_ptr": kind, "v_cache_ptr": kind}
    joint |= {"stride": "i32:16", "eps": "fp32"}
    weights = {"q_weight_ptr": kind, "k_weight_ptr": kind}
    size = {"HALF": 64}
    for _, launch in rules("rope", cc):
        launch, heads = launch | EVERY_ROUNDING, f"{launch['HEADS']} heads"
        yield Variant.of(f"apart, {heads}", _rope_kernel, apart, launch, N_Q=32, N_K=8, **size)
        plain, sizes = dict.fromkeys(weights), size | {"N_KV": 8, "EARLY": has_early(cc)}
        yield Variant.of(
            f"joint, {heads}", _rope_write_kernel, joint, launch, early_instructions(cc), **plain, **sizes, N_Q=32
        )
        name = f"joint, normalized, {heads}"
        yield Variant.of(name, _rope_write_kernel, joint | weights, launch, early_instructions(cc), **sizes, N_Q=16)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying."""
    for heads, warps in ((4, 1), (8, 1), (8, 2), (16, 1), (16, 2), (16, 4), (32, 4), (64, 4), (64, 8)):
        yield {"HEADS": heads, "num_warps": warps, "num_stages": 1}
