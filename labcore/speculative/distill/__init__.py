"""How the committed drafts were made: prompts, the target's own answers, training; `python -m` runs all of it."""
