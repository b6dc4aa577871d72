"""Launch choices of every kernel: tile sizes, warps, pipeline stages, in one table by kind and architecture.

An entry is one dict for all shapes, or a list of (where, dict): the first whose `where` fits the shape is taken.
`where` maps a name of the shape to a value, or to a set or range of values: ({"head_dim": 64, "rows": range(1, 17)},
{"BLOCK_M": 16, ...}). A key in capitals is a constexpr of the kernel; num_warps, num_stages and maxnreg are Triton's;
any other is for the function that launches, which derives its grid from it: programs a multiprocessor (`persistent`,
`resident`, `per_multiprocessor`), keys of the shortest share (`least`), shares of K (`splits`).
Every entry for a GPU compiles without spills and within that chip's shared memory, which the tests assert; where a
comment says so it also won a sweep of `labcore.kernels.tune`. Those of "interpreter" only have to be small.
"""

import functools
from collections.abc import Mapping

from labcore.core.errors import InputError

Launch = dict[str, int]
Rule = tuple[Mapping[str, object], Launch]

ARCHITECTURES = ("sm75", "sm80", "sm89", "sm90")  # oldest first
INTERPRETER = "interpreter"

SMALL = frozenset({16, 32, 64})  # head_dim
PREFILL_FP32: list[Rule] = [
    (
        {"float32": True, "head_dim": SMALL | {128}},
        {"BLOCK_M": 32, "BLOCK_N": 16, "TMA": 0, "num_warps": 4, "num_stages": 2},
    ),
    ({"float32": True, "head_dim": {256}}, {"BLOCK_M": 32, "BLOCK_N": 16, "TMA": 0, "num_warps": 8, "num_stages": 2}),
]
UP_TO_8 = {"BLOCK_M": 8, "JOIN": 0, "PTX": 1}  # tokens, of 4-bit products on Hopper
MATMUL8_HOPPER: list[Rule] = [  # of either type: the tensor cores are as fast in both
    (
        {"few_rows": True},
        {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 128, "BAND": 1, "TMA": 1, "num_warps": 4, "num_stages": 6},
    ),
    (
        {},
        {
            "BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 128, "BAND": 16, "TMA": 1, "persistent": 1,
            "num_warps": 8, "num_stages": 3,
        },
    ),
]  # fmt: skip
MATMUL8_INTERPRETED: Launch = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "BAND": 2, "TMA": 0}

