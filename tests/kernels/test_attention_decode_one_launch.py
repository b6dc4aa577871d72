"""The annex that merges in the same launch: it agrees with the two kernels, and leaves its tickets as it found them."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels.attention_decode import paged_decode  # noqa: E402
from labcore.kernels.attention_decode_one_launch import paged_decode_one_launch  # noqa: E402
from tests.kernels.checks import DEVICE, poisoned  # noqa: E402
from tests.kernels.paged_cases import paged_case, queries  # noqa: E402


@pytest.mark.parametrize("num_splits", [None, 1, 5])
def test_one_launch_agrees_with_two(device, num_splits):
    lengths, dtype = ([0, 40, 150], torch.float32) if device == "cpu" else ([0, 40, 20_000], torch.bfloat16)
    case, q = paged_case(lengths, dtype=dtype, device=device), queries(3, 4, dtype=dtype, device=device)
    tickets = torch.zeros(6, dtype=torch.int32, device=device)
    wanted = paged_decode(q, *case.where, num_splits=num_splits)
    for _ in range(1 if device == "cpu" else 50):  # on a GPU a race would show now and then
        out = poisoned(*q.shape, dtype=dtype, device=device)
        paged_decode_one_launch(q, *case.where, tickets, num_splits=num_splits, out=out)
        assert torch.equal(out, wanted) and not tickets.any()


def test_bad_input_is_named():
    case, q = paged_case([4], device=DEVICE), queries(1, 4, device=DEVICE)
    tickets = torch.zeros(4, dtype=torch.int32, device=DEVICE)
    with pytest.raises(InputError, match="2 queries, 1 tables, 1 lengths"):
        paged_decode_one_launch(queries(2, 4, device=DEVICE), *case.where, tickets)
    with pytest.raises(InputError, match="1 tickets: pass 2"):
        paged_decode_one_launch(q, *case.where, torch.zeros(1, dtype=torch.int32, device=DEVICE))
