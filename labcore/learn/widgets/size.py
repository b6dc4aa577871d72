"""The model-size calculator: what a quantized checkpoint really takes, scales and unquantized parts counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labcore.learn.widgets.calculator import Calculator
from labcore.learn.widgets.controls import any_model, memory_chart, segment

ROW = 8192  # weights of one output row in a 70B model: what a scale a row is shared by


def _format(
    value: str, label: str, bits: int, b_scale: int, b_zero: int, G: int, b_super: int = 0, n_super: int = 1
) -> dict[str, Any]:
    of = {"bits": bits, "b_scale": b_scale, "b_zero": b_zero, "G": G, "b_super": b_super, "n_super": n_super}
    return {"value": value, "label": label, "set": of}


FORMATS = [
    _format("8", "INT8 or FP8, a scale a row", 8, 16, 0, ROW),
    _format("q8_0", "GGUF Q8_0", 8, 16, 0, 32),
    _format("q6_k", "GGUF Q6_K", 6, 8, 0, 16, 16, 16),
    _format("q4_k", "GGUF Q4_K", 4, 6, 6, 32, 32, 8),
    _format("int4-32", "INT4 in groups of 32 (GPTQ, AWQ)", 4, 16, 4, 32),
    _format("int4-64", "INT4 in groups of 64", 4, 16, 4, 64),
    _format("int4-128", "INT4 in groups of 128", 4, 16, 4, 128),
    _format("int4-row", "INT4, a scale a row", 4, 16, 4, ROW),
    _format("nf4", "NF4, blocks of 64", 4, 32, 0, 64),
    _format("nf4-dq", "NF4 with double quantization", 4, 8, 0, 64, 32, 256),
    _format("mxfp4", "MXFP4", 4, 8, 0, 32),
    _format("nvfp4", "NVFP4", 4, 8, 0, 16),
    _format("int3-128", "INT3 in groups of 128", 3, 16, 3, 128),
    _format("q2_k", "GGUF Q2_K", 2, 4, 4, 16, 32, 16),
]
KEPT = [
    {"value": "embeddings", "label": "embedding and head", "set": {"kept": 0}},
    {"value": "all but experts", "label": "everything but the experts (mixtures)", "set": {"kept": 1}},
    {"value": "nothing", "label": "nothing", "set": {"kept": 2}},
]
STEPS = [
    {"id": "b_bar", "formula": "quant.two_level_bits"},
    {"id": "n_experts", "product": ["n_moe", "E"]},
    {"id": "P_experts", "product": ["n_experts", "P_expert"]},
    {"id": "P_keep", "when": [["kept", "=", 2]], "sum": [["P_total", 0]]},
    {"id": "P_keep", "when": [["kept", "=", 1], ["moe", "=", 1]], "sum": [["P_total", 1], ["P_experts", -1]]},
    {"id": "P_keep", "sum": [["P_embed", 1]]},
    {"id": "P_lin", "sum": [["P_total", 1], ["P_keep", -1]]},
    {"id": "wide", "product": ["P_total", 2]},
    {"id": "narrow", "formula": "quant.model_bytes", "with": {"b_w": 2}},
    {"id": "kept_bytes", "product": ["P_keep", 2]},
    {"id": "code_bits", "product": ["P_lin", "bits"]},
    {"id": "codes", "ratio": ["code_bits", 8]},
    {"id": "scales", "sum": [["narrow", 1], ["kept_bytes", -1], ["codes", -1]]},
    {"id": "promised_bits", "product": ["P_total", "bits"]},
    {"id": "promised", "ratio": ["promised_bits", 8]},
    {"id": "smaller", "ratio": ["wide", "narrow"]},
    {"id": "more", "ratio": ["narrow", "promised"]},
    {"id": "bound", "formula": "quant.speedup_bound", "with": {"b_w": 2}},
    {"id": "room", "sum": [["memory", 1], ["narrow", -1]]},
]
SUMMARY = [
    {
        "when": [["room", ">=", 0]],
        "text": "{narrow|B}, {smaller|×} smaller than in 16 bits. The format's name promises {promised|B}.",
    },
    {
        "when": [["room", "<", 0]],
        "text": "{narrow|B}, {smaller|×} smaller than in 16 bits, and more than one device holds. "
        "The format's name promises {promised|B}.",
    },
    {"text": "How many parameters this model_type has cannot be told from its config.json."},
]
RESULTS = [
    {"id": "b_bar", "label": "Bits a quantized weight", "unit": "1"},
    {"id": "codes", "label": "Codes", "unit": "B"},
    {"id": "scales", "label": "Scales and zeros", "unit": "B"},
    {"id": "kept_bytes", "label": "What stays in 16 bits", "unit": "B"},
    {"id": "narrow", "label": "Whole model", "unit": "B"},
    {"id": "wide", "label": "The same in 16 bits", "unit": "B"},
    {"id": "promised", "label": "All parameters at the name's bits", "unit": "B"},
    {"id": "more", "label": "Real over promised size", "unit": "×"},
    {"id": "bound", "label": "Bound on a quantized layer's speed-up at batch 1", "unit": "×"},
    {"id": "room", "label": "Left on one device", "unit": "B"},
]
CHART = memory_chart(
    "one device",
    segment("codes", "codes", "decode", pattern=False),
    segment("scales", "scales and zeros", "highlight", pattern=True),
    segment("kept_bytes", "kept in 16 bits", "prefill", pattern=True),
    segment("room", "left for everything else", "free", pattern=False, spare=True),
)


def size_calculator(
    model: str | Mapping[str, Any] = "llama-2-70b",
    format: str = "int4-128",
    kept: str = "embeddings",
    hardware: str = "a100-40-sxm",
) -> Calculator:
    """Bytes of a quantized model: codes, their scales, and what is left in 16 bits.

    model: an id of `facts` or a Hugging Face config; format and kept: values of FORMATS and KEPT. Norms count with the
    quantized weights, a few hundred thousandths of a model. Raises InputError for an unknown id or value.
    """
    controls = [
        any_model(model),
        {"id": "format", "kind": "choice", "label": "Weights", "value": format, "choices": FORMATS},
        {"id": "kept", "kind": "choice", "label": "Kept in 16 bits", "value": kept, "choices": KEPT},
        {"id": "hardware", "kind": "hardware", "label": "Device", "value": hardware},
    ]
    return Calculator(
        {
            "title": "True model size",
            "about": "Scales, zeros and everything that keeps 16 bits, in GB (10⁹ B) and GiB (2³⁰ B).",
            "inputs": controls,
            "steps": STEPS,
            "summary": SUMMARY,
            "results": RESULTS,
            "chart": CHART,
        }
    )
