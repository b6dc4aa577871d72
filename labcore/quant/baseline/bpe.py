"""Training of a byte-level byte-pair vocabulary, and the tokenizer.json that holds it.

Start from the 256 bytes; merge the most frequent adjacent pair within words, again and again, until the vocabulary is
full; ties go to the pair that sorts first. Source: Sennrich et al., arXiv:1508.07909, algorithm 1; bytes as in GPT-2.
"""

from collections import Counter, defaultdict
from itertools import pairwise

from labcore.core.errors import InputError
from labcore.model import pretokenizer
from labcore.model.tokenizer import Tokenizer, byte_alphabet

END_OF_TEXT = "<|endoftext|>"  # id 0: stands between two texts
PRE_TOKENIZER = "smollm"  # GPT-2's words, and every digit a word of its own
Pair = tuple[str, str]


def train(text: str, vocab: int) -> tuple[list[str], list[Pair]]:
    """`vocab` tokens in the byte alphabet, END_OF_TEXT first, and the merges that make them, most frequent first.

    InputError when `vocab` does not hold the bytes, or the text has fewer pairs to merge than it asks for.
    """
    alphabet = byte_alphabet()
    if vocab < len(alphabet) + 1:
        raise InputError(f"vocab={vocab}: the 256 bytes and {END_OF_TEXT} alone are {len(alphabet) + 1}")
    counts = Counter(pretokenizer.split(text, pretokenizer.by_name(PRE_TOKENIZER)))
    words = [([alphabet[byte] for byte in word.encode()], count) for word, count in counts.items()]
    pairs: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # pair -> words that hold it, or once did
    for i, (word, count) in enumerate(words):
        _count(word, count, pairs, where, i)
    tokens, merges = [END_OF_TEXT, *alphabet], []
    while len(tokens) < vocab:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            raise InputError(f"vocab={vocab}: the text has repeated pairs for only {len(tokens)} tokens")
        for i in where.pop(best):
            word, count = words[i]
            _count(word, -count, pairs)
            words[i] = (_merge(word, best), count)
            _count(words[i][0], count, pairs, where, i)
        merges.append(best)
        tokens.append("".join(best))
    return tokens, merges


def _count(word: list[str], count: int, pairs: Counter, where: dict[Pair, set[int]] | None = None, index: int = -1):
    """Add `count` to every adjacent pair of `word`, and note in `where` that word `index` holds it."""
    for pair in pairwise(word):
        pairs[pair] += count
        if where is not None:
            where[pair].add(index)


def _merge(word: list[str], pair: Pair) -> list[str]:
    """`word` with every occurrence of `pair`, left to right, made one token."""
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def tokenizer(tokens: list[str], merges: list[Pair]) -> Tokenizer:
    """The tokenizer of a trained vocabulary; the one that is read from `tokenizer_json` is the same."""
    stages = pretokenizer.by_name(PRE_TOKENIZER)
    return Tokenizer(tokens, [" ".join(pair) for pair in merges], {END_OF_TEXT: 0}, stages, hidden=[0], eos_ids=[0])


def tokenizer_json(tokens: list[str], merges: list[Pair]) -> dict:
    """The vocabulary as the tokenizers library serializes it."""
    special = {"id": 0, "content": END_OF_TEXT, "special": True}
    special |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],
        },
    }
