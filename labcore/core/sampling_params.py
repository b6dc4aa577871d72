"""What a caller may ask of one generation, checked when it is built. Names and defaults are vLLM's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from labcore.core.errors import InputError

TokenIds = Sequence[int]


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen and when to stop.

    temperature: 0 is greedy, 1 the model's own distribution; top_k: keep the k likeliest tokens, 0 keeps all;
    top_p: keep the likeliest tokens until their probability reaches p; min_p: keep tokens at least min_p times as
    likely as the likeliest; seed: makes this request reproducible, whatever else is in the batch, up to the rounding of
    another batch's sums (not if its drafts are drawn at random: how many of them fit into a step then decides which
    number is used where); n: answers to the prompt, the i-th with seed + i.

    presence_penalty, frequency_penalty: subtracted from the logit of a token that the answer contains, once or per
    occurrence; repetition_penalty: divides it (multiplies a negative one), the prompt's tokens included; logit_bias:
    added to the logits of these tokens; bad_words: texts, or tuples of token ids, that the answer must not contain;
    allowed_token_ids: nothing else may be chosen; logits_processors: functions (output token ids, logits [vocab]) ->
    logits; logprobs: report this many likeliest tokens beside each chosen one, None reports nothing.

    max_tokens: at most this many new tokens; min_tokens: no stop before that many; stop: the text ends before any of
    these strings (with include_stop_str_in_output behind it); stop_token_ids: generation ends with any of these tokens;
    ignore_eos: go on after the end-of-sequence token; skip_special_tokens: leave control tokens out of the text.

    num_draft_tokens: at most this many tokens of this request are drafted a step, where the engine speculates; 0: none;
    None: as many as its proposer has.
    Raises InputError for a value that makes no sense.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    bad_words: Sequence[str | TokenIds] = ()
    allowed_token_ids: TokenIds | None = None
    logits_processors: Sequence[Callable] = ()
    logprobs: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop: str | Sequence[str] = ()
    stop_token_ids: TokenIds = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    num_draft_tokens: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_token_ids", "bad_words", "allowed_token_ids", "logits_processors"):
            value = getattr(self, name)  # lists become tuples; anything else is left for the checks below
            object.__setattr__(self, name, _frozen(value) if isinstance(value, list | tuple) else value)
        number = (int, float)
        self._require("temperature", number, lambda t: math.isfinite(t) and t >= 0, "a finite number, 0 or more")
        self._require("top_k", int, lambda k: k >= 0, "an integer, 0 (off) or more")
        self._require("top_p", number, lambda p: 0 < p <= 1, "a number above 0 and at most 1 (off)")
        self._require("min_p", number, lambda p: 0 <= p <= 1, "a number from 0 (off) to 1")
        self._require("n", int, lambda n: n >= 1, "an integer, 1 or more")
        for name in ("presence_penalty", "frequency_penalty"):
            self._require(name, number, lambda p: -2 <= p <= 2, "a number from -2 to 2; 0 is off")
        self._require("repetition_penalty", number, lambda p: 0 < p < math.inf, "a finite number above 0; 1 is off")
        self._require("max_tokens", int, lambda n: n >= 1, "an integer, 1 or more")
        self._require("min_tokens", int, lambda n: 0 <= n <= self.max_tokens, "an integer from 0 to max_tokens")
        self._require("stop", tuple, lambda s: all(isinstance(x, str) and x for x in s), "non-empty strings")
        self._require("stop_token_ids", tuple, _token_ids, "token ids")
        self._require("logits_processors", tuple, lambda s: all(map(callable, s)), "functions")
        self._require("bad_words", tuple, lambda s: all(map(_bad_word, s)), "non-empty texts or tuples of token ids")
        if self.seed is not None:
            self._require("seed", int, lambda s: 0 <= s < 2**63, "None or an integer from 0 to 2**63 - 1")
        if self.num_draft_tokens is not None:
            self._require("num_draft_tokens", int, lambda k: k >= 0, "None or an integer, 0 (no drafts) or more")
        if self.logprobs is not None:
            self._require("logprobs", int, lambda k: k >= 0, "None (off) or an integer, 0 or more")
        if self.allowed_token_ids is not None:
            self._require("allowed_token_ids", tuple, lambda s: s and _token_ids(s), "None or at least one token id")
        if self.logit_bias is not None:
            self._require("logit_bias", Mapping, _biases, "a mapping from token ids to finite numbers")

    def _require(self, name: str, kind: type | tuple[type, ...], holds: Callable, rule: str) -> None:
        value = getattr(self, name)
        try:
            good = isinstance(value, kind) and not isinstance(value, bool) and holds(value)
        except OverflowError:  # an integer that no float holds is not finite
            good = False
        if not good:
            raise InputError(f"{name}={value!r}: must be {rule}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def sample(self, index: int) -> "SamplingParams":
        """The parameters of the `index`-th of `n` answers."""
        seed = None if self.seed is None else (self.seed + index) % 2**63
        return replace(self, n=1, seed=seed)


def _frozen(values: Sequence) -> tuple:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _token_ids(values: tuple) -> bool:
    return all(type(x) is int and x >= 0 for x in values)


def _bad_word(word: object) -> bool:
    return bool(word) and (isinstance(word, str) or (isinstance(word, tuple) and _token_ids(word)))


def _biases(bias: Mapping) -> bool:
    return _token_ids(tuple(bias)) and all(type(b) in (int, float) and math.isfinite(b) for b in bias.values())
