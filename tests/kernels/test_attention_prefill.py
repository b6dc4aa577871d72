"""attention_varlen and the two kernels that lead to it, against the specification: every shape that can go wrong."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from labcore.core.errors import InputError
from labcore.kernels import attention_prefill
from labcore.kernels.attention_ladder import attention_v0, attention_v1
from labcore.kernels.attention_prefill import attention_varlen, attention_varlen_reference
from tests.kernels.conftest import DEVICE, DTYPES, close_as_torch, poisoned

POINTERS = {"BLOCK_M": 16, "BLOCK_N": 32, "TMA": 0}
DESCRIPTORS = {"BLOCK_M": 32, "BLOCK_N": 16, "TMA": 1}
ON_GPU = DEVICE == "cuda"


def bodies() -> dict:
    """Each way to the same answer: on a GPU the table's tiles, in the interpreter small ones, both ways to load."""
    if ON_GPU:
        return {"v2": attention_varlen, "v1": attention_v1, "v0": attention_v0}
    loads = {"pointers": POINTERS, "descriptors": DESCRIPTORS}
    ways = {name: lambda *a, c=c, **o: attention_varlen(*a, config=c, **o) for name, c in loads.items()}
    return ways | {"v1": attention_v1}  # v0 is slow there, and has a test of its own


BODIES = bodies()


def starts(lengths, device=DEVICE):
    return torch.tensor([0, *lengths], device=device).cumsum(0).int()


def inputs(q_lens, kv_lens, n_heads=2, n_kv_heads=1, head_dim=16, dtype=torch.float32, seed=0):
    """q, k, v, cu_q, cu_k, max_q, max_k: k and v are halves of one projection, with NaN between what is theirs."""
    random = torch.Generator().manual_seed(seed)
    q = torch.randn(sum(q_lens), n_heads, head_dim, generator=random)
    kv = torch.randn(sum(kv_lens), 2 * n_kv_heads + 1, head_dim, generator=random)
    kv[:, n_kv_heads] = torch.nan
    q, kv = (x.to(DEVICE, dtype) for x in (q, kv))
    k, v = kv[:, :n_kv_heads], kv[:, n_kv_heads + 1 :]
    return q, k, v, starts(q_lens), starts(kv_lens), max(q_lens), max(kv_lens)


def in_dtype(q, k, v, cu_q, cu_k, **options):
    """What torch makes of it in q's dtype: scores, weights and output rounded to it."""
    causal, window = options.get("causal", True), options.get("window")
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    for i in range(len(cu_q) - 1):
        mine, keys = slice(cu_q[i], cu_q[i + 1]), slice(cu_k[i], cu_k[i + 1])
        kk, vv = (x[keys].repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(0, 1) for x in (k, v))
        scores = q[mine].transpose(0, 1) @ kk.transpose(1, 2) * options.get("scale", q.shape[2] ** -0.5)
        q_len, kv_len = scores.shape[1:]
        distance = torch.arange(kv_len - q_len, kv_len)[:, None] - torch.arange(kv_len)
        hidden = (distance < 0) & causal if window is None else (distance < 0) | (distance >= window)
        weights = scores.masked_fill(hidden.to(q.device), -torch.inf).softmax(-1).nan_to_num()
        out[mine] = (weights @ vv).transpose(0, 1)
    return out


