"""Small runs, honestly computed, recorded as traces: what the tests of the Player step through."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np


def paged(num_blocks=12, block_size=4, steps=24, seed=9, null=False) -> dict:
    """A paged allocator serving random sequences, with a fork, copy on write, preemption and frees."""
    rng, free, refs = random.Random(seed), list(range(null, num_blocks)), Counter()  # null: block 0 is nobody's
    tables: dict[str, list[int]] = {}
    lengths: dict[str, int] = {}
    recorded, born = [], 0

    def take(events, seq, op="allocate", **more):
        block = free.pop(0)
        refs[block] = 1
        events.append(
            {"op": op, "seq": seq, "block": block} if op == "allocate" else {"op": op, "seq": seq, **more, "to": block}
        )
        return block

    def drop(events, op, seq):
        for block in tables.pop(seq):
            refs[block] -= 1
            if not refs[block]:
                free.append(block)
        del lengths[seq]
        events.append({"op": op, "seq": seq})

    def grow(events, seq):
        """One more token; False if the pool is empty."""
        table = tables[seq]
        if lengths[seq] == len(table) * block_size:
            if not free:
                return False
            table.append(take(events, seq))
        elif refs[table[-1]] > 1:
            if not free:
                return False
            refs[table[-1]] -= 1
            table[-1] = take(events, seq, "copy", block=table[-1])
        lengths[seq] += 1
        events.append({"op": "append", "seq": seq, "tokens": 1})
        return True

    for step in range(steps):
        events: list[dict] = []
        if step == 6 and tables:  # fork the oldest sequence
            parent = next(iter(tables))
            tables["fork"], lengths["fork"] = list(tables[parent]), 0
            for block in tables[parent]:
                refs[block] += 1
                events.append({"op": "share", "seq": "fork", "block": block})
            lengths["fork"] = lengths[parent]
            events.append({"op": "append", "seq": "fork", "tokens": lengths[parent]})
        elif step % 4 == 0 and len(free) > 2:
            seq, born = "ABCDEFGH"[born], born + 1
            tables[seq], lengths[seq] = [], 0
            for _ in range(rng.randrange(2, 7)):
                grow(events, seq)
        for seq in list(tables):
            if seq in tables and not grow(events, seq):
                drop(events, "preempt", list(tables)[-1])
        if tables and rng.random() < 0.15:
            drop(events, "free", next(iter(tables)))
        counters = {"free": len(free), "tokens": sum(lengths.values()), "shared": sum(n > 1 for n in refs.values())}
        recorded.append({"events": events, "counters": counters})
    return {
        "view": "blocks",
        "title": "A pool of twelve blocks",
        "source": f"tests.learn.traces.paged, seed {seed}",
        "num_blocks": num_blocks,
        "block_size": block_size,
        **({"null_block": 0} if null else {}),
        "counters": [{"name": n, "label": n} for n in ("free", "tokens", "shared")],
        "steps": recorded,
    }


def batching(slots=4, requests=9, chunk=16, seed=2) -> dict:
    """Continuous batching with chunked prefill: a slot takes the next request as soon as its last one has ended."""
    rng = random.Random(seed)
    queue = [(f"r{i}", rng.randrange(8, 48), rng.randrange(2, 9)) for i in range(requests)]
    running: dict[int, list] = {}
    recorded, out, idle = [], 0, 0
    while queue or running:
        for slot in range(slots):
            if slot not in running and queue:
                running[slot] = list(queue.pop(0))
        events = []
        for slot, state in sorted(running.items()):
            name, prompt, answer = state
            if prompt:
                tokens = min(chunk, prompt)
                state[1] -= tokens
                events.append({"op": "run", "slot": slot, "request": name, "kind": "prefill", "tokens": tokens})
            else:
                state[2] -= 1
                out += 1
                events.append({"op": "run", "slot": slot, "request": name, "kind": "decode", "tokens": 1})
                if answer == 1:
                    del running[slot]
        idle += slots - len(events)
        recorded.append({"events": events, "counters": {"out": out, "waiting": len(queue), "idle": idle}})
    labels = {"out": "tokens out", "waiting": "queue", "idle": "idle slot steps"}
    return {
        "view": "gantt",
        "title": "Continuous batching of nine requests",
        "source": f"tests.learn.traces.batching, seed {seed}",
        "slots": slots,
        "step_unit": "step",
        "counters": [{"name": n, "label": text} for n, text in labels.items()],
        "steps": recorded,
    }


def speculation(rounds=8, drafted=4, seed=7) -> dict:
    """Rejection sampling of a draft distribution q against a target p over a small vocabulary."""
    words = [" the", " cache", " of", " a", " block", " token", ".", " is"]
    rng = np.random.default_rng(seed)
    recorded, tokens = [], 0
    for _ in range(rounds):
        draft, accepted, last = [], 0, {}
        for _ in range(drafted):
            p, q = rng.dirichlet(np.full(8, 0.8)), rng.dirichlet(np.full(8, 0.8))
            q = 0.7 * p + 0.3 * q
            x = rng.choice(8, p=q)
            draft.append(words[x])
            if "resampled" in last:
                continue  # drafted before the rejection was known
            if rng.random() < min(1, p[x] / q[x]):
                accepted += 1
            else:
                residual = np.maximum(p - q, 0)
                last = {"resampled": words[rng.choice(8, p=residual / residual.sum())]}
        if not last:
            last = {"bonus": words[rng.choice(8, p=rng.dirichlet(np.full(8, 0.8)))]}
        tokens += accepted + 1
        event = {"op": "round", "drafted": draft, "accepted": accepted, **last}
        recorded.append({"events": [event], "counters": {"tokens": tokens, "rate": tokens / (len(recorded) + 1)}})
    return {
        "view": "tokens",
        "title": "Eight rounds of speculative sampling",
        "source": f"tests.learn.traces.speculation, seed {seed}",
        "counters": [
            {"name": "tokens", "label": "tokens"},
            {"name": "rate", "label": "tokens a target pass", "unit": "tokens/pass"},
        ],
        "steps": recorded,
    }


def flash(n=24, d=8, tile=4, seed=1) -> dict:
    """Tiled causal attention of one head: the running maximum, denominator and bytes read, checked at the end."""
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, n, d))
    scores = np.where(np.tri(n, dtype=bool), q @ k.T / np.sqrt(d), -np.inf)
    recorded, moved = [], 0
    for row in range(n // tile):
        rows = slice(row * tile, (row + 1) * tile)
        m, denominator, out = np.full(tile, -np.inf), np.zeros(tile), np.zeros((tile, d))
        moved += 4 * tile * d
        for column in range(n // tile):
            event = {"op": "tile", "row": row, "column": column}
            if column > row:
                event["skipped"] = True
            else:
                columns = slice(column * tile, (column + 1) * tile)
                moved += 2 * 4 * tile * d
                new = np.maximum(m, scores[rows, columns].max(axis=1))
                weights, shrink = np.exp(scores[rows, columns] - new[:, None]), np.exp(m - new)
                denominator, out = (
                    shrink * denominator + weights.sum(axis=1),
                    shrink[:, None] * out + weights @ v[columns],
                )
                m = new
                event["values"] = {"m": float(m[0]), "l": float(denominator[0]), "o": float(out[0, 0])}
            recorded.append({"events": [event], "counters": {"read": moved}})
        exact = np.exp(scores[rows] - scores[rows].max(axis=1, keepdims=True))
        assert np.allclose(out / denominator[:, None], exact / exact.sum(axis=1, keepdims=True) @ v)
    return {
        "view": "tiles",
        "title": "Causal attention of 24 tokens in tiles of 4",
        "source": f"tests.learn.traces.flash, seed {seed}",
        "rows": n,
        "columns": n,
        "tile": [tile, tile],
        "causal": True,
        "counters": [{"name": "read", "label": "read from HBM", "unit": "B"}],
        "steps": recorded,
    }


RUNS = {"blocks": lambda: paged(num_blocks=13, null=True), "gantt": batching, "tokens": speculation, "tiles": flash}
