"""Pre-tokenization: cut text into the words that byte-pair encoding may not merge across.

A pre-tokenizer is a short list of stages; each stage cuts every piece it is handed. The patterns are the published
ones, written for engines with Unicode classes; `unicode_pattern` rewrites \\p{L}, \\p{N} and \\s for Python's `re`, so
no other regular-expression library is needed.
Sources: GPT-2 encoder.py; llama.cpp src/llama-vocab.cpp (the names in tokenizer.ggml.pre); the tokenizer.json files.
"""

import re
import sys
import unicodedata
from collections.abc import Callable
from functools import cache

from labcore.core.errors import DataError

Stage = Callable[[str], list[str]]

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DIGIT = r"\p{N}"  # every digit is a word of its own: "2024" is four tokens, "1 2  3" keeps its two spaces together

# tokenizer.ggml.pre -> the patterns of its stages, applied in order
BY_NAME = {
    "gpt-2": (GPT2,),
    "smollm": (DIGIT, GPT2),
    "starcoder": (DIGIT, GPT2),
    "refact": (DIGIT, GPT2),
    "llama-bpe": (LLAMA3,),
    "llama3": (LLAMA3,),
    "qwen2": (QWEN2,),
}


def by_name(name: str) -> list[Stage]:
    """Stages of the pre-tokenizer that a GGUF file names; DataError for an unknown name."""
    if name not in BY_NAME:
        raise DataError(f"pre-tokenizer {name!r} is unknown; known: {', '.join(BY_NAME)}")
    return [isolate(pattern) for pattern in BY_NAME[name]]


def from_json(spec: dict | None) -> list[Stage]:
    """Stages of the "pre_tokenizer" entry of a tokenizer.json; DataError for a kind this module does not know."""
    kind = (spec or {}).get("type")
    if kind == "Sequence":
        return [stage for part in spec["pretokenizers"] for stage in from_json(part)]
    if kind == "ByteLevel" and not spec.get("add_prefix_space"):
        return [isolate(GPT2)] if spec.get("use_regex", True) else []
    if kind == "Digits":
        return [isolate(DIGIT if spec.get("individual_digits") else DIGIT + "+")]
    if kind == "Split" and spec.get("behavior") == "Isolated" and "Regex" in spec["pattern"] and not spec.get("invert"):
        return [isolate(spec["pattern"]["Regex"])]
    raise DataError(f"tokenizer.json: pre-tokenizer {spec!r} is not supported")


def split(text: str, stages: list[Stage]) -> list[str]:
    """The words of `text` in order; joined they give `text` back."""
    pieces = [text]
    for stage in stages:
        pieces = [word for piece in pieces for word in stage(piece)]
    return pieces


@cache
def isolate(pattern: str) -> Stage:
    """A stage that makes each match a piece, and each stretch between matches a piece."""
    cut = re.compile(f"({unicode_pattern(pattern)})").split
    groups = re.compile(unicode_pattern(pattern)).groups
    if groups:
        raise DataError(f"pre-tokenizer pattern {pattern!r} has capturing groups; use (?:…)")
    return lambda piece: [word for word in cut(piece) if word]


def unicode_pattern(pattern: str) -> str:
    """`pattern` with \\p{L}, \\p{N}, \\s and \\S spelled out for `re`, inside and outside of character classes."""
    in_class, out = False, []
    for token in re.findall(r"\\p\{\w+\}|\\.|.", pattern, flags=re.DOTALL):
        if token in ("[", "]"):
            in_class = token == "["
        name = token[3:-1] if token.startswith(r"\p{") else {r"\s": "White_Space", r"\S": "White_Space"}.get(token)
        if name is None:
            out.append(token)
        elif token == r"\S":
            if in_class:
                raise DataError(f"pre-tokenizer pattern {pattern!r}: \\S inside a class is not supported")
            out.append(f"[^{_ranges(name)}]")
        else:
            out.append(_ranges(name) if in_class else f"[{_ranges(name)}]")
    return "".join(out)


@cache
def _ranges(name: str) -> str:
    """The code points of a Unicode class as the inside of a character class: "A-Za-zªµ…"."""
    if name == "White_Space":  # re's own \s also matches the separators U+001C to U+001F
        return "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    if name not in ("L", "N"):
        raise DataError(f"pre-tokenizer pattern uses \\p{{{name}}}; \\p{{L}} and \\p{{N}} are supported")
    return _category_ranges()[name]


@cache
def _category_ranges() -> dict[str, str]:
    """Letters and numbers of this Python's Unicode version, as ranges of escaped code points."""
    ranges: dict[str, list[str]] = {"L": [], "N": []}
    start, kind = 0, ""
    for point in range(sys.maxunicode + 2):
        now = unicodedata.category(chr(point))[0] if point <= sys.maxunicode else ""
        if now != kind:
            if kind in ranges:
                ranges[kind].append(f"\\U{start:08x}-\\U{point - 1:08x}")
            start, kind = point, now
    return {name: "".join(parts) for name, parts in ranges.items()}