def agrees(attention, arguments, lse_error=None, **options) -> None:
    """Output and lse are right, whatever the output held before."""
    q, k, v, cu_q, cu_k, _, _ = arguments
    out = poisoned(*q.shape, dtype=q.dtype)
    returned, lse = attention(*arguments, out=out, return_lse=True, **options)
    assert returned is out
    expected, expected_lse = attention_varlen_reference(q, k, v, cu_q, cu_k, **options)
    close_as_torch(out, in_dtype(q, k, v, cu_q, cu_k, **options), expected)
    assert torch.equal(lse.isinf(), expected_lse.isinf()) and not lse.isnan().any()
    lse_error = lse_error or (1e-5 if q.dtype == torch.float32 else 1e-3)
    torch.testing.assert_close(lse, expected_lse, rtol=0, atol=lse_error)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths_of_all_kinds(device, dtype, body):
    """Empty, one, a tile and one off; as many queries as keys, fewer (a chunk), more (some see nothing)."""
    q_lens, kv_lens = (0, 1, 16, 15, 17, 5, 33, 3), (4, 1, 16, 15, 17, 37, 32, 0)
    agrees(BODIES[body], inputs(q_lens, kv_lens, dtype=dtype))


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"causal": False}])
def test_the_literal_loop(device, options):
    agrees(attention_v0, inputs((0, 1, 4, 3), (2, 1, 6, 1)), **options)


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("window", [1, 7, 16, 33, 1000])
def test_windows(device, window, body):
    agrees(BODIES[body], inputs((36, 3, 7), (36, 45, 2)), window=window)


@pytest.mark.parametrize("body", BODIES)
def test_all_keys_visible(device, body):
    agrees(BODIES[body], inputs((17, 1, 20, 4), (40, 16, 3, 0)), causal=False)


@pytest.mark.parametrize("group", [1, 2, 4, 5, 7, 8, 16])
def test_head_ratios(device, group):
    attention = BODIES["v2" if ON_GPU else "descriptors"]
    agrees(attention, inputs((3,), (10,), n_heads=2 * group, n_kv_heads=2))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_head_dims(device, head_dim, body):
    agrees(BODIES[body], inputs((19,), (21,), head_dim=head_dim, dtype=torch.float16))


def test_scale_and_a_view_of_a_fused_projection(device):
    fused = torch.randn(20, 8, 16, device=DEVICE)
    q, k, v = fused.split((4, 2, 2), dim=1)
    agrees(attention_varlen, (q, k, v, starts([20]), starts([20]), 20, 20), scale=0.7)
    agrees(attention_varlen, (q, k.contiguous(), v, starts([20]), starts([20]), 20, 20))


@pytest.mark.parametrize("body", BODIES)
def test_another_sequence_may_be_nan(device, body):
    q, k, v, cu_q, cu_k, max_q, max_k = inputs((9, 5, 7), (9, 21, 7))
    clean = BODIES[body](q, k, v, cu_q, cu_k, max_q, max_k)
    for start, end in (0, 9), (30, 37):
        k[start:end], v[start:end] = torch.nan, torch.nan
    out = BODIES[body](q, k, v, cu_q, cu_k, max_q, max_k)
    assert torch.equal(out[9:14], clean[9:14]) and out[:9].isnan().all() and out[14:].isnan().all()


def test_no_queries(device):
    q, k, v, cu_q, cu_k, *_ = inputs((0, 0), (3, 0))
    out, lse = attention_varlen(q, k, v, cu_q, cu_k, 0, 3, return_lse=True)
    assert out.shape == (0, 2, 16) and lse.shape == (2, 0)


def test_large_scores_stay_finite(device):
    q, k, v, *rest = inputs((20,), (20,))
    agrees(attention_varlen, (q * 1e3, k * 1e3, v, *rest), lse_error=1.0)  # of scores around 1e6
    agrees(attention_varlen, (q.abs() * 1e3, -k.abs() * 1e3, v, *rest), lse_error=1.0)  # every score far below zero


@given(st.data())
@settings(max_examples=100 if ON_GPU else 8)
def test_random_batches(data):
    n = data.draw(st.integers(1, 4))
    lengths = st.lists(st.integers(0, 40), min_size=n, max_size=n)
    q_lens, kv_lens = data.draw(lengths), data.draw(lengths)
    causal = data.draw(st.booleans())
    window = data.draw(st.none() | st.integers(1, 50)) if causal else None
    attention = BODIES[data.draw(st.sampled_from(list(BODIES)))]
    agrees(attention, inputs(q_lens, kv_lens, seed=data.draw(st.integers(0, 99))), causal=causal, window=window)


