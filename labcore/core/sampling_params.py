"""What a caller may ask of one generation, checked when it is built. Names and defaults are vLLM's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from labcore.core.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen and when to stop.

    temperature: 0 is greedy, 1 the model's own distribution; top_k: keep the k likeliest tokens, 0 keeps all;
    top_p: keep the likeliest tokens until their probability reaches p; seed: makes this request reproducible, whatever
    else is in the batch; max_tokens: at most this many new tokens; stop: the text ends before any of these strings;
    stop_token_ids: generation ends with any of these tokens; ignore_eos: go on after the end-of-sequence token;
    skip_special_tokens: leave control tokens out of the text. Raises InputError for a value that makes no sense.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        for name in ("stop", "stop_token_ids"):  # lists become tuples; anything else is left for the checks below
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        number = (int, float)
        self._require("temperature", number, lambda t: math.isfinite(t) and t >= 0, "a finite number, 0 or more")
        self._require("top_k", int, lambda k: k >= 0, "an integer, 0 (off) or more")
        self._require("top_p", number, lambda p: 0 < p <= 1, "a number above 0 and at most 1 (off)")
        self._require("max_tokens", int, lambda n: n >= 1, "an integer, 1 or more")
        if self.seed is not None:
            self._require("seed", int, lambda s: 0 <= s < 2**63, "None or an integer from 0 to 2**63 - 1")
        self._require("stop", tuple, lambda s: all(isinstance(x, str) and x for x in s), "non-empty strings")
        self._require("stop_token_ids", tuple, lambda s: all(type(x) is int and x >= 0 for x in s), "token ids")

    def _require(self, name: str, kind: type | tuple[type, ...], holds, rule: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, kind) or not holds(value):
            raise InputError(f"{name}={value!r}: must be {rule}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0
