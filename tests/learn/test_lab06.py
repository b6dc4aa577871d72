"""The kernel lab's references beside the library's kernels and its own helpers, and what its tools promise."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.formats.blocks import dequantize, named  # noqa: E402
from labcore.kernels.attention_decode import paged_decode_reference  # noqa: E402
from labcore.kernels.merge_states import merge_states_reference  # noqa: E402
from labcore.kernels.softmax import softmax  # noqa: E402
from labcore.kernels.splits import choose_splits  # noqa: E402
from labcore.learn.exercises import NOT_ATTEMPTED, evaluate, find  # noqa: E402
from labcore.learn.exercises.compare import same_value  # noqa: E402
from labcore.learn.labs import lab06_attention, lab06_cost, lab06_paged, lab06_softmax, lab06_states  # noqa: E402
from labcore.learn.labs import lab06_references as ref  # noqa: E402
from labcore.learn.labs.lab06_tools import (  # noqa: E402
    DEVICE,
    FENCE,
    drawn,
    drawn_cache,
    drawn_weight4,
    fenced,
    fences,
    nothing_written,
    unwritten,
)
from tests.mutants.lab06 import edited  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 2e-6 if DEVICE == "cpu" else 1e-5  # a GPU's exponential is good to two units in the last place
RIGHT = {  # helper with nothing got wrong: (helper, reference, arguments, how often)
    "absorb": (lab06_states.absorbed, ref.absorb, lab06_states.drawn_state, 20),
    "softmax": (lab06_softmax.softmaxed, ref.fused_softmax, lab06_softmax.drawn_rows, 4),
    "online": (lab06_softmax.running, ref.online_softmax, lab06_softmax.drawn_rows_and_block, 3),
    "merge": (lab06_states.merged, ref.merge, lab06_states.drawn_parts, 20),
    "gemv": (lab06_paged.gemv_of, ref.gemv4, lab06_paged.drawn_product, 3),
    "traffic": (lab06_cost.moved, ref.traffic, lab06_cost.drawn_shape, 20),
    "split": (lab06_cost.split_of, ref.split, lab06_cost.drawn_grid, 40),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_helper_is_right_when_nothing_is_got_wrong(name):
    helper, reference, arguments, n = RIGHT[name]
    generator = np.random.default_rng(7)
    for _ in range(n):
        args = arguments(generator)
        assert same_value(helper(*args), reference(*args), CLOSE, 1e-12)


def test_merge_and_split_are_the_librarys():
    generator = np.random.default_rng(8)
    for _ in range(40):
        o, lse = lab06_states.drawn_parts(generator)
        whole = merge_states_reference(o.where(lse[:, None] > -torch.inf, 0.0), lse)
        assert same_value(ref.merge(o, lse), whole, 1e-12, 1e-12)
        programs, slots, most = lab06_cost.drawn_grid(generator)
        splits = choose_splits(programs, most, slots, per_multiprocessor=1, least=1, most=most + 1)
        assert ref.split(programs, slots, most)[0] == splits


@pytest.mark.parametrize("name", ["merge", "split"])
def test_a_solution_runs_where_it_is_pasted(name):
    """Beside what the notebook has: torch and np."""
    pasted = {"torch": torch, "np": np}
    exec(inspect.getsource(getattr(ref, name)), pasted)
    arguments = RIGHT[name][2](np.random.default_rng(9))
    assert same_value(pasted[name](*arguments), getattr(ref, name)(*arguments), 0, 0)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (16, 16), (17, 33), (5, 20)])
def test_tiled_attention_and_its_helper(queries, keys):
    case = lab06_attention.attention_case(1, queries, keys)
    q, k, v, _ = case
    mask = torch.ones(queries, keys, device=DEVICE).bool().tril(keys - queries)
    scores = (q.double() @ k.double().T / 32**0.5).masked_fill(~mask, -torch.inf)
    exact = (scores.softmax(1) @ v.double()).float(), scores.logsumexp(1).float()
    for answer in (ref.tiled_attention, lab06_attention.attended, lab06_attention.in_tiles):
        assert same_value(answer(*case), exact, CLOSE, CLOSE)  # an lse near 0 is a difference of larger numbers


@pytest.mark.parametrize("keys", [1, 15, 16, 17, 40])
def test_one_row_and_its_helper(keys):
    q, k, v = drawn(1, 16), drawn(2, keys, 16), drawn(3, keys, 16)
    exact = ((k.double() @ q.double() / 4).softmax(0) @ v.double()).float()
    assert same_value(ref.decode_row(q, k, v, 16), exact, CLOSE, 1e-12)
    assert same_value(lab06_attention.row_of(q, k, v, 16, ghosts=-torch.inf), exact, CLOSE, 1e-12)
    assert same_value(ref.broken_decode_row(q, k, v, 16), exact, CLOSE, 1e-12) == (keys % 16 == 0)


def test_paged_decode_its_helper_and_the_librarys():
    case = drawn_cache(3, (5, 0, 8, 1), 4, 2, 4, 16)
    o, lse = ref.paged_decode(*case)
    assert same_value(lab06_paged.paged_of(*case), (o, lse), CLOSE, 1e-12)
    assert same_value((o, lse), paged_decode_reference(*case), CLOSE, 1e-12)


def test_in_groups_of_32_the_layout_is_that_of_ggmls_q4_0():
    data, scale = drawn_weight4(1, 5, 96, 32)
    scale = scale.half()
    bytes_of_scale = scale.t().contiguous().view(torch.uint8).unflatten(1, (-1, 2))
    blocks = torch.cat((bytes_of_scale, data.unflatten(1, (-1, 16))), 2).flatten(1)
    weight = torch.from_numpy(dequantize(blocks.cpu().numpy(), named("Q4_0")).copy()).to(DEVICE)
    x = drawn(2, 96)
    assert same_value(ref.gemv4(x, data, scale.float(), 32), weight @ x, CLOSE, 1e-12)


def test_softmax_is_the_librarys():
    x = drawn(5, 3, 45)
    assert same_value(ref.online_softmax(x, 16), softmax(x), CLOSE, 1e-12)


def test_a_fence_of_nan_stands_around_every_input():
    x = fenced(torch.arange(6.0).view(2, 3))
    whole = torch.as_strided(x, (6 + 2 * FENCE,), (1,), x.storage_offset() - FENCE)
    assert whole.isnan().sum() == 2 * FENCE and torch.equal(x.cpu(), torch.arange(6.0).view(2, 3))
    _, k, _, table, _ = drawn_cache(0, (3, 5), 2, 1, 2, 16)
    assert int(k[..., 0].isnan().sum()) == k.shape[0] * 2 - 8 and (table[0, 2:] == -1).all()
    assert (fences(table) == -1).all() and (fences(fenced(torch.zeros(3, dtype=torch.uint8))) == 255).all()


def test_a_stray_store_lands_in_the_fence_of_the_output_and_is_seen():
    out = nothing_written(2, 3)
    assert fences(out).shape == (2, FENCE) and fences(out).isnan().all()
    torch.as_strided(out, (1,), (1,), out.storage_offset() + 6)[0] = 7.0
    assert int((~fences(out).isnan()).sum()) == 1 and out.isnan().all()
    assert fences(torch.zeros(5)).numel() == 0


LAUNCHERS = {
    "kernels.softmax": "fused_softmax",
    "kernels.online": "online_softmax",
    "kernels.tiled": "tiled_attention",
    "kernels.tail": "decode_row",
    "kernels.paged": "paged_decode",
    "kernels.gemv": "gemv4",
}
NO_STORES = ("tl.store(", "# tl.store(")


@pytest.mark.parametrize("exercise_id", LAUNCHERS)
def test_a_kernel_that_stores_nothing_is_told_so_and_not_to_look_for_nan(exercise_id):
    result = evaluate(find(exercise_id), edited(LAUNCHERS[exercise_id], NO_STORES))
    count = re.search(r"left (\d+) of (\d+) numbers unwritten", result.message)
    assert count and count[1] == count[2], result
    assert "the first at [0" in result.message and "tl.store" in result.message and "nan" not in result.message


@pytest.mark.parametrize("exercise_id", [one for one in LAUNCHERS if one != "kernels.tail"])  # given as a whole
def test_a_launcher_that_still_returns_todo_is_named_once_its_kernel_stores(exercise_id):
    name = LAUNCHERS[exercise_id]
    (returned,) = re.findall(r"\n    return .*", inspect.getsource(getattr(ref, name)))
    todo = returned, "\n    from labcore.learn.exercises import TODO\n    return TODO"
    by_atomics = "tl.store(", "tl.atomic_add("
    cases = ((), (by_atomics,), (NO_STORES,))
    written, added, stub = (evaluate(find(exercise_id), edited(name, todo, *more)) for more in cases)
    kernel = re.search(r"(\w+_kernel)\[", inspect.getsource(getattr(ref, name)))[1]
    assert written.message == f"{kernel} stores its result, but {name} still returns TODO; return what {kernel} filled"
    assert added.message == written.message
    assert written.state == stub.state == NOT_ATTEMPTED and stub.message == "not attempted yet"


def test_what_was_never_written_is_told_by_its_bits_from_any_other_nan():
    out = nothing_written(2, 3)
    assert len(unwritten(out)) == 6 and not unwritten(out + 1) and not unwritten(torch.full((3,), torch.nan))
    out[0], out[1, 1] = 0.0, torch.nan
    assert unwritten(out) == [[1, 0], [1, 2]]
    assert unwritten(None) == unwritten(torch.zeros(2, dtype=torch.int32)) == []


def test_an_edited_kernel_comes_from_a_file_whose_name_the_assembler_reads():
    """Compiled code names it between quotation marks."""
    wrong = edited("fused_softmax", ('other=float("-inf")', "other=0.0"))
    (name,) = {wrong.__code__.co_filename, wrong.__globals__["softmax_kernel"].fn.__code__.co_filename}
    assert not {'"', "\\", "\n"} & {*name}
    assert edited("fused_softmax", ('other=float("-inf")', "other=1.0")).__code__.co_filename != name


COMPILE = """
import json, torch
torch.cuda.is_available, torch.cuda.get_device_capability = lambda: True, lambda: (9, 0)  # no interpreter, then
from labcore.kernels._compile import Variant, compile_variant, problems
from labcore.learn.labs import lab06_references as ref
TYPES = {"table_ptr": "*i32", "length_ptr": "*i32", "data_ptr": "*u8", "scale_ptr": "*fp32", "scale": "fp32"}
SIZES = {
    "softmax": {"BLOCK": 128}, "online": {"BLOCK": 32}, "attention": {"D": 32, "BLOCK": 16}, "gemv": {"GROUP": 32},
    "paged": {"HEADS": 4, "KV_HEADS": 2, "PAGE": 4, "D": 16}, "attention in larger tiles": {"D": 64, "BLOCK": 64},
}
found = {}
for chip in 75, 90:
    for name, sizes in SIZES.items():
        kernel = getattr(ref, f"{name.split()[0]}_kernel")
        names = [one for one in kernel.arg_names if one not in sizes]
        types = {one: TYPES.get(one, "*fp32" if one.endswith("_ptr") else "i32") for one in names}
        found[f"{name}, sm{chip}"] = problems(compile_variant(Variant(name, kernel, types, sizes), chip), chip)
