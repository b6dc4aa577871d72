"""A task for which prompt lookup is made: a table of program text, once more with one name changed.

A language model of 135 million parameters does it without a mistake, so what a bench row decodes is an edit and not a
loop. `cpu.spec.prompt_lookup` (`bench_speculation`) is about it.
"""

from __future__ import annotations

from labcore.model.tokenizer import Tokenizer

OLD, NEW = "Place", "Site"
NAMES = (
    "river", "mountain", "harbour", "village", "forest", "meadow", "island", "valley", "desert", "glacier", "canyon",
    "lagoon",
)  # fmt: skip


def passage(kind: str) -> str:
    """A table in Python whose rows are made by the class `kind`."""
    sizes = ((17 * i % 91 + 3, 29 * i % 83 + 5) for i in range(len(NAMES)))
    rows = (
        f'    "{name}": {kind}(name="{name.title()}", width={width}, height={height}),\n'
        for name, (width, height) in zip(NAMES, sizes, strict=True)
    )
    return f"PLACES = {{\n{''.join(rows)}}}\n"


def copy_task(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Prompt and right answer: the passage again with its class renamed, begun so that the model knows what to do."""
    begun, after = f'PLACES = {{\n    "{NAMES[0]}": {NEW}(', passage(NEW)
    prompt = f"# places.py before the change\n{passage(OLD)}\n# places.py after `{OLD}` was renamed to `{NEW}`\n{begun}"
    return tokenizer.encode(prompt), tokenizer.encode(after[len(begun) :])
