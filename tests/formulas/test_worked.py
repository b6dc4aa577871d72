"""Every worked number, to the digits shown."""

import pytest

from labcore.formulas import formula
from tests.formulas.worked import KAPPA, LLAMA2_70B, WORKED, Worked


@pytest.mark.parametrize("row", WORKED, ids=lambda row: f"{row.id}={row.shown}")
def test_worked_number(row: Worked):
    assert row.holds(), formula[row.id](**row.inputs)


def test_no_crossover_at_4096_tokens():
    limit = formula["roofline.intensity_limit"](**LLAMA2_70B, kappa=KAPPA, L=4096)
    assert limit < formula["roofline.ridge"](F=312e12, beta=2.039e12)


def test_sequence_103_is_the_first_above_the_weights():
    total = [formula["kv.bytes"](B=B, L=4096, kappa=KAPPA) for B in (102, 103)]
    weights = formula["decode.weight_bytes"](b_w=2, P=LLAMA2_70B["P"])
    assert total[0] <= weights < total[1]


def test_mla_against_others():
    mla = formula["kv.mla_bytes_per_token"](n_layers=61, d_c=512, d_R=64, b_kv=2)
    expanded = formula["kv.mla_uncompressed_bytes_per_token"](n_layers=61, n_q=128, d_h=128, d_R=64, b_kv=2)
    assert round(KAPPA / mla, 1) == 4.7 and round(expanded / mla) == 71


def test_int4_weights_free_25_9_gb_a_gpu():
    weights = formula["kv.capacity.weights"]
    freed = weights(b_w=2, P=70_553_706_496, n_gpu=4) - weights(b_w=4.25 / 8, P=70_553_706_496, n_gpu=4)
    assert round(freed / 1e9, 1) == 25.9


def test_moving_beats_computing_at_the_break_even_bandwidth():
    prompt = {
        "L": 8192,
        "P": 70_553_706_496,
        "n_layers": 80,
        "n_q": 64,
        "d_h": 128,
        "n_gpu": 4,
        "F": 312e12,
        "mfu": 0.5,
    }
    link = formula["kv.offload_break_even_bandwidth"](kappa=KAPPA, **prompt)
    assert formula["kv.transfer_time"](L=8192, kappa=KAPPA, beta_link=link) == pytest.approx(
        formula["kv.recompute_time"](**prompt), rel=1e-12
    )


def test_experts_hit_matches_counting():
    # 4 experts, 2 a token, 2 tokens: over all 36 pairs of pairs, the mean number of distinct experts
    pairs = [{a, b} for a in range(4) for b in range(a)]
    mean = sum(len(first | second) for first in pairs for second in pairs) / len(pairs) ** 2
    assert formula["moe.experts_hit"](E=4, k=2, B=2) == pytest.approx(mean, rel=1e-15)


def test_uncached_projections_match_counting():
    assert formula["kv.projections_uncached"](L=7, n_out=5) == sum(7 + i for i in range(5))
    assert formula["kv.projections_cached"](L=7, n_out=5) == 7 + 4


def test_step_time_turns_compute_bound_at_the_crossover():
    machine = {
        "b_w": 2,
        "P": 68_976_648_192,
        "L": 0,
        "kappa": KAPPA,
        "F": 312e12,
        "beta": 2.039e12,
        "t_comm": 0,
        "t_launch": 0,
    }
    step, flat = formula["decode.step_time"], formula["decode.weight_time"](b_w=2, P=68_976_648_192, beta=2.039e12)
    assert step(B=153, **machine) == flat < step(B=154, **machine)