print(json.dumps(found))
"""


def test_the_labs_kernels_compile_for_a_t4_and_an_h100_and_larger_tiles_of_attention_spill():
    """As its last section says."""
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=plain, cwd=ROOT)
    found = json.loads(run.stdout or run.stderr)
    larger = [found.pop(f"attention in larger tiles, sm{chip}") for chip in (75, 90)]
    assert not any(found.values()), found
    assert all("spills" in one[0] for one in larger), larger


@pytest.mark.skipif(DEVICE == "cuda", reason="with a GPU the kernels are compiled")
def test_the_lab_chooses_the_interpreter_by_itself_or_says_that_it_is_too_late():
    plain = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = lambda code: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=plain)  # noqa: E731
    early = run(
        "import labcore.learn.labs.lab06; from labcore.learn.labs.lab06_tools import interpreted as f; print(f())"
    )
    assert early.stdout.strip() == "True", early.stderr
    assert "restart and run from the top" in run("import triton; import labcore.learn.labs.lab06").stderr
    pascal = "import torch; torch.cuda.is_available = lambda: True; torch.cuda.get_device_capability = lambda: (6, 0)\n"
    old = run(f"{pascal}from labcore.learn.labs.lab06_tools import DEVICE, interpreted as f; print(DEVICE, f())")
    assert old.stdout.strip() == "cpu True", old.stderr
