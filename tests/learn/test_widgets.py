"""Widgets without a browser: the page's JavaScript under node against Python, and what Python hands to a notebook."""

from __future__ import annotations

import html
import json
import math
import random
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from labcore import facts
from labcore.core.errors import InputError
from labcore.facts.browser import layer_groups
from labcore.formulas import formula
from labcore.learn import widgets
from labcore.learn.widgets import base, bundle, environment, numbers, steps
from labcore.learn.widgets.kv import STEPS as KV_STEPS
from labcore.learn.widgets.roofline import CROSSOVERS, INTENSITIES, READS, TIMES
from labcore.learn.widgets.size import STEPS as SIZE_STEPS
from labcore.learn.widgets.speculation import ATTENTION, EXCHANGE, TOKENS
from labcore.learn.widgets.speculation import TIMES as CYCLE
from tests.conftest import skip_or_fail

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "labcore/facts/configs").glob("*.json")) + sorted(
    (ROOT / "tests/facts/configs").glob("*.json")
)
GOOD = [p for p in CONFIGS if not p.name.startswith("refused")]
REFUSED = [p for p in CONFIGS if p.name.startswith("refused")]


@pytest.fixture(scope="module")
def javascript(tmp_path_factory):
    """`javascript([name, …arguments], …)` → what labcore-widgets.js answers, one result a call."""
    node = shutil.which("node")
    if node is None:
        skip_or_fail("browser", "node is not installed; on Debian: apt-get install nodejs")
    data = tmp_path_factory.mktemp("node") / "labcore-data.js"
    data.write_text(f"globalThis.labcoreData = {json.dumps({'facts': facts.as_json()})};")
    scripts = [str(base.STATIC / "labcore-formulas.js"), str(data), str(bundle.BUNDLE)]

    def call(*calls):
        request = json.dumps({"scripts": scripts, "calls": calls})
        done = subprocess.run(
            [node, str(ROOT / "tests/js/widgets.js")], input=request, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


# ---- the bundle ------------------------------------------------------------------------------------------------------


def test_bundle_is_up_to_date():
    text = bundle.BUNDLE.read_text(encoding="utf-8")
    assert text.startswith(bundle.widgets_head()), "run python -m labcore.learn.widgets.bundle"
    assert sorted(p.name for p in bundle.SOURCES.glob("*.js")) == sorted(bundle.PARTS)


def test_bundle_holds_what_its_head_says():
    pytest.importorskip("minify", reason="the minifier is not installed: tdewolff-minify")
    assert bundle.BUNDLE.read_text(encoding="utf-8") == bundle.widgets_head() + bundle.minified(bundle.widgets_source())


def test_scripts_stay_below_their_budget():
    assert bundle.BUNDLE.stat().st_size < 45_000
    sizes = {name: (base.STATIC / name).stat().st_size for name in base.SCRIPTS if name != "labcore-formulas.js"}
    assert sum(sizes.values()) < 80_000, sizes


# ---- numbers ---------------------------------------------------------------------------------------------------------

UNITS = [
    "1",
    "",
    "B",
    "B/token",
    "FLOP/s",
    "FLOP",
    "B/s",
    "s",
    "J",
    "W",
    "USD",
    "USD/Mtok",
    "%",
    "tokens",
    "FLOP/B",
    "×",
]
EDGES = [
    0,
    1,
    -1,
    0.5,
    999.4,
    999.96,
    999.994,
    1000,
    1023,
    1024,
    1234.5,
    2.5,
    1e-4,
    9.99e-5,
    1e-9,
    1e-12,
    12.345,
    0.125,
]
EDGES += [80e9, 80 * 2**30, 2.684e9, -5e9, 1e15, 3e20, 0.00012345, 99995, 999950, 999949, 4.0965, 1 / 3, 2**53]


def test_numbers_are_written_alike(javascript):
    rng = random.Random(1)
    values = [*EDGES, *(rng.choice((1, -1)) * 10 ** rng.uniform(-13, 19) for _ in range(300))]
    pairs = [(v, u) for v in values for u in UNITS]
    assert javascript(*(["format", v, u] for v, u in pairs)) == [numbers.text(v, u) for v, u in pairs]


def test_numbers_without_value():
    assert [numbers.text(v, "B") for v in (None, math.nan, math.inf, -math.inf)] == ["—", "—", "∞", "−∞"]


def test_numbers_say_what_they_should():
    said = {(2.684e9, "B"): "2.684 GB = 2.5 GiB", (0.0125, "s"): "12.5 ms", (312e12, "FLOP/s"): "312 TFLOP/s"}
    said |= {
        (327680, "B/token"): "327,680 B/token",
        (0.139, "USD/Mtok"): "USD 0.139/Mtok",
        (2903.1, "tokens"): "2,903 tokens",
    }
    assert {k: numbers.text(*k) for k in said} == said


def test_storage_works_and_says_so_where_nothing_is_kept(javascript):
    (answer,) = javascript(["storage", "quiz.00", {"a": [1]}])
    assert answer == {"persistent": False, "kept": False, "seen": [{"a": [1]}, ["quiz.00"], 3], "after": None}


# ---- config.json -----------------------------------------------------------------------------------------------------


def as_page(config):
    """What the page's reader makes of a model: facts.browser.model_json, with parameters None where not countable."""
    known = config.weights is not None
    groups = [
        {k: v for k, v in g.items() if not k.endswith("_elements") or k == "kv_elements"}
        for g in layer_groups(config.layers)
    ]
    moe = config.moe and {k: getattr(config.moe, k) for k in config.moe.__dataclass_fields__}
    mla = config.mla and {k: getattr(config.mla, k) for k in config.mla.__dataclass_fields__}
    names = ("n_layers", "n_heads", "n_kv_heads", "head_dim", "context")
    return {n: getattr(config, n) for n in names} | {
        "layers": groups,
        "moe": moe,
        "mla": mla,
        "parameters": config.parameters() if known else None,
        "active_parameters": config.active_parameters() if known else None,
        "embedding_parameters": config.embedding_parameters() if known else None,
    }


def test_configs_read_alike(javascript):
    assert len(GOOD) >= 40
    found = javascript(*(["model", p.read_text()] for p in GOOD))
    for path, model in zip(GOOD, found, strict=True):
        model.pop("name", None)
        assert model == as_page(facts.ModelConfig.from_hf(path)), path.name


def python_refusal(config):
    with pytest.raises(InputError) as caught:
        facts.ModelConfig.from_hf(config)
    return str(caught.value)


def words(message):
    """The field names a message speaks of."""
    return set(re.findall(r"[a-z]+(?:_[a-z]+)+", message.replace("config.json", "")))


BASE = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 8, "num_hidden_layers": 4, "vocab_size": 100}
BASE |= {"intermediate_size": 128, "num_key_value_heads": 2}
MOE = {"num_local_experts": 8, "num_experts_per_tok": 2}
MLA = {"kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
BROKEN = [
    *(
        {k: v for k, v in BASE.items() if k != gone}
        for gone in BASE
        if gone not in ("intermediate_size", "num_key_value_heads")
    ),
    BASE | {"num_key_value_heads": 3},
    BASE | {"num_key_value_heads": 16},
    BASE | {"num_hidden_layers": "four"},
    BASE | {"num_hidden_layers": 2.5},
    BASE | {"num_attention_heads": 0},
    BASE | {"hidden_size": 65, "num_key_value_heads": 8},
    BASE | {"num_hidden_layers": 4, "n_layers": 5},
    BASE | {"tie_word_embeddings": "yes"},
    BASE | {"model_type": "new_thing", "sliding_window": 128},
    BASE | {"layer_types": ["full_attention"]},
    BASE | {"layer_types": ["full_attention"] * 3 + ["mamba"]},
    BASE | {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]},
    BASE | {"layer_types": ["sliding_attention"] * 4, "sliding_window": 8, "use_sliding_window": False},
    BASE | {"layer_types": ["linear_attention"] * 4},
    BASE | MOE | {"num_experts_per_tok": 9},
    BASE | {"num_local_experts": 8},
    BASE | MLA | {"layer_types": ["full_attention"] * 3 + ["sliding_attention"], "sliding_window": 8},
    BASE | {k: v for k, v in MLA.items() if k != "v_head_dim"},
    {k: v for k, v in (BASE | MOE).items() if k != "intermediate_size"},
    BASE | {"architectures": ["BertForMaskedLM"]},
    BASE | {"index_topk": 2048},
    {"model_type": "outer", "text_config": {k: v for k, v in BASE.items() if k != "vocab_size"}},
]


