"""tokenizer.json folders: tokenizers trained here by the `tokenizers` library, read by us, same ids."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tokenizers = pytest.importorskip("tokenizers", reason="the oracle package tokenizers is not installed")
torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file

from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

from labcore.core.errors import DataError, InputError  # noqa: E402
from labcore.formats.safetensors_folder import SafetensorsFolder  # noqa: E402
from labcore.model import pretokenizer  # noqa: E402
from labcore.model.tokenizer import Tokenizer, byte_alphabet  # noqa: E402
from labcore.model.tokenizer_json import tokenizer_from_folder  # noqa: E402

SPECIAL = ["<bos>", "<eos>", "<tool>", "<tool>s"]  # where two match, the longer one counts
TRAINING = [
    "The quick brown fox jumps over the lazy dog. Don't you think it's 2024 already?\n\nYes, 12345 times.",
    "for i in range(100):\n        print(f'{i:>3}')\n\treturn None  # naïve café résumé\r\n",
    "日本語のテキスト и русский текст 😀😀 ½ Ⅷ 100,000.00",
] * 20
PIECES = [*SPECIAL, *TRAINING[:3], "e\u0301", "\u212b", "\u1112\u1161\u11ab"]  # the last three are not in NFC
# Assigned in this Python's Unicode version: later letters and digits differ between libraries.
TEXTS = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=6), st.sampled_from(PIECES)),
    max_size=8,
).map("".join)

PRE_TOKENIZERS = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "runs of digits": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "llama 3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pretokenizer.LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pretokenizer.QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def train(name: str, *, nfc: bool = False, ignore_merges: bool = False):
    """A byte-level BPE of 600 tokens with the named pre-tokenizer."""
    library = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
    library.pre_tokenizer = PRE_TOKENIZERS[name]
    if nfc:
        library.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    library.train_from_iterator(TRAINING, trainer)
    return library


def folder_of(path, library, **options) -> SafetensorsFolder:
    library.save(str(path / "tokenizer.json"))
    (path / "config.json").write_text(json.dumps({"eos_token_id": 1}))
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<bos>", "eos_token": "<eos>"} | options))
    save_file({"x": torch.zeros(1)}, path / "model.safetensors")
    return SafetensorsFolder(path)


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def pair(request, tmp_path_factory):
    """The library's tokenizer and ours, for one pre-tokenizer; NFC with qwen2, whole words with llama 3."""
    library = train(request.param, nfc=request.param == "qwen2", ignore_merges=request.param == "llama 3")
    return library, tokenizer_from_folder(folder_of(tmp_path_factory.mktemp("tokenizer"), library))


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_any_text_encodes_like_the_library(pair, text):
    library, ours = pair
    assert ours.encode(text, add_bos=False) == library.encode(text, add_special_tokens=False).ids
    if ours.normal_form is None:
        assert ours.decode(ours.encode(text)) == text


def test_a_whole_word_needs_no_merges_where_the_file_says_so(tmp_path):
    spec = json.loads(train("llama 3", ignore_merges=True).to_str())
    spec["model"]["merges"] = []
    library = tokenizers.Tokenizer.from_str(json.dumps(spec))
    ours = tokenizer_from_folder(folder_of(tmp_path, library))
    assert ours.encode("The fox") == library.encode("The fox").ids
    assert len(ours.encode("The")) == 1 < len(ours.encode("fox."))


def test_end_tokens_and_options_come_from_the_neighbouring_files(tmp_path):
    folder = folder_of(tmp_path, train("gpt-2"), chat_template="{{ messages }}", bos_token={"content": "<bos>"})
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    ours = tokenizer_from_folder(folder)
    assert ours.eos_ids == {1, 2} and ours.bos_id == 0 and not ours.add_bos
    assert ours.chat_template == "{{ messages }}"
    assert ours.decode([0, 2], skip_special=True) == ""


def test_chat_templates_are_found_where_transformers_writes_them(tmp_path):
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    folder = folder_of(tmp_path, train("gpt-2"), chat_template=named)
    ours = tokenizer_from_folder(folder)
    assert ours.chat_template == "D" and ours.eos_id == 1 and ours.text_of(ours.eos_id) == "<eos>"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert tokenizer_from_folder(folder).chat_template == "J"


def test_text_from_strangers_is_no_special_token_even_as_a_whole_word():
    letters = list(byte_alphabet())
    ours = Tokenizer([*letters, "STOP"], [], {"STOP": 256}, pretokenizer.by_name("gpt-2"), whole_words=True)
    assert ours.encode("STOP") == [256]
    assert ours.encode("STOP", parse_special=False) == [letters.index(letter) for letter in "STOP"]


def test_a_start_that_nobody_named_is_not_put_before_a_text(tmp_path):
    ours = tokenizer_from_folder(folder_of(tmp_path, train("gpt-2"), bos_token=None))
    with pytest.raises(InputError, match="add_bos=True: this tokenizer has no beginning-of-sequence token"):
        ours.encode("hi", add_bos=True)


def test_rows_of_the_embedding_beyond_the_vocabulary_decode_to_nothing(tmp_path):
    folder = folder_of(tmp_path, train("gpt-2"))
    folder.config["vocab_size"] = 640
    ours = tokenizer_from_folder(folder)
    assert ours.vocab_size == 640 and ours.decode([639]) == ""


def test_a_template_processor_means_a_bos_token(tmp_path):
    library = train("gpt-2")
    library.post_processor = processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])]
    )
    ours = tokenizer_from_folder(folder_of(tmp_path, library))
    assert ours.encode("hi") == library.encode("hi").ids and ours.encode("hi")[0] == 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda spec: spec["model"].update(type="Unigram"), r"tokenizer model 'Unigram'; only byte-level BPE"),
        (lambda spec: spec.update(normalizer={"type": "Lowercase"}), r"normalizer 'Lowercase' is not implemented"),
        (
            lambda spec: spec.update(pre_tokenizer={"type": "Metaspace"}),
            r"pre-tokenizer .*Metaspace.* is not supported",
        ),
        (lambda spec: spec["added_tokens"][0].update(lstrip=True), r"added tokens that strip spaces"),
        (lambda spec: spec["model"]["merges"].append(["zz", "qq"]), r"needs token 'zz', which the vocabulary lacks"),
        (
            lambda spec: spec["model"]["vocab"].update({"a b": 599}),
            r"token with ' ', which is not in the byte alphabet",
        ),
        (
            lambda spec: spec.update(
                pre_tokenizer={"type": "Split", "behavior": "Isolated", "pattern": {"Regex": r"\p{Han}+"}}
            ),
            r"uses \\p{Han}; \\p{L} and \\p{N} are supported",
        ),
    ],
)
def test_what_is_not_implemented_is_one_sentence(tmp_path, edit, message):
    folder = folder_of(tmp_path, train("gpt-2"))
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    edit(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(DataError, match=message) as caught:
        tokenizer_from_folder(folder)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
