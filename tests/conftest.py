"""Fixtures and settings shared by the whole suite."""

import os

import pytest
from hypothesis import settings


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


HAS_GPU = _has_gpu()
if not HAS_GPU:  # Triton reads it where a kernel is defined, so it is set before any test module is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

# A slow machine fails no property test. `make soak` gives those that set no number of examples twenty thousand.
settings.register_profile("test", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=20_000)
settings.load_profile("soak" if os.environ.get("LABCORE_SOAK") else "test")

REQUIRED = {name.strip() for name in os.environ.get("LABCORE_REQUIRE", "").split(",") if name.strip()}


def pytest_collection_modifyitems(items):
    for item in items:
        if not HAS_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


def skip_or_fail(name: str, reason: str) -> None:
    """Skip with `reason`; where LABCORE_REQUIRE lists `name`, a missing `name` is a failure instead."""
    if name in REQUIRED:
        pytest.fail(f"LABCORE_REQUIRE={name}, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def smollm2_path():
    """The SmolLM2-135M-Instruct GGUF file, fetched once into the user's cache."""
    from labcore.core.errors import FetchError
    from labcore.model.checkpoints import fetch

    try:
        return fetch("smollm2-135m")
    except FetchError as error:
        skip_or_fail("model", f"the checkpoint smollm2-135m is not available: {error}")