def test_broken_configs_are_refused_alike(javascript):
    broken = [*BROKEN, *(json.loads(p.read_text()) for p in REFUSED)]
    answers = javascript(*(["model", text] for text in [*map(json.dumps, BROKEN), *(p.read_text() for p in REFUSED)]))
    for config, answer in zip(broken, answers, strict=True):
        wanted = python_refusal(config)
        assert set(answer) == {"error"}, f"Python says {wanted!r}; the page read it"
        assert words(wanted) == words(answer["error"]), (wanted, answer["error"])


def test_text_that_is_no_config_gets_one_sentence(javascript):
    answers = javascript(*(["model", text] for text in ("", '{"a": 1', "[1, 2]", "3", "null")))
    for answer in answers:
        assert re.fullmatch(r"[^\n]+\}\.", answer["error"]), answer


# ---- calculators -----------------------------------------------------------------------------------------------------


def drawn(calculator, seed, n):
    """`n` random states of a calculator, with settings the device has."""
    rng, out = random.Random(seed), []
    while len(out) < n:
        state = {}
        for i in calculator.spec["inputs"]:
            if i["kind"] == "number":
                low, high = max(i["low"], 1e-9), i["high"]
                value = math.exp(rng.uniform(math.log(low), math.log(high)))
                state[i["id"]] = round(value) if i.get("integer") else value
            elif i["kind"] == "model":
                state[i["id"]] = rng.choice([*facts.model_ids(), *(json.loads(p.read_text()) for p in GOOD)])
            else:
                brought = [*i.get("devices", {}), *facts.hardware_ids()]
                known = [c["value"] for c in i["choices"]] if "choices" in i else brought
                state[i["id"]] = rng.choice(known)
        try:
            environment.environment(calculator.spec["inputs"], state)
        except InputError:
            continue
        out.append(state)
    return out


