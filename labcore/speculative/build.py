"""From `LLM(speculative={...})` to a proposer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature

from labcore.core.errors import InputError
from labcore.speculative.adaptive import adaptive
from labcore.speculative.draft_model import draft_model
from labcore.speculative.eagle import eagle, eagle3
from labcore.speculative.early_exit import EarlyExit
from labcore.speculative.layer_skip import LayerSkip
from labcore.speculative.lookahead import Lookahead
from labcore.speculative.medusa import medusa
from labcore.speculative.ngram import NgramProposer
from labcore.speculative.proposer import Proposer, Target
from labcore.speculative.suffix import SuffixProposer

# name -> (target, **options) -> proposer
METHODS: dict[str, Callable[..., Proposer]] = {
    "ngram": NgramProposer,
    "suffix": SuffixProposer,
    "draft_model": draft_model,
    "early_exit": EarlyExit,
    "layer_skip": LayerSkip,
    "lookahead": Lookahead,
    "medusa": medusa,
    "eagle": eagle,
    "eagle3": eagle3,
    "adaptive": adaptive,
}


def build_proposer(speculative: Mapping, target: Target) -> Proposer:
    """The proposer of {"method": a key of METHODS, **its options}. Raises InputError for a name or an option that does
    not exist, or that makes no sense."""
    options = dict(speculative)
    method = options.pop("method", None)
    if method not in METHODS:
        raise InputError(f"speculative method {method!r}: must be one of {', '.join(METHODS)}")
    known = list(signature(METHODS[method]).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"speculative option {unknown[0]!r} is unknown; {method} has {', '.join(known) or 'none'}")
    proposer = METHODS[method](target, **options)
    if proposer.num_tokens < 1:
        raise InputError(f"num_tokens={proposer.num_tokens!r}: must be 1 or more")
    return proposer
