"""The token tape: the rounds that it reads are the answer, over random lives of an engine with chains and trees."""

from __future__ import annotations

from random import Random

import pytest

from labcore.core.draft import branches, is_chain
from labcore.core.errors import InputError
from labcore.engine.random_traces import Life, random_config, random_requests
from labcore.learn.player import Player
from labcore.learn.tape import Round, TapeRecorder, read_round


class Text:
    """A tokenizer of sorts: every id is its own word."""

    @staticmethod
    def decode(token_ids):
        return "".join(f" {token}" for token in token_ids)


def test_a_round_follows_the_path_that_the_new_tokens_take():
    assert read_round([5, 6, 7], None, [5, 6, 9]) == Round((5, 6, 7), (-1, 0, 1), (0, 1), 9)
    assert read_round([5, 6], None, [5, 6, 8]).added == 8
    tree = read_round([5, 6, 7, 7], [-1, -1, 0, 1], [6, 7, 4])
    assert (tree.accepted, tree.added, tree.num_tokens) == ((1, 3), 4, 3)
    ended = read_round([5, 6, 7], None, [5, 6])  # the answer was full, or 6 ended it
    assert (ended.accepted, ended.added, ended.num_tokens) == ((0, 1), None, 2)
    assert read_round([], None, [3]) == Round((), (), (), 3)


@pytest.mark.parametrize("seed", range(40))
def test_the_rounds_of_a_request_are_its_answer(seed):
    rng = Random(seed)
    life = Life(rng, *random_config(rng), vocabulary=2, trees=seed % 2 == 1)
    life.late = 0  # the engine answers a plan before it makes the next one
    tape, schedule = TapeRecorder(), life.scheduler.schedule
    life.scheduler.schedule = lambda: tape.record(schedule())
    requests = random_requests(rng, 8, 2)
    life.run(requests)
    for request in requests:
        if not request.num_output_tokens:
            continue
        answer = []
        for one in tape.read(request.request_id):
            answer += [one.drafted[node] for node in one.accepted] + [one.added] * (one.added is not None)
            path = branches(one.parents)[one.accepted[-1]] if one.accepted else []
            assert list(one.accepted) == path and one.num_tokens >= 1
        assert answer == request.output_token_ids
        if all(is_chain(one.parents) for one in tape.read(request.request_id)):
            shown = Player(tape.trace(request.request_id, Text, "Rounds", f"random life {seed}")).trace
            assert shown.steps[-1].counters["tokens"] == request.num_output_tokens


def test_what_the_tape_cannot_show_is_said():
    tape = TapeRecorder()
    with pytest.raises(InputError, match="'ada' has no rounds; there are none"):
        tape.read("ada")
    tape._rounds["ada"] = [read_round([5, 6], [-1, -1], [6, 4])]
    with pytest.raises(InputError, match="round 1 drafted a tree"):
        tape.trace("ada", Text, "Rounds", "by hand")
