"""Numbers worked out by hand or published, each with the formula and the inputs that must give it.

Hardware and models are literals with units on purpose: this table must not move when a data file does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from labcore.core.units import Quantity as Q
from labcore.formulas import Formula, formula


@dataclass(frozen=True)
class Worked:
    """`shown`, such as "1.342 GB", is what `id` must give at `inputs`, rounded to the digits shown."""

    shown: str
    id: str
    inputs: dict[str, Any] = field(hash=False)

    def holds(self, f: Formula | None = None) -> bool:
        """Whether the formula (or a changed copy of it) gives the shown figure."""
        want = Q.parse(self.shown)
        value = (f or formula[self.id]).quantity(**self.inputs).to(want.unit).value
        number = self.shown.split()[0]
        decimals = len(number.partition(".")[2])
        return f"{value:.{decimals}f}" == number.replace(",", "").replace("−", "-")


def worked(shown: str, id: str, *shared: dict[str, Any], **inputs: Any) -> Worked:
    """A row: inputs from dictionaries that rows share, then its own."""
    return Worked(shown, id, {name: value for part in (*shared, inputs) for name, value in part.items()})


A100_PCIE, A100, A100_40 = Q(1.935, "TB/s"), Q(2.039, "TB/s"), Q(1.555, "TB/s")
F_A100, F_H100 = Q(312, "TFLOP/s"), Q(989.4, "TFLOP/s")
H100, H200 = Q(3.35, "TB/s"), Q(4.8, "TB/s")
R_A100, R_H100 = 312e12 / 2.039e12, 989.4e12 / 3.35e12
LLAMA2_70B = {"P": 68_976_648_192, "n_layers": 80, "n_q": 64, "d_h": 128}
LLAMA3_70B = {"P": 70_553_706_496, "n_layers": 80, "n_q": 64, "d_h": 128}
KAPPA = 327_680  # Llama 2 and 3 70B, FP16
WEIGHTS = {"P": 68_976_648_192, "b_w": 2}
STEP_70B = LLAMA2_70B | {"kappa": KAPPA}
PREFILL = LLAMA2_70B | {"n_gpu": 2, "F": F_A100, "mfu": 0.5}
BREAK_EVEN = {"kappa": 327_680, "n_gpu": 4, "F": F_A100, "mfu": 0.5}
HEADS_70B = {"n_layers": 80, "n_kv": 8, "d_h": 128, "b_kv": 2}
P1 = {
    "memory": Q(79.15, "GiB"),
    "memory_fraction": 1,
    "b_w": 2,
    "P": LLAMA3_70B["P"],
    "n_gpu": 4,
    "overhead": Q(2, "GB"),
}  # four A100 80GB, Llama 3 70B
CONTEXT_8K = {"L": 8192, "kappa": KAPPA}
STEP_A100 = WEIGHTS | {"kappa": KAPPA, "F": F_A100, "beta": A100, "t_comm": Q(3, "ms"), "t_launch": Q(2, "ms")}
FOUR_A100 = {"P": LLAMA3_70B["P"], "b_w": 2, "F": 4 * 312e12, "beta": 4 * 2.039e12}
ROUTED = {"E": 256, "k": 8, "B": 32}
EXPERTS = {"b_w": 2, "P_dense": 14_000_000_000, "n_moe": 58, "P_expert": 44_040_000}
LINEAR_70B = {"P_lin": 68_451_041_280, "P_keep": 525_606_912, "b_w": 2}  # Llama 2 70B: layers; embeddings, head, norms
TILED = {"L": 1024, "d_h": 64, "B_r": 64, "b_act": 2, "b_acc": 4}
DECODE_128K = {
    "n_q": 64,
    "n_kv": 8,
    "n_sm": 108,
    "d_h": 128,
    "b_kv": 2,
    "b_acc": 4,
    "L": 131_072,
    "beta": A100,
}  # one layer of Llama 3 70B on an A100
GEMMA = {"n_global": 10, "n_local": 52, "L": 131_072, "W": 1024}  # the layer counts of Gemma 3 27B

WORKED = [
    # cost, energy, latency
    worked("0.139 USD/Mtok", "economics.usd_per_mtok", price_hour=2.50, throughput=5000, u=1),
    worked("0.463 USD/Mtok", "economics.usd_per_mtok", price_hour=2.50, throughput=5000, u=0.3),
    worked("1.25 J/tok", "energy.joules_per_token", n_gpu=4, power=400, throughput=1280),
    worked("64 J/tok", "energy.joules_per_token", n_gpu=4, power=400, throughput=25),
    worked("50 ms/token", "latency.tpot", e2e=10.45, ttft=0.5, n_out=200),
    worked("10.45 s", "latency.e2e", tpot=Q(50, "ms"), ttft=0.5, n_out=200),
    # intensity and ridge
    *(worked(f"{2 / b:.0f} FLOP/B", "decode.linear_intensity", B=1, b_w=b) for b in (2, 1, 0.5)),
    worked("32 FLOP/B", "roofline.pass_intensity", T=32, b_w=2),
    worked("156.0 FLOP/B", "roofline.ridge", F=F_A100, beta=Q(2.0, "TB/s")),
    worked("153.0 FLOP/B", "roofline.ridge", F=F_A100, beta=A100),
    worked("161.2 FLOP/B", "roofline.ridge", F=F_A100, beta=A100_PCIE),
    worked("200.6 FLOP/B", "roofline.ridge", F=F_A100, beta=A100_40),
    worked("295.3 FLOP/B", "roofline.ridge", F=F_H100, beta=H100),
    worked("206.1 FLOP/B", "roofline.ridge", F=F_H100, beta=H200),
    worked("281 FLOP/B", "roofline.ridge", F=Q(2.25, "PFLOP/s"), beta=Q(8.0, "TB/s")),
    worked("156 sequences", "roofline.crossover_batch", R=156.0, b_w=2),
    worked("153 sequences", "roofline.crossover_batch", R=R_A100, b_w=2),
    worked("295 sequences", "roofline.crossover_batch", R=R_H100, b_w=2),
    worked("76.5 sequences", "roofline.crossover_batch", R=R_A100, b_w=1),
    worked("38.3 sequences", "roofline.crossover_batch", R=R_A100, b_w=0.5),
    worked("40.6 sequences", "roofline.crossover_batch", R=R_A100, b_w=4.25 / 8),
    worked("153 sequences", "roofline.crossover_batch", R=624e12 / 2.039e12, b_w=1),
    worked("295 sequences", "roofline.crossover_batch", R=1979e12 / 3.35e12, b_w=1),
    # roofline with KV reads
    *(
        worked(f"{batch} sequences", "roofline.crossover_batch_kv", STEP_70B, R=R_A100, b_w=2, L=L)
        for L, batch in ((0, 153), (512, 186), (1024, 236), (2048, 519))
    ),
    worked("520 sequences", "roofline.crossover_batch_kv", STEP_70B, R=153.02, b_w=2, L=2048),  # ridge rounded up
    worked("2,903 tokens", "roofline.max_context", STEP_70B, R=R_A100),
    worked("110.8 FLOP/B", "roofline.intensity_limit", STEP_70B, L=4096),
    *(
        worked(f"{batch} sequences", "decode.kv_equals_weights_batch", WEIGHTS, L=L, kappa=KAPPA)
        for L, batch in ((1024, 411), (4096, 103), (8192, 51), (32768, 13))
    ),
    worked("101 ms", "decode.kv_time", B=153, L=4096, kappa=KAPPA, beta=A100),
    worked("68 ms", "decode.weight_time", WEIGHTS, beta=A100),
    worked("67.7 ms", "decode.weight_time", WEIGHTS, beta=A100),
    # attention's own intensity
    *(
        worked(f"{shown} FLOP/B", "decode.attention_intensity", n_q=q, n_kv=kv, b_kv=2)
        for shown, q, kv in ((1, 96, 96), (8, 64, 8), (29, 232, 8))
    ),
    worked("241.8 FLOP/B", "mla.attention_intensity", n_q=128, d_c=512, d_R=64, b_kv=2),
    # floors, prefill
    worked("33.8 ms", "decode.tpot_floor", WEIGHTS, B=1, L=0, kappa=KAPPA, n_gpu=2, beta=A100),
    worked("35.6 ms", "decode.tpot_floor", WEIGHTS, B=1, L=0, kappa=KAPPA, n_gpu=2, beta=A100_PCIE),
    worked("85 %", "decode.mbu", WEIGHTS, B=1, L=0, kappa=KAPPA, n_gpu=2, beta=A100, tpot=Q(40, "ms")),
    worked("68 %", "decode.mbu", WEIGHTS, B=1, L=0, kappa=KAPPA, n_gpu=2, beta=A100, tpot=Q(50, "ms")),
    *(
        worked(f"{ms} ms", "prefill.time", PREFILL, L=L)
        for L, ms in ((256, 113), (512, 227), (1024, 457), (2048, 923), (4096, "1,882"))
    ),
    *(
        worked(f"{ms} ms", "roofline.pass_time", b_w=2, P=LLAMA3_70B["P"], T=T, F=624e12, beta=4 * 2.039e12)
        for T, ms in ((512, 116), (2048, 463))
    ),
    # what a cache saves: 3 prompt and 4 output tokens, counted by hand
    worked("52 ×", "kv.attention_pairs_uncached", L=3, n_out=4),  # 6 + 10 + 15 + 21
    worked("21 ×", "kv.attention_pairs_cached", L=3, n_out=4),  # 6 + 4 + 5 + 6
    worked("164 ×", "kv.attention_pairs_uncached", L=7, n_out=4),  # 28 + 36 + 45 + 55
    # KV bytes
    worked("327,680 B/token", "kv.bytes_per_token", HEADS_70B),
    worked("320 KiB/token", "kv.bytes_per_token", HEADS_70B),
    worked("4,718,592 B/token", "kv.bytes_per_token", n_layers=96, n_kv=96, d_h=128, b_kv=2),
    worked("131,072 B/token", "kv.bytes_per_token", n_layers=32, n_kv=8, d_h=128, b_kv=2),
    worked("163,840 B/token", "kv.bytes_per_token", n_layers=80, n_kv=8, d_h=64, b_kv=2),
    worked("1.342 GB", "kv.bytes", B=1, L=4096, kappa=KAPPA),
    worked("1.25 GiB", "kv.bytes", B=1, L=4096, kappa=KAPPA),
    worked("134.2 GB", "kv.bytes", B=100, L=4096, kappa=KAPPA),
    worked("125.0 GiB", "kv.bytes", B=100, L=4096, kappa=KAPPA),
    worked("10.74 GB", "kv.bytes", B=1, L=4096, kappa=8 * KAPPA),
    worked("19.33 GB", "kv.bytes", B=1, L=4096, kappa=4_718_592),
    worked("18.0 GiB", "kv.bytes", B=1, L=4096, kappa=4_718_592),
    worked("9.66 GB", "kv.bytes", B=1, L=2048, kappa=4_718_592),
    worked("0.537 GB", "kv.bytes", B=1, L=4096, kappa=131_072),
    worked("0.50 GiB", "kv.bytes", B=1, L=4096, kappa=131_072),
    worked("0.671 GB", "kv.bytes", B=1, L=4096, kappa=163_840),
    worked("0.625 GiB", "kv.bytes", B=1, L=4096, kappa=163_840),
    worked("0.084 GB", "kv.bytes", B=1, L=4096, kappa=163_840 / 8),
    worked("137.95 GB", "decode.weight_bytes", WEIGHTS),
    worked("128.48 GiB", "decode.weight_bytes", WEIGHTS),
    worked("103 sequences", "kv.sequences_per_weights", WEIGHTS, L=4096, kappa=KAPPA),
    worked("8 heads", "kv.group_size", n_q=64, n_kv=8),
    worked("0.125 ×", "kv.gqa_ratio", n_q=64, n_kv=8),
    # windows, hybrids, formats, MLA
    worked("0.537 GB", "kv.window_bytes", B=1, L=32768, W=4096, kappa=131_072),
    worked("4.295 GB", "kv.window_bytes", B=1, L=32768, W=32768, kappa=131_072),
    worked("17.3 %", "kv.hybrid_fraction", n_global=1, n_local=5, L=131_072, W=1024),
    worked("8.125 bit/element", "kv.quant_effective_bits", bits=8, b_scale=16, b_zero=0, G=128),
    worked("3.0 bit/element", "kv.quant_effective_bits", bits=2, b_scale=16, b_zero=16, G=32),
    worked(
        "166,400 B/token",  # 327,680 · 8.125/16
        "kv.quant_bytes_per_token",
        n_layers=80,
        n_kv=8,
        d_h=128,
        bits=8,
        b_scale=16,
        b_zero=0,
        G=128,
    ),
    worked("163,840 B/token", "kv.cla_bytes_per_token", HEADS_70B, n_share=2),
    worked("70,272 B/token", "kv.mla_bytes_per_token", n_layers=61, d_c=512, d_R=64, b_kv=2),
    worked("23,040 B/token", "kv.latent_bytes_per_token", n_layers=30, d_c=192, b_kv=4),
    worked("0.288 GB", "kv.bytes", B=1, L=4096, kappa=70_272),
    worked(
        "4,997,120 B/token",  # 71.1 times 70,272
        "kv.mla_uncompressed_bytes_per_token",
        n_layers=61,
        n_q=128,
        d_h=128,
        d_R=64,
        b_kv=2,
    ),
    # moving against recomputing
    worked("2.68 GB", "kv.bytes", B=1, **CONTEXT_8K),
    worked("107 ms", "kv.transfer_time", CONTEXT_8K, beta_link=Q(25, "GB/s")),
    worked("54 ms", "kv.transfer_time", CONTEXT_8K, beta_link=Q(400, "Gb/s")),
    worked("215 ms", "kv.transfer_time", CONTEXT_8K, beta_link=Q(100, "Gb/s")),
    worked("6 ms", "kv.transfer_time", CONTEXT_8K, beta_link=Q(450, "GB/s")),
    worked("1.99 s", "kv.recompute_time", LLAMA3_70B, L=8192, n_gpu=4, F=F_A100, mfu=0.5),
    worked("163,840 B/token", "kv.tp.bytes_per_token", HEADS_70B, n_gpu=2),
    worked("40,960 B/token", "kv.tp.bytes_per_token", HEADS_70B, n_gpu=8),
    worked("40,960 B/token", "kv.tp.bytes_per_token", HEADS_70B, n_gpu=16),
    worked("2 ×", "kv.tp.replication", n_kv=8, n_gpu=16),
    worked("0 tokens", "kv.offload_break_even_context", LLAMA3_70B, BREAK_EVEN, beta_link=Q(25, "GB/s")),
    worked("17,144 tokens", "kv.offload_break_even_context", LLAMA3_70B, BREAK_EVEN, beta_link=Q(1.25, "GB/s")),
    # tokens of one sequence over several ranks
    worked("40,960 B/token", "kv.cp.bytes_per_token", HEADS_70B, n_gpu=16, n_dcp=1),
    worked("20,480 B/token", "kv.cp.bytes_per_token", HEADS_70B, n_gpu=16, n_dcp=2),
    worked("163,840 B/token", "kv.cp.bytes_per_token", HEADS_70B, n_gpu=2, n_dcp=1),
    worked("2,199 tokens", "kv.ring.min_chunk", F=F_H100, mfu=1, n_q=64, n_kv=64, b_kv=2, beta_link=Q(450, "GB/s")),
    worked("137 tokens", "kv.ring.min_chunk", F=F_H100, mfu=0.5, n_q=64, n_kv=8, b_kv=2, beta_link=Q(450, "GB/s")),
    # LoRA on the attention projections: rank 16, 2 bytes, Llama 3 8B and 70B
    worked("27.26 MB", "capacity.lora_bytes", n_layers=32, hidden=4096, n_q=32, n_kv=8, d_h=128, lora_rank=16, b_w=2),
    worked("131.1 MB", "capacity.lora_bytes", n_layers=80, hidden=8192, n_q=64, n_kv=8, d_h=128, lora_rank=16, b_w=2),
    # planning problem: Llama 3 70B on four A100 80GB, 64 sequences of 8K
    worked("2,684,354,560 B", "kv.bytes", B=1, **CONTEXT_8K),
    worked("2.5 GiB", "kv.bytes", B=1, **CONTEXT_8K),
    worked("171.8 GB", "kv.bytes", B=64, **CONTEXT_8K),
    worked("160 GiB", "kv.bytes", B=64, **CONTEXT_8K),
    worked("42.95 GB", "kv.capacity.needed", B=64, n_gpu=4, **CONTEXT_8K),
    worked("40.0 GiB", "kv.capacity.needed", B=64, n_gpu=4, **CONTEXT_8K),
    worked("30.0 GiB", "kv.capacity.needed", B=48, n_gpu=4, **CONTEXT_8K),
    worked("15.0 GiB", "kv.capacity.needed", B=64, n_gpu=4, L=3072, kappa=KAPPA),
    worked("20.0 GiB", "kv.capacity.needed", B=64, n_gpu=4, L=8192, kappa=KAPPA / 2),
    worked("21.5 GB", "kv.capacity.needed", B=64, n_gpu=4, L=8192, kappa=KAPPA / 2),
    worked("35.28 GB", "kv.capacity.weights", b_w=2, P=LLAMA3_70B["P"], n_gpu=4),
    worked("32.85 GiB", "kv.capacity.weights", b_w=2, P=LLAMA3_70B["P"], n_gpu=4),
    worked("9.4 GB", "kv.capacity.weights", b_w=4.25 / 8, P=LLAMA3_70B["P"], n_gpu=4),
    worked("44.43 GiB", "kv.capacity.free", P1),
    worked("42.72 GB", "kv.capacity.free", P1, memory=Q(80, "GB")),
    worked("4.43 GiB", "kv.capacity.headroom", P1, B=64, **CONTEXT_8K),
    worked("−0.23 GB", "kv.capacity.headroom", P1, memory=Q(80, "GB"), B=64, **CONTEXT_8K),
    worked("71 sequences", "kv.capacity.sequences", P1, CONTEXT_8K),
    *(
        worked(f"{fit} sequences", "kv.capacity.sequences", P1, CONTEXT_8K, memory_fraction=fraction)
        for fraction, fit in ((0.90, 58), (0.92, 60), (0.95, 64))
    ),
    # batching
    worked("0.5 ×", "batching.static_utilization", n=4.5, n_max=9),
    worked("1.97 ×", "batching.gain_uniform", B=64),
    worked("1.000 ×", "batching.gain_uniform", B=1),
    worked("4.744 ×", "batching.gain_exponential", B=64),
    worked("1.520 ×", "batching.gain_exponential", B=2),  # the harmonic number is 1.5
    worked("64.0 requests", "queue.in_flight", request_rate=6.84, latency=9.36),
    worked("1.993 s", "latency.ttft_prefix", LLAMA3_70B, L=8192, L_hit=0, t_queue=0, n_gpu=4, F=F_A100, mfu=0.5),
    # half is cached: 0.926 s of weights, 0.106 s of attention over 8,192² - 4,096² pairs, half a second queued
    worked("1.532 s", "latency.ttft_prefix", LLAMA3_70B, L=8192, L_hit=4096, t_queue=0.5, n_gpu=4, F=F_A100, mfu=0.5),
    # speculation: Leviathan's expectation and speed-up, an 8B and a 1B draft for 70B (bytes for bytes), P2
    worked("3.689 tokens", "speculation.expected_tokens", alpha=0.8, K=5),
    worked("3.362 tokens", "speculation.expected_tokens", alpha=0.8, K=4),
    worked("3.051 tokens", "speculation.expected_tokens", alpha=0.75, K=4),
    worked("2.689 tokens", "speculation.accepted_drafts", alpha=0.8, K=5),
    worked("2.051 tokens", "speculation.accepted_drafts", alpha=0.75, K=4),
    *(
        worked(f"{gain} ×", "speculation.speedup", alpha=0.8, K=5, c=c)
        for c, gain in (
            (0.02, "3.35"),
            (0.05, "2.95"),
            (0.10, "2.46"),
            (0.125, "2.27"),
            (0.2, "1.84"),
            (8_030_261_248 / LLAMA3_70B["P"], "2.35"),
            (1_235_814_400 / LLAMA3_70B["P"], "3.39"),
        )
    ),
    worked("2.034 ×", "speculation.speedup", alpha=0.75, K=4, c=5 / 40),
    worked("2.023 ×", "speculation.speedup", alpha=0.75, K=5, c=5 / 40),
    worked("1.85 ×", "speculation.speedup", alpha=0.75, K=8, c=5 / 40),
    worked("1.00 ×", "speculation.speedup", alpha=0.336, K=4, c=5 / 40),
    worked("50.8 tok/s", "speculation.rate", alpha=0.75, K=4, t_draft=Q(5, "ms"), t_ver=Q(40, "ms")),
    worked("1.525 ×", "speculation.gain", alpha=0.75, K=4, c=0.125, v=1.5),
    # verification on four A100, 70B: 80, 320 and 640 tokens a pass
    *(
        worked(f"{gain} ×", "speculation.batch_gain", FOUR_A100, alpha=0.75, K=4, c=0, B=B, L=L, kappa=KAPPA)
        for B, L, gain in (
            (16, 0, "3.05"),
            (64, 0, "1.46"),
            (128, 0, "0.73"),
            (16, 32768, "3.05"),
            (64, 8192, "2.04"),
        )
    ),
    worked("0.67 ×", "speculation.batch_gain", FOUR_A100, alpha=0.75, K=4, c=0.1, B=128, L=0, kappa=KAPPA),
    worked("0.82 ×", "speculation.batch_gain", FOUR_A100, alpha=0.75, K=4, c=0.1, B=256, L=2048, kappa=KAPPA),
    worked("36.18 ms", "speculation.verify_time", FOUR_A100, K=4, B=64, L=0, kappa=KAPPA),
    worked("57.25 ms", "speculation.verify_time", FOUR_A100, K=4, B=64, L=8192, kappa=KAPPA),
    worked("38.37 ms", "speculation.verify_time", FOUR_A100, K=4, B=16, L=32768, kappa=KAPPA),
    worked("8.6 tokens", "speculation.free_drafts", R=R_A100, b_w=2, B=16),
    worked("1.4 tokens", "speculation.free_drafts", R=R_A100, b_w=2, B=64),
    worked("1.97 ×", "speculation.experts_ratio", E=256, k=8, B=1, K=1),  # one token and one draft, 8 of 256 experts
    worked("1.36 ×", "speculation.experts_ratio", E=256, k=8, B=32, K=1),
    # paging
    worked("7.5 tokens", "kv.paging.tail_waste", S=16),
    worked("31.5 tokens", "kv.paging.tail_waste", S=64),
    worked("127.5 tokens", "kv.paging.tail_waste", S=256),
    *(
        worked(f"{share} %", "kv.paging.utilization", S=S, n=n)
        for S, n, share in ((16, 128, 94.5), (16, 512, 98.6), (16, 1024, 99.3), (128, 128, 66.8))
    ),
    worked("99.5 %", "kv.paging.utilization", S=16, n=1366),
    worked("91.5 %", "kv.paging.utilization", S=256, n=1366),
    worked("86 blocks", "kv.paging.blocks", S=16, n=1366),
    worked("10 tokens", "kv.paging.waste", S=16, n=1366),
    worked("0 tokens", "kv.paging.waste", S=16, n=1024),
    # by hand, so that every formula has a number and every slip in it shows
    worked("500 ms/token", "latency.tpot", e2e=2.5, ttft=0.5, n_out=5),
    worked("2,257.7 GFLOP", "decode.linear_flops", P=LLAMA3_70B["P"], B=16),
    worked("128 FLOP/B", "decode.linear_intensity", B=32, b_w=0.5),
    worked("5.243 GFLOP", "decode.attention_flops", B=2, n_layers=80, n_q=64, d_h=128, L=1000),
    worked("93.72 ms", "decode.step_time", STEP_A100, B=64, L=2048),
    worked("160.32 ms", "decode.step_time", STEP_A100, B=256, L=1024),
    worked("39.09 ms", "decode.tpot_floor", WEIGHTS, B=16, L=4096, kappa=KAPPA, n_gpu=2, beta=A100),
    worked("78.2 %", "decode.mbu", WEIGHTS, B=16, L=4096, kappa=KAPPA, n_gpu=2, beta=A100, tpot=Q(50, "ms")),
    worked("22.6 %", "decode.mfu", P=LLAMA3_70B["P"], throughput=2000, n_gpu=4, F=F_A100),
    worked("2.5 ms", "decode.launch_time", n_kernels=500, t_kernel=Q(5, "us")),
    worked("1.25 ×", "decode.overlap_speedup", t_gpu=Q(20, "ms"), t_cpu=Q(5, "ms")),
    worked("1.67 ×", "decode.overlap_speedup", t_gpu=Q(4, "ms"), t_cpu=Q(6, "ms")),
    worked("20.39 TFLOP/s", "roofline.attainable", F=F_A100, beta=A100, intensity=10),
    worked("312 TFLOP/s", "roofline.attainable", F=F_A100, beta=A100, intensity=1000),
    worked("17.30 ms", "roofline.pass_time", b_w=2, P=LLAMA3_70B["P"], T=32, F=624e12, beta=4 * 2.039e12),
    worked("50.70 FLOP/B", "roofline.intensity_kv", STEP_70B, b_w=2, B=64, L=2048),
    worked("1,243.9 TFLOP", "prefill.flops", LLAMA3_70B, L=8192),
    worked("163.31 experts", "moe.experts_hit", ROUTED),
    worked("1.568 tokens/expert", "moe.tokens_per_expert", ROUTED),
    worked("862.31 GB", "moe.bytes_read", ROUTED, EXPERTS),
    worked("2.5557 FLOP/B", "moe.linear_intensity", ROUTED, EXPERTS),
    worked("2.147 GB", "kv.window_bytes", B=4, L=32768, W=4096, kappa=131_072),
    worked("131,041 tokens", "kv.receptive_field", n_layers=32, W=4096),
    worked("22.35 GB", "kv.hybrid_bytes", GEMMA, B=2, n_kv=16, d_h=128, b_kv=2),
    worked("16.78 %", "kv.hybrid_fraction", GEMMA),
    worked("100 %", "kv.hybrid_fraction", GEMMA, L=512),
    worked("50.33 MB", "kv.linear_state_bytes", B=2, n_layers=48, n_q=32, d_h=64, b_kv=4),
    worked(
        "61,440 B/token",
        "kv.quant_bytes_per_token",
        n_layers=80,
        n_kv=8,
        d_h=128,
        bits=2,
        b_scale=16,
        b_zero=16,
        G=32,
    ),
    worked("126,976 B/token", "kv.cla_bytes_per_token", HEADS_70B, n_layers=61, n_share=2),
    worked("18.75 %", "kv.sparse_read_fraction", S=16, n_keep=4096, L=32768),
    worked("45 tokens", "kv.projections_uncached", L=7, n_out=5),
    worked("11 tokens", "kv.projections_cached", L=7, n_out=5),
    worked("1.125 ×", "kv.tp.replication", n_kv=8, n_gpu=3),
    worked(
        "1.347 GB/s",
        "kv.offload_break_even_bandwidth",
        LLAMA3_70B,
        L=8192,
        kappa=KAPPA,
        n_gpu=4,
        F=F_A100,
        mfu=0.5,
    ),
    worked("36.52 GiB", "kv.capacity.free", P1, memory_fraction=0.9),
    worked("6.52 GiB", "kv.capacity.headroom", P1, memory_fraction=0.9, B=48, **CONTEXT_8K),
    worked("0 sequences", "kv.capacity.sequences", P1, CONTEXT_8K, memory=Q(24, "GiB")),
    # quantized weights: Llama 2 70B (weights without groups, in groups of 128, of 64), block formats of llama.cpp
    worked("137.95 GB", "quant.model_bytes", LINEAR_70B, b_bar=16),
    worked("68.98 GB", "decode.weight_bytes", P=68_976_648_192, b_w=1),
    worked("35.3 GB", "quant.model_bytes", LINEAR_70B, b_bar=4),
    worked("36.6 GB", "quant.model_bytes", LINEAR_70B, b_bar=4 + 20 / 128),
    worked("34.1 GiB", "quant.model_bytes", LINEAR_70B, b_bar=4 + 20 / 128),
    worked("28.1 GB", "quant.model_bytes", LINEAR_70B, b_bar=3 + 20 / 128),
    worked("28.0 GB", "quant.model_bytes", LINEAR_70B, b_bar=3 + 19 / 128),
    worked("1.05 GB", "quant.model_bytes", LINEAR_70B, P_lin=1, b_bar=4),
    worked("4.156 bit/element", "kv.quant_effective_bits", bits=4, b_scale=16, b_zero=4, G=128),
    worked("4.25 bit/element", "kv.quant_effective_bits", bits=4, b_scale=8, b_zero=0, G=32),  # MXFP4
    worked("4.5 bit/element", "kv.quant_effective_bits", bits=4, b_scale=8, b_zero=0, G=16),  # NVFP4
    worked("4.127 bit/element", "quant.two_level_bits", bits=4, b_scale=8, b_zero=0, G=64, b_super=32, n_super=256),
    *(
        worked(
            f"{shown} bit/element",
            "quant.two_level_bits",
            bits=b,
            b_scale=s,
            b_zero=z,
            G=G,
            b_super=w,
            n_super=256 // G,
        )
        for shown, b, s, z, G, w in (
            ("2.625", 2, 4, 4, 16, 32),
            ("3.4375", 3, 6, 0, 16, 16),
            ("4.500", 4, 6, 6, 32, 32),
            ("5.500", 5, 6, 6, 32, 32),
            ("6.5625", 6, 8, 0, 16, 16),
        )
    ),
    worked(
        "4.0625 bit/element", "quant.codebook_bits", bits=4, n_levels=16, b_scale=16, d_in=4096, f_sparse=0, b_index=16
    ),
    worked(
        "4.444 bit/element", "quant.codebook_bits", bits=4, n_levels=16, b_scale=16, d_in=576, f_sparse=0, b_index=16
    ),
    worked(
        "4.28 bit/element",
        "quant.codebook_bits",
        bits=4,
        n_levels=16,
        b_scale=16,
        d_in=4096,
        f_sparse=0.0045,
        b_index=32,
    ),
    worked("0.200 ×", "quant.step", w_span=3.0, n_levels=16),
    worked("0.00333 ×", "quant.rounding_variance", step=0.2),
    worked("0.125 ×", "quant.obs_loss", e_round=0.5, h_inv=1),
    worked("0.050 ×", "quant.obs_loss", e_round=0.2, h_inv=0.4),
    worked("0.6 ×", "quant.awq_error_ratio", step=0.5, step_scaled=0.6, s_channel=2),
    worked("8 ×", "quant.smooth_scale", x_absmax=16, w_absmax=0.25, migration=0.5),
    worked("4.362 ×", "quant.smooth_scale", x_absmax=16, w_absmax=2, migration=0.625),
    worked("3.5 ×", "quant.log_scale", x_absmax=14),
    worked("3.85 ×", "quant.speedup_bound", b_w=2, b_bar=4 + 20 / 128),
    worked("3.85 ×", "quant.weight_only_speedup", B=1, R=R_A100, b_w=2, b_bar=4 + 20 / 128),
    worked("1.91 ×", "quant.weight_only_speedup", B=80, R=R_A100, b_w=2, b_bar=4 + 20 / 128),
    worked("1.00 ×", "quant.weight_only_speedup", B=160, R=R_A100, b_w=2, b_bar=4 + 20 / 128),
    worked("39.7 sequences", "roofline.crossover_batch", R=R_A100, b_w=(4 + 20 / 128) / 8),
    # attention kernels: scores and statistics of one head and of 64 at 32,768 tokens, in FP16 and FP32
    worked("2.0 GiB", "attention.score_bytes", n_q=1, L=32768, b_act=2),
    worked("128 GiB", "attention.score_bytes", n_q=64, L=32768, b_act=2),
    worked("0.26 MB", "attention.statistics_bytes", n_q=1, L=32768, b_acc=4),
    worked("16.78 MB", "attention.statistics_bytes", n_q=64, L=32768, b_acc=4),
    worked("8,912,896 B", "attention.standard_io", T=1024, L=1024, d_h=64, b_act=2),
    worked("2,424,832 B", "attention.standard_io", T=256, L=1024, d_h=64, b_act=2),
    worked("1,115,136 B", "attention.tiled_io", TILED, T=256),
    worked("550,288 B", "attention.tiled_io", TILED, T=100),
    worked("2,494,464 B", "attention.tiled_io_causal", TILED),
    worked("3,118,592 B", "attention.keys_outer_io", T=256, L=1030, d_h=64, B_c=64, b_act=2, b_acc=4),
    worked("163 tokens", "attention.tile_rows", M_sram=Q(163, "KiB"), d_h=128, b_act=2),
    worked("7.6 %", "attention.gemm_ratio", LLAMA3_70B, L=8192),
    worked("122 %", "attention.gemm_ratio", LLAMA3_70B, L=131_072),
    worked("6.25 %", "attention.score_row_share", n_q=64, n_kv=8, d_h=128, b_act=2, b_kv=2),
    worked("12.5 %", "attention.score_row_share", n_q=64, n_kv=8, d_h=128, b_act=2, b_kv=1),
    worked("7.4 %", "attention.busy_share", B=1, n_kv=8, n_split=1, n_sm=108),
    worked("44.4 %", "attention.busy_share", B=2, n_kv=8, n_split=3, n_sm=108),
    worked("100 %", "attention.busy_share", B=1, n_kv=8, n_split=14, n_sm=108),
    worked("14 splits", "attention.fill_splits", B=1, n_kv=8, n_sm=108, n_cta=1),
    worked("22 splits", "attention.fill_splits", B=3, n_kv=8, n_sm=132, n_cta=4),
    worked("51.9 %", "attention.wave_efficiency", B=1, n_kv=8, n_split=14, n_sm=108, n_cta=1),
    worked("96.3 %", "attention.wave_efficiency", B=1, n_kv=8, n_split=13, n_sm=108, n_cta=1),
    worked("55.6 %", "attention.wave_efficiency", B=3, n_kv=8, n_split=10, n_sm=108, n_cta=2),
    worked("924,672 B", "attention.partial_bytes", B=1, n_q=64, n_split=14, d_h=128, b_acc=4),
    worked("3,962,880 B", "attention.partial_bytes", B=3, n_q=64, n_split=20, d_h=128, b_acc=4),
    worked("273.85 us", "attention.split_time", DECODE_128K, B=1, n_split=13, n_cta=1),
    worked("508.25 us", "attention.split_time", DECODE_128K, B=1, n_split=14, n_cta=1),
    worked("1,422.80 us", "attention.split_time", DECODE_128K, B=3, n_split=10, n_cta=2),
    worked("3.104 ×", "attention.online_sum", l_a=2, m_a=2, l_b=3, m_b=1),
    worked("3.736 ×", "attention.online_sum", l_a=2, m_a=-2, l_b=3, m_b=-1),
    worked("2.313 ×", "attention.combine_lse", lse_a=1, lse_b=2),
    worked("26.89 %", "attention.combine_weight", lse_a=1, lse_b=2),
    worked("95.26 %", "attention.combine_weight", lse_a=2, lse_b=-1),
    worked("11.33 ×", "attention.cascade_gain", B=32, L_hit=8192, L=512),
    worked("3.40 ×", "mla.absorption_ratio", d_c=512, d_R=64, d_h=128),
    worked("33.554 MFLOP/token", "mla.expansion_flops", n_q=128, d_c=512, d_h=128),
    worked("170.67 tokens", "mla.absorb_below", d_c=512, d_h=128),
]