def same_values(found, wanted):
    """Equal keys, equal gaps, and numbers equal to 12 digits."""
    assert found.keys() == wanted.keys()
    differ = lambda a, b: (a is None) != (b is None) or (a is not None and not math.isclose(a, b, rel_tol=1e-12))  # noqa: E731
    wrong = {k: (found[k], wanted[k]) for k in wanted if differ(found[k], wanted[k])}
    assert not wrong
    return True


@pytest.mark.parametrize(
    "make", [widgets.roofline_explorer, widgets.kv_calculator, widgets.size_calculator, widgets.draft_planner]
)
def test_page_computes_what_python_computes(javascript, make):
    calculator = make()
    states = drawn(
        calculator, make.__name__, 40 if make is widgets.draft_planner else 150
    )  # it runs its steps 18 times
    answers = javascript(*(["results", calculator.spec, s] for s in states))
    unknown = 0
    for state, answer in zip(states, answers, strict=True):
        wanted = calculator.results(**state)
        unknown += None in wanted.values()
        assert same_values(answer["values"], wanted), state
        assert answer["summary"] == calculator.summary(**state)
    assert 0 < unknown < len(states), "the draw should meet both: values that exist and values that do not"


def test_figures_of_the_roofline_explorer():
    a = widgets.roofline_explorer("a100-80-sxm", "llama-2-70b", batch=153, context=4096).results()
    assert round(a["R"]) == round(a["B_star"]) == 153 and round(a["L_max"]) == 2903 and a["B_star_kv"] is None
    assert round(a["I_limit"], 1) == 110.8
    assert round(a["t_attention"] * 1e3) == 101 and round(a["t_linear"] * 1e3) == 68
    at = lambda context: widgets.roofline_explorer("a100-80-sxm", "llama-2-70b", context=context).results()["B_star_kv"]  # noqa: E731
    assert [at(context) for context in (512, 1024, 2048)] == pytest.approx([186, 236, 519.5], abs=0.6)


def test_which_peak_applies():
    explorer = widgets.roofline_explorer("h100-sxm", "llama-3-8b")
    assert [explorer.results(precision=p)["R"] for p in ("bf16", "w8a16", "w4a16")] == [explorer.results()["R"]] * 3
    assert [round(explorer.results(precision=p)["B_star"]) for p in ("bf16", "w4a16", "fp8", "int8")] == [
        295,
        74,
        295,
        295,
    ]
    for device, precision in (("a100-80-sxm", "fp8"), ("h100-sxm", "nvfp4"), ("t4", "fp8")):
        with pytest.raises(InputError, match=f"precision='{precision}': .* has no such rate; it has bf16"):
            explorer.results(hardware=device, precision=precision)


