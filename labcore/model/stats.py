"""What a run cost: tokens, seconds, and the bytes that each decode pass had to read."""

import statistics
from dataclasses import dataclass

import torch

from labcore.bench.ceilings import cpu_array_bytes
from labcore.bench.timing import measure
from labcore.model.llama import Llama


@dataclass
class RunStats:
    """Times of one run. The first pass (prefill) gives every sequence its first token, each later pass one more.

    decode_tokens counts the tokens that decode passes produced, so decode_tokens / decode_seconds is their rate.
    """

    prompt_tokens: int = 0
    new_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    decode_tokens: int = 0
    decode_passes: int = 0
    decode_context: int = 0  # cached tokens that the decode passes attended to, summed

    def add_pass(self, tokens: int, context: int, seconds: float) -> None:
        """Record a pass that gave `tokens` sequences, `context` tokens long together, one token each."""
        if self.new_tokens == 0:
            self.prefill_seconds = seconds
        else:
            self.decode_seconds += seconds
            self.decode_tokens += tokens
            self.decode_passes += 1
            self.decode_context += context
        self.new_tokens += tokens

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens per second; 0 before a run."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens per second over all sequences; 0 when one token was all."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    def read_rate(self, weight_bytes: float, kv_bytes_per_token: float) -> float:
        """Bytes per second that decoding read: all weights once a pass, and every cached key and value once."""
        read = self.decode_passes * weight_bytes + self.decode_context * kv_bytes_per_token
        return read / self.decode_seconds if self.decode_seconds else 0.0


def weight_bytes_per_pass(model: Llama) -> int:
    """Bytes of weights that one decode pass reads: everything but the embedding table, of which it reads single rows.

    A tied head is that same table, read in full.
    """
    held = {id(t): t.nbytes for t in (*model.parameters(), *model.buffers())}
    if model.lm_head is not model.embed_tokens and not model.config.tied_embeddings:
        held.pop(id(model.embed_tokens.weight), None)
    return sum(held.values())


def kv_bytes_per_token(model: Llama) -> int:
    """Bytes of keys and values that one cached token occupies, and every decode pass reads."""
    config = model.config
    return 2 * config.n_layers * config.n_kv_heads * config.head_dim * model.norm.weight.itemsize


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second of summing an array that no cache holds: `read_bandwidth` of `labcore bench`, at a glance."""
    count = (cpu_array_bytes() if device.type == "cpu" else 4 * 2**30) // 4
    source = torch.ones(count, device=device)
    sync = torch.cuda.synchronize if device.type == "cuda" else None
    return 4 * count / statistics.median(measure(source.sum, rounds=5, sync=sync))


def parts_line(seconds: dict[str, float]) -> str:
    """One line for people: the shares of a decode step, from `parts.step_parts`."""
    whole = sum(seconds.values())
    shares = ", ".join(f"{part} {taken / whole:.0%}" for part, taken in seconds.items())
    return f"a decode step at this length takes {1e3 * whole:.1f} ms with timers in it: {shares}"


def summary(stats: RunStats, model: Llama, bandwidth: float | None = None) -> str:
    """One line for people: rates, and the share of `bandwidth` (B/s) that decoding read at."""
    line = f"prompt {stats.prompt_tokens} tokens in {stats.prefill_seconds:.2f} s ({stats.prefill_rate:.0f} tokens/s)"
    if not stats.decode_tokens:
        return line
    line += f" · then {stats.decode_tokens} tokens at {stats.decode_rate:.1f} tokens/s"
    if bandwidth is None:
        return line
    rate = stats.read_rate(weight_bytes_per_pass(model), kv_bytes_per_token(model))
    return (
        line
        + f", reading {rate / 1e9:.1f} of {bandwidth / 1e9:.1f} GB/s ({rate / bandwidth:.0%} of measured bandwidth)"
    )
