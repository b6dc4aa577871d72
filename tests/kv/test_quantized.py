"""The quantized cache against lists of tokens: what is stored when, what comes back, what a pass attends to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.formats.fp8 import ScaledFloat8  # noqa: E402
from labcore.formats.uniform import Uniform  # noqa: E402
from labcore.formulas import formula  # noqa: E402
from labcore.kv.contiguous import causal_attention  # noqa: E402
from labcore.kv.quantized import FP8, FP8_SCALED, INT4, INT8, KVFormat, QuantizedKVCache, kivi, per_token  # noqa: E402
from labcore.kv.quantized_store import CHANNEL, TOKEN, QuantizedStore, Scheme  # noqa: E402

HEADS, KV_HEADS, DIM, LAYERS, CAPACITY = 6, 2, 8, 2, 40
SCHEMES = [
    Scheme(Uniform(8, symmetric=True)),
    Scheme(Uniform(4), TOKEN, group=4, residual=5),
    Scheme(Uniform(2), TOKEN, group=8, residual=40),
    Scheme(ScaledFloat8(scaled=True), TOKEN, group=2, residual=1),
    Scheme(Uniform(2), CHANNEL, group=3, residual=3),
    Scheme(Uniform(4), CHANNEL, group=2, residual=6),
    Scheme(Uniform(4, symmetric=True), CHANNEL, group=4, residual=12),
    Scheme(ScaledFloat8(), CHANNEL, group=5, residual=5),
    Scheme(Uniform(2), TOKEN, group=8, residual=3, sinks=4),
    Scheme(Uniform(2), CHANNEL, group=3, residual=6, sinks=5),
]
FORMATS = [
    INT8,
    FP8,
    FP8_SCALED,
    per_token(Uniform(4), 4, residual=3),
    kivi(2, 4, 8),
    kivi(4, 4, 4),
    kivi(8, 8, 16, sinks=3),
]
schemes = st.sampled_from(SCHEMES)


def random(tokens: int, heads: int, seed: int):
    return torch.randn(tokens, heads, DIM, generator=torch.Generator().manual_seed(seed))


def new_store(scheme, capacity: int = CAPACITY, **more) -> QuantizedStore:
    return QuantizedStore(scheme, LAYERS, KV_HEADS, DIM, slots=3, capacity=capacity, **more)


def new_cache(format, **more) -> QuantizedKVCache:
    return QuantizedKVCache(LAYERS, KV_HEADS, DIM, **{"format": format, "slots": 3, "capacity": CAPACITY} | more)


class TokenList:
    """A store written as lists of single tokens [KV_HEADS, DIM], with the window's rule in its own words."""

    def __init__(self, scheme):
        self.scheme, self.sinks, self.past, self.window = scheme, [], [], []

    def rounded(self, tokens):
        axis, group = (-2, self.scheme.group) if self.scheme.axis == CHANNEL else (-1, self.scheme.group or DIM)
        format, x = self.scheme.format, torch.stack(tokens, dim=1)
        found = format.dequantize(*format.quantize(x, axis, group), axis=axis, group=group)
        return list(found.unbind(1))

    def append(self, tokens):
        for token in tokens:
            if len(self.sinks) < self.scheme.sinks:
                self.sinks.append(token)
                continue
            self.window.append(token)
            if self.scheme.axis == TOKEN and len(self.window) > self.scheme.residual:
                self.past += self.rounded([self.window.pop(0)])
            if self.scheme.axis == CHANNEL and len(self.window) == self.scheme.residual:
                self.past += self.rounded(self.window)
                self.window = []

    def truncate(self, length):
        self.sinks, length = self.sinks[:length], max(0, length - len(self.sinks))
        tokens, quantized = (self.past + self.window)[:length], min(len(self.past), length)
        if self.scheme.axis == CHANNEL:
            quantized -= quantized % self.scheme.group
        self.past, self.window = tokens[:quantized], tokens[quantized:]

    def read(self):
        tokens = self.sinks + self.past + self.window
        return torch.stack(tokens, dim=1) if tokens else torch.empty(KV_HEADS, 0, DIM)


actions = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.integers(1, 13), st.floats(0, 1))), min_size=1, max_size=12
)


@settings(max_examples=50)
@given(scheme=schemes, actions=actions, seed=st.integers(0, 10_000))
def test_the_store_holds_what_a_list_of_tokens_would(scheme, actions, seed):
    """Each action appends so many tokens to a slot, or (a share) cuts the slot to that part of its length."""
    store, lists = new_store(scheme), [[TokenList(scheme) for _ in range(3)] for _ in range(LAYERS)]
    for count, (slot, action) in enumerate(actions):
        held = lists[0][slot].read().shape[1]
        if isinstance(action, float):
            store.truncate(slot, int(action * held))
            for layer in lists:
                layer[slot].truncate(int(action * held))
        else:
            for layer in range(LAYERS):
                new = random(min(action, CAPACITY - held), KV_HEADS, seed + 100 * count + layer).transpose(0, 1)
                store.append(layer, slot, new)
                lists[layer][slot].append(new.unbind(1))
        for layer in range(LAYERS):
            for each in range(3):
                assert torch.equal(store.read(layer, each), lists[layer][each].read())
                assert store.quantized[layer][each] == len(lists[layer][each].past)