def test_figures_of_the_kv_calculator():
    k = widgets.kv_calculator("llama-2-70b", "a100-80-sxm", gpus=4, context=4096, sequences=100).results()
    assert (k["kappa"], k["kv_sequence"], k["B_weights"], k["group"]) == (327680, 1_342_177_280, 103, 8)
    gemma = widgets.kv_calculator("gemma-3-27b", context=131072).results()
    full = gemma["kappa"] * 131072
    assert 0.15 < gemma["kv_sequence"] / full < 0.19
    mla = widgets.kv_calculator("deepseek-v3", gpus=8).results()
    assert mla["kappa"] == 70272 and mla["copies"] == 8 and mla["group"] is None
    assert widgets.kv_calculator("llama-3-70b", gpus=16).results()["copies"] == 2


def test_figures_of_the_size_calculator():
    """Llama 2 70B: published 4-bit checkpoints take 35.3 GB without groups and 36.7 GB in groups of 128."""
    gb = lambda **format: round(widgets.size_calculator(**format).results()["narrow"] / 1e9, 1)  # noqa: E731
    assert gb() == gb(format="int4-128") == 36.6 and gb(format="int4-row") == 35.3 and gb(format="int3-128") == 28.0
    s = widgets.size_calculator().results()
    assert s["narrow"] == pytest.approx(s["codes"] + s["scales"] + s["kept_bytes"], rel=1e-12)
    assert round(s["bound"], 2) == 3.85 and round(s["kept_bytes"] / 1e9, 2) == 1.05
    # gpt-oss-120b ships its experts in MXFP4 and the rest in BF16: 65.2 GB in its model card's checkpoint
    assert 65.0 < gb(model="gpt-oss-120b", format="mxfp4", kept="all but experts") < 65.5
    assert gb(model="llama-3-8b", kept="all but experts") == gb(model="llama-3-8b", kept="embeddings")


def test_figures_of_the_draft_planner():
    """Llama 3 70B on A100 (four gain what one does), acceptance 0.75, four free drafts."""
    planner = widgets.draft_planner("llama-3-70b", "a100-80-sxm", alpha=0.75, cost=0, drafts=4)
    at = lambda B, L: round(planner.results(B=B, L=L)["gain"], 2)  # noqa: E731
    assert [at(16, 1), at(64, 1), at(128, 1), at(16, 32768), at(64, 8192)] == [3.05, 1.46, 0.73, 3.05, 2.04]
    assert "K = 4 loses" in planner.summary(B=128, L=1) and "Do not speculate" in planner.summary(B=256, L=1)
    practice = widgets.draft_planner(alpha=0.75, cost=0.125, drafts=8).results()
    assert practice["K_best"] == 4 and round(practice["gain_best"], 3) == 2.034 and round(practice["gain"], 2) == 1.85
    given = environment.environment(planner.spec["inputs"], drawn(planner, 4, 1)[0] | {"model": "deepseek-v3"})
    gains = [steps.run(steps.plain(planner.spec["steps"]), given | {"K": K})["gain"] for K in range(1, 17)]
    assert steps.run(planner.spec["steps"], given)["gain_best"] == max(gains)


def test_a_mixture_of_experts_reads_more_to_verify():
    """Two tokens instead of one hit 15.75 of 256 experts instead of 8; the rest of the weights is read once."""
    r = widgets.draft_planner("deepseek-v3", drafts=1).results()
    assert 1.5 < r["more_experts"] < formula["speculation.experts_ratio"](E=256, k=8, B=1, K=1) == 1.96875
    assert r["v"] > 1 and widgets.draft_planner("llama-3-70b", drafts=1).results()["v"] == 1


