"""The size of the KV cache, and everything that shrinks it."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

import sympy as sp
from sympy import Min, ceiling, floor, oo

from labcore.formulas.conditions import CONTEXT, GROUPS
from labcore.formulas.printing import fraction, half, product
from labcore.formulas.registry import Condition, Limit, declare
from labcore.formulas.symbols import *

GQA = "GQA, arXiv:2305.13245, section 2.2"
MLA = "DeepSeek-V2, arXiv:2405.04434, section 2.1"
KAPPA = 2 * n_layers * n_kv * d_h * b_kv
EFFECTIVE_BITS = bits + (b_scale + b_zero) / G
LAYERS = Condition(n_global + n_local > 0, "n_glob and n_loc are both 0; give at least one layer")

declare(
    "kv.bytes_per_token",
    "KV bytes a token",
    r"\kappa",
    KAPPA,
    "B/token",
    source="Pope et al., arXiv:2211.05102, section 2; n_kv after GQA, arXiv:2305.13245",
    doc="A key and a value (the 2) for each layer and key/value head: n_kv, not n_q.",
    rises="n_layers n_kv d_h b_kv",
)

declare(
    "kv.bytes",
    "KV bytes of a batch",
    r"M_{\mathrm{kv}}",
    B * L * kappa,
    "B",
    source="kv.bytes_per_token times the tokens held",
    rises="B L kappa",
)

declare(
    "kv.sequences_per_weights",
    "Sequence whose cache lifts the total above the weights",
    r"B_{>w}",
    floor(b_w * P / (L * kappa)) + 1,
    "sequences",
    source="least whole B with B L κ > b_w P",
    valid=(CONTEXT,),
    rises="b_w P",
    falls="L kappa",
)

declare("kv.group_size", "Query heads that share a key/value head", "g", n_q / n_kv, "heads", source=GQA,
        valid=(GROUPS,), rises="n_q", falls="n_kv")  # fmt: skip

declare(
    "kv.gqa_ratio",
    "Cache of grouped heads over cache of full heads",
    r"\frac{M_{\mathrm{GQA}}}{M_{\mathrm{MHA}}}",
    n_kv / n_q,
    "1",
    source=GQA,
    doc="n_kv = 1 is multi-query attention, n_kv = n_q is multi-head attention.",
    valid=(GROUPS,),
    rises="n_kv",
    falls="n_q",
    limits=(Limit(n_kv, n_q, 1),),
)

declare(
    "kv.window_bytes",
    "KV bytes of a batch under sliding-window attention",
    r"M_{\mathrm{win}}",
    B * kappa * Min(L, W),
    "B",
    source="Mistral 7B, arXiv:2310.06825, section 2 (rolling buffer cache)",
    doc="All layers windowed. Holds for any cap on kept tokens, such as sinks plus recent tokens.",
    rises="B L W kappa",
    limits=(Limit(W, oo, "kv.bytes"),),
)

declare(
    "kv.receptive_field",
    "Tokens that the last layer can see through windows",
    r"n_{\mathrm{field}}",
    n_layers * (W - 1) + 1,
    "tokens",
    source="Mistral 7B, arXiv:2310.06825, section 2, which rounds it to n_ℓ W",
    doc="Each layer reaches W - 1 tokens further back, since the window holds the newest token itself.",
    rises="n_layers W",
    limits=(Limit(W, 1, 1),),
)

declare(
    "kv.hybrid_bytes",
    "KV bytes of a batch with global and windowed layers",
    r"M_{\mathrm{hyb}}",
    product(2, n_kv, d_h, b_kv, B, n_global * L + n_local * Min(L, W)),
    "B",
    source="Gemma 3, arXiv:2503.19786, section 2",
    valid=(LAYERS,),
    rises="B n_global n_local n_kv d_h b_kv L W",
)

declare(
    "kv.hybrid_fraction",
    "Cache kept by a hybrid of global and windowed layers",
    r"\frac{M_{\mathrm{hyb}}}{M_{\mathrm{kv}}}",
    (n_global * L + n_local * Min(L, W)) / ((n_global + n_local) * L),
    "1",
    source="Gemma 3, arXiv:2503.19786, section 2 (5 local layers to 1 global)",
    doc="Only the ratio of the two layer counts matters: 5 and 1 do for 5:1.",
    valid=(LAYERS, CONTEXT),
    rises="n_global W",
    falls="n_local L",
    limits=(Limit(n_local, 0, 1), Limit(L, oo, n_global / (n_global + n_local))),
)

declare(
    "kv.linear_state_bytes",
    "State of linear-attention layers",
    r"M_{\mathrm{state}}",
    b_kv * n_layers * n_q * d_h**2 * B,
    "B",
    source="Katharopoulos et al., arXiv:2006.16236: a d_h by d_h state a head",
    doc="Constant in the context. The normalizer vector (d_h a head) and convolution states are left out.",
    rises="n_layers n_q d_h b_kv B",
)

declare(
    "kv.quant_effective_bits",
    "Bits an element of a group-quantized cache or weight",
    r"\bar b",
    EFFECTIVE_BITS,
    "bit/element",
    source="KIVI, arXiv:2402.02750; the same accounting as llama.cpp's block formats",
    doc="One scale, and one zero point if the format has it, for G elements.",
    rises="bits b_scale b_zero",
    falls="G",
    limits=(Limit(G, oo, bits),),
)

declare(
    "kv.quant_bytes_per_token",
    "KV bytes a token of a group-quantized cache",
    r"\kappa_{\mathrm{q}}",
    fraction(product(2, n_layers, n_kv, d_h, EFFECTIVE_BITS), BITS_PER_BYTE),
    "B/token",
    source="kv.bytes_per_token with kv.quant_effective_bits/8 bytes an element",
    doc="Leaves out the recent tokens that methods such as KIVI keep in full precision.",
    rises="n_layers n_kv d_h bits b_scale b_zero",
    falls="G",
)

declare(
    "kv.cla_bytes_per_token",
    "KV bytes a token under cross-layer sharing",
    r"\kappa_{\mathrm{cla}}",
    2 * n_kv * d_h * b_kv * ceiling(n_layers / n_share),
    "B/token",
    source="Cross-Layer Attention, arXiv:2405.12981",
    doc="Every n_share consecutive layers keep one cache; a last, smaller group keeps its own.",
    rises="n_layers n_kv d_h b_kv",
    falls="n_share",
    limits=(Limit(n_share, 1, "kv.bytes_per_token"),),
)

declare(
    "kv.mla_bytes_per_token",
    "KV bytes a token of multi-head latent attention",
    r"\kappa_{\mathrm{mla}}",
    n_layers * (d_c + d_R) * b_kv,
    "B/token",
    source=MLA,
    doc="One latent and one RoPE key a layer, shared by all heads; tensor parallelism replicates it.",
    rises="n_layers d_c d_R b_kv",
)

declare(
    "kv.latent_bytes_per_token",
    "KV bytes a token of a cache of low rank",
    r"\kappa_{\mathrm{lr}}",
    n_layers * d_c * b_kv,
    "B/token",
    source="MHA2MLA, arXiv:2502.14837, section 3: one latent a layer for the keys and values of all heads",
    doc="Keys are rotated after they are made again from the latent, so there is no RoPE key beside it.",
    rises="n_layers d_c b_kv",
)

declare(
    "kv.mla_uncompressed_bytes_per_token",
    "KV bytes a token if MLA's heads were cached expanded",
    r"\kappa_{\mathrm{mha}}",
    n_layers * n_q * (2 * d_h + d_R) * b_kv,
    "B/token",
    source=MLA,
    doc="Keys of d_h + d_R and values of d_h elements a head.",
    rises="n_layers n_q d_h d_R b_kv",
)

declare(
    "kv.sparse_read_fraction",
    "Share of the cache that query-aware sparse attention reads",
    r"\rho_{\mathrm{read}}",
    1 / S + n_keep / L,
    "1",
    source="Quest, arXiv:2406.10774, section 3",
    doc="Two metadata vectors a page of S tokens, then the keys and values of n_keep tokens. Storage does not shrink.",
    valid=(
        Condition(n_keep <= L, "n_keep={n_keep} exceeds the context of L={L} tokens; keep at most L tokens"),
        CONTEXT,
    ),
    rises="n_keep",
    falls="S L",
    limits=(Limit(S, oo, n_keep / L),),
)

declare(
    "kv.projections_uncached",
    "Token projections of a generation without a cache",
    r"n_{\mathrm{proj}}",
    n_out * L + half(n_out * (n_out - 1)),
    "tokens",
    source="sum of L + i over the n_out passes i = 0 … n_out - 1",
    doc="Every pass computes keys and values of everything before it again. L is the prompt.",
    rises="n_out L",
    limits=(Limit(n_out, 1, L),),
)

declare(
    "kv.projections_cached",
    "Token projections of a generation with a cache",
    r"n_{\mathrm{proj,kv}}",
    L + n_out - 1,
    "tokens",
    source="the prompt once, then one token a pass; the last token is never fed back",
    rises="n_out L",
    limits=(Limit(n_out, 1, L),),
)

declare(
    "kv.attention_pairs_uncached",
    "Query-key pairs of a generation without a cache",
    r"n_{\mathrm{pair}}",
    fraction(n_out * (3 * L**2 + 3 * L * n_out + n_out**2 - 1), sp.Integer(6)),
    "1",
    source="sum of m (m + 1)/2 over the n_out passes of m = L … L + n_out - 1 tokens",
    doc="For each layer and query head. Earlier rows are needed again: the next layer's keys are made from them.",
    rises="n_out L",
    limits=(Limit(n_out, 1, half(L * (L + 1))),),
)

declare(
    "kv.attention_pairs_cached",
    "Query-key pairs of a generation with a cache",
    r"n_{\mathrm{pair,kv}}",
    half((L + n_out - 1) * (L + n_out)),
    "1",
    source="a causal prefill of L tokens, then one query over L + i keys for i = 1 … n_out - 1",
    doc="For each layer and query head: every pair once, as in one causal pass over the whole text.",
    rises="n_out L",
    limits=(Limit(n_out, 1, half(L * (L + 1))),),
)

declare(
    "kv.tp.bytes_per_token",
    "KV bytes a token on one tensor-parallel rank",
    r"\kappa_{\mathrm{rank}}",
    2 * n_layers * d_h * b_kv * ceiling(n_kv / n_gpu),
    "B/token",
    source="vLLM, ModelConfig.get_num_kv_heads: at least one key/value head a rank",
    doc="Splits down to one head a rank; more ranks than n_kv hold copies.",
    rises="n_layers n_kv d_h b_kv",
    falls="n_gpu",
    limits=(Limit(n_gpu, 1, "kv.bytes_per_token"),),
)

declare(
    "kv.tp.replication",
    "Copies of the cache over all tensor-parallel ranks",
    r"r_{\mathrm{tp}}",
    n_gpu * ceiling(n_kv / n_gpu) / n_kv,
    "1",
    source="kv.tp.bytes_per_token over all ranks against kv.bytes_per_token",
    doc="1 while N_gpu divides n_kv, N_gpu/n_kv beyond.",
    limits=(Limit(n_gpu, 1, 1),),
)
