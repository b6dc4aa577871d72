"""The identity of a full block: a hash over its tokens and everything before them.

Two blocks hold the same keys and values if they hold the same tokens after the same prefix, so a block's hash covers
its parent's hash. The chain starts from the salt: equal prompts under different salts share nothing, neither blocks nor
the time that a hit saves. SHA-256, because whoever finds a collision reads another request's cache (Python's `hash`
allowed that: CVE-2025-25183). After vLLM 0.9.2, vllm/v1/core/kv_cache_utils.py hash_block_tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

from labcore.core.request import Request


def root_hash(salt: str) -> bytes:
    """Where the chain of every request with this salt starts."""
    return sha256(salt.encode()).digest()


def hash_block(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """The hash of one full block, 32 bytes, given its parent's hash and its own tokens."""
    return sha256(parent + array("q", token_ids).tobytes()).digest()


def extend_hashes(request: Request, block_size: int, num_blocks: int) -> list[bytes]:
    """request.block_hashes, long enough for its first `num_blocks` blocks, whose tokens must be known."""
    hashes = request.block_hashes
    for start in range(len(hashes) * block_size, num_blocks * block_size, block_size):
        parent = hashes[-1] if hashes else root_hash(request.cache_salt)
        hashes.append(hash_block(parent, request.all_token_ids[start : start + block_size]))
    return hashes
