"""The methods of `serving` beside the real ones."""

import pytest

pytest.importorskip("torch")

from labcore.speculative.build import METHODS
from tests.speculative.serving import reduced_draft, small_draft


@pytest.fixture(autouse=True)
def _small_methods(monkeypatch):
    monkeypatch.setitem(METHODS, "small_draft", small_draft)
    monkeypatch.setitem(METHODS, "reduced_draft", reduced_draft)
