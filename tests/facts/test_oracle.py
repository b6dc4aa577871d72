"""transformers as oracle: it builds every golden model without memory and says how many parameters there are."""

import json

import pytest

from labcore.facts import ModelConfig
from labcore.facts.families import FAMILIES
from tests.facts.golden import GOLDEN

transformers = pytest.importorskip("transformers", reason="transformers, the oracle of parameter counts, is missing")
torch = pytest.importorskip("torch", reason="torch is missing")
CLASSES = transformers.models.auto.configuration_auto.CONFIG_MAPPING
# Names transformers has no (causal) class for, and the class their own code was derived from.
SAME_AS = {"kimi_k2": "deepseek_v3", "qwen3_vl_text": "qwen3", "qwen3_vl_moe_text": "qwen3_moe"}
COUNTED = [g for g in GOLDEN if g.parameters and g.name != "falcon-40b-refinedweb"]
KINDS = {"full_attention": "full", "sliding_attention": "sliding", "linear_attention": "linear"}


def oracle_config(golden):
    content = json.loads(golden.path.read_text())
    if "text_config" in content:
        outer = {k: v for k, v in content.items() if k == "tie_word_embeddings"}
        content = outer | content["text_config"]
    content.pop("quantization_config", None)
    model_type = content.pop("model_type")
    return CLASSES[SAME_AS.get(model_type, model_type)].from_dict(content)


@pytest.mark.parametrize("golden", COUNTED, ids=lambda g: g.name)
def test_parameters_are_those_of_the_model_transformers_builds(golden):
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(oracle_config(golden))
    parameters = sum(p.numel() for p in built.parameters())
    # the router's correction bias is a weight of the checkpoint that transformers holds as a buffer
    bias = sum(b.numel() for name, b in built.named_buffers() if name.endswith("e_score_correction_bias"))
    assert ModelConfig.from_hf(golden.path).parameters() == parameters + bias


@pytest.mark.parametrize("golden", COUNTED, ids=lambda g: g.name)
def test_heads_and_layer_kinds_are_those_transformers_reads(golden):
    theirs, ours = oracle_config(golden), ModelConfig.from_hf(golden.path)
    listed = getattr(theirs, "layer_types", None)
    if listed and ours.mla is None:
        # a class may call a layer sliding although the window is off: what is kept is then everything
        window = getattr(theirs, "sliding_window", None)
        kinds = [KINDS[kind] for kind in listed]
        expected = ["full" if kind == "sliding" and window is None else kind for kind in kinds]
        assert [layer.kind for layer in ours.layers] == expected
    if ours.mla is None and theirs.model_type not in ("falcon", "gpt2", "opt"):
        assert ours.n_kv_heads == theirs.num_key_value_heads
        assert ours.head_dim == (getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads)


@pytest.mark.parametrize("model_type", sorted(set(FAMILIES) & set(CLASSES)))
def test_class_defaults_are_those_of_the_class(model_type):
    theirs, ours = CLASSES[model_type]().to_dict(), dict(FAMILIES[model_type].defaults)
    unnamed = ours.keys() - theirs.keys()  # arguments the class turns into something else at once
    assert unnamed <= {"full_attention_interval", "global_head_dim"}
    assert {name: theirs[name] for name in ours.keys() - unnamed} == {n: ours[n] for n in ours.keys() - unnamed}
