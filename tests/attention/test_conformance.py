"""One test for all backends: the same outputs as attention written out, whatever the lengths, tables and windows.

Every slot that no token of the step attends to holds NaN, except for block 0, which is padding. So a backend that reads
a stale slot, even to multiply it by zero, is found.
"""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.attention.compiled import CompiledAttention  # noqa: E402
from labcore.attention.csr import CSRAttention  # noqa: E402
from labcore.attention.metadata import AttentionMetadata, AttentionShape  # noqa: E402
from labcore.attention.reference import ReferenceAttention  # noqa: E402
from labcore.attention.sdpa import FEW_QUERIES, PADDING, SDPAAttention, similar  # noqa: E402
from labcore.attention.select import fastest  # noqa: E402
from labcore.kernels.cpu.attention import supports  # noqa: E402

DIM = 16
COMPILED = [CompiledAttention] if supports(torch.empty(1, DIM)) else []  # without a C compiler there is none to test
BACKENDS = [SDPAAttention, CSRAttention, *COMPILED]


def step(requests, *, block_size=4, n_heads=6, n_kv_heads=2, window=None, seed=0, dtype=torch.float32):
    """A step of `requests` (new tokens, length with them) on shuffled blocks: shape, metadata, q, keys, values."""
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-length // block_size) for _, length in requests]
    num_blocks = 1 + sum(counts) + 3
    blocks = (torch.randperm(num_blocks - 1, generator=generator) + 1).tolist()
    tables = [[blocks.pop() for _ in range(count)] for count in counts]
    shape = AttentionShape(n_heads, n_kv_heads, DIM, num_blocks, block_size, window)
    caches = [torch.full((num_blocks, block_size, n_kv_heads, DIM), torch.nan, dtype=dtype) for _ in range(2)]
    slots = []
    for cache in caches:
        cache[0] = 0
    for (new, length), table in zip(requests, tables, strict=True):
        for position in range(shape.first_visible(length - new), length):
            for cache in caches:
                block = table[position // block_size]
                cache[block, position % block_size] = torch.randn(n_kv_heads, DIM, generator=generator)
        slots += [table[p // block_size] * block_size + p % block_size for p in range(length - new, length)]
    width = max(counts)
    metadata = AttentionMetadata(
        query_start_loc=torch.tensor([0] + [new for new, _ in requests], dtype=torch.int32).cumsum(0),
        seq_lens=torch.tensor([length for _, length in requests], dtype=torch.int32),
        block_table=torch.tensor([table + [0] * (width - len(table)) for table in tables], dtype=torch.int32),
        slot_mapping=torch.tensor(slots),
        max_query_len=max(new for new, _ in requests),
        max_seq_len=max(length for _, length in requests),
    )
    q = torch.randn(sum(new for new, _ in requests), n_heads, DIM, generator=generator, dtype=dtype)
    return shape, metadata, q, *caches


def both(backend, *arguments, **options):
    shape, metadata, *tensors = step(*arguments, **options)
    return backend(metadata, shape)(*tensors), ReferenceAttention(metadata, shape)(*tensors)


@st.composite
def requests(draw):
    new = draw(st.lists(st.integers(1, 2 * FEW_QUERIES), min_size=1, max_size=5))
    return [(one, one + draw(st.integers(0, 20))) for one in new]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(
    requests=requests(),
    block_size=st.sampled_from([1, 2, 4, 16]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (5, 1)]),
    window=st.sampled_from([None, None, 1, 3, 4, 5, 64]),
    seed=st.integers(0, 99),
)
@example(requests=[(1, n) for n in (1, 3, 4, 5, 8)], block_size=4, heads=(6, 2), window=None, seed=0)
@example(requests=[(n, n) for n in (3, 4, 5, 15, 16, 17)], block_size=4, heads=(6, 2), window=None, seed=0)
@example(requests=[(12, 17), (1, 30), (9, 9)], block_size=4, heads=(6, 2), window=5, seed=0)
def test_every_backend_is_the_reference(backend, requests, block_size, heads, window, seed):
    window = None if backend is CompiledAttention else window
    options = {"block_size": block_size, "n_heads": heads[0], "n_kv_heads": heads[1], "window": window, "seed": seed}
    found, expected = both(backend, requests, **options)
    assert not expected.isnan().any()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=20)  # interpreted, each takes a while
@given(
    requests=requests(),
    block_size=st.sampled_from([1, 4, 16]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (5, 1)]),
    window=st.sampled_from([None, None, 1, 5]),
    seed=st.integers(0, 99),
)
@example(requests=[(1, n) for n in (1, 3, 4, 5, 8)], block_size=4, heads=(6, 2), window=None, seed=0)
@example(requests=[(12, 17), (1, 30), (9, 9)], block_size=4, heads=(6, 2), window=5, seed=0)
def test_the_triton_kernels_are_the_reference(requests, block_size, heads, window, seed):
    """Interpreted, or compiled where there is a GPU."""
    triton_backend = pytest.importorskip("labcore.attention.triton_backend")
    options = {"block_size": block_size, "n_heads": heads[0], "n_kv_heads": heads[1], "window": window, "seed": seed}
    shape, metadata, *tensors = step(requests, **options)
    expected = ReferenceAttention(metadata, shape)(*tensors)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    moved = replace(
        metadata, block_table=metadata.block_table.to(device), slot_mapping=metadata.slot_mapping.to(device)
    )
    found = triton_backend.TritonAttention(moved, shape)(*(tensor.to(device) for tensor in tensors)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def by_definition(q, keys, values):
    """softmax(q·k/√d)·v, every query over the keys up to its own, without any cache."""
    past, group = len(keys) - len(q), q.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(group, 1).transpose(0, 1) for x in (keys, values))
    scores = q.transpose(0, 1) @ keys.transpose(1, 2) / q.shape[2] ** 0.5
    hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(past + 1)
    return (scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(0, 1)


@pytest.mark.parametrize("length", [1, 15, 16, 17, 33])
def test_the_reference_is_the_definition(length):
    new = (length + 1) // 2
    shape, metadata, q, *caches = step([(new, length)], block_size=16)
    dense = [cache[metadata.block_table[0].long()].flatten(0, 1)[:length] for cache in caches]
    expected = by_definition(q, *dense)
    torch.testing.assert_close(ReferenceAttention(metadata, shape)(q, *caches), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("requests", [[(1, 300), (1, 2)], [(40, 300), (1, 1)]])
def test_a_long_context_beside_a_short_one(backend, requests):
    found, expected = both(backend, requests, block_size=16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_stays_close():
    found, expected = both(SDPAAttention, [(1, 40), (12, 20)], dtype=torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_queries_in_another_type_than_the_cache_come_back_in_their_own():
    shape, metadata, q, *caches = step([(1, 9), (12, 20)])
    found = CSRAttention(metadata, shape)(q.bfloat16(), *caches)
    assert found.dtype == torch.bfloat16
    expected = ReferenceAttention(metadata, shape)(q.bfloat16().float(), *caches)
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("backend", [CSRAttention, *COMPILED])
def test_a_decoding_request_has_the_same_bits_in_any_company(backend):
    shape, metadata, q, *caches = step([(1, length) for length in (37, 5, 120, 38, 300, 64)], block_size=16)
    together = backend(metadata, shape)(q, *caches)
    for i, length in enumerate(metadata.seq_lens.tolist()):
        alone = AttentionMetadata(
            torch.tensor([0, 1]), metadata.seq_lens[i : i + 1], metadata.block_table[i : i + 1],
            metadata.slot_mapping[i : i + 1], 1, length,
        )  # fmt: skip
        assert torch.equal(backend(alone, shape)(q[i : i + 1], *caches)[0], together[i])


def test_nan_in_one_request_stays_there():
    for backend in BACKENDS:
        shape, metadata, q, keys, values = step([(1, 7), (1, 9), (10, 12)])
        values[metadata.block_table[0, 0]] = torch.nan
        found = backend(metadata, shape)(q, keys, values)
        assert found[0].isnan().all() and not found[1:].isnan().any()


@given(lengths=st.lists(st.integers(1, 1000), min_size=1, max_size=60), window=st.sampled_from([None, 100]))
def test_groups_hold_every_row_once_and_little_padding(lengths, window):
    shape = AttentionShape(1, 1, 1, 1000, 16, window)
    rows = [(length, i) for i, length in enumerate(lengths)]
    groups = similar(rows, shape)
    assert sorted(row for group in groups for row in group) == sorted(rows)
    for group in groups:
        seen = [min(length, window or length) for length, _ in group]
        assert sum(max(seen) - one for one in seen) <= PADDING


def test_the_choice_of_a_backend_follows_the_cache():
    shape, cpu = AttentionShape(2, 2, DIM, 4, 4), torch.device("cpu")
    assert fastest(shape, torch.float32, cpu) is (CompiledAttention if COMPILED else CSRAttention)
    assert fastest(replace(shape, window=4), torch.float32, cpu) is CSRAttention
    assert fastest(replace(shape, head_dim=12), torch.float32, cpu) is CSRAttention
    assert fastest(shape, torch.bfloat16, cpu) is SDPAAttention
