"""The cost of one decode step: FLOPs, bytes, time, and how close to the hardware it runs."""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max

from labcore.formulas.conditions import CONTEXT, GROUPS
from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

POPE = "Pope et al., arXiv:2211.05102, section 2"

declare(
    "decode.linear_flops",
    "FLOPs of the linear layers in a decode step",
    r"\mathrm{FLOP}_{\mathrm{lin}}",
    2 * FLOP * P * B,
    "FLOP",
    source=f"{POPE}; Kaplan et al., arXiv:2001.08361, section 2.1",
    doc="One multiplication and one addition a parameter and token. For a mixture of experts P is the active count.",
    rises="P B",
)

declare(
    "decode.weight_bytes",
    "Weight bytes read in a decode step",
    r"M_w",
    b_w * P,
    "B",
    source=POPE,
    doc="Once a step, whatever the batch. Embedding rows that are only looked up are counted as if they were read.",
    rises="b_w P",
)

declare(
    "decode.linear_intensity",
    "Arithmetic intensity of decode's linear layers",
    r"I_{\mathrm{lin}}",
    2 * FLOP * B / b_w,
    "FLOP/B",
    source="2PB FLOPs over b_w P bytes; roofline: Williams, Waterman and Patterson, CACM 52(4), 2009",
    doc="B at FP16, 2B at 8-bit and 4B at 4-bit weights.",
    rises="B",
    falls="b_w",
)

declare(
    "decode.attention_flops",
    "FLOPs of attention in a decode step",
    r"\mathrm{FLOP}_{\mathrm{attn}}",
    4 * FLOP * B * n_layers * n_q * d_h * L,
    "FLOP",
    source="PaLM, arXiv:2204.02311, appendix B (forward part)",
    doc="QKᵀ and PV, 2 FLOP a multiply-add each; softmax is not counted.",
    rises="B n_layers n_q d_h L",
)

declare(
    "decode.attention_intensity",
    "Arithmetic intensity of decode attention",
    r"I_{\mathrm{attn}}",
    2 * FLOP * n_q / (n_kv * b_kv),
    "FLOP/B",
    source="4 n_q d_h L FLOPs over 2 n_kv d_h b_kv L bytes; GQA, arXiv:2305.13245, section 2.2",
    doc="Independent of batch and context: attention cannot be batched out of its bound.",
    valid=(GROUPS,),
    rises="n_q",
    falls="n_kv b_kv",
    limits=(Limit(n_kv, n_q, 2 * FLOP / b_kv),),
)

declare(
    "mla.attention_intensity",
    "Arithmetic intensity of absorbed MLA decode attention",
    r"I_{\mathrm{mla}}",
    2 * FLOP * n_q * (2 * d_c + d_R) / ((d_c + d_R) * b_kv),
    "FLOP/B",
    source="DeepSeek-V2, arXiv:2405.04434, section 2.1",
    doc="Scores use d_c + d_R elements a head, values d_c; one cached row serves all heads.",
    rises="n_q d_c",
    falls="d_R b_kv",
    limits=(Limit(d_R, 0, 4 * FLOP * n_q / b_kv),),
)

declare(
    "decode.weight_time",
    "Time to read the weights once",
    r"t_w",
    b_w * P / beta,
    "s",
    source=POPE,
    rises="b_w P",
    falls="beta",
)

declare(
    "decode.kv_time",
    "Time to read every sequence's cache once",
    r"t_{\mathrm{kv}}",
    B * L * kappa / beta,
    "s",
    source=POPE,
    rises="B L kappa",
    falls="beta",
    limits=(Limit(L, 0, 0),),
)

declare(
    "decode.step_time",
    "Time of a decode step",
    r"t_{\mathrm{step}}",
    Max(b_w * P / beta, 2 * FLOP * P * B / F) + B * L * kappa / beta + t_comm + t_launch,
    "s",
    source="Austin et al., How to Scale Your Model, part 7 (2025), with communication and launches added",
    doc="Linear layers overlap reads and arithmetic; attention is bound by its KV reads; the rest is exposed. One GPU.",
    rises="b_w P B L kappa t_comm t_launch",
    falls="F beta",
    limits=(Limit(B, 0, b_w * P / beta + t_comm + t_launch),),
)

declare(
    "decode.kv_equals_weights_batch",
    "Batch at which KV reads equal weight reads",
    r"B_{\mathrm{kv}=w}",
    b_w * P / (L * kappa),
    "sequences",
    source="b_w P = B L κ",
    valid=(CONTEXT,),
    rises="b_w P",
    falls="L kappa",
)

declare(
    "decode.tpot_floor",
    "Least time per output token",
    r"\mathrm{TPOT}_{\min}",
    (b_w * P + B * L * kappa) / (n_gpu * beta),
    "s",
    source=f"{POPE}: all bytes at full bandwidth",
    doc="A bound: perfect split over N_gpu, no communication, no launch gaps, no speculation.",
    rises="b_w P B L kappa",
    falls="n_gpu beta",
    limits=(Limit(B, 0, b_w * P / (n_gpu * beta)),),
)

declare(
    "decode.mbu",
    "Memory-bandwidth utilization of decode",
    r"\mathrm{MBU}",
    (b_w * P + B * L * kappa) / (n_gpu * beta * tpot),
    "1",
    source="Databricks, LLM Inference Performance Engineering: Best Practices (2023)",
    doc="Bytes a step must move, over what memory could move in that time. Above 1, a cache served reads.",
    rises="b_w P B L kappa",
    falls="n_gpu beta tpot",
)

declare(
    "decode.mfu",
    "Model-FLOPs utilization",
    r"\mathrm{MFU}",
    2 * FLOP * P * throughput / (n_gpu * F),
    "1",
    source="PaLM, arXiv:2204.02311, appendix B, with the forward pass only and attention left out",
    doc="throughput counts all tokens computed in that time, prompt tokens too.",
    rises="P throughput",
    falls="n_gpu F",
)

declare(
    "decode.launch_time",
    "Time to launch a step's kernels one by one",
    r"t_{\mathrm{launch}}",
    n_kernels * t_kernel,
    "s",
    source="definition",
    doc="Where it exceeds the time of the bytes, an eager step is launch-bound. A CUDA graph is launched as one.",
    rises="n_kernels t_kernel",
)

declare(
    "decode.overlap_speedup",
    "Gain from scheduling the next step while this one runs",
    r"S_{\mathrm{overlap}}",
    (t_gpu + t_cpu) / Max(t_gpu, t_cpu),
    "1",
    source="two-stage pipeline against the sum of its stages",
    doc="At most 2, where both times are equal.",
    limits=(Limit(t_cpu, 0, 1), Limit(t_cpu, t_gpu, 2)),
)