def test_the_order_of_sequences_does_not_matter(device):
    q, k, v, cu_q, cu_k, max_q, max_k = inputs((5, 18), (18, 21))
    out = attention_varlen(q, k, v, cu_q, cu_k, max_q, max_k)
    q2, k2, v2 = torch.cat([q[5:], q[:5]]), *(torch.cat([x[18:], x[:18]]) for x in (k, v))
    out2 = attention_varlen(q2, k2, v2, starts([18, 5]), starts([21, 18]), max_q, max_k)
    assert torch.equal(torch.cat([out[5:], out[:5]]), out2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"q": torch.zeros(4, 3, 16)}, r"Hq a multiple of Hkv"),
        ({"q": torch.zeros(4, 2, 24), "k": torch.zeros(4, 2, 24), "v": torch.zeros(4, 2, 24)}, "head_dim=24: "),
        ({"v": torch.zeros(4, 2, 16).half()}, "q, k, v are torch.float32, torch.float32, torch.float16: one of"),
        ({"q": torch.zeros(2, 4, 16).transpose(0, 1)}, r"q has strides \(16, 64, 1\)"),
        ({"cu_q": torch.tensor([0, 4])}, r"cu_q is torch.int64 \(2,\): pass int32"),
        ({"cu_k": torch.tensor([0, 5]).int()}, r"cu_k=\[0, 5\]: must rise from 0 to the number of tokens, 4"),
        ({"window": 0}, "window=0, causal=True"),
        ({"window": 3, "causal": False}, "window=3, causal=False"),
        ({"scale": -1.0}, "scale=-1.0: pass a positive number"),
        ({"out": torch.zeros(4, 2, 16).half()}, "out is torch.float16"),
        ({"backend": "cuda"}, "backend='cuda': choose"),
    ],
)
def test_bad_arguments_are_named(change, complaint):
    cu = torch.tensor([0, 4]).int()
    given = {"q": torch.zeros(4, 2, 16), "k": torch.zeros(4, 2, 16), "v": torch.zeros(4, 2, 16), "cu_q": cu, "cu_k": cu}
    with pytest.raises(InputError, match=complaint):
        attention_varlen(**{**given, "max_q": 4, "max_k": 4, **change})


def test_the_torch_way_is_the_specification(device):
    arguments = inputs((9, 2), (4, 7))
    out, lse = attention_varlen(*arguments, backend="torch", return_lse=True, window=3)
    expected, expected_lse = attention_varlen_reference(*arguments[:5], window=3)
    assert torch.equal(out, expected) and torch.equal(lse, expected_lse)


def test_the_specification_is_sdpa(device):
    q, k, v, cu_q, cu_k, *_ = inputs((12,), (12,), n_heads=4, n_kv_heads=2)
    out, lse = attention_varlen_reference(q, k, v, cu_q, cu_k)
    qkv = (x.transpose(0, 1)[None] for x in (q, k, v))
    theirs = torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(out, theirs[0].transpose(0, 1), rtol=1e-5, atol=1e-6)
    scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) / 4
    causal = torch.ones(12, 12, device=DEVICE, dtype=torch.bool).tril()
    torch.testing.assert_close(lse, scores.masked_fill(~causal, -torch.inf).logsumexp(-1))


