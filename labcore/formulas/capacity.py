"""Does it fit: memory of one GPU, its share of the weights, and what is left for the cache.

All per GPU, with weights and KV split evenly over N_gpu ranks. KV splits evenly up to n_kv ranks; beyond that use
kv.tp.bytes_per_token for κ/N_gpu.
"""

# ruff: noqa: F403, F405 (the symbols of the book, all of them)

from sympy import Max, floor, oo

from labcore.formulas.conditions import CONTEXT
from labcore.formulas.registry import Limit, declare
from labcore.formulas.symbols import *

FREE = memory * memory_fraction - b_w * P / n_gpu - overhead
ENGINE = "vLLM, vllm/config/cache.py: gpu_memory_utilization; weights split by tensor parallelism"

declare(
    "kv.capacity.weights",
    "Weight bytes on one GPU",
    r"M_{w,\mathrm{gpu}}",
    b_w * P / n_gpu,
    "B",
    source=ENGINE,
    rises="b_w P",
    falls="n_gpu",
)

declare(
    "kv.capacity.free",
    "Memory left for KV on one GPU",
    r"M_{\mathrm{free}}",
    FREE,
    "B",
    source=ENGINE,
    doc="Negative when the weights and the overhead alone do not fit.",
    rises="memory memory_fraction n_gpu",
    falls="b_w P overhead",
    limits=(Limit(overhead, 0, memory * memory_fraction - b_w * P / n_gpu),),
)

declare(
    "kv.capacity.needed",
    "KV bytes that B sequences of L tokens need on one GPU",
    r"M_{\mathrm{need}}",
    B * L * kappa / n_gpu,
    "B",
    source="kv.bytes over the ranks",
    rises="B L kappa",
    falls="n_gpu",
)

declare(
    "kv.capacity.headroom",
    "Memory to spare on one GPU",
    r"M_{\mathrm{head}}",
    FREE - B * L * kappa / n_gpu,
    "B",
    source="kv.capacity.free less kv.capacity.needed",
    doc="It fits if this is 0 or more.",
    rises="memory memory_fraction n_gpu",
    falls="b_w P overhead B L kappa",
    limits=(Limit(L, 0, "kv.capacity.free"),),
)

declare(
    "kv.capacity.sequences",
    "Sequences of L tokens that fit",
    r"B_{\max}",
    Max(0, floor(n_gpu * FREE / (L * kappa))),
    "sequences",
    source=ENGINE,
    doc="Every sequence at full length; 0 when the weights alone do not fit.",
    valid=(CONTEXT,),
    rises="memory memory_fraction n_gpu",
    falls="b_w P overhead L kappa",
    limits=(Limit(kappa, oo, 0),),
)

declare(
    "capacity.lora_bytes",
    "Bytes of one LoRA adapter on the four attention projections",
    r"M_{\mathrm{lora}}",
    2 * b_w * n_layers * lora_rank * (2 * hidden + (n_q + n_kv) * d_h),
    "B",
    source="LoRA, arXiv:2106.09685, section 4.1: r (d_in + d_out) parameters for each adapted matrix",
    doc="Query, key, value and output projections. MLP matrices, where adapted, come on top and are wider.",
    rises="b_w n_layers lora_rank hidden n_q n_kv d_h",
)
