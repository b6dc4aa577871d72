"""The real model and its oracle, as in tests/model."""

from tests.model.conftest import (  # noqa: F401
    _one_thread,
    checkpoint,
    model,
    prompts,
    reference,
    tokenizer,
)