def test_attention_bound_by_arithmetic_takes_its_own_time():
    """On an A100 absorbed MLA lies past the ridge: the step is longer than its bytes say."""
    r = widgets.roofline_explorer("a100-80-sxm", "deepseek-v3", batch=64, context=8192).results()
    assert r["I_attention"] > r["R"] and r["L_max"] is None
    kv_read = 64 * 8192 * 70272 / facts.hardware("a100-80-sxm").bandwidth
    assert r["t_attention"] == pytest.approx(kv_read * r["I_attention"] / r["R"])
    assert r["t_step"] == pytest.approx(r["t_linear"] + r["t_attention"])


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"B": 0}, "B=0"),
        ({"L": 1.5}, "L=1.5"),
        ({"hardware": "h1000"}, "h1000"),
        ({"kv": "3"}, "kv='3'"),
        ({"batch": 2}, "batch"),
    ],
)
def test_bad_settings_are_one_sentence(changed, named):
    with pytest.raises(InputError, match=named) as caught:
        widgets.roofline_explorer().results(**changed)
    assert "\n" not in str(caught.value)


def test_unknown_parameters_leave_the_cache():
    """A model_type whose weights are not described: the cache can be sized, the rest is said to be unknown."""
    config = {**BASE, "model_type": "some_new_decoder"}
    k = widgets.kv_calculator(config)
    assert (
        k.results()["kappa"] == 2 * 4 * 2 * 8 * 2 and k.results()["weights"] is None and "cannot be told" in k.summary()
    )
    assert widgets.roofline_explorer(model=config).results()["I_step"] is None


def test_formula_calculator(javascript):
    names = ("kv.paging.utilization", "kv.paging.tail_waste", "economics.usd_per_mtok", "decode.step_time")
    for name in names:
        made = widgets.formula_calculator(name)
        states = drawn(made, name, 20)
        answers = javascript(*(["results", made.spec, s] for s in states))
        assert [a["values"] for a in answers] == [pytest.approx(made.results(**s), rel=1e-12) for s in states]
    made = widgets.formula_calculator("kv.paging.utilization", chart="S", S=16, n=1366)
    assert made.results() == {"y0": pytest.approx(1366 / 1373.5)}
    with pytest.raises(InputError, match="no such input"):
        widgets.formula_calculator("kv.paging.utilization", chart="q")
    with pytest.raises(InputError, match="different units"):
        widgets.formula_calculator("kv.paging.utilization", "kv.paging.tail_waste", chart="S")
    with pytest.raises(KeyError, match=r"kv\.paging"):
        widgets.formula_calculator("kv.paging.utilisation")


# ---- steps -----------------------------------------------------------------------------------------------------------


def test_steps_find_the_smallest_whole_value():
    given = {"b_w": 2, "R": 153.2}
    listed = [
        {"id": "I", "formula": "decode.linear_intensity"},
        {"id": "x", "search": "B", "value": "I", "reaches": "R"},
    ]
    assert steps.run(listed, given | {"B": 1})["x"] == 154
    assert steps.run(listed, given | {"B": 1, "R": 154})["x"] == 154
    assert steps.run(listed, given | {"B": 1, "R": 1e12})["x"] is None


def test_steps_find_the_best_whole_value():
    listed = [
        {"id": "y", "formula": "speculation.speedup"},
        {"id": "K_best", "best": "K", "to": 12, "value": "y"},
        {"id": "y_best", "at": "K", "from": "K_best", "value": "y"},
    ]
    known = steps.run(listed, {"alpha": 0.75, "c": 0.125, "K": 9})
    assert (known["K_best"], round(known["y_best"], 3)) == (4, 2.034) and known["y"] < known["y_best"]
    known = steps.run(listed, {"alpha": 0.75, "c": None, "K": 9})
    assert known["K_best"] is None and known["y_best"] is None
    even = [{"id": "y", "sum": [["K", 0]]}, {"id": "K_best", "best": "K", "to": 3, "value": "y"}]
    assert steps.run(even, {"K": 2})["K_best"] == 1


def test_steps_name_what_is_missing():
    with pytest.raises(InputError, match="'beta'"):
        steps.run([{"id": "R", "formula": "roofline.ridge"}], {"F": 1})


def test_every_step_is_used():
    """No dead step: each id is shown, drawn or needed by another."""
    for calculator, listed in (
        (widgets.roofline_explorer(), READS + INTENSITIES + CROSSOVERS + TIMES),
        (widgets.kv_calculator(), KV_STEPS),
        (widgets.size_calculator(), SIZE_STEPS),
        (widgets.draft_planner(), TOKENS + ATTENTION + CYCLE + EXCHANGE),
    ):
        spec = dict(calculator.spec)
        spec.pop("steps")
        rest = json.dumps(spec) + json.dumps([{k: v for k, v in s.items() if k != "id"} for s in listed])
        used_by_name = {i.name for s in listed if "formula" in s for i in steps.formula[s["formula"]].inputs}
        assert [
            s["id"]
            for s in listed
            if f'"{s["id"]}"' not in rest and f"{{{s['id']}" not in rest and s["id"] not in used_by_name
        ] == []


