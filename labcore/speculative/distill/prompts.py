"""Prompts in four domains (code, chat, lists, summaries): every template with every topic, in a fixed mixed order.

What a draft learns from and what it is judged on never share a topic: the split hashes the topic, not the prompt.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DOMAINS = "code", "chat", "lists", "summary"
HELD_OUT = 7  # one topic in so many is kept for evaluation


@dataclass(frozen=True)
class DomainPrompt:
    """A user's message. held_out: for evaluation only."""

    domain: str
    text: str
    held_out: bool


def prompts(passages: Sequence[str], per_domain: int = 320) -> list[DomainPrompt]:
    """At most `per_domain` prompts of each domain, deterministic for the same `passages`, domains mixed.

    passages: texts to summarize. Templates take turns over the topics, so few prompts already show many topics.
    """
    recipes = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
    recipes["summary"]["topics"] = list(passages)
    made = []
    for domain in DOMAINS:
        templates, topics = recipes[domain]["templates"], recipes[domain]["topics"]
        turns = [
            (templates[(number + turn) % len(templates)], topic)
            for turn in range(len(templates))
            for number, topic in enumerate(topics)
        ]
        made += [
            DomainPrompt(domain, template.format(topic), _hash(topic) % HELD_OUT == 0)
            for template, topic in turns[:per_domain]
        ]
    return sorted(made, key=lambda one: _hash(one.text))


def _hash(text: str) -> int:
    """A number that is the same on every machine and in every run, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
