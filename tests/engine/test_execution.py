"""Which path carries out the steps, as far as that can be seen without a GPU."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.attention import select  # noqa: E402
from labcore.attention.metadata import AttentionShape  # noqa: E402
from labcore.attention.sdpa import SDPAAttention  # noqa: E402
from labcore.attention.triton_backend import TritonAttention  # noqa: E402
from labcore.core.errors import InputError  # noqa: E402
from labcore.engine import build, execution  # noqa: E402
from labcore.engine.build import assemble  # noqa: E402
from labcore.engine.engine_core import EngineCore  # noqa: E402
from labcore.engine.execution import ExecutionConfig  # noqa: E402
from labcore.engine.random_model import random_engine, random_model, run_to_end, token_requests  # noqa: E402
from labcore.engine.runner import ModelRunner  # noqa: E402
from labcore.model.fused import FusedBlock  # noqa: E402
from tests.model.tiny import tiny_config, tiny_model  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL = {"num_blocks": 20, "block_size": 4}


def switches(device, head_dim=64, chip=(9, 0), monkeypatch=None, **given):
    monkeypatch.setattr(select, "capability", lambda device: chip if device.type == "cuda" else None)
    monkeypatch.setattr(execution, "interpreting", lambda: False)
    found = ExecutionConfig(**given).on(device, AttentionShape(2, 2, head_dim, 4, 4))
    return found.triton, found.cuda_graphs


def test_a_cpu_runs_the_plain_engine():
    core = assemble(tiny_model(head_dim=16), **SMALL)
    assert type(core) is EngineCore and type(core.runner) is ModelRunner
    assert not any(type(layer) is FusedBlock for layer in core.runner.model.layers)


def test_the_kernels_run_in_the_interpreter_where_that_is_asked_for():
    model = tiny_model(head_dim=16)
    core = assemble(model, triton=True, **SMALL)
    assert core.runner.backend is TritonAttention and type(core.runner.model.layers[0]) is FusedBlock
    prompts, lengths = [[1, 2, 3]], [2]
    ours, plain = token_requests(prompts, lengths), token_requests(prompts, lengths)
    run_to_end(core, ours)
    run_to_end(assemble(model, **SMALL), plain)
    assert [one.output_token_ids for one in ours] == [one.output_token_ids for one in plain]


def test_switches_follow_the_chip_and_the_model(monkeypatch):
    def of(*args, **kwargs):
        return switches(*args, monkeypatch=monkeypatch, **kwargs)

    assert of(CUDA) == (True, True)
    assert of(CUDA, triton=False) == (False, False)
    assert of(CUDA, cuda_graphs=False) == (True, False)
    assert of(CUDA, chip=(7, 5)) == of(CUDA, head_dim=80) == of(CPU) == (False, False)


@pytest.mark.parametrize(
    ("device", "given", "message"),
    [
        (CPU, {"triton": True}, "triton=True on cpu with head_dim=64: the kernels need"),
        (CPU, {"cuda_graphs": True}, "cuda_graphs=True on cpu with triton=False: graphs need a GPU"),
        (CUDA, {"cuda_graphs": True, "triton": False}, "cuda_graphs=True on cuda with triton=False"),
        (CUDA, {"triton": True, "chip": (7, 5)}, "compute capability 8.0 or more"),
        (CUDA, {"triton": True, "head_dim": 80}, "head_dim=80"),
    ],
)
def test_a_switch_that_cannot_be_on_says_why(monkeypatch, device, given, message):
    with pytest.raises(InputError, match=message):
        switches(device, monkeypatch=monkeypatch, **given)


@pytest.mark.parametrize(
    ("options", "captured"),
    [
        ({}, True),
        ({"kv_cache_dtype": "float16"}, False),
        ({"kv_cache_dtype": "int8"}, False),
        ({"backend": TritonAttention}, False),
        ({"layers": torch.nn.Identity}, False),
    ],
)
def test_steps_are_captured_only_where_padding_writes_nowhere(monkeypatch, options, captured):
    """Slot -1 is skipped by the kernel that fused layers store with, if the cache has their type; by nothing else."""
    monkeypatch.setattr(ExecutionConfig, "on", lambda self, device, shape: ExecutionConfig(True, True))
    monkeypatch.setattr("labcore.engine.device_runner.DecodeGraphs", lambda *args: "graphs")
    model = tiny_model(head_dim=16)
    if layers := options.pop("layers", None):
        model.layers.append(layers())
    core = assemble(model, async_scheduling=True, **SMALL, **options)
    assert (core.runner.graphs is not None) == captured


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (
            {"kv_cache_dtype": "float16"},
            "a cache of torch.float16 beside torch.float32 weights: .* kv_cache_dtype='auto'",
        ),
        (
            {"kv_cache_dtype": "int8"},
            "a cache of quantized values beside torch.float32 weights: .* kv_cache_dtype='auto'",
        ),
        ({"backend": TritonAttention}, "backend=TritonAttention: .* drop backend="),
        ({"layers": torch.nn.Identity}, "layers that a transform changed: .* drop transform="),
    ],
)
def test_graphs_that_were_asked_for_and_cannot_be_are_refused(monkeypatch, options, why):
    monkeypatch.setattr(execution, "triton_serves", lambda shape, device: True)
    model = tiny_model(head_dim=16)
    if layers := options.pop("layers", None):
        model.layers.append(layers())
    with pytest.raises(InputError, match=f"cuda_graphs=True with {why}, or leave cuda_graphs out"):
        assemble(model, cuda_graphs=True, async_scheduling=True, **SMALL, **options)


def test_a_gpu_that_is_not_the_current_one_is_refused(monkeypatch):
    """An event would be recorded there, and the host read tokens before they have arrived."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch, "empty", lambda *size, device: None)
    assert [build._device(name) for name in ("cpu", "cuda", "cuda:0")] == [CPU, CUDA, torch.device("cuda:0")]
    with pytest.raises(InputError, match=r"device='cuda:1': .* CUDA_VISIBLE_DEVICES=1 and pass device='cuda'"):
        build._device("cuda:1")


