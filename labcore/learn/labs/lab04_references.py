"""What lab 4 asks for, solved. Two answers are the library's own: `sampling.rejection.accept_chain` and
`accept_candidates`; the others are short, and rest on it where it has the part.

Sources: Leviathan et al., arXiv:2211.17192 (sections 2 and 3); SpecInfer, arXiv:2305.09781 (section 4); Medusa,
arXiv:2401.10774 (section 2.3); prompt lookup as in vLLM 0.9.2, vllm/v1/spec_decode/ngram_proposer.py.
"""

from __future__ import annotations

import math

import torch

from labcore.core.draft import branches, depths
from labcore.formulas.speculation import best_length
from labcore.sampling.rejection import accepts, residual
from labcore.sampling.sampler import pick
from labcore.sampling.typical import typical_law
from labcore.speculative.ngram import lookup


def accept_or_replace(p, q, token, u, w):
    """(True, token) if the token drawn from q is kept, else (False, a draw from the residual)."""
    if accepts(p, q, token, u):
        return True, token
    return False, int(pick(residual(p, q)[None], torch.tensor([w], dtype=torch.float64)))


def is_biased(tokens, p):
    """Whether the tokens, [n], are farther from the law p, [vocab], than n draws from it come once in a million."""
    n = len(tokens)
    shares = torch.bincount(tokens, minlength=len(p)) / n
    if shares[p == 0].any():
        return True
    distance = (shares - p).abs().sum() / 2
    expected = (p * (1 - p) / n).sqrt().sum() / 2  # at most: half the sum of the standard deviations
    return bool(distance > expected + math.sqrt(math.log(1e6) / (2 * n)))  # one token moves the distance by 1/n


def plan_drafts(alpha, c, longest):
    """(K, speed-up) of the best draft length up to `longest`; (0, 1.0) if none pays."""

    def speedup(K):
        return sum(alpha**i for i in range(K + 1)) / (1 + c * K)

    K = best_length(speedup, longest)
    return (K, speedup(K)) if speedup(K) > 1 else (0, 1.0)


def prompt_lookup(token_ids, count, min_n, max_n):
    """Up to `count` tokens that followed the latest earlier occurrence of the longest suffix that has one."""
    return lookup(token_ids, count, min_n, max_n)


def tree_inputs(parents, known):
    """(positions int64 [nodes], mask bool [nodes, known + nodes]) of a draft tree behind `known` tokens."""
    positions = known + torch.tensor(depths(parents), dtype=torch.int64)
    mask = torch.zeros(len(parents), known + len(parents), dtype=torch.bool)
    mask[:, :known] = True
    for node, branch in enumerate(branches(parents)):
        mask[node, [known + ancestor for ancestor in branch]] = True
    return positions, mask


def slot_copies(path, known, table, block_size):
    """The copies (source slot, target slot) that put the nodes of `path` behind the known tokens, in order."""

    def slot(place):
        return table[place // block_size] * block_size + place % block_size

    return [(slot(known + node), slot(known + depth)) for depth, node in enumerate(path) if node != depth]


def typical_bias(p, q, epsilon, delta):
    """Total variation between p and the law that typical acceptance gives the output."""
    return float((typical_law(p, q, epsilon, delta) - p).abs().sum() / 2)


def estimate_alpha(accepted, length):
    """The acceptance of one draft from the drafts kept in each verification of `length` of them."""
    rejections = sum(count < length for count in accepted)  # the drafts behind a rejected one were not tried
    return sum(accepted) / (sum(accepted) + rejections)
