"""Lab 2, the size of a cache: from any config.json, on real cards, and in other people's calculators."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from labcore import facts
from labcore.learn.exercises import Attempt, Exercise, Fault, Mistake, agrees, oracle, trap
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab02_references as ref
from labcore.learn.labs.lab02_tools import published_config

LAB = "lab02"
SIZES = "num_hidden_layers", "num_attention_heads", "hidden_size"
READ = *SIZES[:2], "num_key_value_heads", "head_dim", SIZES[2], "kv_lora_rank", "qk_rope_head_dim"
READ = *READ, "use_sliding_window", "sliding_window", "layer_types"
TOY = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
MODELS = LLAMA3_70B, LLAMA3_8B, *_ = tuple(facts.model(i) for i in ("llama-3-70b", "llama-3-8b", "llama-2-7b"))
FALCON = facts.model("falcon-7b")
A100_GIB = facts.hardware("a100-80-sxm").capacity_bytes / 2**30


def published(id: str, **changes: Any) -> dict[str, Any]:
    """Of a published config.json the fields that count, so that a message can show them."""
    config = published_config(id)
    return {name: config[name] for name in READ if name in config} | changes


def without(*fields: str) -> Callable[[Mapping[str, Any], int], float]:
    """A calculator that does not know these fields of a config."""
    return lambda config, tokens: ref.kv_bytes(config | dict.fromkeys(fields), tokens)


def every_window_full(config: Mapping[str, Any], tokens: int) -> float:
    """A calculator that charges a window for a sequence too short to fill it."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    return ref.kv_bytes(config, max(tokens, window or 0))


@dataclass(frozen=True)
class Calculator:
    """A KV calculator as one meets it: a black box from a config and a number of tokens to bytes."""

    name: str
    formula: Callable[[Mapping[str, Any], int], float]
    blind: str = ""  # what it gets wrong; empty if it is right

    def __call__(self, config: Mapping[str, Any], tokens: int) -> float:
        return self.formula(config, tokens)

    def __repr__(self) -> str:
        return f"calculator {self.name}"


CALCULATORS = (
    Calculator("A", without("num_key_value_heads"), "counts a KV head for every query head"),
    Calculator("B", lambda config, tokens: ref.kv_bytes(config, tokens) / 2, "counts keys and forgets values"),
    Calculator("C", without("head_dim"), "takes hidden_size / heads for the width of a head, whatever head_dim says"),
    Calculator("D", without("kv_lora_rank"), "counts full heads where a model caches a latent"),
    Calculator("E", without("sliding_window", "layer_types"), "knows no windows"),
    Calculator("F", without("layer_types"), "lets every layer slide as soon as there is a window"),
    Calculator(
        "G", lambda c, n: ref.kv_bytes(c | {"use_sliding_window": True}, n), "believes a window that is switched off"
    ),
    Calculator("H", every_window_full, "charges a whole window to a sequence shorter than it"),
    Calculator("I", ref.kv_bytes),
    Calculator("J", lambda config, tokens: 1.02 * ref.kv_bytes(config, tokens)),
)
CLOSE_CALLS = (  # on either side of 5 %
    Calculator("K", lambda config, tokens: 1.04 * ref.kv_bytes(config, tokens)),
    Calculator("L", lambda config, tokens: 0.94 * ref.kv_bytes(config, tokens), "finds 6 % too little everywhere"),
)


def refutes(calculator: Calculator) -> Callable[[Attempt], None]:
    """A stage: any config that refutes the calculator counts; None is right only for one that is right."""

    def stage(attempt: Attempt) -> None:
        got, call = attempt(calculator), attempt.call((calculator,))
        if got is None:
            if calculator.blind:
                raise Fault(f"{call} gave None, but this calculator {calculator.blind}: which config shows it?")
            return
        config, tokens = _config_and_tokens(got, call)
        claimed, truth = calculator(config, tokens), ref.kv_bytes(config, tokens)
        if abs(claimed - truth) > 0.05 * truth:
            return
        where = f"{call} gave a config with {tokens:,} tokens: it says {describe(claimed)} B there, and "
        if not calculator.blind:
            raise Fault(f"{where}{describe(truth)} B are right within 5 %; nothing refutes a right calculator: None")
        raise Fault(f"{where}{describe(truth)} B are right, so that refutes nothing")

    return stage