# ---- what Python hands to a notebook ---------------------------------------------------------------------------------


class Hosts(HTMLParser):
    """Collects the attributes of every widget element, and the text inside."""

    def __init__(self):
        super().__init__()
        self.found, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if "data-labcore-widget" in dict(attrs):
            self.found.append(dict(attrs))

    def handle_data(self, data):
        self.text.append(data)


def test_html_carries_the_spec_and_a_readable_fallback():
    calculator = widgets.roofline_explorer(model={**BASE, "_name_or_path": "</script><b>\"'&"})
    page = Hosts()
    page.feed(calculator.html())
    assert [json.loads(a["data-spec"]) for a in page.found] == [json.loads(json.dumps(calculator.spec))]
    assert page.found[0]["data-labcore-widget"] == "calculator" and "<b>" not in calculator.html()
    shown = " ".join(page.text)
    for result in calculator.spec["results"]:
        assert result["label"] in shown
    assert numbers.text(calculator.results()["t_step"], "s") in shown and calculator.summary() in shown
    assert "$" not in calculator.html()


def test_repr_and_html_are_deterministic():
    one, two = widgets.kv_calculator(), widgets.kv_calculator()
    assert repr(one) == repr(two) == "Calculator('KV-cache calculator')" and one.html() == two.html()


def test_mimebundle_offers_the_live_view_and_the_html():
    pytest.importorskip("anywidget")
    data, _ = widgets.kv_calculator()._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    assert data["text/plain"] == "Calculator('KV-cache calculator')"


def test_without_anywidget_there_is_html():
    code = (
        "import sys\nsys.modules['anywidget'] = None\n"
        "import labcore.learn.widgets.base as b\nb.find_spec = lambda name: None\n"
        "from labcore.learn.widgets import kv_calculator\n"
        "c = kv_calculator()\nprint(sorted(c._repr_mimebundle_()[0]), c.view, c.value)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "['text/html', 'text/plain'] None {}", done.stderr


def test_importing_widgets_imports_neither_torch_nor_ipywidgets():
    heavy = ("torch", "ipywidgets", "anywidget")
    code = f"import sys, labcore.learn.widgets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_view_follows_the_page():
    pytest.importorskip("anywidget")
    calculator = widgets.roofline_explorer()
    assert calculator.value == {}
    seen = []
    calculator.observe(seen.append)
    calculator.view.value = {"inputs": {"B": 48}}
    assert seen == [{"inputs": {"B": 48}}] and calculator.value == {"inputs": {"B": 48}}


def test_module_source_is_one_module_without_remote_addresses(tmp_path):
    source = base.module_source()
    assert source.rstrip().endswith("export default { render: globalThis.labcoreWidgets.render };")
    code = "".join(base._read(base.SCRIPTS) + base._read(base.STYLES))  # the facts name their sources, as text
    assert set(re.findall(r"https?://[^\s\"'`]+", code)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(fetch|XMLHttpRequest|importScripts|WebSocket)\b|\bimport\s*\(", code)
    node = shutil.which("node")
    if node is None:
        skip_or_fail("browser", "node is not installed; on Debian: apt-get install nodejs")
    (tmp_path / "view.mjs").write_text(source)
    script = "import v from './view.mjs'; import('./view.mjs?again').then(() => console.log(typeof v.render))"
    (tmp_path / "run.mjs").write_text(script)
    done = subprocess.run([node, "run.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "function", done.stderr


@pytest.mark.parametrize("text", ["{a}", "{a|B}"])
def test_sentences_write_numbers_with_units(text):
    assert steps.sentence([{"text": text}], {"a": 2048}) == ("2,048" if text == "{a}" else "2.048 kB = 2 KiB")


def test_html_escapes_labels():
    widget = widgets.Widget("calculator", {"title": "<x>"}, html.escape("<fallback>"))
    assert "<x>" not in widget.html() and "&lt;fallback&gt;" in widget.html()
