"""What an attention kernel moves, how much of the chip it keeps busy, and how parts of it are put together."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, Min, ceiling, exp, log, oo

from labcore.formulas.conditions import GROUPS
from labcore.formulas.printing import fraction, product
from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

FLASH = "FlashAttention, arXiv:2205.14135"
FLASH2 = "FlashAttention-2, arXiv:2307.08691"
SPLIT = "Flash-Decoding, PyTorch blog, October 2023"
SOFTMAX = "Milakov and Gimelshein, arXiv:1805.02867, algorithm 3"

declare(
    "attention.score_bytes",
    "Bytes of the score matrix",
    r"M_S",
    n_q * L**2 * b_act,
    "B",
    source=f"{FLASH}, section 2.2: S is N × N a head",
    doc="One layer, L queries and L keys, every head. What a tiled kernel never writes.",
    rises="n_q L b_act",
)

declare(
    "attention.statistics_bytes",
    "Bytes of a maximum and a sum for each query",
    r"M_{m,\ell}",
    2 * n_q * L * b_acc,
    "B",
    source=f"{FLASH}, section 3.1",
    doc="What online softmax keeps instead of the scores. A forward pass stores one of the two, their log-sum-exp.",
    rises="n_q L b_acc",
)

declare(
    "attention.standard_io",
    "HBM bytes of attention that writes its scores",
    r"Q_{\mathrm{std}}",
    b_act * (2 * T * d_h + 2 * L * d_h + 4 * T * L),
    "B",
    source=f"{FLASH}, theorem 2, with the constants of its algorithm 0",
    doc="One head, T queries, L keys, no mask: Q, K, V and O once, and T × L numbers written and read, twice.",
    rises="b_act T L d_h",
)

declare(
    "attention.tiled_io",
    "HBM bytes of attention in tiles, queries outside",
    r"Q_{\mathrm{tile}}",
    b_act * (2 * T * d_h + 2 * L * d_h * ceiling(T / B_r)) + b_acc * T,
    "B",
    source=f"{FLASH2}, algorithm 1",
    doc="One head, no mask: Q and O once, the log-sum-exp of every query, and K and V once for each tile of queries.",
    rises="b_act T L d_h b_acc",
    falls="B_r",
)

declare(
    "attention.tiled_io_causal",
    "HBM bytes of causal attention in tiles, masked tiles skipped",
    r"Q_{\mathrm{causal}}",
    b_act * (2 * L * d_h + L * d_h * (L / B_r + 1)) + b_acc * L,
    "B",
    source=f"{FLASH2}, section 3.1.1",
    doc="One head, L queries and L keys in square tiles that divide L: the i-th tile of queries reads i tiles of keys.",
    valid=(Condition(B_r <= L, "B_r={B_r} queries in a tile, but the sequence has {L}; give a tile that divides it"),),
    rises="b_act L d_h b_acc",
    falls="B_r",
    limits=(Limit(B_r, L, 4 * L * d_h * b_act + b_acc * L),),
)

declare(
    "attention.keys_outer_io",
    "HBM bytes of attention in tiles, keys outside",
    r"Q_{\mathrm{FA1}}",
    2 * L * d_h * b_act + T * (d_h * b_act + 2 * d_h * b_acc + 4 * b_acc) * ceiling(L / B_c),
    "B",
    source=f"{FLASH}, algorithm 1",
    doc="One head, no mask: K and V once; each tile of keys reads Q, and reads and writes O, maximum and sum.",
    rises="L d_h b_act b_acc T",
    falls="B_c",
)

declare(
    "attention.tile_rows",
    "Rows of a tile when four tiles share the on-chip memory",
    r"B_r^\star",
    M_sram / (4 * d_h * b_act),
    "tokens",
    source=f"{FLASH}, algorithm 1, line 1",
    doc="Tiles of queries, keys, values and output. Accumulators in registers and pipelining change it.",
    rises="M_sram",
    falls="d_h b_act",
)

declare(
    "attention.gemm_ratio",
    "FLOPs of causal attention over those of the linear layers, in a prefill",
    r"\rho_{\mathrm{attn}}",
    n_layers * n_q * d_h * L / P,
    "1",
    source="prefill.flops: 2 n_ℓ n_q d_h L² over 2 P L",
    doc="1 where attention costs as much as everything else.",
    rises="n_layers n_q d_h L",
    falls="P",
    limits=(Limit(L, 0, 0),),
)

declare(
    "attention.score_row_share",
    "Score bytes written and read over KV bytes read, in a decode step",
    r"\rho_S",
    fraction(product(n_q, b_act), product(n_kv, d_h, b_kv)),
    "1",
    source="2 n_q L b_act over 2 n_kv d_h L b_kv",
    doc="What a fused kernel saves by keeping the scores on chip. Twice as much if the probabilities are stored too.",
    valid=(GROUPS,),
    rises="n_q b_act",
    falls="n_kv d_h b_kv",
    limits=(Limit(n_kv, n_q, b_act / (d_h * b_kv)),),
)

WORK = B * n_kv * n_split
WAVES = fraction(WORK, product(n_sm, n_cta))

declare(
    "attention.busy_share",
    "Share of the SMs that a decode kernel gives work to",
    r"u_{\mathrm{SM}}",
    Min(1, fraction(WORK, n_sm)),
    "1",
    source=f"{SPLIT}: one thread block for each sequence, key/value head and split",
    doc="The query heads of a group share a thread block.",
    rises="B n_kv n_split",
    falls="n_sm",
)

declare(
    "attention.fill_splits",
    "Splits that give every SM its thread blocks",
    r"n_{\mathrm{split}}^\star",
    ceiling(fraction(product(n_sm, n_cta), B * n_kv)),
    "splits",
    source=SPLIT,
    doc="At least 1: a batch that fills the chip needs no split.",
    rises="n_sm n_cta",
    falls="B n_kv",
)

declare(
    "attention.wave_efficiency",
    "Share of the thread-block slots that have work until the last wave ends",
    r"e_{\mathrm{wave}}",
    fraction(WORK, product(n_sm, n_cta, ceiling(WAVES))),
    "1",
    source="FlashAttention-3, hopper/heuristics.h (num_splits_heuristic)",
    doc="Equal thread blocks run in whole waves; a last wave of a few blocks takes as long as a full one.",
)

PARTIALS = 2 * B * n_q * n_split * (d_h + 1) * b_acc

declare(
    "attention.partial_bytes",
    "Bytes written and read to combine the splits of a decode step",
    r"M_{\mathrm{part}}",
    PARTIALS,
    "B",
    source=f"{SPLIT}: a partial output and its log-sum-exp for each query head and split",
    doc="One layer. One split needs none of it.",
    rises="B n_q n_split d_h b_acc",
)

declare(
    "attention.split_time",
    "Time of one layer's decode attention in splits",
    r"t_{\mathrm{split}}",
    2 * B * n_kv * d_h * b_kv * L * ceiling(WAVES) / (beta * WAVES) + PARTIALS / beta,
    "s",
    source="KV bytes over bandwidth and wave efficiency, plus the partial results; launches not counted",
    doc="Assumes that a thread block draws its slot's share of the bandwidth and no more.",
    rises="L d_h b_kv b_acc n_q",
    falls="beta",
)

declare(
    "attention.online_sum",
    "Denominator of softmax over two parts of the keys",
    r"\ell",
    l_a * exp(m_a - Max(m_a, m_b)) + l_b * exp(m_b - Max(m_a, m_b)),
    "1",
    source=SOFTMAX,
    doc="Relative to the larger of the two maxima. Outputs that are not yet divided combine with the same factors.",
    rises="l_a l_b",
)

declare(
    "attention.combine_lse",
    "Log-sum-exp of two parts of the keys",
    r"\mathrm{LSE}",
    log(exp(lse_a) + exp(lse_b)),
    "1",
    source=f"{SPLIT}; FlashInfer, arXiv:2501.01005, section 2.2",
    doc="Evaluated relative to the larger of the two, so that nothing overflows.",
    rises="lse_a lse_b",
)

declare(
    "attention.combine_weight",
    "Weight of one part's output in the whole",
    "w_1",
    1 / (1 + exp(lse_b - lse_a)),
    "1",
    source=f"{SPLIT}: exp(lse_1 - LSE)",
    doc="The other part has the rest: o = w_1 o_1 + (1 - w_1) o_2.",
    rises="lse_a",
    falls="lse_b",
)

declare(
    "attention.cascade_gain",
    "KV bytes read without sharing over those with a common prefix read once",
    r"S_{\mathrm{casc}}",
    fraction(B * (L_hit + L), L_hit + B * L),
    "1",
    source="Hydragen, arXiv:2402.05099, section 3.2; FlashInfer, cascade inference (2024)",
    doc="B sequences with a common prefix of L_hit tokens and L tokens each of their own.",
    valid=(
        Condition(L + L_hit > 0, "L={L} and L_hit={L_hit} hold no cache to read; give one of them 1 token or more"),
    ),
    rises="B L_hit",
    falls="L",
    limits=(Limit(L, 0, B), Limit(L, oo, 1)),
)

declare(
    "mla.absorption_ratio",
    "FLOPs of attention over latents against attention over expanded heads",
    r"\rho_{\mathrm{absorb}}",
    fraction(2 * d_c + d_R, 2 * d_h + d_R),
    "1",
    source="DeepSeek-V2, arXiv:2405.04434, section 2.1 and appendix C",
    doc="Scores and values of one query and one key, all heads alike; the expansion itself is not in it.",
    rises="d_c",
    falls="d_h",
    limits=(Limit(d_c, d_h, 1),),
)

declare(
    "mla.expansion_flops",
    "FLOPs of expanding one cached latent into keys and values",
    r"\mathrm{FLOP}_{\mathrm{exp}}",
    4 * FLOP * n_q * d_h * d_c,
    "FLOP/token",
    source="DeepSeek-V2, arXiv:2405.04434, equations 10 and 11",
    doc="One layer: two matrices of n_q d_h rows and d_c columns.",
    rises="n_q d_h d_c",
)

declare(
    "mla.absorb_below",
    "New tokens up to which attending over latents costs fewer FLOPs than expanding them",
    r"T_{\mathrm{absorb}}",
    fraction(product(d_h, d_c), d_c - d_h),
    "tokens",
    source="2 T n_q (2 d_c + d_R) = 4 n_q d_h d_c + 2 T n_q (2 d_h + d_R), a cached token and layer",
    doc="Decode and short chunks absorb; a long prefill expands its latents once and attends as usual.",
    valid=(Condition(d_c > d_h, "d_c={d_c} is no wider than a head of {d_h}; absorbing then always costs less"),),
    rises="d_h",
    falls="d_c",
    limits=(Limit(d_c, oo, d_h),),
)
