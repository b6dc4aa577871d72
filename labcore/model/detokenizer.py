"""Incremental detokenization: text that never shows half a character and never needs to be taken back.

A token may end inside a multi-byte character, and a stop string may begin in one token and end in the next; both are
held back until they are decided.
"""

import codecs
from collections.abc import Callable, Sequence


class Detokenizer:
    """Turns one stream of token ids into text as it becomes certain."""

    def __init__(self, bytes_of: Callable[[int], bytes]):
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes, possibly none."""
        return self._decoder.decode(self._bytes_of(token_id))

    def finish(self) -> str:
        """What is left at the end of the stream: U+FFFD if it broke off inside a character, else nothing."""
        return self._decoder.decode(b"", final=True)


class StopStrings:
    """Cuts a growing text before the first of `stops` to be complete, holding back what may still become one.

    The text comes out the same however it is cut into pieces on its way in.
    """

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None  # the stop string that ended the text

    def push(self, text: str, may_end: bool = True) -> str:
        """The part of the text so far that is certain and was not returned before; nothing once a stop was found.

        may_end: whether a stop string that is completed by this `text` counts; it may begin in earlier text.
        """
        if self.found is not None:
            return ""
        before = len(self._held)
        self._held += text
        hits = []
        for stop in self._stops if may_end else ():
            at = self._held.find(stop, max(0, before - len(stop) + 1))  # completed earlier, it came too early to count
            if at >= 0:
                hits.append((at + len(stop), at, stop))
        if hits:
            _, safe, self.found = min(hits)
        else:
            safe = len(self._held) - self._undecided()
        certain, self._held = self._held[:safe], self._held[safe:]
        return certain

    def finish(self) -> str:
        """The held-back text, when the stream ends without a stop string."""
        return "" if self.found is not None else self._held

    def _undecided(self) -> int:
        """Length of the longest suffix of the held text that is a proper prefix of a stop string."""
        longest = min(len(self._held), max((len(stop) - 1 for stop in self._stops), default=0))
        return next((n for n in range(longest, 0, -1) if self._starts_a_stop(self._held[-n:])), 0)

    def _starts_a_stop(self, suffix: str) -> bool:
        return any(stop.startswith(suffix) for stop in self._stops)
