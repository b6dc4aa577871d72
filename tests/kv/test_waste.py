"""Four ways to reserve KV memory: closed sums against counting slot by slot, and the formula on real lengths."""

from __future__ import annotations

from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.facts.workloads import workload, workload_ids
from labcore.formulas import formula
from labcore.kv.waste import utilization

requests = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=8)


@given(requests, st.integers(1, 20))
def test_the_sums_are_those_of_counting_every_step(lengths, block):
    def counted(reserved):
        steps = [(p + t, reserved(p, n, t)) for p, n in lengths for t in range(1, n + 1)]
        return sum(stored for stored, _ in steps) / sum(slots for _, slots in steps)

    prompts, outputs = zip(*lengths, strict=True)
    assert utilization("max", prompts, outputs, 100) == pytest.approx(counted(lambda p, n, t: 100))
    assert utilization("power_of_two", prompts, outputs, 1) == pytest.approx(
        counted(lambda p, n, t: p + 2 ** ceil(log2(n)))
    )
    assert utilization("oracle", prompts, outputs, 1) == pytest.approx(counted(lambda p, n, t: p + n))
    assert utilization("paged", prompts, outputs, block) == pytest.approx(
        counted(lambda p, n, t: ceil((p + t) / block) * block)
    )


@pytest.mark.parametrize("id", [id for id in workload_ids() if "total" in workload(id).histograms])
@pytest.mark.parametrize("block_size", [1, 16, 128])
def test_the_formula_holds_on_real_lengths(id, block_size):
    """Mean length alone predicts utilization, for real lengths leave remainders that are nearly uniform."""
    lengths = workload(id).lengths
    predicted = formula["kv.paging.utilization"](n=lengths.mean, S=block_size)
    assert lengths.utilization(block_size) == pytest.approx(predicted, abs=1.2e-5 * block_size)


@pytest.mark.parametrize("id", ["sharegpt-300", "azure-2023-conv", "azure-2023-code"])
def test_paging_wins_on_every_trace_and_reserving_the_maximum_loses(id):
    trace = workload(id)
    prompts, outputs = trace.prompt.sample(2000, seed=1), np.maximum(trace.output.sample(2000, seed=2), 1)
    longest = int((prompts + outputs).max())
    shares = [
        utilization(scheme, prompts, outputs, size)
        for scheme, size in [("max", longest), ("power_of_two", 1), ("oracle", 1), ("paged", 16)]
    ]
    assert shares == sorted(shares) and shares[-1] > 0.97 and shares[0] < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dense", [1], [1], 1), "scheme='dense': must be one of max, power_of_two, oracle, paged"),
        (("paged", [1], [0], 1), "every output 1 token or more"),
        (("paged", [], [], 1), "not empty"),
        (("max", [5], [5], 9), "size=9: must be 1 or more, and for 'max' no less than the longest request"),
    ],
)
def test_bad_lengths_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        utilization(*arguments)