@settings(max_examples=50)
@given(scheme=schemes, cuts=st.sets(st.integers(1, CAPACITY - 1)), seed=st.integers(0, 10_000))
def test_the_store_does_not_depend_on_how_tokens_were_cut_into_passes(scheme, cuts, seed):
    tokens = random(CAPACITY, KV_HEADS, seed).transpose(0, 1)
    whole, parts = new_store(scheme), new_store(scheme)
    whole.append(0, 0, tokens)
    for part in tokens.tensor_split(sorted(cuts), dim=1):
        parts.append(0, 0, part)
    assert torch.equal(whole.read(0, 0), parts.read(0, 0))


@settings(max_examples=50)
@given(scheme=schemes, tokens=st.integers(1, CAPACITY), seed=st.integers(0, 10_000))
def test_the_window_is_exact_and_as_long_as_the_scheme_says(scheme, tokens, seed):
    new = random(tokens, KV_HEADS, seed).transpose(0, 1)
    store = new_store(scheme)
    store.append(0, 0, new)
    sinks = min(tokens, scheme.sinks)
    kept = (tokens - sinks) % scheme.residual if scheme.axis == CHANNEL else min(tokens - sinks, scheme.residual)
    assert (store.spared[0][0], store.quantized[0][0], store.waiting[0][0]) == (sinks, tokens - sinks - kept, kept)
    assert torch.equal(store.read(0, 0)[:, tokens - kept :], new[:, tokens - kept :])
    assert torch.equal(store.read(0, 0)[:, :sinks], new[:, :sinks])
    assert kept + sinks == tokens or not torch.equal(store.read(0, 0), new)


@given(
    format=st.sampled_from(FORMATS),
    counts=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=25)
def test_a_pass_attends_to_the_stored_past_and_to_itself_as_it_is(format, counts, seed):
    """Two sequences in one pass, of different lengths."""
    cache = new_cache(format)
    expected = [
        [[TokenList(scheme) for scheme in (format.keys, format.values)] for _ in range(2)] for _ in range(LAYERS)
    ]
    for step, (first, second) in enumerate(counts):
        attend = cache.extend([(2, first), (0, second)])
        q = random(first + second, HEADS, seed + 1000 * step)
        for layer in range(LAYERS):
            k, v = (random(first + second, KV_HEADS, seed + 1000 * step + 10 * layer + i) for i in (1, 2))
            found = attend(layer, q, k, v)
            for part, lists in zip((slice(first), slice(first, None)), expected[layer], strict=True):
                seen = [
                    torch.cat((each.read(), new[part].transpose(0, 1)), dim=1)
                    for each, new in zip(lists, (k, v), strict=True)
                ]
                torch.testing.assert_close(found[part], causal_attention(q[part], *seen), rtol=1e-5, atol=1e-6)
                for each, new in zip(lists, (k, v), strict=True):
                    each.append(new[part].unbind(0))
    assert cache.lengths == [sum(two for _, two in counts), 0, sum(one for one, _ in counts)]


def bytes_per_token(scheme: Scheme) -> float:
    """One side of the cache by the registered formulas, which count keys and values."""
    shape, format = {"n_layers": LAYERS, "n_kv": KV_HEADS, "d_h": DIM}, scheme.format
    if not format.parameters:
        return formula["kv.bytes_per_token"](**shape, b_kv=format.bits / 8) / 2
    b_scale, b_zero = [8 * dtype.itemsize for dtype in format.parameters] + [0] * (2 - len(format.parameters))
    group = {"G": scheme.group or DIM, "bits": format.bits, "b_scale": b_scale, "b_zero": b_zero}
    return formula["kv.quant_bytes_per_token"](**shape, **group) / 2


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("capacity", [40, 47])
def test_reserved_bytes_are_the_formula_s(scheme, capacity):
    store = new_store(scheme, capacity=capacity, dtype=torch.bfloat16)
    behind = capacity - scheme.sinks
    coded = behind // scheme.group * scheme.group if scheme.axis == CHANNEL else behind - scheme.residual
    exact = formula["kv.bytes_per_token"](n_layers=LAYERS, n_kv=KV_HEADS, d_h=DIM, b_kv=2) / 2
    assert store.nbytes == 3 * (coded * bytes_per_token(scheme) + (scheme.residual + scheme.sinks) * exact)


