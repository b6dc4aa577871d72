"""What published configs must come to. Elements per token are written out as the products they are.

parameters: as the model's repository or paper counts them (transformers is asked as well, in test_oracle.py).
kv: (tokens, elements kept by one sequence); elements, so that no byte width hides a mistake.
"""

from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent / "configs"
PRESETS = Path(__file__).parents[2] / "labcore" / "facts" / "configs"
FOLDERS = (PRESETS, HERE)


@dataclass(frozen=True)
class Golden:
    name: str
    parameters: int | None
    elements_per_token: int
    kv: dict[int, int] = field(default_factory=dict)
    trap: str = ""
    active: int | None = None

    @property
    def path(self) -> Path:
        return next(path for folder in FOLDERS if (path := folder / f"{self.name}.json").exists())


def windowed(full_layers: int, sliding_layers: int, window: int, per_layer: int, tokens: int) -> int:
    return per_layer * (full_layers * tokens + sliding_layers * min(window, tokens))


GOLDEN = [
    Golden("gpt-3-175b", 174_604_259_328, 2 * 96 * 96 * 128),
    Golden("gpt2", 124_439_808, 2 * 12 * 12 * 64, trap="n_embd, n_head, n_layer; MLP width left out"),
    Golden("opt-125m", 125_239_296, 2 * 12 * 12 * 64, trap="learned positions, two more rows than the context"),
    Golden("opt-13b", 12_853_473_280, 2 * 40 * 40 * 128),
    Golden("opt-350m", None, 2 * 24 * 16 * 64, trap="word_embed_proj_dim is not hidden_size"),
    Golden("llama-2-7b", 6_738_415_616, 2 * 32 * 32 * 128),
    Golden("llama-2-70b", 68_976_648_192, 2 * 80 * 8 * 128, {4096: 2 * 80 * 8 * 128 * 4096}, trap="GQA"),
    Golden("llama-3-8b", 8_030_261_248, 2 * 32 * 8 * 128, trap="GQA"),
    Golden("llama-3-70b", 70_553_706_496, 2 * 80 * 8 * 128, {8192: 1_342_177_280}, trap="GQA"),
    Golden("llama-3.1-8b", 8_030_261_248, 2 * 32 * 8 * 128),
    Golden("llama-3.1-70b", 70_553_706_496, 2 * 80 * 8 * 128),
    Golden("llama-3.1-405b", 405_853_388_800, 2 * 126 * 8 * 128),
    Golden("llama-3.2-1b", 1_235_814_400, 2 * 16 * 8 * 64, trap="tied embeddings"),
    Golden("smollm2-135m", 134_515_008, 2 * 30 * 3 * 64, trap="tied embeddings"),
    Golden("falcon-7b", 6_921_720_704, 2 * 32 * 1 * 64, trap="MQA without a KV-head field; one norm a layer"),
    Golden("falcon-40b", 41_303_293_952, 2 * 60 * 8 * 64, trap="multi_query is true, yet 8 KV heads"),
    Golden("falcon-40b-refinedweb", 41_303_293_952, 2 * 60 * 8 * 64, trap="first field names; same model"),
    Golden("falcon-180b", 178_557_088_768, 2 * 80 * 8 * 64, trap="multi_query is true, yet 8 KV heads"),
    Golden(
        "mistral-7b-v0.1",
        7_241_732_096,
        2 * 32 * 8 * 128,
        {4096: 2 * 32 * 8 * 128 * 4096, 32_768: 2 * 32 * 8 * 128 * 4096},
        trap="window in every layer",
    ),
    Golden(
        "mistral-7b-v0.2",
        7_241_732_096,
        2 * 32 * 8 * 128,
        {32_768: 2 * 32 * 8 * 128 * 32_768},
        trap="sliding_window is null, not the class default of 4,096",
    ),
    Golden("mixtral-8x7b", 46_702_792_704, 2 * 32 * 8 * 128, active=12_879_925_248),
    Golden("mixtral-8x22b", 140_620_634_112, 2 * 56 * 8 * 128, active=39_152_031_744),
    Golden("qwen2.5-7b", 7_615_616_512, 2 * 28 * 4 * 128, {262_144: 2 * 28 * 4 * 128 * 262_144}, trap="window unused"),
    Golden("qwen3-0.6b", 596_049_920, 2 * 28 * 8 * 128, trap="head_dim 128, not 1,024 / 16 = 64"),
    Golden("qwen3-1.7b", 1_720_574_976, 2 * 28 * 8 * 128),
    Golden("qwen3-4b", 4_022_468_096, 2 * 36 * 8 * 128, trap="head_dim 128, not 2,560 / 32 = 80"),
    Golden("qwen3-8b", 8_190_735_360, 2 * 36 * 8 * 128),
    Golden("qwen3-32b", 32_762_123_264, 2 * 64 * 8 * 128, trap="head_dim 128, not 5,120 / 64 = 80"),
    Golden("qwen3-30b-a3b", 30_532_122_624, 2 * 48 * 4 * 128, active=3_353_032_704, trap="head_dim, MoE"),
    Golden("qwen3-235b-a22b", 235_093_634_560, 2 * 94 * 4 * 128, active=22_190_763_520),
    Golden("qwen3-235b-a22b-fp8", 235_093_634_560, 2 * 94 * 4 * 128, trap="quantized: same number of weights"),
    Golden("qwen3-coder-480b-a35b", 480_154_875_392, 2 * 62 * 8 * 128),
    Golden("phi-3-mini-4k", 3_821_079_552, 2 * 32 * 32 * 96, {4096: 2 * 32 * 32 * 96 * 2047}, trap="window 2,047"),
    Golden("gemma-7b", 8_537_680_896, 2 * 28 * 16 * 256, trap="head_dim 256, not 3,072 / 16 = 192; tied by class"),
    Golden(
        "gemma-2-9b",
        9_241_705_984,
        2 * 42 * 8 * 256,
        {8192: windowed(21, 21, 4096, 2 * 8 * 256, 8192)},
        trap="every second layer slides, though no field says which",
    ),
    Golden(
        "gemma-3-4b",
        3_880_263_168,
        2 * 34 * 4 * 256,
        {131_072: windowed(5, 29, 1024, 2 * 4 * 256, 131_072)},
        trap="nested; heads, head_dim and vocabulary left to the class",
    ),
    Golden(
        "gemma-3-27b",
        27_009_346_304,
        2 * 62 * 16 * 128,
        {512: 2 * 62 * 16 * 128 * 512, 131_072: windowed(10, 52, 1024, 2 * 16 * 128, 131_072)},
        trap="nested text_config, five of six layers slide",
    ),
    Golden(
        "gemma-4-26b-a4b",
        None,
        2 * (25 * 8 * 256 + 5 * 2 * 512),
        {131_072: 2 * (25 * 8 * 256 * 1024 + 5 * 2 * 512 * 131_072)},
        trap="full layers have 2 heads of 512, sliding ones 8 of 256",
    ),
    Golden("qwen3-vl-4b", 4_022_468_096, 2 * 36 * 8 * 128, trap="nested; the language model is Qwen3-4B"),
    Golden("qwen3-vl-30b-a3b", 30_532_122_624, 2 * 48 * 4 * 128, active=3_353_032_704, trap="nested, MoE"),
    Golden("minimax-m2.7", None, 2 * 62 * 8 * 128, trap="attn_type_list of ordinary layers"),
    Golden(
        "gpt-oss-20b",
        20_914_757_184,
        2 * 24 * 8 * 64,
        {131_072: windowed(12, 12, 128, 2 * 8 * 64, 131_072)},
        trap="layer_types",
    ),
    Golden(
        "gpt-oss-120b",
        116_829_156_672,
        2 * 36 * 8 * 64,
        {4096: windowed(18, 18, 128, 2 * 8 * 64, 4096)},
        trap="layer_types; hidden / heads = 45",
        active=5_711_982_912,
    ),
    Golden("deepseek-v2-lite", 15_706_484_224, 27 * (512 + 64), trap="MLA without a compressed query"),
    Golden("deepseek-v3", 671_026_419_200, 61 * (512 + 64), active=37_552_297_472, trap="MLA"),
    Golden("kimi-k2", 1_026_408_232_448, 61 * (512 + 64), trap="MLA; 64 heads change nothing"),
    Golden("qwen3-next-80b-a3b", 79_674_391_296, 2 * 12 * 2 * 256, trap="12 of 48 layers attend"),
    Golden("qwen3.5-35b-a3b", 34_660_610_688, 2 * 10 * 2 * 256, trap="10 of 40 layers attend; nested"),
    Golden("qwen3.5-27b", 26_895_998_464, 2 * 16 * 4 * 256, trap="16 of 64 layers attend; nested"),
]
REFUSED = {
    "refused-deepseek-v3.2": "index_topk",
    "refused-mimo-v2-flash": "attention_chunk_size",
    "refused-llama-4-scout": "attention_chunk_size",
    "refused-nemotron-h-56b": "hybrid_override_pattern",
}
