"""One token from each row of logits, in one read of the vocabulary: two rounds of the Gumbel-max trick.

argmax(logit / temperature + g), with independent Gumbel numbers g, draws from the softmax without forming it. A number
for each of 128,000 tokens costs more than reading their logits (a generator's 10 rounds and two logarithms each), so
the vocabulary is cut into tiles: a tile wins with probability Z_tile / Z, which is the same trick on log Z_tile, and a
token of that tile with w / Z_tile. Only the tiles and one tile's tokens need numbers; only that tile is read twice.

The numbers come from Philox keyed by (the request's seed, position, place in the tile), so a request draws the same
tokens alone, in any batch, at any place in it, and again after a preemption. TILE is part of that, no tuning choice.
Sources: the Gumbel-max trick, Maddison et al., arXiv:1411.0030, section 2; Philox4x32-10, Salmon et al., SC'11.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from labcore.core.errors import InputError
from labcore.kernels._compat import capability, choose, early_launch, has_early
from labcore.kernels._compile import Variant, early_instructions, half
from labcore.kernels._config import pick, rules
from labcore.kernels.online_softmax import TO_BASE_2
from labcore.kernels.softmax import check_logits, per_row
from labcore.kernels.truncation import kept, mask_top_k_top_p, thresholds, without_nan

__all__ = ["mask_top_k_top_p", "sample", "sample_reference"]

TILE = 2048
LARGEST_VOCABULARY = 1024 * TILE
OF_TOKENS, OF_TILES = tl.constexpr(0), tl.constexpr(1)  # a request's two streams of random numbers


def philox(seed: Tensor, position: Tensor, stream: int, call: Tensor) -> Tensor:
    """Philox4x32-10's four words, int64 [rows, n, 4], for key `seed` (int64 [rows]) and counter (call [n], position
    [rows], stream, 0)."""
    low = 0xFFFFFFFF
    key = [seed[:, None] & low, seed[:, None] >> 32 & low]
    zero = torch.zeros(len(seed), len(call), dtype=torch.int64, device=seed.device)
    c0, c1, c2, c3 = zero + call, zero + (position[:, None] & low), zero + stream, zero
    for _ in range(10):
        (high0, low0), (high2, low2) = _product(0xD2511F53, c0), _product(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high2 ^ c1 ^ key[0], low2, high0 ^ c3 ^ key[1], low0
        key = [(key[0] + 0x9E3779B9) & low, (key[1] + 0xBB67AE85) & low]
    return torch.stack((c0, c1, c2, c3), -1)


def _product(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of constant · x, both below 2^32; int64 holds no product of the two."""
    low, high = (x & 0xFFFF) * constant, (x >> 16) * constant
    total = low + ((high & 0xFFFF) << 16)  # below 2^49
    return (high >> 16) + (total >> 32), total & 0xFFFFFFFF


def gumbel_reference(seed: Tensor, position: Tensor, stream: int, count: int) -> Tensor:
    """Standard Gumbel numbers, float64 [rows, count]: -ln of an exponential number -ln(1 - u). Four of a call."""
    words = philox(seed, position, stream, torch.arange(triton.cdiv(count, 4), device=seed.device))
    uniform = (words.flatten(1)[:, :count].double() + 0.5) / 2**32
    return -(-torch.log1p(-uniform)).log()


def sample_reference(logits: Tensor, temperature: Tensor, seed: Tensor, position: Tensor) -> Tensor:
    """The specification, in float64: int64 [rows]; -1 where no logit is above -inf."""
    logits = logits.double().masked_fill(logits.isnan(), -torch.inf)
    count = triton.cdiv(logits.shape[1], TILE)
    tiles = torch.nn.functional.pad(logits, (0, count * TILE - logits.shape[1]), value=-torch.inf).view(-1, count, TILE)
    scaled = tiles / temperature.where(temperature > 0, 1)[:, None, None]
    drawn = scaled.logsumexp(-1) + gumbel_reference(seed, position, OF_TILES.value, count)
    tile = drawn.argmax(-1)
    noise = gumbel_reference(seed, position, OF_TOKENS.value, TILE)  # of the tile that won
    rows = torch.arange(len(logits), device=logits.device)
    token = tile * TILE + (scaled[rows, tile] + noise).argmax(-1)
    best, greedy = logits.max(-1)
    return torch.where(temperature > 0, token, greedy).masked_fill(best == -torch.inf, -1)


