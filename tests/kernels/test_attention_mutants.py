"""Wrong attention kernels, one plausible slip each: the checks of `test_attention_prefill` notice every one."""

import importlib.util
import sys
from pathlib import Path

import pytest

from labcore.kernels import attention_prefill, online_softmax
from tests.kernels.conftest import DEVICE
from tests.kernels.test_attention_prefill import DESCRIPTORS, agrees, inputs

pytestmark = pytest.mark.skipif(
    DEVICE == "cuda", reason="mutants are of the source, which the interpreter runs as well"
)

BATCH = (20, 3), (36, 0)  # a chunk behind other tokens, and queries without keys
TESTS = {
    "causal": {},
    "window": {"window": 7},
    "wide window": {"window": 18},
    "all": {"causal": False},
}

SLIPS = {  # what is written, what a slip makes of it, the test that must see it
    "the diagonal is hidden": ("visible = key <= positions", "visible = key < positions", "causal"),
    "masked blocks are not masked": (
        "        if EDGE:\n            key =",
        "        if False:\n            key =",
        "causal",
    ),
    "keys past the end are visible": ("visible = key < kv_len", "visible = key < kv_len + BLOCK_N", "all"),
    "queries lie one place further on": (
        "position = kv_len - q_len + first",
        "position = kv_len - q_len + first + 1",
        "causal",
    ),
    "the window is one key too wide": (
        "key > positions[:, None] - WINDOW",
        "key >= positions[:, None] - WINDOW",
        "window",
    ),
    "the window begins with the last query's": (
        "begin = tl.maximum(position - WINDOW + 1, 0)",
        "begin = tl.maximum(position + BLOCK_M - WINDOW, 0)",
        "wide window",
    ),
    "the blocks at a window's start have no mask": (
        "tl.minimum(tl.cdiv(tl.maximum(position + BLOCK_M - WINDOW, 0), BLOCK_N) * BLOCK_N, full_end)",
        "begin",
        "wide window",
    ),
    "the diagonal blocks have no mask": (
        "full_end = tl.maximum(tl.minimum(kv_len, position + 1), 0)",
        "full_end = tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0)",
        "causal",
    ),
    "keys stop at the first query's": (
        "end = tl.maximum(tl.minimum(kv_len, position + BLOCK_M), 0)",
        "end = tl.maximum(tl.minimum(kv_len, position + 1), 0)",
        "causal",
    ),
    "the output is not rescaled": ("acc * decay[:, None], input", "acc, input", "causal"),
    "heads of a group are dealt out in turn": (
        "kv_head * tl.num_programs(0) + tl.program_id(0)",
        "tl.program_id(0) * tl.num_programs(2) + kv_head",
        "causal",
    ),
    "a tile is of the sequence before": ("+ middle <= tile", "+ middle < tile", "causal"),
    "lse of a head lies where its sequence is": ("lse_ptr + head * tokens", "lse_ptr + head * q_len", "causal"),
    "the exponent's base is e": ("scale * LOG2_E", "scale", "causal"),
    "keys of another head": (
        "k_ptr += k_start.to(tl.int64) * kv_stride + kv_head * HEAD_DIM",
        "k_ptr += k_start.to(tl.int64) * kv_stride",
        "causal",
    ),
    "no key so far is NaN": ('tl.where(new_max == float("-inf"), 0.0, new_max)', "new_max", "window"),
    "no key at all is 0 / 0": ("tl.where(row_sum > 0, row_sum, 1.0)", "row_sum", "causal"),
    "lse stays in base 2": ("* 0.6931471805599453", "* 1.0", "causal"),
    "the sum is not rescaled": ("row_sum * decay + tl.sum", "row_sum + tl.sum", "causal"),
    "the sum is of the scores": ("row_sum * decay + tl.sum(weights, 1)", "row_sum * decay + tl.sum(scores, 1)", "all"),
}


def wrong(tmp_path: Path, before: str, after: str):
    """attention_varlen with `after` in place of `before`, which is in the kernel's file or in that of its softmax."""
    sources = {module: Path(module.__file__).read_text() for module in (online_softmax, attention_prefill)}
    assert sum(before in text for text in sources.values()) == 1, f"{before!r} is not in one of the two files"
    for module, text in sources.items():
        name = f"wrong_{module.__name__.rpartition('.')[2]}"
        text = text.replace(before, after).replace(online_softmax.__name__, "wrong_online_softmax")
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["wrong_attention_prefill"].attention_varlen


def runs_wrong(attention, options) -> bool:
    """With descriptors: they keep a slip from reading what is not the tensor's."""
    arguments = inputs(*BATCH, n_heads=4, n_kv_heads=2)
    try:
        agrees(lambda *a, **o: attention(*a, config=DESCRIPTORS, **o), arguments, **options)
    except AssertionError:
        return True
    return False


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_noticed(slip, tmp_path):
    before, after, test = SLIPS[slip]
    assert runs_wrong(wrong(tmp_path, before, after), TESTS[test])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_values_of_the_next_sequence_are_kept_out(tmp_path):
    attention = wrong(tmp_path, "(v_ptr, [kv_len, HEAD_DIM]", "(v_ptr, [kv_len + BLOCK_N, HEAD_DIM]")
    q, k, v, *rest = inputs((5, 3), (5, 19))
    v[5:] = float("nan")
    for made, clean in (attention, False), (attention_prefill.attention_varlen, True):
        assert made(q, k, v, *rest, config=DESCRIPTORS)[:5].isfinite().all() == clean


@pytest.mark.parametrize("test", TESTS)
def test_without_a_slip_all_is_well(test, tmp_path):
    attention = wrong(tmp_path, "scale * LOG2_E", "LOG2_E * scale")
    assert not runs_wrong(attention, TESTS[test])
