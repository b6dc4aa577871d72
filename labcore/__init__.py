"""The engine, formulas and learning tools behind the book."""

__version__ = "0.1.0"

# Imported when first asked for: facts, formulas and the book build must not pull in torch.
_PUBLIC = {"LLM": "labcore.engine.llm", "SamplingParams": "labcore.core.sampling_params"}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'labcore' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
