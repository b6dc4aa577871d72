"""The tokenizer of a Hugging Face folder: tokenizer.json with its neighbours, for byte-level BPE models.

Source: the tokenizers library's serialization; generation_config.json names every end-of-sequence token.
"""

from labcore.core.errors import DataError
from labcore.formats.safetensors_folder import SafetensorsFolder
from labcore.model import pretokenizer
from labcore.model.tokenizer import Tokenizer


def tokenizer_from_folder(folder: SafetensorsFolder) -> Tokenizer:
    """The folder's tokenizer; DataError when it needs something that is not implemented."""
    spec, options = folder.json("tokenizer.json"), _optional(folder, "tokenizer_config.json")
    model = spec.get("model", {})
    if model.get("type") != "BPE":
        raise DataError(f"{folder.path}: tokenizer model {model.get('type')!r}; only byte-level BPE can be read")
    normal_form = (spec.get("normalizer") or {}).get("type")
    if normal_form not in (None, "NFC"):
        raise DataError(f"{folder.path}: tokenizer normalizer {normal_form!r} is not implemented; 'NFC' is")
    added = {token["content"]: token for token in spec.get("added_tokens", [])}
    if any(token.get("lstrip") or token.get("rstrip") or token.get("single_word") for token in added.values()):
        raise DataError(f"{folder.path}: added tokens that strip spaces or match single words are not implemented")
    ids = model["vocab"] | {text: token["id"] for text, token in added.items()}
    bos_id, eos_id = (ids.get(_text(options.get(name))) for name in ("bos_token", "eos_token"))
    try:
        return Tokenizer(
            _by_id(ids, folder.config.get("vocab_size", 0)),
            [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
            {text: token["id"] for text, token in added.items()},
            pretokenizer.from_json(spec.get("pre_tokenizer")),
            hidden=[token["id"] for token in added.values() if token.get("special")],
            bos_id=bos_id,
            eos_id=eos_id,
            eos_ids=_end_ids(folder, eos_id),
            add_bos=bos_id is not None and _prepends(spec.get("post_processor"), _text(options.get("bos_token"))),
            chat_template=_chat_template(folder, options),
            normal_form=normal_form,
            whole_words=model.get("ignore_merges", False),
        )
    except DataError as error:
        raise DataError(f"{folder.path}: {error}") from None


def _optional(folder: SafetensorsFolder, name: str) -> dict:
    return folder.json(name) if (folder.path / name).is_file() else {}


def _chat_template(folder: SafetensorsFolder, options: dict) -> str | None:
    """chat_template.jinja, where transformers 5 writes it, else tokenizer_config.json's; of several the "default"."""
    file = folder.path / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = options.get("chat_template")
    return {one["name"]: one["template"] for one in found}.get("default") if isinstance(found, list) else found


def _text(token: str | dict | None) -> str | None:
    """A special token is written as its text, or as an object around it."""
    return token.get("content") if isinstance(token, dict) else token


def _by_id(ids: dict[str, int], rows: int) -> list[str]:
    """The vocabulary as a list; ids of the model's `rows` that no token has (padding) become the empty token."""
    tokens = [""] * max(rows, max(ids.values()) + 1)
    for text, i in ids.items():
        tokens[i] = text
    return tokens


def _end_ids(folder: SafetensorsFolder, eos_id: int | None) -> list[int]:
    configured = _optional(folder, "generation_config.json").get("eos_token_id", folder.config.get("eos_token_id"))
    listed = configured if isinstance(configured, list) else [configured]
    return [i for i in {*listed, eos_id} if i is not None]


def _prepends(processor: dict | None, bos: str | None) -> bool:
    """Whether the post-processor puts the beginning-of-sequence token before a text."""
    kind = (processor or {}).get("type")
    if kind == "Sequence":
        return any(_prepends(part, bos) for part in processor["processors"])
    if kind == "TemplateProcessing" and processor["single"]:
        return processor["single"][0].get("SpecialToken", {}).get("id") == bos
    return False