def test_on_hopper_a_window_has_launch_choices_of_its_own(monkeypatch):
    """Of many queries at head_dim 128: no window, a window, one that hides nothing, not causal. Few share a choice."""
    monkeypatch.setattr(attention_prefill, "capability", lambda device: (9, 0))
    monkeypatch.setattr(attention_prefill, "choose", lambda *args, **options: "triton")
    chosen = []
    monkeypatch.setattr(attention_prefill, "_launch", lambda *arguments: chosen.append(arguments[-1]))
    arguments = inputs((65,), (65,), head_dim=128, dtype=torch.bfloat16)
    for options in {}, {"window": 64}, {"window": 65}, {"causal": False}:
        attention_varlen(*arguments, **options)
    whole, windowed, unbounded, everything = chosen
    assert whole == unbounded == everything and whole["BLOCK_N"] == 128
    assert windowed["BLOCK_N"] == 64 and windowed["TMA"] == 1
    few = inputs((64,), (90,), head_dim=128, dtype=torch.bfloat16)
    for options in {}, {"window": 64}:
        attention_varlen(*few, **options)
    assert chosen[-1] == chosen[-2] and chosen[-1]["BLOCK_M"] == 64


def test_each_launch_choice_is_compiled_for_the_masks_that_may_choose_it():
    names = [one.name for one in attention_prefill.variants((9, 0)) if "bf16, D=128" in one.name]
    assert {"causal, bf16, D=128, 128x128", "all, bf16, D=128, 128x128", "window, bf16, D=128, 128x64, TMA"} <= {*names}
    assert not {"window, bf16, D=128, 128x128", "causal, bf16, D=128, 128x64, TMA"} & {*names}
    assert sum(name.startswith("window") for name in names) == 3  # many queries, few, and without descriptors


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")
class TestOnAGPU:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("head_dim", [64, 128, 256])
    @pytest.mark.parametrize("window", [None, 300])
    def test_real_lengths(self, dtype, head_dim, window):
        lengths = (1023, 128, 1, 700), (1023, 129, 700, 1025)
        agrees(
            attention_varlen, inputs(*lengths, n_heads=8, n_kv_heads=2, head_dim=head_dim, dtype=dtype), window=window
        )

    @pytest.mark.parametrize("candidate", range(len(attention_prefill.candidates("prefill", (9, 0)))))
    @pytest.mark.parametrize("window", [None, 200])
    def test_every_candidate(self, candidate, window):
        if torch.cuda.get_device_capability() < (9, 0):
            pytest.skip("candidates are for Hopper")
        config = attention_prefill.candidates("prefill", (9, 0))[candidate]
        arguments = inputs((513, 100, 1), (600, 100, 257), n_heads=8, n_kv_heads=2, head_dim=128, dtype=torch.bfloat16)
        agrees(lambda *a, **o: attention_varlen(*a, config=config, **o), arguments, window=window)

    def test_offsets_beyond_32_bits(self):
        tokens, stride = 40_000, 65_536  # 2.6e9 elements, 5.2 GB
        buffer = torch.empty(tokens, stride, device="cuda", dtype=torch.bfloat16)
        k, v = (buffer[:, i * 128 : (i + 1) * 128].unflatten(1, (1, 128)) for i in range(2))
        for x in (k, v):
            x.copy_(torch.randn(tokens, 1, 128, device="cuda"))
        q = torch.randn(100, 2, 128, device="cuda", dtype=torch.bfloat16)
        arguments = q, k, v, starts([100]), starts([tokens]), 100, tokens
        agrees(attention_varlen, arguments)
        pointers = {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 0, "num_warps": 8, "num_stages": 2}
        agrees(lambda *a, **o: attention_varlen(*a, config=pointers, **o), arguments)

    def test_in_a_cuda_graph(self):
        arguments = inputs((300, 100), (300, 140), n_heads=8, n_kv_heads=2, head_dim=128, dtype=torch.bfloat16)
        q, expected = arguments[0], attention_varlen(*arguments)
        graph, out = torch.cuda.CUDAGraph(), torch.empty_like(expected)
        with torch.cuda.graph(graph):
            attention_varlen(*arguments, out=out)
        out.fill_(torch.nan)
        graph.replay()
        assert torch.equal(out, expected)
        q.mul_(2)
        graph.replay()
        assert torch.equal(out, attention_varlen(*arguments))