TABLE: dict[tuple[str, str], Launch | list[Rule]] = {
    # pointwise: rows wide enough to give every thread 16 elements or more; at decode more warps for one row's latency
    ("rms_norm", "sm75"): [
        ({"width": range(1, 257)}, {"ROWS": 8, "num_warps": 4, "num_stages": 1}),
        ({"width": range(257, 1025)}, {"ROWS": 4, "num_warps": 4, "num_stages": 1}),
        ({"width": range(1025, 2049)}, {"ROWS": 1, "num_warps": 4, "num_stages": 1}),
        ({"width": range(2049, 4097), "many_rows": True}, {"ROWS": 1, "num_warps": 4, "num_stages": 1}),
        ({"width": range(2049, 8193)}, {"ROWS": 1, "num_warps": 8, "num_stages": 1}),
        ({"width": range(8193, 16385)}, {"ROWS": 1, "num_warps": 16, "num_stages": 1}),
    ],
    ("rms_norm", "interpreter"): [
        ({"width": range(1, 129)}, {"ROWS": 4}),
        ({}, {"ROWS": 1}),
    ],
    ("rope", "sm75"): [
        ({"few_tokens": True}, {"HEADS": 4, "num_warps": 1, "num_stages": 1}),
        ({}, {"HEADS": 8, "num_warps": 1, "num_stages": 1}),
    ],
    ("rope", "interpreter"): {"HEADS": 4},
    ("silu_mul", "sm75"): {"BLOCK": 2048, "num_warps": 4, "num_stages": 1},
    ("silu_mul", "interpreter"): {"BLOCK": 64},
    # sampling: a threshold is sought by one program a row, so that wants many loads in flight
    ("softmax", "sm75"): {"BLOCK": 4096, "num_warps": 8, "num_stages": 1},
    ("softmax", "interpreter"): {"BLOCK": 64},
    ("tiles", "sm75"): {"num_warps": 4, "num_stages": 1},
    ("tiles", "interpreter"): {},
    ("draw", "sm75"): {"num_warps": 8, "num_stages": 1},
    ("draw", "interpreter"): {},
    ("threshold", "sm75"): {"BLOCK": 2048, "num_warps": 8, "num_stages": 1},
    ("threshold", "interpreter"): {"BLOCK": 256},
    ("mask", "sm75"): {"BLOCK": 2048, "num_warps": 4, "num_stages": 1},
    ("mask", "interpreter"): {"BLOCK": 64},
    # prefill: two warpgroups of 64 rows; few: no sequence is longer than 64 queries; window: one that hides keys; tma:
    # the copy engine can read k and v. fp32 has no tensor cores to feed
    ("prefill", "sm80"): [
        (
            {"float32": False, "head_dim": {128}},
            {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 0, "num_warps": 8, "num_stages": 2},
        ),
        (
            {"float32": False, "head_dim": SMALL},
            {"BLOCK_M": 64, "BLOCK_N": 64, "TMA": 0, "num_warps": 4, "num_stages": 3},
        ),
        (
            {"float32": False, "head_dim": {256}},
            {"BLOCK_M": 64, "BLOCK_N": 32, "TMA": 0, "num_warps": 8, "num_stages": 2},
        ),
        *PREFILL_FP32,
    ],
    ("prefill", "sm90"): [
        (
            {"float32": False, "head_dim": {128}, "tma": True, "few": False, "window": False},
            {"BLOCK_M": 128, "BLOCK_N": 128, "TMA": 0, "num_warps": 8, "num_stages": 3},  # won at a1
        ),
        (
            {"float32": False, "head_dim": {128}, "tma": True, "few": False, "window": True},
            # won at a4, where the tile that won at a1 took 15 % longer
            {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 1, "num_warps": 8, "num_stages": 2, "maxnreg": 128},
        ),
        (
            {"float32": False, "head_dim": {128}, "tma": True},
            {"BLOCK_M": 64, "BLOCK_N": 64, "TMA": 1, "num_warps": 4, "num_stages": 2},
        ),
        (
            {"float32": False, "head_dim": {64}, "tma": True},
            {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 1, "num_warps": 8, "num_stages": 3},
        ),
        (
            {"float32": False, "head_dim": {256}, "tma": True},
            {"BLOCK_M": 128, "BLOCK_N": 32, "TMA": 1, "num_warps": 8, "num_stages": 2},
        ),
        *PREFILL_FP32,
        (
            {"float32": False, "head_dim": SMALL},
            {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 0, "num_warps": 8, "num_stages": 3},
        ),
        (
            {"float32": False, "head_dim": {128}},
            {"BLOCK_M": 128, "BLOCK_N": 64, "TMA": 0, "num_warps": 8, "num_stages": 2},
        ),
        (
            {"float32": False, "head_dim": {256}},
            {"BLOCK_M": 128, "BLOCK_N": 32, "TMA": 0, "num_warps": 8, "num_stages": 2},
        ),
    ],
    ("prefill", "interpreter"): {"BLOCK_M": 32, "BLOCK_N": 16, "TMA": 0},
    # one token: several programs share a multiprocessor, so that some read while others add up
    ("gemv", "sm75"): [
        ({"gated": True}, {"BLOCK_N": 2, "BLOCK_K": 1024, "EARLY": 0, "num_warps": 4, "num_stages": 1}),
        ({}, {"BLOCK_N": 4, "BLOCK_K": 1024, "EARLY": 0, "num_warps": 4, "num_stages": 1}),
    ],
    ("gemv", "sm90"): [
        # won within a step of Llama 3 8B (`labcore.engine.tune_step`), where two rows of 1024 had won alone
        (
            {"gated": True, "short": False},
            {"BLOCK_N": 1, "BLOCK_K": 4096, "EARLY": 1, "num_warps": 8, "num_stages": 1},
        ),
        ({"gated": True}, {"BLOCK_N": 2, "BLOCK_K": 1024, "EARLY": 1, "num_warps": 4, "num_stages": 1}),
        ({"long": True}, {"BLOCK_N": 4, "BLOCK_K": 512, "EARLY": 1, "num_warps": 4, "num_stages": 1}),
        # won within a step of Qwen3 0.6B
        ({"short": True}, {"BLOCK_N": 4, "BLOCK_K": 1024, "EARLY": 1, "num_warps": 8, "num_stages": 1}),
        ({}, {"BLOCK_N": 2, "BLOCK_K": 2048, "EARLY": 1, "num_warps": 8, "num_stages": 1}),
    ],
    ("gemv", "interpreter"): {"BLOCK_N": 16, "BLOCK_K": 64, "EARLY": 0},
    # 4-bit weights: one token wants bytes in flight; more tokens, a tile of weights that feeds the tensor cores in time
    ("w4_gemv", "sm75"): {"BLOCK_N": 4, "BLOCK_S": 8, "STAGES": 1, "num_warps": 2, "num_stages": 1},
    ("w4_gemv", "sm80"): [
        ({"few_rows": True}, {"BLOCK_N": 8, "BLOCK_S": 16, "STAGES": 3, "num_warps": 4, "num_stages": 1}),
        ({}, {"BLOCK_N": 16, "BLOCK_S": 8, "STAGES": 3, "num_warps": 4, "num_stages": 1}),
    ],
    ("w4_gemv", "sm90"): [
        ({"few_rows": True}, {"BLOCK_N": 8, "BLOCK_S": 8, "STAGES": 3, "num_warps": 2, "num_stages": 1}),
        ({}, {"BLOCK_N": 16, "BLOCK_S": 4, "STAGES": 3, "num_warps": 2, "num_stages": 1}),
    ],
    ("w4_gemv", "interpreter"): {"BLOCK_N": 32, "BLOCK_S": 4, "STAGES": 1},
    ("w4_gemm", "sm80"): [
        ({"wide": True}, {"BLOCK_N": 32, "BLOCK_M": 16, "JOIN": 0, "PTX": 0, "num_warps": 4, "num_stages": 2}),
        ({"tokens": {8, 16}}, {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": 0, "PTX": 1, "num_warps": 4, "num_stages": 4}),
        ({"tokens": 32}, {"BLOCK_N": 64, "BLOCK_M": 32, "JOIN": 0, "PTX": 1, "num_warps": 4, "num_stages": 4}),
        ({"tokens": 64}, {"BLOCK_N": 64, "BLOCK_M": 64, "JOIN": 0, "PTX": 1, "num_warps": 4, "num_stages": 3}),
        ({}, {"BLOCK_N": 64, "BLOCK_M": 128, "JOIN": 0, "PTX": 1, "num_warps": 8, "num_stages": 3}),
    ],
    # Hopper: with eight tokens mma.sync, which needs no warpgroup. resident: programs a multiprocessor has room for
    ("w4_gemm", "sm90"): [
        ({"wide": True}, {"BLOCK_N": 32, "BLOCK_M": 16, "JOIN": 0, "PTX": 0, "num_warps": 4, "num_stages": 2}),
        (
            {"tokens": 8, "few_rows": True},  # won at d5
            UP_TO_8 | {"BLOCK_N": 64, "resident": 4, "num_warps": 2, "num_stages": 4},
        ),
        (
            {"tokens": 8},  # won at d1
            UP_TO_8 | {"BLOCK_N": 128, "resident": 8, "num_warps": 4, "num_stages": 4},
        ),
        (
            {"tokens": 16, "few_rows": True},
            {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": 1, "PTX": 1, "num_warps": 4, "num_stages": 4},
        ),
        (
            {"tokens": 16},  # won at d2
            {"BLOCK_N": 128, "BLOCK_M": 16, "JOIN": 1, "PTX": 1, "splits": 2, "num_warps": 4, "num_stages": 4},
        ),
        ({"tokens": 32}, {"BLOCK_N": 128, "BLOCK_M": 32, "JOIN": 1, "PTX": 1, "num_warps": 4, "num_stages": 4}),
        (
            {"tokens": 64},  # won at d3
            {"BLOCK_N": 128, "BLOCK_M": 64, "JOIN": 1, "PTX": 1, "num_warps": 4, "num_stages": 4},
        ),
        ({}, {"BLOCK_N": 64, "BLOCK_M": 128, "JOIN": 1, "PTX": 1, "num_warps": 4, "num_stages": 3}),
    ],
    ("w4_gemm", "interpreter"): [
        ({"wide": True}, {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": 0, "PTX": 0}),
        ({"tokens": {8, 16}}, {"BLOCK_N": 64, "BLOCK_M": 16, "JOIN": 0, "PTX": 0}),
        ({"tokens": 32}, {"BLOCK_N": 64, "BLOCK_M": 32, "JOIN": 0, "PTX": 0}),
        ({"tokens": 64}, {"BLOCK_N": 64, "BLOCK_M": 64, "JOIN": 0, "PTX": 0}),
        ({}, {"BLOCK_N": 64, "BLOCK_M": 128, "JOIN": 1, "PTX": 0}),
    ],
    ("w4_add_splits", "sm75"): {"BLOCK": 512, "num_warps": 4, "num_stages": 1},
    ("w4_add_splits", "interpreter"): {"BLOCK": 256},
    ("w4_dequantize", "sm75"): {"BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    ("w4_dequantize", "interpreter"): {"BLOCK_N": 64},
    # 8-bit products: `persistent` is programs a multiprocessor, 0 for one a tile
    ("quantize_rows", "sm75"): {"BLOCK": 2048, "num_warps": 4, "num_stages": 1},
    ("quantize_rows", "interpreter"): {"BLOCK": 64},
    ("int8_matmul", "sm80"): [
        (
            {"few_rows": True},
            {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "BAND": 1, "TMA": 0, "num_warps": 4, "num_stages": 4},
        ),
        ({}, {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "BAND": 8, "TMA": 0, "num_warps": 8, "num_stages": 3}),
    ],
    ("fp8_matmul", "sm89"): [
        (
            {"few_rows": True},
            {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "BAND": 1, "TMA": 0, "num_warps": 4, "num_stages": 3},
        ),
        (
            {},
            {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "BAND": 8, "TMA": 0, "num_warps": 8, "num_stages": 3},
        ),
    ],
    ("fp8_blocks", "sm89"): [
        (
            {"few_rows": True},
            {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "BAND": 1, "TMA": 0, "num_warps": 4, "num_stages": 2},
        ),
        (
            {},
            {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 128, "BAND": 8, "TMA": 0, "num_warps": 8, "num_stages": 2},
        ),
    ],
    ("fp8_matmul", "sm90"): MATMUL8_HOPPER,
    ("fp8_blocks", "sm90"): [
        (
            {"few_rows": True},
            {"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 128, "BAND": 1, "TMA": 1, "num_warps": 4, "num_stages": 4},
        ),
        (
            {},
            {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "BAND": 8, "TMA": 1, "num_warps": 8, "num_stages": 4},
        ),
    ],
    ("int8_matmul", "sm90"): MATMUL8_HOPPER,
    ("fp8_matmul", "interpreter"): MATMUL8_INTERPRETED,
    ("fp8_blocks", "interpreter"): MATMUL8_INTERPRETED,
    ("int8_matmul", "interpreter"): MATMUL8_INTERPRETED,
    # decode: four programs with 32 KB in flight share a multiprocessor; with more than 128 registers a thread, three do
    ("decode", "sm90"): [
        ({"head_dim": {256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 3}),
        ({"tiny": True}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 2}),  # won within steps, see "splits"
        ({"short": True}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 5}),  # won at b4
        ({"few_rows": True}, {"BLOCK_T": 64, "num_warps": 2, "num_stages": 3}),  # won at b1 and b2
        ({}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
    ],
    ("decode", "sm80"): [
        ({"head_dim": {256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 2}),
        ({}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
    ],
    ("decode", "interpreter"): {"BLOCK_T": 32},
    ("decode_vector", "sm75"): [
        ({"head_dim": {256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 1}),
        ({}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 1}),
    ],
    ("decode_vector", "interpreter"): {"BLOCK_T": 32},
    # into how many shares a request's keys are cut: see choose_splits. least: won within steps of Llama 3 8B and Qwen3
    # 0.6B at 540 keys, where it is the tail of a share that a step waits for
    ("splits", "sm90"): {"per_multiprocessor": 4, "least": 64},
    ("splits", "sm75"): {"per_multiprocessor": 4, "least": 256},
    ("splits", "interpreter"): {"per_multiprocessor": 1, "least": 32},
    ("merge", "sm75"): {"BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    ("merge", "interpreter"): {"BLOCK_N": 4},
    # paged: 16 rows for single tokens; for chunks on Hopper 128 rows, with two programs on a multiprocessor
    ("paged", "sm90"): [
        ({"exact": {True}}, {"BLOCK_M": 16, "BLOCK_T": 16, "num_warps": 4, "num_stages": 1}),
        ({"rows": range(1, 17)}, {"BLOCK_M": 16, "BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
        ({"head_dim": {256}}, {"BLOCK_M": 128, "BLOCK_T": 32, "num_warps": 8, "num_stages": 3}),
        ({"rows": range(17, 65)}, {"BLOCK_M": 64, "BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
        ({}, {"BLOCK_M": 128, "BLOCK_T": 64, "num_warps": 8, "num_stages": 3, "maxnreg": 128}),
    ],
    ("paged", "sm80"): [
        ({"exact": {True}, "head_dim": {16, 32}}, {"BLOCK_M": 16, "BLOCK_T": 32, "num_warps": 4, "num_stages": 1}),
        ({"exact": {True}}, {"BLOCK_M": 16, "BLOCK_T": 16, "num_warps": 4, "num_stages": 1}),
        ({"rows": range(1, 17)}, {"BLOCK_M": 16, "BLOCK_T": 32, "num_warps": 4, "num_stages": 2}),
        ({"head_dim": {256}}, {"BLOCK_M": 64, "BLOCK_T": 32, "num_warps": 8, "num_stages": 2}),
        ({"head_dim": {16, 32}}, {"BLOCK_M": 64, "BLOCK_T": 32, "num_warps": 4, "num_stages": 2}),
        ({}, {"BLOCK_M": 64, "BLOCK_T": 64, "num_warps": 4, "num_stages": 2}),
    ],
    ("paged", "interpreter"): [
        ({"rows": range(1, 17)}, {"BLOCK_M": 16, "BLOCK_T": 32}),
        ({}, {"BLOCK_M": 64, "BLOCK_T": 32}),
    ],
    ("write_kv", "sm75"): {"num_warps": 4, "num_stages": 1},
    ("write_kv", "interpreter"): {},
    # quantized KV: what counts is bytes in flight beside few instructions a byte, so tiles as large as registers allow
    ("decode_quant", "sm80"): [
        ({"codes": {"int8", "fp8"}, "head_dim": {64, 128}}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
        ({"codes": {"int8", "fp8"}, "head_dim": {32, 256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 3}),
        ({"codes": {"int4"}, "head_dim": {128}}, {"BLOCK_T": 64, "num_warps": 4, "num_stages": 3}),
        ({"codes": {"int4"}, "head_dim": {64, 256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 3}),
    ],
    # the copies wait for the table's, so five stages hold two tiles, and three only one; `resident`: how many programs
    # a multiprocessor is taken to hold when the number of shares is chosen, four without it
    ("decode_quant", "sm90"): [
        ({"codes": {"int8", "fp8"}, "head_dim": {64, 128}}, {"BLOCK_T": 64, "num_warps": 2, "num_stages": 5}),
        ({"codes": {"int8", "fp8"}, "head_dim": {32, 256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 5}),
        ({"codes": {"int4"}, "head_dim": {128}}, {"BLOCK_T": 64, "resident": 8, "num_warps": 2, "num_stages": 5}),
        ({"codes": {"int4"}, "head_dim": {64}}, {"BLOCK_T": 64, "num_warps": 2, "num_stages": 5}),
        ({"codes": {"int4"}, "head_dim": {256}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 5}),
    ],
    ("decode_quant", "interpreter"): {"BLOCK_T": 32},
    ("decode_quant_vector", "sm75"): [
        ({"head_dim": {32, 64, 128}}, {"BLOCK_T": 32, "num_warps": 4, "num_stages": 2}),
        ({"head_dim": {256}}, {"BLOCK_T": 16, "num_warps": 4, "num_stages": 2}),
    ],
    ("decode_quant_vector", "interpreter"): {"BLOCK_T": 32},
    ("write_kv_quant", "sm75"): {"ROWS": 8, "num_warps": 4, "num_stages": 1},
    ("write_kv_quant", "interpreter"): {"ROWS": 8},
}


def architecture(cc: tuple[int, int] | None) -> str:
    """The newest architecture in the table that `cc` can run as; "interpreter" for None.

    Chips with 99 KiB of shared memory (8.6: A10, RTX 30; 12.0: RTX 50) take the tiles of 8.9, which has as little.
    """
    if cc is None:
        return INTERPRETER
    if cc in ((8, 6), (8, 9)) or cc >= (12, 0):
        return "sm89"
    if cc < (7, 5):
        raise InputError(f"compute capability {cc[0]}.{cc[1]}: the kernels need 7.5 or more; pass backend='torch'")
    return "sm90" if cc >= (9, 0) else "sm80" if cc >= (8, 0) else "sm75"


def rules(kind: str, cc: tuple[int, int] | None) -> list[Rule]:
    """The entries of `kind` that a chip of capability `cc` chooses from, in order. Raises InputError without any."""
    name = architecture(cc)
    usable = (INTERPRETER,) if cc is None else reversed(ARCHITECTURES[: ARCHITECTURES.index(name) + 1])
    for candidate in usable:
        if (kind, candidate) in TABLE:
            entry = TABLE[kind, candidate]
            return [({}, entry)] if isinstance(entry, dict) else entry
    raise InputError(
        f"no launch choices of kind {kind!r} for {name}: add ({kind!r}, {name!r}) to labcore.kernels._config"
    )


def pick(kind: str, cc: tuple[int, int] | None, **shape) -> Launch:
    """The launch choices of `kind` for a chip and a shape, a new dict. Raises InputError if there are none."""
    return dict(_pick(kind, cc, tuple(shape.items())))


@functools.lru_cache(maxsize=4096)  # a decode step picks the same few again and again
def _pick(kind: str, cc: tuple[int, int] | None, shape: tuple[tuple[str, object], ...]) -> Launch:
    known = dict(shape)
    for where, launch in rules(kind, cc):
        if all(_fits(known, name, wanted) for name, wanted in where.items()):
            return launch
    raise InputError(f"no launch choices of kind {kind!r} for {architecture(cc)} and {known}: add a rule that fits")


def _fits(shape: Mapping[str, object], name: str, wanted: object) -> bool:
    if name not in shape:
        raise InputError(f"a rule asks for {name}={wanted}, and the caller of pick() named only {sorted(shape)}")
    return shape[name] in wanted if isinstance(wanted, (set, frozenset, range, tuple)) else shape[name] == wanted
