"""The compiled decode attention and decoder layers against plain torch."""

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.kernels.cpu.attention import DecodePass, specification, supports  # noqa: E402
from labcore.kernels.cpu.library import why_unavailable  # noqa: E402

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.sampled_from([(1, 1), (2, 3), (3, 3), (1, 5), (2, 8)]),  # KV heads, query heads per KV head
    st.sampled_from([16, 64, 128]),
    st.sampled_from([1, 4, 16]),
    st.lists(st.integers(1, 70), min_size=5, max_size=5),
    st.sampled_from([1, 3]),  # with fewer sequences than threads a thread takes one key head
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_paged_attention_equals_the_specification(
    sequences, heads, size, block_size, lengths, threads, tokens_first, seed
):
    (n_kv, group), generator = heads, torch.Generator().manual_seed(seed)
    lengths = torch.tensor(lengths[:sequences])
    tables, blocks = block_tables(lengths, block_size, generator)
    block = (block_size, n_kv) if tokens_first else (n_kv, block_size)
    keys, values = (torch.full((2, blocks + 1, *block, size), float("nan")) for _ in range(2))
    if tokens_first:  # as the engine stores them
        keys, values = keys.transpose(2, 3), values.transpose(2, 3)
    for i, length in enumerate(lengths.tolist()):  # unused slots stay NaN: reading one would show
        for t in range(length):
            at = (slice(None), tables[i, t // block_size], slice(None), t % block_size)
            keys[at], values[at] = (torch.randn(2, n_kv, size, generator=generator) for _ in range(2))
    fused = torch.randn(sequences, n_kv * (group + 2), size, generator=generator)
    q, k, v = fused.split((n_kv * group, n_kv, n_kv), dim=1)
    before = keys[0].clone()
    attend = DecodePass(keys, values, tables, lengths)
    attend.threads = threads
    out = attend(1, q, k, v)
    newest = tables[torch.arange(sequences), (lengths - 1) // block_size], (lengths - 1) % block_size
    assert torch.equal(keys[1][newest[0], :, newest[1]], k) and torch.equal(values[1][newest[0], :, newest[1]], v)
    assert torch.equal(keys[0].nan_to_num(), before.nan_to_num())  # the other layer is untouched
    expected = specification(q.double(), keys[1].double(), values[1].double(), tables, lengths)
    assert (out - expected).abs().max() < 1e-5


def block_tables(lengths, block_size: int, generator) -> tuple[torch.Tensor, int]:
    """Shuffled, padded tables [sequences, max_blocks] for `lengths`, and the number of blocks they need."""
    counts = [-(-length // block_size) for length in lengths.tolist()]
    order = torch.randperm(sum(counts), generator=generator)
    tables, begin = torch.full((len(counts), max(counts) + 1), sum(counts)), 0
    for i, count in enumerate(counts):
        tables[i, :count] = order[begin : begin + count]
        begin += count
    return tables, sum(counts)


def test_scores_far_apart_and_equal():
    """Softmax at its limits: one key wins by hundreds, or all keys are alike."""
    keys, values = torch.zeros(1, 1, 1, 40, 16), torch.randn(1, 1, 1, 40, 16)
    keys[..., 7, :] = 1e3
    one, lengths = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([40])
    q, newest = torch.full((1, 1, 16), 10.0), (keys[0, :, :, 39], values[0, :, :, 39].clone())
    assert torch.equal(DecodePass(keys, values, one, lengths)(0, q, *newest)[0, 0], values[0, 0, 0, 7])
    q, keys = torch.zeros(1, 1, 16), keys * 0
    out = DecodePass(keys, values, one, lengths)(0, q, *newest)
    torch.testing.assert_close(out[0, 0], values[0, 0, 0].mean(0))


def test_a_nan_key_is_not_hidden():
    keys, values = torch.randn(1, 1, 1, 20, 16), torch.randn(1, 1, 1, 20, 16)
    keys[..., 3, 5] = float("nan")
    one, lengths = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([20])
    k, v = keys[0, :, :, 19].clone(), values[0, :, :, 19].clone()
    assert DecodePass(keys, values, one, lengths)(0, torch.ones(1, 1, 16), k, v).isnan().all()


def test_what_the_kernel_cannot_hold_is_not_supported():
    assert supports(torch.zeros(1, 1, 1, 1, 64))
    assert not supports(torch.zeros(1, 1, 1, 1, 24))
    assert not supports(torch.zeros(1, 1, 1, 1, 64, dtype=torch.bfloat16))


def test_exp_is_good_to_a_few_units_in_the_last_place():
    """Through the softmax of two keys: weights e^x / (1 + e^x) for x from -80 to 80."""
    for x in torch.linspace(-80, 80, 641):
        keys, values = torch.zeros(1, 1, 1, 2, 16), torch.zeros(1, 1, 1, 2, 16)
        keys[..., 0, 0], values[..., 0, 0] = 4.0, 1.0
        q = torch.zeros(1, 1, 16)
        q[..., 0] = x
        zero, lengths = torch.zeros(1, 1, dtype=torch.int64), torch.tensor([2])
        out = DecodePass(keys, values, zero, lengths)(0, q, torch.zeros(1, 1, 16), torch.zeros(1, 1, 16))
        assert abs(out[0, 0, 0] / torch.sigmoid(x.double()) - 1) < 1e-6
