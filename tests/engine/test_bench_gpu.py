"""The engine's GPU rows at toy size on a CPU: rows are valid, wrong answers are noticed, the ideal is what it says."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from labcore.bench.ceilings import Ceiling  # noqa: E402
from labcore.bench.cuda_run import CudaRun  # noqa: E402
from labcore.core.errors import DataError  # noqa: E402
from labcore.engine import bench_gpu, bench_mixed  # noqa: E402
from labcore.engine.bench_mixed import Workload  # noqa: E402
from labcore.engine.gpu_evidence import judge, require_answers  # noqa: E402
from labcore.engine.random_model import random_engine, random_model, run_to_end, token_requests  # noqa: E402
from labcore.model.config import DecoderConfig  # noqa: E402
from labcore.model.stats import kv_bytes_per_token, layer_parameters, weight_bytes_per_pass  # noqa: E402

TOY = DecoderConfig("llama", 2, 64, 4, 2, 16, 128, 512, 1024, 10000.0, 1e-5)
ON_CPU = {"device": "cpu", "dtype": torch.float32}


@pytest.fixture
def toy(monkeypatch):
    """A run on the CPU, with ceilings that no toy reaches, and small workloads of TOY."""
    for name, value in {"PROMPT": 20, "STEPS": 4, "ROUNDS": 2, "SAMPLES": 1}.items():
        monkeypatch.setattr(bench_gpu, name, value)
    mixed = {"SERVED": TOY, "REQUESTS": 6, "PROMPTS": (4, 30), "OUTPUTS": (3, 8), "TOKENS_A_STEP": 64, "ROUNDS": 2}
    for name, value in mixed.items():
        monkeypatch.setattr(bench_mixed, name, value)
    units = {"read_bandwidth": "B/s", "matmul.bf16": "FLOP/s"}
    found = [Ceiling(name, 1, "bf16", "stand-in", "N", 1e15, "1", unit, (1.0,)) for name, unit in units.items()]
    return CudaRun("cpu", 1, found, ["test"])


@pytest.mark.slow
def test_decode_and_mixed_rows(toy):
    pytest.importorskip("transformers")
    toy.attempt("gpu.decode_mbu.toy", lambda run: bench_gpu.decode(run, "toy", TOY))
    toy.attempt("gpu.mixed256", bench_gpu.mixed)
    assert not toy.skipped
    assert [row["key"] for row in toy.rows] == [
        "gpu.decode_mbu.toy",
        "gpu.mixed256.ideal",
        "gpu.mixed256.transformers",
    ]
    assert all(row["correct"]["top1_equal"] == 1.0 for row in toy.rows)
    assert "same in 100% of the answers" in toy.rows[-1]["notes"]


def answered():
    core = random_engine(TOY, **ON_CPU, max_num_seqs=2, max_model_len=64, num_blocks=20)
    requests = token_requests([[5, 6, 7], [9, 8]], [6, 4])
    run_to_end(core, requests)
    return requests


def test_a_wrong_token_is_noticed():
    requests = answered()
    plain = random_model(TOY, **ON_CPU)
    assert judge(plain, requests)["pass"]
    requests[0].all_token_ids[4] = (requests[0].all_token_ids[4] + 1) % TOY.vocab
    assert not judge(plain, requests)["pass"]


def test_an_answer_of_another_length_is_refused():
    requests = answered()
    require_answers(requests, [6, 4])
    with pytest.raises(DataError, match="r1 has 4 of 5 tokens: no error was reported"):
        require_answers(requests, [6, 5])


def test_the_ideal_time_counts_prompts_by_arithmetic_and_steps_by_bytes():
    plain = random_model(TOY, **ON_CPU)
    load = Workload([[1] * 10, [2] * 4], [3, 2])
    heads = TOY.n_layers * TOY.n_heads * TOY.head_dim
    flops = 2 * layer_parameters(plain) * 14 + 4 * heads * (55 + 10) + 2 * TOY.vocab * TOY.hidden * 2
    tokens = (11 + 5) + 12  # the second answer ends after one more token
    steps = 2 * weight_bytes_per_pass(plain) + tokens * kv_bytes_per_token(plain)
    assert load.ideal(plain, 1e9, 1e9) == pytest.approx((flops + steps) / 1e9)
