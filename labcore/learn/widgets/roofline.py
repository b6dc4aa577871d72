"""The roofline explorer: where one decode step stands on one device, and what would move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labcore.learn.widgets.calculator import Calculator
from labcore.learn.widgets.controls import KV_FORMATS, PRECISIONS, whole

# Absorbed by formulas that speak of b_w: bytes read per parameter that computes, which a mixture of experts raises.
READS = [
    {"id": "weights_read", "formula": "moe.bytes_read", "when": [["moe", "=", 1]]},
    {"id": "weights_read", "formula": "decode.weight_bytes", "with": {"P": "P_total"}, "when": [["moe", "=", 0]]},
    {"id": "b_read", "ratio": ["weights_read", "P"]},
]
INTENSITIES = [
    {"id": "R", "formula": "roofline.ridge"},
    {"id": "I_linear", "formula": "decode.linear_intensity", "with": {"b_w": "b_read"}},
    {"id": "I_attention", "formula": "mla.attention_intensity", "when": [["mla", "=", 1]]},
    {"id": "I_attention", "formula": "decode.attention_intensity", "when": [["mla", "=", 0]]},
    {"id": "I_step", "formula": "roofline.intensity_kv", "with": {"b_w": "b_read", "L": "L_kv"}},
    {"id": "I_limit", "formula": "roofline.intensity_limit", "with": {"L": "L_kv"}},
    {"id": "prompt_read", "formula": "moe.bytes_read", "with": {"B": "L"}, "when": [["moe", "=", 1]]},
    {"id": "prompt_read", "ratio": ["weights_read", 1], "when": [["moe", "=", 0]]},
    {"id": "b_prompt", "ratio": ["prompt_read", "P"]},
    {"id": "I_prompt", "formula": "roofline.pass_intensity", "with": {"T": "L", "b_w": "b_prompt"}},
]
CROSSOVERS = [
    {"id": "B_star", "formula": "roofline.crossover_batch", "when": [["moe", "=", 0]]},
    {"id": "B_star", "search": "B", "value": "I_linear", "reaches": "R", "when": [["moe", "=", 1]]},
    {
        "id": "B_star_kv",
        "formula": "roofline.crossover_batch_kv",
        "with": {"L": "L_kv"},
        "when": [["moe", "=", 0], ["R", "<", "I_limit"]],
    },
    {
        "id": "B_star_kv",
        "search": "B",
        "value": "I_step",
        "reaches": "R",
        "when": [["moe", "=", 1], ["R", "<", "I_limit"]],
    },
    # in tokens of context only where every layer keeps them all
    {"id": "L_max", "formula": "roofline.max_context", "when": [["I_attention", "<", "R"], ["L", "=", "L_kv"]]},
]
NO_WAITING = {"t_comm": 0, "t_launch": 0}
TIMES = [
    {"id": "t_linear", "formula": "roofline.pass_time", "with": {"b_w": "b_read", "T": "B"}},
    {"id": "attention_flops", "formula": "decode.attention_flops", "with": {"L": "L_kv"}},
    {"id": "attention_rate", "formula": "roofline.attainable", "with": {"intensity": "I_attention"}},
    {"id": "t_attention", "ratio": ["attention_flops", "attention_rate"]},
    {
        "id": "t_step",
        "formula": "decode.step_time",
        "with": {"b_w": "b_read", "L": "L_kv"} | NO_WAITING,
        "when": [["I_attention", "<", "R"]],
    },
    {"id": "t_step", "sum": [["t_linear", 1], ["t_attention", 1]]},  # attention itself bound by arithmetic
    {"id": "tokens_per_s", "ratio": ["B", "t_step"]},
]
SUMMARY = [
    {
        "when": [["I_step", ">=", "R"]],
        "text": "Compute-bound: {I_step} FLOP/B, past the ridge at {R}. One step takes {t_step|s} for {B} tokens.",
    },
    {
        "when": [["R", "<", "I_limit"]],
        "text": "Memory-bound: {I_step} FLOP/B, below the ridge at {R}. One step takes {t_step|s}, {t_attention|s} of "
        "it for the KV cache; from batch {B_star_kv} it would be compute-bound.",
    },
    {
        "when": [["I_step", "<", "R"]],
        "text": "Memory-bound: {I_step} FLOP/B, below the ridge at {R}. One step takes {t_step|s}, {t_attention|s} of "
        "it for the KV cache; at this context no batch makes it compute-bound.",
    },
    {"text": "How many parameters this model_type has cannot be told from its config.json; the KV rows still hold."},
]
RESULTS = [
    {
        "id": "I_linear",
        "label": "Intensity of the linear layers",
        "unit": "FLOP/B",
        "shape": "square",
        "hue": "decode",
        "hollow": True,
    },
    {
        "id": "I_attention",
        "label": "Intensity of attention, any batch",
        "unit": "FLOP/B",
        "shape": "triangle",
        "hue": "kv",
    },
    {"id": "I_step", "label": "Intensity of the whole step", "unit": "FLOP/B", "shape": "circle", "hue": "decode"},
    {
        "id": "I_limit",
        "label": "Its limit at unbounded batch",
        "unit": "FLOP/B",
        "shape": "circle",
        "hue": "decode",
        "hollow": True,
    },
    {
        "id": "I_prompt",
        "label": "Intensity of prefilling one such prompt",
        "unit": "FLOP/B",
        "shape": "diamond",
        "hue": "prefill",
    },
    {"id": "R", "label": "Ridge point", "unit": "FLOP/B"},
    {"id": "B_star", "label": "Crossover batch, linear layers only", "unit": "sequences"},
    {
        "id": "B_star_kv",
        "label": "Crossover batch with KV reads",
        "unit": "sequences",
        "otherwise": [{"text": "none: even unbounded batches stay below the ridge"}],
    },
    {
        "id": "L_max",
        "label": "Context beyond which no batch crosses",
        "unit": "tokens",
        "otherwise": [
            {"when": [["I_attention", ">=", "R"]], "text": "none: attention alone is past the ridge"},
            {"text": "not one number: windows keep {L_kv} tokens a layer"},
        ],
    },
    {"id": "t_linear", "label": "Time for the linear layers", "unit": "s"},
    {"id": "t_attention", "label": "Time for attention over the cache", "unit": "s"},
    {"id": "t_step", "label": "Time of the step", "unit": "s"},
    {"id": "tokens_per_s", "label": "Output rate", "unit": "tok/s"},
]
CHART = {
    "kind": "roofline",
    "bandwidth": "beta",
    "roofs": [
        {"peak": "F", "label": "peak in use:"},
        {"peak": "peak_bf16", "label": "BF16:"},
        {"peak": "peak_fp8", "label": "FP8:"},
        {"peak": "peak_fp4", "label": "FP4:"},
    ],
    "points": [
        {"intensity": "I_prompt", "label": "prefill of one prompt", "shape": "diamond", "hue": "prefill"},
        {"intensity": "I_limit", "label": "limit of any batch", "shape": "circle", "hue": "decode", "hollow": True},
        {"intensity": "I_linear", "label": "linear layers", "shape": "square", "hue": "decode", "hollow": True},
        {"intensity": "I_attention", "label": "attention", "shape": "triangle", "hue": "kv"},
        {"intensity": "I_step", "label": "whole decode step", "shape": "circle", "hue": "decode"},
    ],
}


def roofline_explorer(
    hardware: str = "h100-sxm",
    model: str | Mapping[str, Any] = "llama-3-70b",
    precision: str = "bf16",
    kv: str = "16",
    batch: int = 32,
    context: int = 4096,
) -> Calculator:
    """One decode step of `batch` sequences at `context` tokens on the roofline of one device.

    hardware: an id of `facts`; model: an id or a Hugging Face config; precision and kv: values of PRECISIONS and
    KV_FORMATS. Counts bytes and FLOPs only: no communication, no launch gaps, and it does not ask whether the model
    fits (kv_calculator does). Raises InputError for an unknown id or a rate the device lacks.
    """
    device = {"id": "hardware", "kind": "hardware", "label": "Device", "value": hardware}
    return Calculator(explorer_spec(device, model, precision, kv, batch, context))


def explorer_spec(
    device: Mapping[str, Any],
    model: str | Mapping[str, Any],
    precision: str,
    kv: str,
    batch: int,
    context: int,
    precisions: Sequence[Mapping[str, Any]] = PRECISIONS,
    kv_formats: Sequence[Mapping[str, Any]] = KV_FORMATS,
) -> dict[str, Any]:
    """What a roofline explorer is made of; `device` is its hardware control, the rest as in `roofline_explorer`."""
    controls = [
        device,
        {
            "id": "precision",
            "kind": "precision",
            "label": "Weights",
            "of": device["id"],
            "value": precision,
            "choices": precisions,
            "hint": "Weight-only formats compute in 16 bits and keep that roof. Only W8A8 and FP4 math raise it.",
        },
        {"id": "kv", "kind": "choice", "label": "KV cache", "value": kv, "choices": kv_formats},
        {"id": "model", "kind": "model", "label": "Model", "value": model},
        whole("B", "Batch", "sequences", batch, 1, 1024),
        whole("L", "Context", "tokens", context, 1, 2**20),
    ]
    return {
        "title": "Roofline explorer",
        "about": "One decode step on one device: every sequence of the batch gets one token.",
        "inputs": controls,
        "steps": READS + INTENSITIES + CROSSOVERS + TIMES,
        "summary": SUMMARY,
        "results": RESULTS,
        "chart": CHART,
    }
