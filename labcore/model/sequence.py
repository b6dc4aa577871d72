"""One prompt and the answer that grows behind it: when it stops, and which text of it is certain."""

from collections.abc import Iterable

from labcore.core.sampling_params import SamplingParams
from labcore.model.detokenizer import Detokenizer, StopStrings


class Sequence:
    """prompt_ids and params as given; token_ids and text as generated so far; finish_reason None, "stop" or "length".

    Without a detokenizer only token ids are kept, and stop strings cannot apply.
    """

    def __init__(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        eos_ids: Iterable[int] = (),
        detokenizer: Detokenizer | None = None,
    ):
        self.prompt_ids, self.params = prompt_ids, params
        self.token_ids: list[int] = []
        self.text = ""
        self.finish_reason: str | None = None
        self._stop_ids = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else frozenset(eos_ids))
        self._detokenizer, self._stops = detokenizer, StopStrings(params.stop)

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt_ids) + len(self.token_ids)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def append(self, token_id: int) -> None:
        """Take the next token; sets finish_reason when it is the last. A stop token is kept in token_ids only."""
        self.token_ids.append(token_id)
        if token_id in self._stop_ids:
            return self.finish("stop")
        if self._detokenizer is not None:
            self.text += self._stops.push(self._detokenizer.push(token_id))
        if self._stops.found is not None:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.params.max_tokens:
            self.finish("length")

    def finish(self, reason: str) -> None:
        """End here: what was held back for a character or a stop string to complete becomes text."""
        self.finish_reason = reason
        if self._detokenizer is not None:
            self.text += self._stops.push(self._detokenizer.finish()) + self._stops.finish()
