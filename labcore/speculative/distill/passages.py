"""Short passages of prose to summarize: how the World Factbook (public domain) introduces each country."""

from __future__ import annotations

import re
from itertools import groupby

from labcore.quant.corpus import all_passages

WORDS = 70  # a passage ends with the sentence in which it reaches so many
PREFACE = "The European Union's (EU) evolution"  # the one page on which something stands before the introduction


def passages() -> list[str]:
    """The beginning of each country's introduction, countries in alphabetical order; those with little to say are left
    out. Raises FetchError if the corpus cannot be had."""
    found = []
    for _, group in groupby(all_passages(), key=lambda passage: passage.country):
        text = next(passage.text for passage in group if not passage.text.startswith(PREFACE))
        sentences = re.split(r"(?<=\.) (?=[A-Z])", text)
        words = [len(" ".join(sentences[:count]).split()) for count in range(len(sentences) + 1)]
        if words[-1] >= WORDS:
            enough = next(count for count, number in enumerate(words) if number >= WORDS)
            found.append(" ".join(sentences[:enough]))
    return found