@pytest.mark.parametrize("name", ["triton", "cuda_graphs"])
def test_a_switch_that_speculation_would_pass_over_is_refused(name):
    with pytest.raises(InputError, match=f"{name}=True with speculation: .* leave out {name} or speculative"):
        assemble(tiny_model(head_dim=16), speculative={"method": "ngram"}, **SMALL, **{name: True})


def test_without_triton_speculation_attends_without_it_too(monkeypatch):
    plain = assemble(tiny_model(head_dim=16), speculative={"method": "ngram"}, **SMALL, triton=False)
    assert plain.runner.backend is None  # nothing of it would run on a CPU
    beside = execution.backend_of_speculation
    assert beside(ExecutionConfig(triton=False), CUDA, None) is SDPAAttention
    assert beside(ExecutionConfig(triton=False), CUDA, TritonAttention) is TritonAttention
    assert beside(ExecutionConfig(cuda_graphs=False), CUDA, None) is None


def test_random_models_are_reproducible_and_tied_where_the_shape_says_so():
    model = random_model(tiny_config(qk_norm=True, tied_embeddings=True), device="cpu", dtype=torch.float32, seed=3)
    again = random_model(tiny_config(qk_norm=True, tied_embeddings=True), device="cpu", dtype=torch.float32, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert model.lm_head.weight is model.embed_tokens.weight
    assert (model.layers[0].self_attn.q_norm.weight == 1).all() and 0.015 < model.lm_head.weight.std() < 0.025
    with pytest.raises(InputError, match="llama-3-8b"):
        random_model("llama-3-9b", device="cpu")


def test_token_requests_end_exactly_where_they_should():
    core = random_engine(tiny_config(), device="cpu", dtype=torch.float32, **SMALL)
    requests = token_requests([[1, 2], [3]], [4, 1])
    run_to_end(core, requests)
    assert [len(one.output_token_ids) for one in requests] == [4, 1]
    assert [one.finish_reason for one in requests] == ["length", "length"]