def _config_and_tokens(got: object, call: str) -> tuple[dict[str, Any], int]:
    """What the reader handed in, taken apart. Raises Fault unless `kv_bytes` can read it."""
    try:
        config, tokens = got
        tokens = operator.index(tokens)
    except (TypeError, ValueError):
        raise Fault(f"{call} gave {describe(got)}, expected a tuple (config, tokens), or None") from None
    if not isinstance(config, dict) or tokens < 1:
        raise Fault(f"{call} gave {describe(got)}, expected a dict like a config.json, and 1 token or more")
    try:
        kinds = config.get("layer_types")
        if kinds and len(kinds) != config["num_hidden_layers"]:
            raise ValueError(f"layer_types names {len(kinds)} of {config['num_hidden_layers']} layers")
        if ref.kv_bytes(config, tokens) > 0 and all(config[name] >= 1 for name in SIZES):
            return config, tokens
        problem = "its sizes are not all positive"
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise Fault(f"{call} gave a config that describes no model ({problem}); it needs at least {', '.join(SIZES)}")


def fit(
    model: facts.ModelConfig,
    context: int,
    n_gpu: int,
    card: float,
    fraction: float,
    overhead: float,
    *,
    gib: int = 2**30,
    gb: int = 10**9,
    weight_ranks: int | None = None,
    heads: int | None = None,
    round_: Callable[[float], int] = int,
) -> int:
    """`sequences_that_fit` with its parts as arguments, to be got wrong on purpose."""
    room = card * gib * fraction - 2 * model.parameters() / (weight_ranks or n_gpu) - overhead * gb
    heads = heads or ceil(model.n_kv_heads / n_gpu)
    return max(0, round_(room / (4 * model.n_layers * heads * model.head_dim * context)))


def drawn_plan(generator) -> tuple:
    """A model, a context, GPUs, a card, and what of it may be used."""
    model = MODELS[generator.integers(len(MODELS))]
    rest = float(generator.uniform(20, 190)), float(generator.uniform(0.5, 1)), float(generator.uniform(0, 5))
    return model, int(generator.integers(500, 30_000)), int(2 ** generator.integers(0, 6)), *rest


