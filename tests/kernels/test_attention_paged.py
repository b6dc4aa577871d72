"""Unified attention of mixed batches over a paged cache, and the write into one."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels.attention_decode import paged_decode  # noqa: E402
from labcore.kernels.attention_paged import (  # noqa: E402
    paged_attention,
    paged_attention_reference,
    write_kv,
    write_kv_reference,
)
from labcore.kernels.splits import workspace_size  # noqa: E402
from tests.kernels.checks import DEVICE, DTYPES, close_as_torch, poisoned  # noqa: E402
from tests.kernels.paged_cases import by_torch, paged_case, queries, starts  # noqa: E402

SLOW = settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # interpreted: no shrinking
NEW = [1, 20, 0, 5, 1, 20]  # tokens of each request: decodes, a whole prompt, none, more than there are keys, a chunk
ALL = [37, 20, 11, 3, 16, 70]
FEW = {"BLOCK_M": 16, "BLOCK_T": 32} if DEVICE == "cpu" else None
MANY = {"BLOCK_M": 64, "BLOCK_T": 32} if DEVICE == "cpu" else None


def attend_and_check(q, case, new, *, window=None, scale=None, **options):
    """paged_attention into a poisoned output; judged with its lse; returns both."""
    out, cu_q = poisoned(*q.shape, dtype=q.dtype, device=q.device), starts(new).to(q.device)
    o, lse = paged_attention(
        q, *case.caches, cu_q, case.seq_lens, case.block_table, max(new),
        window=window, scale=scale, out=out, return_lse=True, **options,
    )  # fmt: skip
    assert o is out
    torch_way, exact = (by_torch(q, case, new, window, scale, dtype) for dtype in (None, torch.float64))
    close_as_torch(o, torch_way, exact)
    _, exact_lse = paged_attention_reference(
        q, *case.caches, cu_q, case.seq_lens, case.block_table, window=window, scale=scale
    )
    assert torch.equal(lse.isinf(), exact_lse.isinf())
    bar = 2e-5 if q.dtype == torch.float32 else 1e-3
    assert ((lse - exact_lse)[lse.isfinite()].abs() < bar).all()
    return o, lse


def test_the_specification_is_torchs_attention():
    case, q = paged_case(ALL), queries(sum(NEW), 4)
    for window in (None, 7):
        o, _ = paged_attention_reference(
            q, *case.caches, starts(NEW), case.seq_lens, case.block_table, window=window, scale=0.3
        )
        torch.testing.assert_close(o, by_torch(q, case, NEW, window, 0.3), atol=2e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "launch"), [(torch.float32, FEW), *((dtype, MANY) for dtype in DTYPES)])
@pytest.mark.parametrize("window", [None, 7, 40])
def test_mixed_batches(device, dtype, window, launch):
    case = paged_case(ALL, 1, dtype=dtype, device=device)
    q = queries(sum(NEW), 2, dtype=dtype, device=device)
    o, lse = attend_and_check(q, case, NEW, window=window, launch=launch, num_splits=1)
    blind = slice(21, 23)  # the first two of five tokens with three keys: their positions are negative
    assert (o[blind] == 0).all() and (lse[blind] == -torch.inf).all() and lse[23:].isfinite().all()


@pytest.mark.parametrize("group", [1, 2, 4, 5, 7, 8, 16])
def test_every_ratio_of_heads(device, group):
    case = paged_case([9, 40], 1, device=device)
    attend_and_check(queries(5, group, device=device), case, [4, 1], launch=FEW, num_splits=1)


def test_splits_agree_with_one(device):
    case, q = paged_case([150, 6], 1, device=device), queries(5, 2, device=device)
    for window in (None, 100):  # of the tiles, some are cut by the window, some whole, some cut by the diagonal
        one, lse = attend_and_check(q, case, [4, 1], num_splits=1, window=window)
        for num_splits in (2, 7):
            o, other = attend_and_check(q, case, [4, 1], num_splits=num_splits, window=window)
            torch.testing.assert_close(o, one, rtol=0, atol=2e-6)
            torch.testing.assert_close(other, lse, rtol=0, atol=4e-6)


@pytest.mark.parametrize("page", [1, 5, 128])
def test_every_page_size(device, page):
    case = paged_case([page + 1, 2 * page, 30], 1, page=page, device=device)
    attend_and_check(queries(1 + 2 + 30, 2, device=device), case, [1, 2, 30])


def test_single_tokens_are_decode(device):
    case, q = paged_case([0, 1, 33, 70], device=device), queries(4, 4, device=device)
    cu_q = starts([1] * 4).to(device)
    o, lse = paged_attention(q, *case.caches, cu_q, case.seq_lens, case.block_table, 1, return_lse=True)
    decoded, decoded_lse = paged_decode(q, *case.where, return_lse=True)
    torch.testing.assert_close(o, decoded, atol=2e-6, rtol=0)
    torch.testing.assert_close(lse, decoded_lse, atol=4e-6, rtol=0)


def test_permuting_the_batch_permutes_the_output(device):
    case, q, order = paged_case([33, 12, 20], 1, device=device), queries(9, 2, device=device), [2, 0, 1]
    parts = q.split([1, 6, 2])
    moved = torch.cat([parts[i] for i in order])
    k, v, table, lengths = case.of(order)
    o = paged_attention(q, *case.caches, starts([1, 6, 2]).to(device), case.seq_lens, case.block_table, 6)
    again = paged_attention(moved, k, v, starts([2, 1, 6]).to(device), lengths, table, 6)
    assert torch.equal(again, torch.cat([o.split([1, 6, 2])[i] for i in order]))


def test_padding_behind_the_last_request_does_not_matter(device):
    case, q = paged_case([20, 9], 1, device=device), queries(9, 2, device=device)
    cu_q = starts([5, 1]).to(device)
    for num_splits in (1, 2):
        workspace = torch.zeros(workspace_size(9, 2, 32, num_splits), device=device)
        o = paged_attention(
            q, *case.caches, cu_q, case.seq_lens, case.block_table, 5, num_splits=num_splits, workspace=workspace
        )
        torch.testing.assert_close(o[:6], by_torch(q[:6], case, [5, 1]), atol=2e-6, rtol=0)


def test_a_bound_that_is_too_large_changes_nothing(device):
    case, q = paged_case([20, 9], 1, device=device), queries(6, 2, device=device)
    where = (*case.caches, starts([5, 1]).to(device), case.seq_lens, case.block_table)
    exact = paged_attention(q, *where, 5, max_seq_len=20)
    torch.testing.assert_close(paged_attention(q, *where, 100, max_seq_len=10_000), exact, atol=2e-6, rtol=0)


def test_the_torch_way(device):
    case, q = paged_case(ALL, 1, device=device), queries(sum(NEW), 2, device=device)
    where = (*case.caches, starts(NEW).to(device), case.seq_lens, case.block_table)
    o, lse = paged_attention(q, *where, 20, window=7, backend="torch", return_lse=True)
    ours, our_lse = paged_attention(q, *where, 20, window=7, return_lse=True)
    torch.testing.assert_close(o, ours, atol=2e-6, rtol=0)
    torch.testing.assert_close(lse, our_lse, atol=2e-6, rtol=0)


@given(st.data())
@SLOW
def test_any_batch(data):
    requests = data.draw(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), min_size=1, max_size=3), "requests"
    )
    new = [tokens for tokens, _ in requests]
    lengths = [
        tokens + past if past else tokens // 2 for tokens, past in zip(new, (p for _, p in requests), strict=True)
    ]
    group, window = data.draw(st.integers(1, 9), "group"), data.draw(st.none() | st.integers(1, 50), "window")
    if sum(new) == 0:
        return
    case = paged_case(lengths, 1, page=data.draw(st.sampled_from([1, 4, 16, 24]), "page"), device=DEVICE)
    num_splits = data.draw(st.integers(1, 2), "num_splits")
    attend_and_check(queries(sum(new), group, device=DEVICE), case, new, window=window, num_splits=num_splits)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cu_q": torch.tensor([0, 1])}, "cu_q is torch.int64"),
        ({"cu_q": torch.tensor([0, 6]).int()}, "cu_q 2, tables 2, lengths 2: pass n \\+ 1, n and n"),
        ({"max_q": 0}, "max_q=0"),
        ({"window": -1}, "window=-1"),
        ({"q": torch.zeros(6, 5, 32)}, "n_heads must be a multiple of n_kv_heads"),
        ({"q": torch.zeros(6, 2 * 17, 32), "launch": {"BLOCK_M": 16, "BLOCK_T": 32}}, "17 query heads to a KV head"),
    ],
)
def test_what_cannot_be_used_is_named(device, change, complaint):
    case = paged_case([20, 9], device=device)
    arguments = {"q": queries(6, 4), "k_cache": case.k_cache, "v_cache": case.v_cache, "cu_q": starts([5, 1])}
    arguments |= {"seq_lens": case.seq_lens, "block_table": case.block_table, "max_q": 5}
    arguments |= change
    arguments |= {name: value.to(device) for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    with pytest.raises(InputError, match=complaint):
        paged_attention(**arguments)


# writing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kv_heads", "head_dim"), [(2, 32), (3, 16), (8, 128)])
def test_tokens_land_in_their_slots_and_nowhere_else(device, dtype, kv_heads, head_dim):
    qkv = queries(11, 4 * kv_heads, head_dim, device=device)  # k and v are parts of a joint product, in float32
    k, v = qkv[:, kv_heads : 2 * kv_heads], qkv[:, 2 * kv_heads : 3 * kv_heads]
    slots = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:11].to(device)
    slots[[2, 5]] = -1
    ours, reference = (
        [torch.full((5, 8, kv_heads, head_dim), 7.0, device=device).to(dtype) for _ in "kv"] for _ in "or"
    )
    write_kv(k, v, *ours, slots)
    write_kv_reference(k, v, *reference, slots)
    for mine, wanted in zip(ours, reference, strict=True):
        assert torch.equal(mine, wanted)
        assert int((mine != 7.0).flatten(2).any(2).sum()) == 9
    torch.testing.assert_close(ours[1].flatten(0, 1)[slots[0]], v[0].to(dtype))


def test_what_was_written_is_what_is_read(device):
    whole = paged_case([33, 5], device=device)
    empty = [torch.full_like(cache, torch.nan) for cache in whole.caches]
    for request, length in enumerate([33, 5]):
        position = torch.arange(length, device=device)
        slots = whole.block_table[request][position // 16].long() * 16 + position % 16
        write_kv(*(cache.flatten(0, 1)[slots] for cache in whole.caches), *empty, slots)
    assert all(torch.equal(a.nan_to_num(9.0), b.nan_to_num(9.0)) for a, b in zip(empty, whole.caches, strict=True))


def test_a_write_that_does_not_fit_is_named(device):
    cache, new = torch.zeros(2, 4, 2, 16, device=device), torch.zeros(3, 2, 16, device=device)
    slots = torch.zeros(3, dtype=torch.int64, device=device)
    write_kv(new[:0], new[:0], cache, cache, slots[:0])  # nothing: nothing to do
    for arguments, complaint in [
        ((new[:, :1], new[:, :1], cache, cache, slots), "heads must be the same"),
        ((new, new, cache, cache, slots.int()), "slots is torch.int32"),
        ((new, new, cache, cache, slots[:2]), r"make it contiguous torch\.int64 \(3,\)"),
        ((new, new, cache.transpose(0, 1), cache.transpose(0, 1), slots), "must be contiguous"),
    ]:
        with pytest.raises(InputError, match=complaint):
            write_kv(*arguments)


def test_offsets_beyond_32_bits(device):
    """A cache of more than 2³¹ elements: written and read in its last pages alone."""
    shape = 2**31 // (16 * 8 * 128) + 4, 16, 8, 128
    k_cache, v_cache = (torch.empty(shape, dtype=torch.float16, device=device) for _ in "kv")
    assert k_cache.numel() > 2**31
    table = torch.tensor([[shape[0] - 1, shape[0] - 3]], dtype=torch.int32, device=device)
    position = torch.arange(20, device=device)
    slots = table[0][position // 16].long() * 16 + position % 16
    k, v = (queries(20, 8, 128, dtype=torch.float16, device=device, seed=seed) for seed in (1, 2))
    write_kv(k, v, k_cache, v_cache, slots)
    assert torch.equal(v_cache.flatten(0, 1)[slots], v)
    cu_q, lengths = starts([20]).to(device), torch.tensor([20], dtype=torch.int32, device=device)
    o = paged_attention(k, k_cache, v_cache, cu_q, lengths, table, 20)
    compact = [torch.zeros(2, 16, 8, 128, dtype=torch.float16, device=device) for _ in "kv"]
    write_kv(k, v, *compact, position)
    there = torch.arange(2, dtype=torch.int32, device=device)[None]
    assert torch.equal(o, paged_attention(k, *compact, cu_q, lengths, there, 20))


# only on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: too large for the interpreter")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("page", [16, 128])
@pytest.mark.parametrize(
    ("new", "lengths"),
    [
        ([512, 1, 1, 1], [3000, 2000, 17, 4096]),
        ([1000, 300], [1000, 1300]),
        ([1] * 40, [500 + 61 * i for i in range(40)]),
        ([4, 4, 1], [9000, 100, 5]),
    ],
)
def test_real_shapes(dtype, page, new, lengths):
    case = paged_case(lengths, 2, 128, page, dtype=dtype, device=DEVICE)
    q = queries(sum(new), 8, 128, dtype=dtype, device=DEVICE)
    for options in ({}, {"window": 700}, {"num_splits": 3}):
        attend_and_check(q, case, new, **options)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: CUDA graphs")
def test_a_graph_replays_with_other_lengths():
    new, lengths = [200, 1, 0], [700, 900, 5]
    case = paged_case(lengths, 8, 128, dtype=torch.bfloat16, device=DEVICE)
    q = queries(256, 32, 128, dtype=torch.bfloat16, device=DEVICE)
    out, workspace = torch.zeros_like(q), torch.zeros(workspace_size(256, 32, 128, 2), device=DEVICE)
    cu_q, seq_lens = starts([0, 0, 0]).to(DEVICE), torch.ones(3, dtype=torch.int32, device=DEVICE)

    def step():
        where = (*case.caches, cu_q, seq_lens, case.block_table)
        paged_attention(q, *where, 256, num_splits=2, workspace=workspace, out=out)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    cu_q.copy_(starts(new))
    seq_lens.copy_(case.seq_lens)
    graph.replay()
    close_as_torch(out[:201], by_torch(q[:201], case, new), by_torch(q[:201], case, new, dtype=torch.float64))
