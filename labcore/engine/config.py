"""What an engine may be asked to do, checked when it is built. Names and defaults are vLLM V1's where it has them."""

from __future__ import annotations

from dataclasses import dataclass

from labcore.core.errors import InputError


@dataclass(frozen=True)
class CacheConfig:
    """The paged KV cache.

    num_blocks: device blocks, the null block included, so one fewer can be used; block_size: tokens in each;
    enable_prefix_caching: keep the keys and values of finished requests until their blocks are needed, and share them;
    num_host_blocks: room in host memory for what preempted requests have computed; with 0 they compute it again;
    sliding_window: every layer attends to this many latest tokens, the current one included; None: to all.
    Raises InputError for a value that makes no sense.
    """

    num_blocks: int
    block_size: int = 16
    enable_prefix_caching: bool = True
    num_host_blocks: int = 0
    sliding_window: int | None = None

    def __post_init__(self) -> None:
        _require(self, "num_blocks", self.num_blocks >= 2, "2 or more; one of them is the null block")
        _require(self, "block_size", self.block_size >= 1, "1 token or more")
        _require(self, "num_host_blocks", self.num_host_blocks >= 0, "0 (no swapping) or more")
        _require(self, "sliding_window", self.sliding_window is None or self.sliding_window >= 1, "None, 1 or more")


@dataclass(frozen=True)
class SchedulerConfig:
    """How requests share the steps.

    max_num_batched_tokens: the token budget of a step; max_num_seqs: requests that run at a time; max_model_len: prompt
    and answer end here; enable_chunked_prefill: a prompt may be computed over several steps;
    long_prefill_token_threshold: at most this many tokens of one request a step, 0 for no limit; policy: a key of
    `policies.POLICIES`; watermark: share of the blocks that admission leaves free while anything runs;
    num_lookahead_tokens: slots beyond the step's own tokens that a draft model writes; num_branch_tokens: draft nodes
    beside the longest branch, which take slots even where the answer may not grow as long; async_scheduling: a step is
    planned before the one before it has been answered, its newest tokens unknown (`overlap`).
    Raises InputError for a value, or a combination, with which some request could never go on.
    """

    max_num_batched_tokens: int = 2048
    max_num_seqs: int = 256
    max_model_len: int = 8192
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    policy: str = "fcfs"
    watermark: float = 0.01
    num_lookahead_tokens: int = 0
    num_branch_tokens: int = 0
    async_scheduling: bool = False

    def __post_init__(self) -> None:
        _require(self, "max_num_seqs", self.max_num_seqs >= 1, "1 or more")
        _require(self, "max_model_len", self.max_model_len >= 2, "2 or more: a prompt and an answer")
        _require(
            self,
            "max_num_batched_tokens",
            self.max_num_batched_tokens >= self.max_num_seqs,
            f"at least max_num_seqs={self.max_num_seqs}: every running request advances in every step",
        )
        _require(
            self,
            "max_num_batched_tokens",
            self.enable_chunked_prefill or self.max_num_batched_tokens >= self.max_model_len,
            f"at least max_model_len={self.max_model_len} without chunked prefill: a request preempted late is "
            "computed again in one step",
        )
        chunk = self.long_prefill_token_threshold
        _require(self, "long_prefill_token_threshold", chunk >= 0, "0 (no limit) or more")
        _require(self, "long_prefill_token_threshold", self.enable_chunked_prefill or not chunk, "0 without chunking")
        _require(self, "watermark", 0 <= self.watermark < 1, "0 or more and below 1")
        _require(self, "num_lookahead_tokens", self.num_lookahead_tokens >= 0, "0 or more")
        _require(self, "num_branch_tokens", self.num_branch_tokens >= 0, "0 or more")


def _require(config: object, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise InputError(f"{name}={getattr(config, name)!r}: must be {rule}")
