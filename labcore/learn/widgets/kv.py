"""The KV-cache calculator: what a model's cache takes on a group of GPUs, and how many sequences fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labcore.learn.widgets.calculator import Calculator
from labcore.learn.widgets.controls import KV_FORMATS, any_model, memory_chart, segment, whole

WEIGHT_FORMATS = [
    {"value": "16", "label": "BF16 or FP16 (2 B)", "set": {"b_w": 2}},
    {"value": "8", "label": "8-bit (1 B)", "set": {"b_w": 1}},
    {"value": "4.25", "label": "4-bit in groups of 128 (4.25 bits)", "set": {"b_w": 4.25 / 8}},
    {"value": "4", "label": "4-bit, without scales (0.5 B)", "set": {"b_w": 0.5}},
]
GROUPS = [{"value": str(n), "label": f"{n} GPU{'s' * (n > 1)}", "set": {"n_gpu": n}} for n in (1, 2, 4, 8, 16)]
# Tensor parallelism hands out whole KV heads: with fewer heads than ranks (MLA counts as one) the ranks hold copies.
PER_GPU = {"P": "P_total", "L": "L_kv", "kappa": "kappa_stored"}
STEPS = [
    {"id": "copies", "formula": "kv.tp.replication"},
    {"id": "kappa_stored", "product": ["kappa", "copies"]},
    {"id": "group", "formula": "kv.group_size", "when": [["mla", "=", 0]]},
    {"id": "kv_total", "formula": "kv.bytes", "with": {"L": "L_kv"}},
    {"id": "weights", "formula": "decode.weight_bytes", "with": {"P": "P_total"}},
    {"id": "B_weights", "formula": "kv.sequences_per_weights", "with": {"P": "P_total", "L": "L_kv"}},
    {"id": "weights_gpu", "formula": "kv.capacity.weights", "with": PER_GPU},
    {"id": "kv_gpu", "formula": "kv.capacity.needed", "with": PER_GPU},
    {"id": "free_gpu", "formula": "kv.capacity.free", "with": PER_GPU},
    {"id": "headroom", "formula": "kv.capacity.headroom", "with": PER_GPU},
    {"id": "B_max", "formula": "kv.capacity.sequences", "with": PER_GPU},
    {"id": "usable", "product": ["memory", "memory_fraction"]},
    {"id": "reserved", "sum": [["memory", 1], ["usable", -1]]},
]
SUMMARY = [
    {
        "when": [["free_gpu", "<", 0]],
        "text": "The weights do not fit: {weights_gpu|B} and the overhead on each GPU, {usable|B} usable. Take more "
        "GPUs or narrower weights.",
    },
    {
        "when": [["headroom", "<", 0]],
        "text": "{B} sequences do not fit: they need {kv_gpu|B} of KV on each GPU, {free_gpu|B} is free. "
        "At most {B_max} do.",
    },
    {
        "when": [["headroom", ">=", 0]],
        "text": "{B} sequences fit: {kv_gpu|B} of KV on each GPU, {headroom|B} to spare. At most {B_max} would fit.",
    },
    {"text": "How many parameters this model_type has cannot be told from its config.json; its cache can be sized."},
]
RESULTS = [
    {"id": "kappa", "label": "KV cache of one token", "unit": "B/token"},
    {
        "id": "group",
        "label": "Smaller than with a KV head for each query head",
        "unit": "×",
        "otherwise": [{"text": "latents, not heads (MLA)"}],
    },
    {"id": "kv_sequence", "label": "KV of one sequence", "unit": "B"},
    {"id": "kv_total", "label": "KV of all sequences", "unit": "B"},
    {"id": "weights", "label": "Weights", "unit": "B"},
    {"id": "B_weights", "label": "KV outgrows the weights at sequence", "unit": "1"},
    {"id": "weights_gpu", "label": "Weights on each GPU", "unit": "B"},
    {"id": "copies", "label": "Copies of the cache over the GPUs", "unit": "1"},
    {"id": "free_gpu", "label": "Left for KV on each GPU", "unit": "B"},
    {"id": "kv_gpu", "label": "KV needed on each GPU", "unit": "B"},
    {"id": "headroom", "label": "To spare on each GPU", "unit": "B"},
    {"id": "B_max", "label": "Most sequences of this length", "unit": "sequences"},
]
CHART = memory_chart(
    "one GPU",
    segment("weights_gpu", "weights", "decode", pattern=False),
    segment("overhead", "activations, graphs, workspace", "highlight", pattern=True),
    segment("kv_gpu", "KV cache", "kv", pattern=True),
    segment("headroom", "to spare", "free", pattern=False, spare=True),
    segment("reserved", "outside the memory fraction", "waste", pattern=True, spare=True),
)


def kv_calculator(
    model: str | Mapping[str, Any] = "llama-3-70b",
    hardware: str = "h100-sxm",
    gpus: int = 4,
    context: int = 8192,
    sequences: int = 32,
    weights: str = "16",
    kv: str = "16",
    memory_fraction: float = 0.9,
    overhead: float = 2e9,
) -> Calculator:
    """KV cache and weights of `sequences` sequences of `context` tokens on a tensor-parallel group of `gpus` GPUs.

    model: an id of `facts` or a Hugging Face config; weights and kv: values of WEIGHT_FORMATS and KV_FORMATS;
    memory_fraction: share of a GPU the engine may use; overhead: bytes per GPU for everything but weights and KV.
    Windows count as kept by an engine that frees what has left them; the rest of a last block, about half a block a
    sequence, is left out. Raises InputError for an unknown id or value.
    """
    controls = [
        any_model(model),
        whole("L", "Context", "tokens", context, 1, 2**20),
        whole("B", "Concurrent sequences", "", sequences, 1, 4096),
        {"id": "kv", "kind": "choice", "label": "KV cache", "value": kv, "choices": KV_FORMATS},
        {"id": "weights", "kind": "choice", "label": "Weights", "value": weights, "choices": WEIGHT_FORMATS},
        {"id": "hardware", "kind": "hardware", "label": "Device", "value": hardware},
        {"id": "gpus", "kind": "choice", "label": "Tensor-parallel group", "value": str(gpus), "choices": GROUPS},
        {
            "id": "memory_fraction",
            "kind": "number",
            "label": "Share of memory the engine may use",
            "value": memory_fraction,
            "low": 0.5,
            "high": 1,
            "step": 0.01,
        },
        {
            "id": "overhead",
            "kind": "number",
            "label": "Overhead on each GPU",
            "unit": "GB",
            "scale": 1e9,
            "value": overhead,
            "low": 0,
            "high": 16e9,
            "step": 0.25e9,
        },
    ]
    return Calculator(
        {
            "title": "KV-cache calculator",
            "about": "KV heads, windows and latents are counted as the config says, in GB (10⁹ B) and GiB (2³⁰ B).",
            "inputs": controls,
            "steps": STEPS,
            "summary": SUMMARY,
            "results": RESULTS,
            "chart": CHART,
        }
    )
