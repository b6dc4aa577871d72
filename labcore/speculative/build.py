"""From `LLM(speculative={...})` to a proposer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
KINDS = {  # an option's annotation -> what it may be
    "int": int,
    "int | None": int | None,
    "float": int | float,
    "bool": bool,
    "Sequence[int] | None": Sequence | None,
}


def build_proposer(speculative: Mapping, target: Target) -> Proposer:
    """The proposer of {"method": a key of METHODS, **its options}. Raises InputError for a name or an option that does
    not exist, or that makes no sense."""
    options = dict(speculative)
    method = options.pop("method", None)
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"speculative method {method!r}: must be one of {', '.join(METHODS)}")
    parameters = signature(METHODS[method]).parameters
    known = list(parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"speculative option {unknown[0]!r} is unknown; {method} has {', '.join(known) or 'none'}")
    for name, value in options.items():
        kind = KINDS.get(parameters[name].annotation, object)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)):
            raise InputError(f"{name}={value!r}: must be {parameters[name].annotation}")
    proposer, context = METHODS[method](target, **options), target.model.config.context
    if not 1 <= proposer.num_tokens <= context:
        raise InputError(
            f"num_tokens={proposer.num_tokens}: must be 1 or more, and no more than the model's context of {context}"
        )
    return proposer
