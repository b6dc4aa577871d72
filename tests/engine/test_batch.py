"""Flat batches are what the plan's own definitions say, step after step, with rows that persist."""

from random import Random

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from labcore.core.errors import InputError  # noqa: E402
from labcore.engine.batch import InputBatch  # noqa: E402
from labcore.engine.random_traces import Life, random_config, random_requests  # noqa: E402


def positions(row):
    """Known tokens one after the other; a draft one behind its parent."""
    found = list(range(row.start, row.start + row.num_tokens - row.num_draft_tokens))
    last = len(found) - 1
    for node in range(row.num_draft_tokens):
        parent = node - 1 if row.parents is None else row.parents[node]
        found.append(found[last + 1 + parent] + 1)
    return found


class CheckedLife(Life):
    """A random life whose every plan is also built into a batch."""

    def record(self, plan):
        super().record(plan)
        self.batch.forget(plan.preempted)
        self.batch.forget(plan.finished)
        if plan.scheduled:
            self.compare(plan.scheduled, self.batch.build(plan.scheduled))

    def compare(self, rows, inputs) -> None:
        size, metadata = self.batch.block_size, inputs.metadata
        assert inputs.token_ids.tolist() == [token for row in rows for token in row.token_ids]
        assert inputs.positions.tolist() == [p for row in rows for p in positions(row)]
        assert metadata.slot_mapping.tolist() == [slot for row in rows for slot in row.slots(size)]
        counts = [row.num_tokens for row in rows]
        assert metadata.query_start_loc.tolist() == [sum(counts[:i]) for i in range(len(counts) + 1)]
        assert metadata.seq_lens.tolist() == [row.start + row.num_tokens for row in rows]
        assert metadata.max_query_len == max(counts) and metadata.max_seq_len == max(metadata.seq_lens.tolist())
        for row, table in zip(rows, metadata.block_table.tolist(), strict=True):
            used = [*row.block_ids[: len(table)], *[0] * (len(table) - len(row.block_ids))]
            skipped = self.scheduler.manager.num_skipped_blocks(row.start)  # nobody reads what a window left behind
            assert table[skipped:] == used[skipped:]  # and there is nothing of a former tenant
        ends = metadata.query_start_loc.tolist()[1:]
        wanted = [
            index
            for row, end in zip(rows, ends, strict=True)
            if row.wants_token
            for index in range(end - row.num_draft_tokens - 1, end)
        ]
        assert inputs.wanted.tolist() == wanted
        assert len(set(self.batch.rows.values())) == len(self.batch.rows)
        self.built += 1


def test_batches_follow_random_plans():
    built = 0
    for seed in range(120):
        rng = Random(seed)
        config, cache = random_config(rng)
        life = CheckedLife(rng, config, cache, trees=seed % 2 == 1)
        life.batch, life.built = InputBatch(life.scheduler.config, cache), 0
        life.run(random_requests(rng, rng.randint(2, 10), 3))
        assert not life.batch.rows
        built += life.built
    assert built > 1000, built


def test_a_step_beyond_the_budget_is_an_error_and_not_a_cut():
    rng = Random(1)
    config, cache = random_config(rng)
    life = Life(rng, config, cache)
    for request in random_requests(rng, 6, 3):
        life.add(request)
    plan = life.scheduler.schedule()
    small = InputBatch(config, cache)
    small._token_ids = small._token_ids[: plan.num_tokens - 1]
    with pytest.raises((ValueError, InputError)):
        small.build(plan.scheduled)
