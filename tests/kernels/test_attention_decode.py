"""Split-KV decode over a paged cache."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from labcore.core.errors import InputError  # noqa: E402
from labcore.kernels.attention_decode import paged_decode, paged_decode_reference  # noqa: E402
from labcore.kernels.splits import workspace_size  # noqa: E402
from tests.kernels.checks import DEVICE, DTYPES, close_as_torch, poisoned  # noqa: E402
from tests.kernels.paged_cases import by_torch, paged_case, queries  # noqa: E402

SLOW = settings(max_examples=5, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # interpreted: no shrinking
LENGTHS = [0, 1, 15, 16, 17, 33, 70]  # around a page of 16 and a tile of 32


def decode_and_check(q, case, *, window=None, scale=None, **options):
    """paged_decode into a poisoned output; judged with its lse; returns both."""
    out = poisoned(*q.shape, dtype=q.dtype, device=q.device)
    o, lse = paged_decode(q, *case.where, window=window, scale=scale, out=out, return_lse=True, **options)
    assert o is out
    ones = [1] * len(q)
    torch_way, exact = (by_torch(q, case, ones, window, scale, dtype) for dtype in (None, torch.float64))
    close_as_torch(o, torch_way, exact)
    wide = (part.double() for part in (q, *case.caches))
    _, exact_lse = paged_decode_reference(*wide, case.block_table, case.seq_lens, window=window, scale=scale)
    assert torch.equal(lse.isinf(), exact_lse.isinf())
    bar = 2e-5 if q.dtype == torch.float32 else 1e-3
    assert ((lse - exact_lse)[lse.isfinite()].abs() < bar).all()
    return o, lse


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("window", [None, 20])
def test_every_length_with_and_without_tensor_cores(device, dtype, vector, window):
    case = paged_case(LENGTHS, kv_heads=1, dtype=dtype, device=device)
    q = queries(len(LENGTHS), 2, dtype=dtype, device=device)
    o, lse = decode_and_check(q, case, window=window, vector=vector, num_splits=2)
    assert (o[0] == 0).all() and (lse[0] == -torch.inf).all()  # no key


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("num_splits", [1, 2])
def test_nothing_to_attend_to_is_written_too(device, vector, num_splits):
    case = paged_case([0, 0], 1, device=device)
    o, lse = decode_and_check(queries(2, 2, device=device), case, vector=vector, num_splits=num_splits)
    assert (o == 0).all() and (lse == -torch.inf).all()


@pytest.mark.parametrize("group", [1, 2, 4, 5, 7, 8, 16, 20])
def test_every_ratio_of_heads(device, group):
    case = paged_case([3, 40], kv_heads=2, device=device)
    decode_and_check(queries(2, 2 * group, device=device), case, num_splits=1)


@pytest.mark.parametrize(("page", "head_dim"), [(1, 16), (5, 64), (16, 128), (32, 256), (128, 32)])
def test_every_page_size_and_head_size(device, page, head_dim):
    case = paged_case([1, page, 2 * page + 1], 1, head_dim, page, device=device)
    decode_and_check(queries(3, 3, head_dim, device=device), case, scale=0.3, num_splits=1)


@pytest.mark.parametrize("vector", [False, True])
def test_any_number_of_splits_agrees_with_one(device, vector):
    case = paged_case([5, 150], kv_heads=1, device=device)
    q = queries(2, 1, device=device)
    one, lse = decode_and_check(q, case, num_splits=1, vector=vector)
    for num_splits in range(2, 33) if device == "cuda" else (3, 20):  # the short one's shares are mostly empty
        o, other = paged_decode(q, *case.where, num_splits=num_splits, return_lse=True, vector=vector)
        torch.testing.assert_close(o, one, rtol=0, atol=2e-6)
        torch.testing.assert_close(other, lse, rtol=0, atol=4e-6)


def test_permuting_the_batch_permutes_the_output(device):
    case, order = paged_case(LENGTHS, kv_heads=1, device=device), [5, 2, 0, 1, 6, 4, 3]
    q = queries(len(LENGTHS), 4, device=device)
    o = paged_decode(q, *case.where, num_splits=1)
    assert torch.equal(paged_decode(q[order], *case.of(order), num_splits=1), o[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_with_a_chunk_no_bit_depends_on_the_rest_of_the_batch(device, dtype):
    case = paged_case([150, 40, 9], kv_heads=1, dtype=dtype, device=device)
    q = queries(3, 2, dtype=dtype, device=device)
    together, lse = decode_and_check(q, case, chunk=64)
    for request in range(3):
        alone, its_lse = paged_decode(q[[request]], *case.of([request]), chunk=64, return_lse=True)
        assert torch.equal(alone[0], together[request]) and torch.equal(its_lse[0], lse[request])
    length = int(case.seq_lens[0])
    bounded = paged_decode(q[:1], *case.of([0]), chunk=64, max_seq_len=length + 200)  # more shares, all empty
    assert torch.equal(bounded[0], together[0])
    short = paged_decode(q[2:], *case.of([2]), chunk=64, max_seq_len=9)  # a single share, which nothing merges
    assert torch.equal(short[0], together[2])


def test_a_chunk_is_so_many_keys(device):
    case, q = paged_case([320], kv_heads=1, device=device), queries(1, 2, device=device)
    fifths = paged_decode(q, *case.where, num_splits=5)
    assert torch.equal(paged_decode(q, *case.where, chunk=64), fifths)
    assert not torch.equal(paged_decode(q, *case.where, chunk=128), fifths)


def test_without_a_chunk_bits_depend_on_the_number_of_splits(device):
    """Else the test above would pass for any kernel."""
    case, q = paged_case([300], kv_heads=1, device=device), queries(1, 4, device=device)
    assert not torch.equal(*(paged_decode(q, *case.where, num_splits=n) for n in (1, 4)))


def test_lse_is_natural(device):
    case = paged_case([1, 50], device=device)
    q = torch.zeros(2, 4, 32, device=device)  # every score is 0, so lse = ln(number of keys)
    for num_splits in (1, 3):
        _, lse = paged_decode(q, *case.where, return_lse=True, num_splits=num_splits)
        torch.testing.assert_close(lse.cpu(), torch.tensor([1.0, 50.0]).log()[:, None].expand(2, 4), atol=1e-6, rtol=0)


def test_large_scores_do_not_overflow(device):
    case = paged_case([60], device=device)
    decode_and_check(100 * queries(1, 4, device=device), case, num_splits=2)


def test_queries_may_be_part_of_a_joint_product(device):
    case, qkv = paged_case([20, 3], device=device), queries(2, 8, device=device)
    q = qkv[:, 2:6]
    assert torch.equal(paged_decode(q, *case.where), paged_decode(q.contiguous(), *case.where))


def test_a_workspace_is_used_whatever_it_held(device):
    case, q = paged_case([0, 33, 150], device=device), queries(3, 4, device=device)
    wanted = paged_decode(q, *case.where, num_splits=4)
    workspace = poisoned(workspace_size(3, 4, 32, 4) + 5, device=device)
    assert torch.equal(paged_decode(q, *case.where, num_splits=4, workspace=workspace), wanted)
    assert workspace[-5:].isnan().all() and workspace[0].isfinite()
    with pytest.raises(InputError, match="pass 1584 float32"):
        paged_decode(q, *case.where, num_splits=4, workspace=workspace[:100])


def test_the_torch_way(device):
    case, q = paged_case([0, 17, 70], device=device), queries(3, 4, device=device)
    for window in (None, 20):
        o, lse = paged_decode(q, *case.where, window=window, backend="torch", return_lse=True)
        ours, our_lse = paged_decode(q, *case.where, window=window, return_lse=True)
        torch.testing.assert_close(o, ours, atol=2e-6, rtol=0)
        torch.testing.assert_close(lse, our_lse, atol=2e-6, rtol=0)


@given(st.data())
@SLOW
def test_any_batch(data):
    lengths = data.draw(st.lists(st.integers(0, 90), min_size=1, max_size=3), "lengths")
    kv_heads, group = data.draw(st.integers(1, 2), "kv_heads"), data.draw(st.integers(1, 9), "group")
    page, window = (
        data.draw(st.sampled_from([1, 4, 16, 24]), "page"),
        data.draw(st.none() | st.integers(1, 100), "window"),
    )
    how = data.draw(st.sampled_from([{"num_splits": 1}, {"num_splits": 3}, {"chunk": 32}, {"vector": True}]), "how")
    case = paged_case(lengths, kv_heads, page=page, device=DEVICE, seed=len(lengths))
    decode_and_check(queries(len(lengths), kv_heads * group, device=DEVICE), case, window=window, **how)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"q": torch.zeros(2, 3, 32)}, "n_heads must be a multiple of n_kv_heads"),
        ({"q": torch.zeros(2, 4, 64)}, "q has 4 heads of 64, the cache 2 of 32"),
        ({"q": torch.zeros(2, 4, 32, dtype=torch.float16)}, "one of fp32, fp16, bf16 for all"),
        ({"q": torch.zeros(3, 4, 32)}, "3 queries, 2 tables, 2 lengths"),
        ({"block_table": torch.zeros(2, 2, dtype=torch.int64)}, "block_table is torch.int64"),
        ({"seq_lens": torch.zeros(2, 1, dtype=torch.int32)}, "seq_lens is \\(2, 1\\): pass a contiguous vector"),
        ({"num_splits": 2, "chunk": 64}, "num_splits=2 and chunk=64"),
        ({"num_splits": 0}, "num_splits=0"),
        ({"window": 0}, "window=0"),
        ({"backend": "cuda"}, "backend='cuda'"),
    ],
)
def test_what_cannot_be_used_is_named(change, complaint):
    case = paged_case([5, 20])
    arguments = {"q": queries(2, 4), "k_cache": case.k_cache, "v_cache": case.v_cache}
    arguments |= {"block_table": case.block_table, "seq_lens": case.seq_lens}
    with pytest.raises(InputError, match=complaint):
        paged_decode(**arguments | change)


def test_head_sizes_that_are_no_powers_of_two_are_named():
    case = paged_case([5], head_dim=80)
    with pytest.raises(InputError, match="head_dim=80: the kernels take powers of two"):
        paged_decode(queries(1, 2, 80), *case.where)


# only where there is memory and a GPU


def test_offsets_beyond_32_bits(device):
    """A cache of more than 2³¹ elements, of which only the last pages are in use."""
    kv_heads, head_dim, page = 8, 128, 16
    pages = 2**31 // (page * kv_heads * head_dim) + 8
    small = paged_case([40], kv_heads, head_dim, page, dtype=torch.float16, device=device)
    big = [torch.empty(pages, page, kv_heads, head_dim, dtype=torch.float16, device=device) for _ in "kv"]
    table = (small.block_table + (pages - len(small.k_cache))).int()
    for cache, part in zip(big, small.caches, strict=True):
        cache[-len(part) :] = part
    q = queries(1, kv_heads, head_dim, dtype=torch.float16, device=device)
    assert big[0].numel() > 2**31
    for vector in (False, True):
        wanted = paged_decode(q, *small.where, vector=vector)
        assert torch.equal(paged_decode(q, *big, table, small.seq_lens, vector=vector), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: too large for the interpreter")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch", "length", "page"), [(16, 2048, 16), (3, 8192, 128), (1, 40_000, 16)])
def test_real_shapes(dtype, batch, length, page):
    lengths = [max(0, length - 97 * i) for i in range(batch)]
    case = paged_case(lengths, 2, 128, page, dtype=dtype, device=DEVICE)
    q = queries(batch, 8, 128, dtype=dtype, device=DEVICE)
    for options in ({}, {"chunk": 1024}, {"window": 1000}, {"vector": True}, {"num_splits": 7}):
        decode_and_check(q, case, **options)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: CUDA graphs")
def test_a_graph_replays_with_other_lengths():
    case = paged_case([700, 30, 0], 8, 128, dtype=torch.bfloat16, device=DEVICE)
    q = queries(3, 32, 128, dtype=torch.bfloat16, device=DEVICE)
    workspace, out = torch.empty(workspace_size(3, 32, 128, 4), device=DEVICE), torch.empty_like(q)
    lengths = torch.tensor([1, 1, 0], dtype=torch.int32, device=DEVICE)  # of the third no table entry may be read

    def step():
        paged_decode(q, *case.caches, case.block_table, lengths, num_splits=4, workspace=workspace, out=out)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    lengths.copy_(case.seq_lens)
    out.fill_(torch.nan)
    graph.replay()
    assert torch.equal(out, paged_decode(q, *case.where, num_splits=4))
