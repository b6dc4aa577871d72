"""One answer while it grows: its tokens, the text that is certain, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass

from labcore.core.sampling_params import SamplingParams
from labcore.model.detokenizer import Detokenizer, StopStrings
from labcore.sampling.logprobs import Logprobs


@dataclass(slots=True)
class Progress:
    """What one token added to an answer. text may be empty while a character or a stop string is incomplete.

    finish_reason: "stop", "length", "abort" or "error" with the last one, else None. An error, one sentence, comes
    without a token: token_id is None.
    """

    request_id: str
    token_id: int | None
    text: str = ""
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    error: str | None = None


class Answer:
    """token_ids, with a final stop token; text, without it, and cut before a stop string; logprobs, one entry a token.

    Without a detokenizer there is no text, and stop strings cannot apply.
    """

    def __init__(self, params: SamplingParams, detokenizer: Detokenizer | None = None):
        self.params, self._detokenizer, self._stops = params, detokenizer, StopStrings(params.stop)
        self.token_ids: list[int] = []
        self.logprobs: list[Logprobs] = []
        self.text = ""
        self.finish_reason: str | None = None
        self.error: str | None = None

    @property
    def stopped(self) -> bool:
        """A stop string is complete."""
        return self._stops.found is not None

    def append(self, token_id: int, is_stop_token: bool = False) -> str:
        """Take the next token; returns the text that became certain. A stop token has no text."""
        self.token_ids.append(token_id)
        if self._detokenizer is None or is_stop_token:
            return ""
        piece = self._detokenizer.push(token_id)
        piece = self._stops.push(piece, may_end=len(self.token_ids) > self.params.min_tokens)
        if self.stopped and self.params.include_stop_str_in_output:
            piece += self._stops.found
        self.text += piece
        return piece

    def finish(self, reason: str, error: str | None = None) -> str:
        """End here; returns the text that was held back for a character or a stop string to become complete."""
        self.finish_reason, self.error = reason, error
        piece = ""
        if self._detokenizer is not None:
            piece = self._stops.push(self._detokenizer.finish()) + self._stops.finish()
        self.text += piece
        return piece
