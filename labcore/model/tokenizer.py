"""The tokenizer: special tokens, pre-tokenization, byte-pair encoding, and back, one complete character at a time.

Built from a GGUF file's own vocabulary, merges and pre-tokenizer name, or from a tokenizer.json.
"""

import re
import unicodedata
from collections.abc import Iterable

from labcore.core.errors import DataError, InputError
from labcore.formats.gguf import GGUFFile
from labcore.model import pretokenizer
from labcore.model.bpe import BytePairEncoder
from labcore.model.detokenizer import Detokenizer

END_FIELDS = tuple(f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))  # of text, turn, message
CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type: never shown to the reader; matched whole in text


def byte_alphabet() -> list[str]:
    """GPT-2's printable stand-in for each byte: vocabularies are written in it. Source: openai/gpt-2 encoder.py.

    Printable Latin-1 characters stand for themselves; the other bytes are numbered from U+0100 on (space is "Ġ").
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


class Tokenizer:
    """Text to token ids and back.

    tokens: the vocabulary in the byte alphabet, special tokens as plain text; merges: "left right" in order of rank;
    special: text -> id of the tokens that are matched whole before anything else; hidden: the ids among them that
    `decode` can leave out; stages: see `pretokenizer`; eos_id: the end token of chat templates, eos_ids: all that end
    an answer. With `whole_words`, a word in the vocabulary needs no merges. DataError for add_bos without a bos_id.
    """

    def __init__(
        self,
        tokens: list[str],
        merges: list[str],
        special: dict[str, int],
        stages: list[pretokenizer.Stage],
        *,
        hidden: Iterable[int] = (),
        bos_id: int | None = None,
        eos_id: int | None = None,
        eos_ids: Iterable[int] = (),
        add_bos: bool = False,
        chat_template: str | None = None,
        normal_form: str | None = None,
        whole_words: bool = False,
    ):
        if add_bos and bos_id is None:
            raise DataError("add_bos is set, but no beginning-of-sequence token is named")
        self.special, self.hidden = special, frozenset(hidden)
        self.bos_id, self.eos_id, self.eos_ids, self.add_bos = bos_id, eos_id, frozenset(eos_ids), add_bos
        self.chat_template, self.normal_form, self.stages = chat_template, normal_form, stages
        self.token_bytes = _token_bytes(tokens, special)
        ids = {token: i for i, token in enumerate(tokens)}
        ordinary = set(range(len(tokens))) - set(special.values()) if whole_words else ()
        self._words = {self.token_bytes[i]: i for i in ordinary}
        self._bpe = BytePairEncoder([ids.get(stand_in) for stand_in in byte_alphabet()], _merge_table(merges, ids))
        longest_first = sorted(special, key=len, reverse=True)
        self._special_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> "Tokenizer":
        """The tokenizer inside a GGUF file; DataError unless it is a byte-level BPE this module knows."""
        kind = file.field("tokenizer.ggml.model")
        if kind != "gpt2":
            raise DataError(f"{file.path}: tokenizer model {kind!r}; only byte-level BPE ('gpt2') can be read")
        tokens, merges = file.field("tokenizer.ggml.tokens"), file.field("tokenizer.ggml.merges")
        types = file.field("tokenizer.ggml.token_type")
        if len(types) != len(tokens):
            raise DataError(f"{file.path}: {len(tokens)} tokens but {len(types)} token types")
        name = file.field("tokenizer.ggml.pre")
        try:
            return cls(
                tokens,
                merges,
                {tokens[i]: i for i, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)},
                pretokenizer.by_name(name),
                hidden=[i for i, kind in enumerate(types) if kind == CONTROL],
                bos_id=file.metadata.get("tokenizer.ggml.bos_token_id"),
                eos_id=file.field("tokenizer.ggml.eos_token_id"),
                eos_ids=[file.metadata[key] for key in END_FIELDS if key in file.metadata],
                add_bos=file.metadata.get("tokenizer.ggml.add_bos_token", False),
                chat_template=file.metadata.get("tokenizer.chat_template"),
                normal_form="NFC" if name == "qwen2" else None,
                whole_words=name in ("llama-bpe", "llama3"),
            )
        except DataError as error:
            raise DataError(f"{file.path}: {error}") from None

    @property
    def vocab_size(self) -> int:
        return len(self.token_bytes)

    def encode(self, text: str, *, parse_special: bool = True, add_bos: bool | None = None) -> list[int]:
        """Token ids of `text`.

        With `parse_special`, text such as "<|im_end|>" becomes that one token; without it, it is ordinary text, which
        is what text from strangers should be. `add_bos` None does what the checkpoint asks for.
        """
        if add_bos and self.bos_id is None:
            raise InputError("add_bos=True: this tokenizer has no beginning-of-sequence token")
        ids = [self.bos_id] if (self.add_bos if add_bos is None else add_bos) else []
        position = 0
        for match in self._special_pattern.finditer(text) if parse_special else ():
            ids += self._encode_ordinary(text[position : match.start()])
            ids.append(self.special[match.group()])
            position = match.end()
        return ids + self._encode_ordinary(text[position:])

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """Text of `ids`. Bytes that are not UTF-8 become U+FFFD, as a cut-off character does."""
        return b"".join(self.bytes_of(i, skip_special=skip_special) for i in ids).decode("utf-8", errors="replace")

    def text_of(self, token_id: int | None) -> str:
        """The text of one token, "" for None: what a chat template writes for bos_token and eos_token."""
        return "" if token_id is None else self.decode([token_id])

    def control_in(self, text: str) -> str | None:
        """The first control token spelled out in `text`, None if there is none."""
        found = (match.group() for match in self._special_pattern.finditer(text))
        return next((token for token in found if self.special[token] in self.hidden), None)

    def detokenizer(self, *, skip_special: bool = True) -> Detokenizer:
        """A fresh incremental decoder for one stream of tokens."""
        return Detokenizer(lambda i: self.bytes_of(i, skip_special=skip_special))

    def bytes_of(self, token_id: int, *, skip_special: bool = False) -> bytes:
        """The bytes token `token_id` stands for; none for a hidden token under `skip_special`."""
        if not 0 <= token_id < len(self.token_bytes):
            raise InputError(f"token id {token_id}: this vocabulary has ids 0 to {len(self.token_bytes) - 1}")
        return b"" if skip_special and token_id in self.hidden else self.token_bytes[token_id]

    def _encode_ordinary(self, text: str) -> list[int]:
        if self.normal_form:
            text = unicodedata.normalize(self.normal_form, text)
        ids: list[int] = []
        for word in pretokenizer.split(text, self.stages):
            try:
                raw = word.encode("utf-8")
            except UnicodeEncodeError:
                raise InputError(f"the text holds a lone surrogate in {word!r}, which no UTF-8 text can") from None
            ids += [self._words[raw]] if raw in self._words else self._bpe.encode(raw)
        return ids


def _token_bytes(tokens: list[str], special: dict[str, int]) -> list[bytes]:
    byte_of = {stand_in: bytes([b]) for b, stand_in in enumerate(byte_alphabet())}
    literal = set(special.values())
    try:
        return [
            token.encode() if i in literal else b"".join([byte_of[character] for character in token])
            for i, token in enumerate(tokens)
        ]
    except KeyError as error:
        raise DataError(f"the vocabulary has a token with {error}, which is not in the byte alphabet") from None


def _merge_table(merges: list[str], ids: dict[str, int]) -> dict[tuple[int, int], tuple[int, int]]:
    table: dict[tuple[int, int], tuple[int, int]] = {}
    for rank, merge in enumerate(merges):
        left, _, right = merge.partition(" ")
        try:
            table.setdefault((ids[left], ids[right]), (rank, ids[left + right]))
        except KeyError as error:
            raise DataError(f"merge {rank} ({merge!r}) needs token {error}, which the vocabulary lacks") from None
    return table
