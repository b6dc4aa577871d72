"""Traces: consistent ones are accepted and replayed, others refused; the Player's table; the Predict box."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labcore.core.errors import DataError, InputError, UnitError
from labcore.core.units import Quantity
from labcore.learn.player import Player, describe, predict
from labcore.learn.trace import SCHEMA, replay, trace
from tests.learn.scripts import javascript
from tests.learn.traces import RUNS, paged


@pytest.mark.parametrize("view", RUNS)
def test_recorded_runs_are_accepted_and_travel_as_json(view):
    found = trace(RUNS[view]())
    plain = json.loads(json.dumps(found.as_json()))
    assert plain["schema"] == SCHEMA and trace(plain).as_json() == found.as_json()
    assert len(list(replay(found))) == len(found.steps)


def test_the_small_allocator_does_what_the_player_shows():
    ops = {e["op"] for step in paged()["steps"] for e in step["events"]}
    assert ops == {"allocate", "append", "share", "copy", "free", "preempt"}


@given(st.integers(0, 10**6), st.integers(6, 16), st.integers(1, 6))
def test_replaying_a_pool_never_loses_or_doubles_a_block(seed, num_blocks, block_size):
    found = trace(paged(num_blocks=num_blocks, block_size=block_size, seed=seed))
    for state, step in zip(replay(found), found.steps, strict=True):
        held = [b for table in state["tables"].values() for b in table]
        assert [held.count(b) for b in range(num_blocks)] == state["refs"]
        assert state["refs"].count(0) == step.counters["free"]
        for seq, table in state["tables"].items():
            assert len(table) == -(-state["lengths"][seq] // block_size)


def test_the_page_replays_the_same_states():
    found = trace(paged())
    calls = [["blocks", found.as_json(), n] for n in range(len(found.steps))]
    previous = [0] * 12
    for here, there in zip(replay(found), javascript(*calls), strict=True):
        touched = there.pop("touched")
        assert here == there
        changed = {b for b, (x, y) in enumerate(zip(previous, here["refs"], strict=True)) if x != y}
        assert changed <= set(touched)
        previous = here["refs"]


def wrong(change):
    data = copy.deepcopy(paged())
    change(data)
    return data


FIRST = {"op": "allocate", "seq": "A", "block": 0}
REFUSED = {
    "step 0: allocate: block 0 is in use": lambda d: d["steps"][0]["events"].insert(0, FIRST | {"seq": "Z"}),
    "step 0: allocate: block 99 does not exist; the pool has 12": lambda d: d["steps"][0]["events"].append(
        FIRST | {"block": 99}
    ),
    "step 0: share: block 11 is free": lambda d: d["steps"][0]["events"].append(
        {"op": "share", "seq": "A", "block": 11}
    ),
    "step 0: append: Q holds no blocks": lambda d: d["steps"][0]["events"].append(
        {"op": "append", "seq": "Q", "tokens": 1}
    ),
    "more do not fit": lambda d: d["steps"][0]["events"].append({"op": "append", "seq": "A", "tokens": 50}),
    "step 0: copy: block 0 is not one that A shares": lambda d: d["steps"][0]["events"].append(
        {"op": "copy", "seq": "A", "block": 0, "to": 9}
    ),
    "step 0, append: tokens: input should be greater than or equal to 1": lambda d: d["steps"][0]["events"].append(
        {"op": "append", "seq": "A", "tokens": 0}
    ),
    "'run' is no event of the view blocks": lambda d: d["steps"][0]["events"].append({"op": "run"}),
    "step 0: allocate: block 0 is the null block, which nobody holds": lambda d: d.update(null_block=0),
    "lacks ['num_blocks'], does not know ['pool']": lambda d: d.update(pool=d.pop("num_blocks")),
    "counters differ from the header: ['free']": lambda d: d["steps"][3]["counters"].pop("free"),
    "trace: view: input should be": lambda d: d.update(view="film"),
    "trace: steps: list should have at least 1 item": lambda d: d.update(steps=[]),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_contradictory_trace_is_refused(sentence):
    with pytest.raises(DataError) as caught:
        Player(wrong(REFUSED[sentence]))
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "view, event, sentence",
    [
        ("gantt", {"op": "run", "slot": 9, "request": "r", "kind": "decode", "tokens": 1}, "slot 9 does not exist"),
        ("tokens", {"op": "round", "drafted": ["a"], "accepted": 2}, "2 accepted of 1 drafted"),
        ("tokens", {"op": "round", "drafted": ["a"], "accepted": 0, "bonus": "b"}, "only when every drafted"),
        ("tokens", {"op": "round", "drafted": ["a"], "accepted": 1, "resampled": "b"}, "only after a rejection"),
        ("tiles", {"op": "tile", "row": 9, "column": 0}, "tile (9, 0) lies outside 6 × 6 tiles"),
    ],
)
def test_impossible_events_are_refused(view, event, sentence):
    data = RUNS[view]()
    data["steps"][0]["events"].append(event)
    with pytest.raises(DataError) as caught:
        trace(data)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("view", RUNS)
def test_the_fallback_is_a_table_of_the_run(view):
    data = RUNS[view]()
    player = Player(data)
    shown = player.html().split(">", 1)[1]
    assert shown.count("<tr>") == 1 + min(24, len(data["steps"])) and data["source"] in shown
    assert all(describe(e) for step in player.trace.steps for e in step.events)
    assert (
        repr(player) == f"Player({data['title']!r}, {len(data['steps'])} steps)"
        and Player(data).html() == player.html()
    )


def test_phrases():
    assert describe({"op": "round", "drafted": ["a", "b"], "accepted": 1, "resampled": "c"}) == (
        "accepted a, rejected b, resampled c"
    )
    assert describe({"op": "append", "seq": "A", "tokens": 1}) == "A writes 1 token"


def test_predict_keeps_question_and_unit_for_the_reveal():
    asked = predict("try.u16", "Which share is used?", "%")
    assert asked.spec == {
        "id": "try.u16",
        "question": "Which share is used?",
        "unit": "%",
        "title": "Which share is used?",
    }
    assert "Which share is used? (in %)" in asked.html()
    assert predict.reveal("try.u16", 0.995).spec["reveal"] == pytest.approx(99.5)
    predict("try.kv", "How much?", "GB")
    assert predict.reveal("try.kv", 2.684e9).spec["reveal"] == pytest.approx(2.684)
    assert predict.reveal("try.kv", Quantity(2.5, "GiB")).spec["reveal"] == pytest.approx(2.684354560)
    assert "2.684 GB" in predict.reveal("try.kv", 2.684e9).html()


def test_predict_says_what_it_was_not_asked():
    with pytest.raises(InputError, match="nothing was asked under that id"):
        predict.reveal("never", 1)
    with pytest.raises(UnitError, match="'GBB' is unknown"):
        predict("try.bad", "How much?", "GBB")