# [book: gumbel]
@triton.jit
def _gumbel(seed, position, stream, COUNT: tl.constexpr):
    """Gumbel numbers over ln 2 (base 2 throughout), fp32 [COUNT], a multiple of 4: one call of Philox has four."""
    call = tl.arange(0, COUNT // 4)
    zero = call * 0
    a, b, c, d = tl.philox(seed, call, zero + position, zero + stream, zero)
    word = tl.join(tl.join(a, c), tl.join(b, d)).reshape(COUNT)  # a0 b0 c0 d0 a1 …
    u = word.to(tl.float32) * 2.3283063e-10 + 1.1641532e-10  # in (0, 1): the largest word rounds to just below 1
    small = u * (1.0 + u * (0.5 + u * 0.33333334))  # -ln(1 - u) where 1 - u would lose most of u's digits
    return -tl.log2(tl.where(u < 0.015625, small, -tl.log(1.0 - u)))


@triton.jit
def _first_best(scores, index):
    """The largest of scores and the smallest index that has it."""
    best = tl.max(scores, 0)
    return best, tl.min(tl.where(scores == best, index, 0x7FFFFFFF), 0)


@triton.jit
def _load_tile(logits_ptr, row, stride, token, vocab, threshold_ptr, last_ptr):
    """fp32 logits of the tokens `token` of a row; -inf for NaN, past the vocabulary, and what top-k and top-p cut."""
    x = tl.load(logits_ptr + row * stride + token, mask=token < vocab, other=float("-inf")).to(tl.float32)
    if threshold_ptr is not None:
        x = tl.where(kept(x, token, tl.load(threshold_ptr + row), tl.load(last_ptr + row)), x, float("-inf"))
    return without_nan(x)


@triton.jit
def _tile_kernel(
    logits_ptr, temperature_ptr, threshold_ptr, last_ptr, score_ptr, index_ptr, vocab, stride, tiles,
    TILE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Program (row, tile): log2 of the tile's sum of weights; for a greedy row its largest logit, and which that is."""
    if EARLY:
        gdc_launch_dependents()  # the draw may begin, and then waits, as soon as the last of these programs has begun
    program = tl.program_id(0)
    row, tile = (program // tiles).to(tl.int64), program % tiles  # a row's tiles side by side, as in memory
    token = tile * TILE + tl.arange(0, TILE)
    x = _load_tile(logits_ptr, row, stride, token, vocab, threshold_ptr, last_ptr)
    temperature = tl.load(temperature_ptr + row)
    if temperature > 0:
        scale, peak = TO_BASE_2 / temperature, tl.max(x, 0)
        shift = tl.where(peak == float("-inf"), 0.0, peak)
        tl.store(score_ptr + row * tiles + tile, shift * scale + tl.log2(tl.sum(tl.exp2((x - shift) * scale), 0)))
    else:
        best, index = _first_best(x, token)
        tl.store(score_ptr + row * tiles + tile, best)
        tl.store(index_ptr + row * tiles + tile, index)


@triton.jit
def _draw_kernel(
    logits_ptr, temperature_ptr, threshold_ptr, last_ptr, score_ptr, index_ptr, seed_ptr, position_ptr, out_ptr,
    vocab, stride, tiles, TILES: tl.constexpr, TILE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Program `row`: the tile that wins, then the token of that tile."""
    row, tile, place = tl.program_id(0).to(tl.int64), tl.arange(0, TILES), tl.arange(0, TILE)
    temperature = tl.load(temperature_ptr + row)
    score_ptr += row * tiles
    if temperature > 0:
        # one tile's tokens are drawn from, so their numbers need not know which: all is ready when the scores are
        seed, position = tl.load(seed_ptr + row), tl.load(position_ptr + row).to(tl.int32)
        of_tiles, of_tokens = _gumbel(seed, position, OF_TILES, TILES), _gumbel(seed, position, OF_TOKENS, TILE)
        if EARLY:
            gdc_wait()  # for the scores; what was read so far is older than they are
        score = tl.load(score_ptr + tile, mask=tile < tiles, other=float("-inf"))
        _, winner = _first_best(score + of_tiles, tile)
        token = winner * TILE + place
        x = _load_tile(logits_ptr, row, stride, token, vocab, threshold_ptr, last_ptr)
        best, answer = _first_best(x * (TO_BASE_2 / temperature) + of_tokens, token)
    else:
        if EARLY:
            gdc_wait()
        score = tl.load(score_ptr + tile, mask=tile < tiles, other=float("-inf"))
        best, winner = _first_best(score, tile)
        answer = tl.load(index_ptr + row * tiles + winner)
    tl.store(out_ptr + row, tl.where(best == float("-inf"), -1, answer).to(tl.int64))


# [/book]


def sample(
    logits: Tensor,
    temperature: Tensor | float,
    top_k: Tensor | int | None = None,
    top_p: Tensor | float | None = None,
    seed: Tensor | int = 0,
    position: Tensor | int = 0,
    *,
    backend: str = "auto",
) -> Tensor:
    """Token ids int64 [rows] drawn from logits [rows, vocab]; -1 for a row without a logit above -inf (NaN counts as
    -inf).

    Every parameter is a number for all rows or a tensor [rows]: temperature float32, 0 for the likeliest token (the
    first of equals); top_k int32, 0 for no limit, and top_p float32, 1 for no limit, both in `mask_top_k_top_p`'s
    sense, after the temperature; seed int64, the request's; position int64, of the token to be drawn. Raises
    InputError for a parameter of another shape, or a vocabulary of more than LARGEST_VOCABULARY on the kernel's path.
    """
    check_logits(logits)
    temperature = per_row("temperature", temperature, logits, torch.float32)
    seed = per_row("seed", seed, logits, torch.int64)
    position = per_row("position", position, logits, torch.int64)
    if choose(backend, logits, what="sample") == "torch":
        if top_k is not None or top_p is not None:
            logits = mask_top_k_top_p(logits, top_k, top_p, temperature, backend="torch")
        return sample_reference(logits, temperature, seed, position)
    threshold = last = None
    if top_k is not None or top_p is not None:
        threshold, last = thresholds(logits, temperature, top_k, top_p)
    rows, vocab = logits.shape
    tiles = triton.cdiv(vocab, TILE)
    if tiles > LARGEST_VOCABULARY // TILE:
        raise InputError(f"a vocabulary of {vocab}: at most {LARGEST_VOCABULARY} can be sampled; pass backend='torch'")
    scores = torch.empty(rows, tiles, dtype=torch.float32, device=logits.device)
    indices = torch.empty(rows, tiles, dtype=torch.int32, device=logits.device)
    out = torch.empty(rows, dtype=torch.int64, device=logits.device)
    if rows:
        cut = (threshold, last, scores, indices)
        cc, stride = capability(logits.device), logits.stride(0)
        _tile_kernel[rows * tiles,](
            logits, temperature, *cut, vocab, stride, tiles, TILE=TILE, EARLY=has_early(cc), **pick("tiles", cc)
        )
        _draw_kernel[rows,](
            logits, temperature, *cut, seed, position, out, vocab, stride, tiles,
            TILES=max(4, triton.next_power_of_2(tiles)), TILE=TILE, **early_launch(cc), **pick("draw", cc),
        )  # fmt: skip
    return out


def variants(cc: tuple[int, int]) -> Iterator[Variant]:
    """What is compiled for a chip of capability cc: Llama 3's vocabulary, cut by top-k and top-p or not."""
    between = {"score_ptr": "*fp32", "index_ptr": "*i32", "vocab": "i32:16", "stride": "i32:16", "tiles": "i32"}
    whole, cut = {"threshold_ptr": None, "last_ptr": None}, {"threshold_ptr": "*fp32", "last_ptr": "*i32"}
    sizes, waits, launches = (
        {"TILE": TILE, "EARLY": has_early(cc)},
        early_instructions(cc)[:1],
        early_instructions(cc)[1:],
    )
    for kind in ("fp32", half(cc)):
        types = between | {"logits_ptr": f"*{kind}", "temperature_ptr": "*fp32"}
        draw = types | {"seed_ptr": "*i64", "position_ptr": "*i64", "out_ptr": "*i64"}
        for _, launch in rules("tiles", cc):
            yield Variant.of(f"tiles, {kind}", _tile_kernel, types, launch, launches, **whole, **sizes)
            yield Variant.of(f"tiles, cut, {kind}", _tile_kernel, types | cut, launch, launches, **sizes)
        for _, launch in rules("draw", cc):
            yield Variant.of(f"draw, {kind}", _draw_kernel, draw, launch, waits, **whole, **sizes, TILES=64)
            yield Variant.of(f"draw, cut, {kind}", _draw_kernel, draw | cut, launch, waits, **sizes, TILES=64)


def candidates(kind: str, cc: tuple[int, int]) -> Iterator[dict[str, int]]:
    """Launch choices worth trying for "tiles" or "draw"."""
    for warps in (2, 4, 8) if kind == "tiles" else (4, 8, 16):
        yield {"num_warps": warps, "num_stages": 1}
