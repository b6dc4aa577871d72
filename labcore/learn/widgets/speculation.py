"""The draft-length planner: whether speculation pays at a batch and a context, and with how many drafts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labcore.learn.widgets.calculator import Calculator
from labcore.learn.widgets.controls import KV_FORMATS, PRECISIONS, whole
from labcore.learn.widgets.roofline import NO_WAITING

LONGEST = 16  # drafts that the slider and the search for the best length go up to
# A mixture of experts reads more of its weights for more tokens: `b_read` and `b_ver` are bytes read a parameter that
# computes, in a plain step and in a verification.
TOKENS = [
    {"id": "places", "sum": [["K", 1], [1, 1]]},
    {"id": "T_ver", "product": ["B", "places"]},
    {"id": "read", "formula": "moe.bytes_read", "when": [["moe", "=", 1]]},
    {"id": "read", "formula": "decode.weight_bytes", "with": {"P": "P_total"}, "when": [["moe", "=", 0]]},
    {"id": "read_ver", "formula": "moe.bytes_read", "with": {"B": "T_ver"}, "when": [["moe", "=", 1]]},
    {"id": "read_ver", "ratio": ["read", 1], "when": [["moe", "=", 0]]},
    {"id": "b_read", "ratio": ["read", "P"]},
    {"id": "b_ver", "ratio": ["read_ver", "P"]},
    {"id": "more_experts", "ratio": ["read_ver", "read"]},
]
ATTENTION = [
    {"id": "R", "formula": "roofline.ridge"},
    {"id": "I_attention", "formula": "mla.attention_intensity", "when": [["mla", "=", 1]]},
    {"id": "I_attention", "formula": "decode.attention_intensity", "when": [["mla", "=", 0]]},
    {"id": "I_ver", "product": ["I_attention", "places"]},
    {"id": "attention_flops", "formula": "decode.attention_flops", "with": {"L": "L_kv"}},
]


def _time(name: str, tokens: str, read: str, intensity: str, flops: str) -> list[dict[str, Any]]:
    """Steps for a pass whose attention is bound by arithmetic: the linear layers, then attention at full rate."""
    return [
        {"id": f"{name}_linear", "formula": "roofline.pass_time", "with": {"b_w": read, "T": tokens}},
        {"id": f"{name}_attention", "ratio": [flops, "F"]},
        {
            "id": name,
            "sum": [[f"{name}_linear", 1], [f"{name}_attention", 1]],
            "when": [[intensity, ">=", "R"]],
        },
    ]


TIMES = [
    *_time("t_step", "B", "b_read", "I_attention", "attention_flops"),
    {"id": "t_step", "formula": "decode.step_time", "with": {"b_w": "b_read", "L": "L_kv"} | NO_WAITING},
    {"id": "flops_ver", "product": ["attention_flops", "places"]},
    *_time("t_ver", "T_ver", "b_ver", "I_ver", "flops_ver"),
    {"id": "t_ver", "formula": "speculation.verify_time", "with": {"b_w": "b_ver", "L": "L_kv"}},
    {"id": "t_draft", "product": ["c", "t_step"]},
]
EXCHANGE = [
    {"id": "v", "ratio": ["t_ver", "t_step"]},
    {"id": "tokens", "formula": "speculation.expected_tokens"},
    {"id": "accepted", "formula": "speculation.accepted_drafts"},
    {"id": "gain", "formula": "speculation.gain"},
    {"id": "gain_free", "formula": "speculation.speedup"},
    {"id": "plain", "ratio": [1, 1]},
    {"id": "rate", "formula": "speculation.rate"},
    {"id": "K_best", "best": "K", "to": LONGEST, "value": "gain"},
    {"id": "gain_best", "at": "K", "from": "K_best", "value": "gain"},
]
SUMMARY = [
    {
        "when": [["gain_best", "<", 1]],
        "text": "Do not speculate here: a verification takes {v} times as long as a plain step and yields {tokens} "
        "tokens, and even the best length, K = {K_best}, reaches only {gain_best|×}.",
    },
    {
        "when": [["gain", "<", 1]],
        "text": "K = {K} loses: a verification takes {v} times as long as a plain step and yields {tokens} tokens, "
        "{gain|×} once the drafts are paid. K = {K_best} would give {gain_best|×}.",
    },
    {
        "when": [["gain", ">=", 1]],
        "text": "K = {K} gives {gain|×}: a verification takes {v} times as long as a plain step and yields {tokens} "
        "tokens. Best is K = {K_best} with {gain_best|×}.",
    },
    {
        "text": "How many parameters this model_type has cannot be told from its config.json; the {tokens} tokens of a "
        "verification depend on α and K alone."
    },
]
RESULTS = [
    {"id": "tokens", "label": "Tokens that a verification yields", "unit": "tokens"},
    {"id": "accepted", "label": "Drafts among them", "unit": "tokens"},
    {"id": "t_step", "label": "Time of a plain step", "unit": "s"},
    {"id": "t_draft", "label": "Time of a draft step", "unit": "s"},
    {"id": "t_ver", "label": "Time of a verification", "unit": "s"},
    {"id": "v", "label": "A verification in plain steps", "unit": "1"},
    {"id": "more_experts", "label": "Weights it reads, over a plain step's (mixtures: more experts)", "unit": "×"},
    {"id": "gain", "label": "Speed-up", "unit": "×", "shape": "circle", "hue": "decode"},
    {
        "id": "gain_free",
        "label": "Speed-up if a verification cost a plain step",
        "unit": "×",
        "shape": "square",
        "hue": "prefill",
    },
    {"id": "rate", "label": "Output rate of one sequence", "unit": "tok/s"},
    {"id": "K_best", "label": f"Best draft length up to {LONGEST}", "unit": "tokens"},
    {"id": "gain_best", "label": "Speed-up there", "unit": "×"},
]
CHART = {
    "kind": "curve",
    "input": "K",
    "results": [
        {"value": "gain", "label": "at this batch and context", "hue": "decode"},
        {"value": "gain_free", "label": "if a verification cost a plain step", "hue": "prefill"},
        {"value": "plain", "label": "plain decoding", "hue": "waste"},
    ],
    "log": [False, False],
    "unit": "×",
    "xTitle": "drafted tokens, K",
    "yTitle": "speed-up over plain decoding (×)",
}


def draft_planner(
    model: str | Mapping[str, Any] = "llama-3-70b",
    hardware: str = "h100-sxm",
    precision: str = "bf16",
    kv: str = "16",
    batch: int = 1,
    context: int = 2048,
    alpha: float = 0.8,
    cost: float = 0.05,
    drafts: int = 5,
) -> Calculator:
    """Speed-up of speculative decoding over the number of drafts, with the best one, K*.

    model: the target, an id of `facts` or a Hugging Face config; precision and kv: values of PRECISIONS and KV_FORMATS;
    alpha: probability that a draft is kept, the same for each; cost: a draft step's time in plain steps of the target
    at this batch. Counts bytes and FLOPs only, as the roofline explorer does; a group of devices that splits both
    evenly gains the same. Raises InputError for an unknown id or a value out of range.
    """
    plain = {"kind": "number", "unit": ""}
    controls = [
        plain | {"id": "alpha", "label": "Acceptance α", "value": alpha, "low": 0.05, "high": 0.99, "step": 0.01},
        plain
        | {"id": "c", "label": "Cost c of a draft step", "value": cost, "low": 0, "high": 0.5, "step": 0.005}
        | {"hint": "In plain steps of the target: 0.11 for an 8B draft of a 70B target by bytes, about 0 for n-grams."},
        plain | {"id": "K", "label": "Drafts K", "value": drafts, "low": 1, "high": LONGEST, "integer": True},
        whole("B", "Batch", "sequences", batch, 1, 1024),
        whole("L", "Context", "tokens", context, 1, 2**20),
        {"id": "model", "kind": "model", "label": "Target", "value": model},
        {"id": "hardware", "kind": "hardware", "label": "Device", "value": hardware},
        {
            "id": "precision",
            "kind": "precision",
            "label": "Weights",
            "of": "hardware",
            "value": precision,
            "choices": PRECISIONS,
        },
        {"id": "kv", "kind": "choice", "label": "KV cache", "value": kv, "choices": KV_FORMATS},
    ]
    return Calculator(
        {
            "title": "Draft-length planner",
            "about": "K drafts one after the other, then one pass of the target over K + 1 tokens of every sequence.",
            "inputs": controls,
            "steps": TOKENS + ATTENTION + TIMES + EXCHANGE,
            "summary": SUMMARY,
            "results": RESULTS,
            "chart": CHART,
        }
    )
