"""What a pass has to compute and to read, and how fast this machine reads."""

import statistics

import torch

from labcore.bench.ceilings import cpu_array_bytes
from labcore.bench.timing import measure
from labcore.model.llama import Llama


def layer_parameters(model: Llama) -> int:
    """Weights that one token is multiplied with in all layers; the head and the norms are not counted."""
    c = model.config
    attention = c.hidden * c.head_dim * (c.n_heads + 2 * c.n_kv_heads) + c.n_heads * c.head_dim * c.hidden
    return c.n_layers * (attention + 3 * c.hidden * c.intermediate)


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
