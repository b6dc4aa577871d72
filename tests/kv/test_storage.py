"""Paged storage: what is written is read, moves are sequential, and quantized tokens are what their format says."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.attention.metadata import AttentionMetadata, AttentionShape  # noqa: E402
from labcore.attention.reference import ReferenceAttention  # noqa: E402
from labcore.attention.sdpa import FEW_QUERIES, SDPAAttention  # noqa: E402
from labcore.core.draft import Branch  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.core.step_plan import BlockMove, Move  # noqa: E402
from labcore.kernels.cpu.attention import supports  # noqa: E402
from labcore.kv.quantized import FP8, FP8_SCALED, INT4, INT8, kivi, per_token  # noqa: E402
from labcore.kv.quantized_storage import LARGEST, QuantizedKVStorage  # noqa: E402
from labcore.kv.storage import KVStorage  # noqa: E402

LAYERS, HEADS, KV_HEADS, DIM, SIZE, BLOCKS, HOST = 2, 4, 2, 32, 4, 6, 3
SHAPE = AttentionShape(HEADS, KV_HEADS, DIM, BLOCKS, SIZE)
FORMATS = {"INT8": INT8, "INT4": INT4, "FP8": FP8, "FP8_SCALED": FP8_SCALED}
KINDS = ["float", *FORMATS]


def new_storage(kind: str = "float") -> KVStorage:
    if kind == "float":
        return KVStorage(LAYERS, SHAPE, num_host_blocks=HOST)
    return QuantizedKVStorage(LAYERS, SHAPE, num_host_blocks=HOST, format=FORMATS[kind])


def random_kv(tokens: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tokens, KV_HEADS, DIM, generator=generator) * 3 for _ in range(2)]


def one_request(blocks: list[int], length: int, new: int = 1) -> AttentionMetadata:
    slots = [blocks[p // SIZE] * SIZE + p % SIZE for p in range(length - new, length)]
    return AttentionMetadata(
        torch.tensor([0, new]), torch.tensor([length]), torch.tensor([blocks], dtype=torch.int32),
        torch.tensor(slots), new, length,
    )  # fmt: skip


def filled(kind: str, blocks: list[int], seed: int = 0):
    """A storage whose `blocks` hold random tokens, in every layer; with the keys and values that went in."""
    storage, (k, v) = new_storage(kind), random_kv(SIZE * len(blocks), seed)
    metadata = one_request(blocks, len(k), new=len(k))
    for layer in range(LAYERS):
        storage.write(layer, metadata.slot_mapping, k + layer, v - layer)
    return storage, metadata, k, v


def contents(storage, metadata, layer: int):
    """Keys and values [tokens, n_kv_heads, head_dim] of the one request, read through the view."""
    metadata, _, read = storage.view(metadata)
    return [cache[metadata.block_table[0].long()].flatten(0, 1) for cache in read(layer)]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_in_its_layer(kind):
    storage, metadata, k, v = filled(kind, [5, 2, 3])
    for layer in range(LAYERS):
        keys, values = contents(storage, metadata, layer)
        atol = {"float": 0, "INT8": 0.06, "INT4": 0.8, "FP8": 0.6, "FP8_SCALED": 0.6}[kind]
        torch.testing.assert_close(keys, k + layer, rtol=0, atol=atol)
        torch.testing.assert_close(values, v - layer, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_quantized_token_is_its_formats_numbers_and_within_half_a_step(kind):
    """E7: the stored codes mean what quantize and dequantize of the format mean, written one by one or all at once."""
    storage, metadata, k, v = filled(kind, [1, 4])
    scheme = FORMATS[kind].keys
    group = scheme.group or DIM
    keys, values = contents(storage, metadata, 0)
    for found, exact in ((keys, k), (values, v)):
        expected = scheme.format.dequantize(*scheme.format.quantize(exact, -1, group), axis=-1, group=group)
        assert torch.equal(found, expected)
        grouped = exact.unflatten(-1, (-1, group))
        if kind.startswith("INT"):
            spread = 2 * grouped.abs().amax(-1) if kind == "INT8" else grouped.amax(-1) - grouped.amin(-1)
            bound = spread / (254 if kind == "INT8" else 15) / 2 * 1.01 + 0.01
        else:  # three mantissa bits: half of an eighth of the number's power of two
            bound = grouped.abs().amax(-1) / 16 * 1.01
        assert ((found - exact).unflatten(-1, (-1, group)).abs().amax(-1) <= bound).all()
    again = new_storage(kind)
    for token in range(len(k)):
        again.write(0, metadata.slot_mapping[token : token + 1], k[token : token + 1], v[token : token + 1])
    assert torch.equal(contents(again, metadata, 0)[0], keys)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", [ReferenceAttention, SDPAAttention])
def test_attention_reads_through_the_view(kind, backend):
    storage, metadata, _, _ = filled(kind, [5, 1, 3])
    keys, values = contents(storage, metadata, 1)
    q = torch.randn(len(keys), HEADS, DIM, generator=torch.Generator().manual_seed(1))
    viewed, shape, read = storage.view(metadata)
    found = backend(viewed, shape)(q, *read(1))
    tight = AttentionShape(HEADS, KV_HEADS, DIM, 4, SIZE)
    padded = [torch.cat((torch.zeros(SIZE, KV_HEADS, DIM), x)).unflatten(0, (4, SIZE)) for x in (keys, values)]
    expected = ReferenceAttention(one_request([1, 2, 3], len(keys), len(keys)), tight)(q, *padded)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


moves = st.one_of(
    st.tuples(st.just(Move.COPY), st.integers(1, BLOCKS - 1), st.integers(1, BLOCKS - 1)),
    st.tuples(st.just(Move.SWAP_OUT), st.integers(1, BLOCKS - 1), st.integers(0, HOST - 1)),
    st.tuples(st.just(Move.SWAP_IN), st.integers(0, HOST - 1), st.integers(1, BLOCKS - 1)),
)


@pytest.mark.parametrize("kind", ["float", "INT4"])
@settings(max_examples=40, deadline=None)
@given(moves=st.lists(moves, max_size=12))
def test_moves_happen_one_after_the_other(kind, moves):
    """Against a list of what each block holds; a host block is read only after it was written."""
    storage, *_ = filled(kind, list(range(1, BLOCKS)))
    device, host = list(range(BLOCKS)), [None] * HOST
    for move, source, target in moves:
        reads, writes = (host if move is Move.SWAP_IN else device), (host if move is Move.SWAP_OUT else device)
        if reads[source] is not None:
            writes[target] = reads[source]
            storage.move([BlockMove(move, source, target)])
    original, *_ = filled(kind, list(range(1, BLOCKS)))
    everything = one_request(list(range(BLOCKS)), SIZE * BLOCKS)
    for layer in range(LAYERS):
        for found, expected in zip(
            contents(storage, everything, layer), contents(original, everything, layer), strict=True
        ):
            expected = expected.unflatten(0, (BLOCKS, SIZE))[device]
            assert torch.equal(found.unflatten(0, (BLOCKS, SIZE)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_token_that_cannot_be_stored_spoils_only_itself(kind, bad):
    storage, metadata, k, v = filled(kind, [1, 2])
    k[5, 1, 3] = bad
    v[5, 0, 0] = bad
    storage.write(0, metadata.slot_mapping, k, v)
    keys, values = contents(storage, metadata, 0)
    others = [i for i in range(len(k)) if i != 5]
    assert keys[others].isfinite().all() and values[others].isfinite().all()
    broken = keys[5].abs().max()
    assert not broken <= LARGEST


@pytest.mark.parametrize("kind", KINDS)
def test_block_zero_is_zeros_and_bytes_are_counted(kind):
    storage, _, _, _ = filled(kind, [3])
    for cache in storage.view(one_request([3], 1))[2](0):
        assert not cache[0].any()
    per_token = {"float": 4 * DIM, "INT8": DIM + 2, "INT4": DIM // 2 + 4, "FP8": DIM, "FP8_SCALED": DIM + 4}[kind]
    assert storage.nbytes_per_block == 2 * LAYERS * SIZE * KV_HEADS * per_token


@pytest.mark.parametrize("format", [kivi(4), per_token(INT8.keys.format, residual=8), per_token(INT4.keys.format, 5)])
def test_a_format_that_cannot_quantize_one_token_is_refused(format):
    with pytest.raises(InputError, match="a paged cache quantizes each token alone"):
        QuantizedKVStorage(LAYERS, SHAPE, format=format)


@pytest.mark.parametrize("kind", KINDS)
def test_slots_are_copied_all_layers_and_all_read_before_any_is_written(kind):
    storage, metadata, _, _ = filled(kind, [5, 2, 3])
    slots = metadata.slot_mapping.tolist()
    before = [contents(storage, metadata, layer) for layer in range(LAYERS)]
    storage.copy_slots([slots[i] for i in (4, 5, 9)], [slots[i] for i in (3, 4, 5)])
    for layer in range(LAYERS):
        for old, new in zip(before[layer], contents(storage, metadata, layer), strict=True):
            expected = old.clone()
            expected[[3, 4, 5]] = old[[4, 5, 9]]
            assert torch.equal(new, expected)


def test_few_tokens_a_request_are_rows_of_one_compiled_pass():
    """Every token a row of its own length; what a row needs of an earlier one in the same pass is stored by then."""
    storage, _, k, v = filled("float", [5, 2, 3])
    if not supports(storage.keys):
        pytest.skip("this machine cannot compile the kernels")
    several = AttentionMetadata(
        torch.tensor([0, 3, 4]), torch.tensor([11, 7]), torch.tensor([[5, 2, 3], [1, 4, 0]], dtype=torch.int32),
        torch.tensor([3 * SIZE, 3 * SIZE + 1, 3 * SIZE + 2, 4 * SIZE + 2]), 3, 11,
    )  # fmt: skip
    q, (new_k, new_v) = torch.randn(4, HEADS, DIM), random_kv(4, 7)
    others = torch.tensor([block * SIZE + offset for block in (1, 4) for offset in range(SIZE)])
    storage.write(0, others, k[:8], v[:8])
    found = storage.decode_pass(several)(0, q, new_k, new_v)
    storage.write(0, several.slot_mapping, new_k, new_v)
    expected = ReferenceAttention(several, SHAPE)(q, storage.keys[0], storage.values[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_tree_or_many_tokens_are_not_a_compiled_pass():
    storage, *_ = filled("float", [5, 2, 3])
    assert storage.decode_pass(one_request([5, 2, 3], 12, new=FEW_QUERIES + 1)) is None
    assert storage.decode_pass(replace(one_request([5], 3), branches={0: Branch(2, (2,))})) is None