@pytest.mark.parametrize(("format", "bits"), [(INT8, 8.25), (INT4, 5.0), (FP8, 8.0), (FP8_SCALED, 8.5)])
def test_effective_bits_of_the_named_formats(format, bits):
    """At head_dim 64, counted from the storage."""
    cache = QuantizedKVCache(1, 3, 64, format=format, slots=1, capacity=100)
    assert 8 * cache.nbytes / (2 * 3 * 64 * 100) == bits


def test_kivi_s_bits_and_window():
    cache = QuantizedKVCache(1, 3, 64, format=kivi(2, 32, 128), slots=1, capacity=1024, dtype=torch.float16)
    elements = 3 * 64
    assert 8 * cache.keys.nbytes == elements * (1024 * 3.0 + 128 * 16)
    assert 8 * cache.values.nbytes == elements * (896 * 3.0 + 128 * 16)


def test_an_fp8_cache_holds_what_torch_s_cast_holds():
    k, v = random(20, KV_HEADS, 1), 100 * random(20, KV_HEADS, 2)
    cache = new_cache(FP8)
    cache.extend([(1, 20)])(0, random(20, HEADS, 0), k, v)
    for store, new in ((cache.keys, k), (cache.values, v)):
        theirs = new.clamp(-448, 448).to(torch.float8_e4m3fn).float().transpose(0, 1)
        assert torch.equal(store.read(0, 1), theirs)


@pytest.mark.parametrize("format", FORMATS, ids=repr)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_and_truncating_goes_back(format, bad):
    cache = new_cache(format)
    q, k, v = random(6, HEADS, 0), random(6, KV_HEADS, 1), random(6, KV_HEADS, 2)
    cache.extend([(0, 6)])(0, q, k, v)
    before = cache.keys.read(0, 0), cache.values.read(0, 0)
    spoilt = v.clone()
    spoilt[3, 1, 2] = bad
    attend = cache.extend([(0, 6)])
    with pytest.raises(InputError, match=f"layer 0: a new key or value is {bad}; only finite ones"):
        attend(0, q, k, spoilt)
    cache.truncate(0, 6)
    assert cache.lengths[0] == 6
    assert torch.equal(cache.keys.read(0, 0), before[0]) and torch.equal(cache.values.read(0, 0), before[1])


def test_keys_with_an_outlier_channel_want_scales_a_channel():
    """Both schemes spend the same bits; the outlier widens every token's grid, but only its own channel's."""
    keys = torch.randn(2, 32, DIM, generator=torch.Generator().manual_seed(0))
    keys[..., 3] += 20
    errors = {}
    for axis in (TOKEN, CHANNEL):
        store = QuantizedStore(Scheme(Uniform(4), axis, 8, 8), 1, 2, DIM, slots=1, capacity=40)
        store.append(0, 0, torch.cat((keys, keys[:, :8]), dim=1))
        errors[axis] = (store.read(0, 0)[:, :32] - keys).square().mean().sqrt()
    assert errors[CHANNEL] < errors[TOKEN] / 4


def test_layers_do_not_share_storage():
    cache = new_cache(kivi(4, 4, 4))
    attend, (q, k, v) = cache.extend([(0, 9)]), (random(9, heads, heads) for heads in (HEADS, KV_HEADS, KV_HEADS))
    attend(0, q, k, v)
    attend(1, q, -k, -v)
    torch.testing.assert_close(cache.keys.read(1, 0), -cache.keys.read(0, 0), rtol=0, atol=2e-3)
    assert torch.equal(cache.keys.read(1, 0)[:, 8:], -k.transpose(0, 1)[:, 8:])


@pytest.mark.parametrize("plan", [[(0, 41)], [(0, 0)], [(0, 1), (0, 1)]])
def test_an_impossible_pass_is_refused_and_reserves_nothing(plan):
    cache = new_cache(INT8)
    with pytest.raises(InputError, match=r"slot 0: .* a slot holds 40"):
        cache.extend(plan)
    assert cache.lengths == [0, 0, 0]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Scheme(Uniform(8), axis="head"), "axis='head': scales are shared along 'token' or 'channel'"),
        (lambda: Scheme(Uniform(8), group=0), "group=0, residual=0, sinks=0: need a group of 1 or more"),
        (lambda: Scheme(Uniform(8), residual=-1), "group=None, residual=-1, sinks=0: need a group of 1 or more"),
        (lambda: kivi(2, 32, 100), "group=32, residual=100: scales a channel need a group of tokens, and a residual"),
        (lambda: kivi(2, 32, 0), "group=32, residual=0: scales a channel need"),
        (lambda: new_cache(INT4), "head_dim=8 is not a whole number of groups of 32 channels"),
        (lambda: new_cache(KVFormat(INT8.keys, Scheme(Uniform(5)))), "bits=5: only codes of"),
    ],
)
def test_impossible_schemes_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