EXERCISES = (
    Exercise(
        id="kv.config_bytes",
        lab=LAB,
        title="The cache of any config.json",
        asked="Here is a config.json. How many bytes of KV cache does a sequence of this model take?",
        spec="Write `kv_bytes(config, tokens)`: bytes of one sequence's cache with 2 bytes an element, an integer. "
        "`config` has `num_hidden_layers`, `num_attention_heads`, `hidden_size`, and perhaps, each of them absent or "
        "null where it does not apply: `num_key_value_heads` (else every query head has its own), `head_dim` (else "
        "hidden_size / heads), `kv_lora_rank` with `qk_rope_head_dim` (MLA: a layer keeps that many elements a token "
        "for all heads together), `sliding_window` (a layer keeps only the newest so many tokens; ignored if "
        "`use_sliding_window` is false), `layer_types` (`'sliding_attention'` or another kind for each layer; without "
        "it every layer slides if there is a window).",
        reference=ref.kv_bytes,
        stages=(
            oracle(TOY, 1, gives=128),
            oracle(TOY, 10, gives=1280),
            trap(
                TOY | {"num_key_value_heads": None}, 1, says="without num_key_value_heads all 4 heads count", gives=256
            ),
            trap(published("llama-2-70b"), 4096, says="Llama 2 70B has 64 query heads on 8 KV heads"),
            trap(published("qwen3-0.6b"), 1, says="Qwen3 0.6B: head_dim is 128, not hidden_size / heads"),
            trap(TOY | {"head_dim": None}, 1, says="head_dim is null here, so it is hidden_size / heads", gives=128),
            trap(published("deepseek-v3"), 1, says="MLA: kv_lora_rank + qk_rope_head_dim elements a layer"),
            trap(published("deepseek-v3"), 1000, says="MLA keeps a latent for every token, and there are 1,000"),
            trap(published("mistral-7b-v0.1"), 32_768, says="every layer keeps its newest 4,096 tokens"),
            trap(published("mistral-7b-v0.1"), 1000, says="1,000 tokens do not fill a window of 4,096"),
            trap(published("gpt-oss-20b"), 32_768, says="gpt-oss: 12 of 24 layers slide, see layer_types"),
            trap(
                published("qwen3-0.6b", sliding_window=4096),
                32_768,
                says="use_sliding_window is false: the window is switched off",
            ),
            trap(published("mistral-7b-v0.2"), 32_768, says="sliding_window is null: there is no window"),
            trap(
                TOY | {"kv_lora_rank": None, "layer_types": None, "sliding_window": None},
                1,
                says="a field that is null counts as absent: no latent, no window",
                gives=128,
            ),
            trap(
                TOY
                | {
                    "num_hidden_layers": 3,
                    "sliding_window": 4,
                    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                },
                10,
                says="layer_types: two layers keep 10 tokens, one keeps 4",
                gives=1536,
            ),
            trap(
                TOY | {"sliding_window": 4, "layer_types": ["attention", "sliding_attention"]},
                10,
                says="only 'sliding_attention' slides; a layer of any other kind keeps all 10 tokens",
                gives=896,
            ),
            trap(
                TOY | {"sliding_window": 4, "use_sliding_window": True},
                10,
                says="use_sliding_window is true: the window counts",
                gives=512,
            ),
            agrees(
                lambda g: (
                    {
                        "num_hidden_layers": 6,
                        "num_attention_heads": 12,
                        "hidden_size": 768,
                        "num_key_value_heads": (None, 1, 3, 12)[g.integers(4)],
                        "head_dim": (None, 32, 96)[g.integers(3)],
                        "sliding_window": (None, 512)[g.integers(2)],
                    },
                    int(g.integers(1, 2000)),
                )
            ),
        ),
        mistakes=(
            Mistake("a KV head is counted, not a query head", without("num_key_value_heads")),
            Mistake("head_dim, where it is given, is the width of a head", without("head_dim")),
            Mistake("a key and a value are kept, of 2 bytes an element", lambda c, n: ref.kv_bytes(c, n) // 2),
            Mistake("with MLA the latent is kept instead of keys and values", without("kv_lora_rank")),
            Mistake(
                "one latent serves as key and as value, so no factor 2 for the pair",
                lambda c, n: 2 * ref.kv_bytes(c, n),
            ),
            Mistake("a window caps what its layers keep", without("sliding_window", "layer_types")),
            Mistake("layer_types says which layers slide; the others keep everything", without("layer_types")),
            Mistake("a window caps the tokens, it is not their number", every_window_full),
        ),
        hints=(
            "Elements of one token in one layer, times the tokens that layer keeps, summed over the layers, times 2 "
            "bytes. Only the first factor knows about heads, only the second about windows.",
            "MLA first, it needs nothing else. Then: head_dim or hidden_size // heads; KV heads or heads; the window, "
            "if it is on; one min(tokens, window) for each sliding layer. `config.get(name)` is None for absent and "
            "null alike.",
            '`head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]`',
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
    ),
    Exercise(
        id="kv.fit",
        lab=LAB,
        title="How many sequences fit?",
        asked="Llama 3 70B on four A100 80GB: how many chats of 8K tokens can it hold?",
        spec="Write `sequences_that_fit(model, context, n_gpu, card_gib, fraction, overhead_gb)`: the whole number of "
        "sequences of `context` tokens that fit, 0 if none. Each of `n_gpu` GPUs has `card_gib` **GiB**, of which the "
        "engine may use `fraction`; `overhead_gb` **GB** of that go to activations and buffers. Weights and cache have "
        "2 bytes an element. Weights are split evenly; KV heads as well, but a GPU keeps **whole** heads, at least "
        "one. Use `model.parameters()`, `model.n_layers`, `model.n_kv_heads`, `model.head_dim`.",
        reference=ref.sequences_that_fit,
        stages=(
            trap(LLAMA3_8B, 1000, 1, 20.0, 1.0, 0.0, says="one card of 20 GiB = 21.47 GB beside 16.06 GB of weights"),
            trap(LLAMA3_8B, 1000, 1, 20.0, 0.9, 2.0, says="0.9 of the card is usable, and 2 GB of that are taken"),
            trap(LLAMA3_8B, 1000, 1, 14.0, 1.0, 0.0, says="the weights alone do not fit: 0", gives=0),
            trap(LLAMA3_70B, 8192, 4, A100_GIB, 1.0, 2.0, says="each of the four holds a quarter of both", gives=71),
            trap(LLAMA3_70B, 8192, 4, A100_GIB, 0.92, 2.0, says="a sequence that fits in part does not fit", gives=60),
            trap(LLAMA3_8B, 8192, 16, A100_GIB, 0.9, 2.0, says="8 KV heads on 16 GPUs: every head is there twice"),
            trap(LLAMA3_8B, 8192, 3, A100_GIB, 0.9, 2.0, says="8 KV heads on 3 GPUs: the GPU with 3 of them decides"),
            trap(LLAMA3_8B, 8192, 6, A100_GIB, 0.9, 2.0, says="8 KV heads on 6 GPUs: a GPU with 2 of them decides"),
            trap(FALCON, 2048, 1, A100_GIB, 0.9, 2.0, says="Falcon 7B has one KV head, of 64 channels: model.head_dim"),
            agrees(drawn_plan),
        ),
        mistakes=(
            Mistake("the card is in GiB, 2**30 bytes each", lambda *a: fit(*a, gib=10**9)),
            Mistake("overhead_gb is in GB, 10**9 bytes each", lambda *a: fit(*a, gb=2**30)),
            Mistake("the weights are split over the GPUs", lambda *a: fit(*a, weight_ranks=1)),
            Mistake("a GPU holds its share of the KV heads", lambda *a: fit(*a, heads=a[0].n_kv_heads)),
            Mistake("KV heads are cached, not query heads", lambda *a: fit(*a, heads=ceil(a[0].n_heads / a[2]))),
            Mistake("only `fraction` of the card may be used", lambda *a: fit(*a[:4], 1.0, a[5])),
            Mistake("the overhead is missing", lambda *a: fit(*a[:5], 0.0)),
            Mistake(
                "a GPU keeps whole heads, at least one, and the GPU with the most of them decides",
                lambda *a: fit(*a, heads=a[0].n_kv_heads / a[2]),
            ),
            Mistake("a sequence that fits in part does not fit", lambda *a: fit(*a, round_=ceil)),
        ),
        hints=(
            "Plan one GPU, in bytes. What is on it before the first sequence comes, and what does one sequence add?",
            "room = card_gib · 2³⁰ · fraction − 2P / n_gpu − overhead_gb · 10⁹; a sequence takes 2 (K and V) · layers "
            "· ceil(KV heads / n_gpu) · head_dim · 2 bytes · context. Whole quotient, never below 0.",
            "`heads = -(-model.n_kv_heads // n_gpu)`",
        ),
        difficulty=2,
        importance=3,
        minutes=(6, 10),
    ),
    Exercise(
        id="kv.falsify",
        lab=LAB,
        title="Refute a calculator with one config",
        asked="This KV calculator agrees with the published figure for Llama 3 8B. Do you trust it?",
        spec="A `calculator` takes (config, tokens) and returns the bytes of one sequence's cache; it claims to be "
        "right for every model. Write `refute(calculator)`: return a tuple **(config, tokens)** on which it is more "
        "than 5 % off, or `None` if it is right. The config is a dict of your own making with the fields that "
        "`kv_bytes` reads (`num_hidden_layers`, `num_attention_heads` and `hidden_size` at least). Figures that are "
        "merely rounded are right. Any counterexample counts; `kv_bytes` is at hand.",
        reference=ref.refute,
        stages=tuple(refutes(one) for one in CALCULATORS + CLOSE_CALLS),
        hints=(
            "A wrong calculator is usually right about some models: it fails to read a field, and shows it only on a "
            "model that has the field. Which fields does yours read?",
            "Keep a small gallery of configs, one for each thing a config can say (absent, grouped, wider heads, "
            "latent, window, window in some layers, window switched off). Try each at a short and at a long length.",
            '`PLAIN = {"num_hidden_layers": 4, "num_attention_heads": 8, "hidden_size": 512}`',
        ),
        difficulty=3,
        importance=3,
        minutes=(8, 12),
    ),
)
