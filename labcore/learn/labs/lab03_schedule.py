"""Lab 3, time: what a step computes, and who has to give up its blocks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from labcore.core.errors import InputError
from labcore.core.request import Request
from labcore.core.step_plan import StepPlan
from labcore.engine.check import Violation
from labcore.engine.config import CacheConfig, SchedulerConfig
from labcore.learn.exercises import Attempt, Exercise, Fault, NotAttempted
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab03_references as ref
from labcore.learn.labs.lab03_pool import Handed
from labcore.learn.labs.lab03_tools import LabScheduler, answer, new_request, watched_life

LAB = "lab03"
LIVES = 25
MEANS = {
    "A6": "a row computes at least one token",
    "S1": "a step keeps to its budget and its places, and gets a token after the last known one only",
    "S2": "a request is in one place, and keeps its blocks while it is planned",
    "S3": "who waits has computed nothing",
    "S4": "a row has room for its tokens",
    "S5": "while anything can be computed, something is",
    "S6": "the youngest is preempted first, and comes back before everybody who never ran",
    "S7": "whoever runs gets at least one token in every step",
}


class Engine(Handed, LabScheduler):
    """A scheduler whose open places are filled when it is built."""

    @property
    def along(self) -> tuple:
        return tuple(self.requests.values())

    def __repr__(self) -> str:
        return f"an engine with {len(self.running)} running and {len(self.waiting)} waiting"


def reference(limits: SchedulerConfig, cache: CacheConfig) -> Engine:
    """The engine with both places filled by the references."""
    engine = Engine(limits, cache)
    engine.step, engine.make_room = partial(ref.step, engine), partial(ref.make_room, engine)
    return engine


def stepping(attempt: Attempt) -> Callable[[SchedulerConfig, CacheConfig], Engine]:
    """Engines whose `step` is the reader's."""

    def build(limits: SchedulerConfig, cache: CacheConfig) -> Engine:
        engine = reference(limits, cache)
        engine.step = partial(attempt, engine)
        return engine

    return build


def making_room(attempt: Attempt) -> Callable[[SchedulerConfig, CacheConfig], Engine]:
    """Engines whose `make_room` is the reader's."""

    def build(limits: SchedulerConfig, cache: CacheConfig) -> Engine:
        engine = reference(limits, cache)
        engine.make_room = partial(room, attempt, engine)
        return engine

    return build


def room(attempt: Attempt, engine: Engine, request: Request, num_tokens: int) -> bool:
    """The reader's answer, if it says what happened."""
    got, name = attempt(engine, request, num_tokens), request.request_id
    planned = any(row.request is request for row in engine.plan.scheduled)
    if got is not True and got is not False:
        raise Fault(f"make_room(engine, {name}, {num_tokens}) returned {describe(got)}, expected True or False")
    if got and not planned:
        raise Fault(f"make_room(engine, {name}, {num_tokens}) returned True, and {name} has no row in the plan")
    if not got and (planned or request in engine.running):
        raise Fault(f"make_room(engine, {name}, {num_tokens}) returned False, and {name} has not been preempted itself")
    if lost := [row.request for row in engine.plan.scheduled if row.request not in engine.running]:
        raise Fault(
            f"make_room(engine, {name}, {num_tokens}) preempted {lost[0].request_id}, which this step has planned "
            "already: its row would write into blocks that belong to somebody else"
        )
    return got


def same_life(
    build: Callable[[Attempt], Callable],
    requests: Sequence[tuple],
    says: str,
    *,
    steps: int = 4,
    budget: int = 8,
    places: int = 4,
    blocks: int = 60,
    block_size: int = 4,
    policy: str = "fcfs",
) -> Callable[[Attempt], None]:
    """A stage: `requests` (name, prompt, answer, step of arrival) live in the reader's engine as in the reference's."""
    limits = SchedulerConfig(budget, places, 4096, policy=policy, watermark=0.0)
    cache = CacheConfig(blocks + 1, block_size)
    texts = (f"{n} ({p if isinstance(p, int) else len(p)} tokens, step {when})" for n, p, _, when in requests)
    what = f"with {', '.join(texts)} and a budget of {budget}"

    def stage(attempt: Attempt) -> None:
        engines = build(attempt)(limits, cache), reference(limits, cache)
        for number in range(1, steps + 1):
            plans = []
            for engine in engines:
                for name, prompt, length, when in requests:
                    if when == number:
                        engine.add_request(new_request(name, prompt, length))
                try:
                    plans.append(engine.schedule())
                except NotAttempted:
                    raise
                except InputError as error:  # the rest of the engine met what the reader's function left behind
                    raise Fault(f"step {number} {what} ended with {str(error)!r}: {says}") from None
            compare(f"step {number} {what}", engines, plans, says)
            for engine, plan in zip(engines, plans, strict=True):
                answer(engine, plan)

    return stage


def compare(where: str, engines: tuple[Engine, Engine], plans: list[StepPlan], says: str) -> None:
    """Fault for the first thing in which the reader's engine (the first) departs from the other."""
    mine, right = engines
    if plans[0].preempted != plans[1].preempted:
        names = [", ".join(plan.preempted) or "nobody" for plan in plans]
        raise Fault(f"{where} preempted {names[0]}, expected {names[1]}: {says}")
    for name in plans[0].preempted:
        request, other = mine.requests[name], right.requests[name]
        if request.num_computed_tokens and request in mine.waiting:  # who runs again has begun anew
            raise Fault(
                f"{where} preempted {name}, which still counts {request.num_computed_tokens} tokens as computed: its "
                "blocks are gone, and with them every key and value"
            )
        if request.all_token_ids != other.all_token_ids:
            raise Fault(f"{where} preempted {name}, and its tokens are not what they were: a client has read them")
    queues = [[request.request_id for request in engine.waiting] for engine in engines]
    if queues[0] != queues[1]:
        raise Fault(f"{where} left {describe(queues[0])} waiting, expected {describe(queues[1])}: {says}")
    rows = [[f"{row.request.request_id} {row.num_tokens}" for row in plan.scheduled] for plan in plans]
    if rows[0] != rows[1]:
        texts = [", ".join(one) or "nothing" for one in rows]
        raise Fault(f"{where} computes {texts[0]}; expected {texts[1]}: {says}")


def random_lives(build: Callable[[Attempt], Callable]) -> Callable[[Attempt], None]:
    """A stage: random lives, every invariant checked after every step."""

    def stage(attempt: Attempt) -> None:
        for seed in range(LIVES):
            try:
                for _ in watched_life(seed, build(attempt)):
                    pass
            except Violation as violation:
                means = MEANS.get(violation.name, "every block is held by whoever names it, and holds what it should")
                raise Fault(f"in random life {seed}, {violation}. The rule: {means}") from None

    return stage


LONG = list(range(100, 109))

EXERCISES = (
    Exercise(
        id="paging.step",
        lab=LAB,
        title="One step",
        asked="Write the scheduler's step of a continuous-batching engine. Where is the prefill phase?",
        spec="Write `step(engine, budget)`: plan what one forward pass computes, at most `budget` tokens. First every "
        "request in `engine.running`, in order: all its missing tokens if the budget allows, part of them if not, but "
        "leave **one for each running request behind it**. Then `engine.waiting`, in order, while there is budget and "
        "fewer than `engine.config.max_num_seqs` requests run; stop at the first that does not fit. At hand: "
        "`engine.missing(request)`; `engine.make_room(request, n)` plans n tokens of a running request, preempts "
        "others from the end of `engine.running` where it must, and says whether it could; `engine.allocate(request, "
        "n)` never preempts, and moves a waiting request to the running ones.",
        reference=ref.step,
        stages=(
            same_life(stepping, [("a", 3, 4, 1)], "a prompt is three missing tokens, an answer one"),
            same_life(stepping, [("a", 10, 4, 1)], "a prompt longer than the budget is computed in chunks", budget=4),
            same_life(
                stepping,
                [("a", 3, 9, 1), ("b", 9, 4, 2)],
                "who runs is served first, and the prompt gets what is left of the budget",
                budget=4,
                steps=5,
            ),
            same_life(stepping, [("a", 3, 9, 1), ("b", 9, 4, 1)], "two prompts share a step, the second one in part"),
            same_life(
                stepping,
                [(name, 2, 5, 1) for name in "abc"],
                "max_num_seqs = 2 limits what runs, not what joins in one step",
                places=2,
            ),
            same_life(
                stepping,
                [("a", LONG, 9, 1), ("b", LONG, 4, 2), ("c", 3, 4, 2)],
                "8 of b's 9 tokens are in the cache, so it costs one, and there is budget left for c",
                budget=9,
            ),
            same_life(
                stepping,
                [("a", 8, 5, 1), ("b", 9, 3, 2), ("c", 2, 3, 2)],
                "b does not fit yet, and c must not overtake it: first come, first served",
                blocks=4,
                budget=16,
            ),
            same_life(
                stepping,
                [("b", 2, 20, 1), ("a", 10, 1, 2)],
                "a's prompt comes before b here (the policy is shortest_first), and b still needs its one token",
                policy="shortest_first",
                budget=4,
            ),
            same_life(
                stepping,
                [("a", 4, 4, 1), ("b", 4, 4, 1)],
                "b lost its blocks to a in this very step, so there is nothing more to plan for it",
                blocks=2,
                steps=3,
            ),
            same_life(
                stepping,
                [("a", 2, 9, 1), ("b", 3, 4, 2)],
                "one token of the budget is left, and that is one token of b's prompt",
                budget=2,
                places=2,
            ),
            same_life(
                stepping,
                [("a", 8, 4, 1), ("b", 5, 4, 2)],
                "b needs two blocks and one is free: it waits, and is not tried again with fewer tokens",
                blocks=4,
            ),
            same_life(
                stepping,
                [("a", 1, 7, 1), ("b", 5, 2, 2)],
                "b was preempted and computes nothing, so its tokens do not count against the budget",
                blocks=4,
                budget=4,
                block_size=2,
                steps=3,
            ),
            same_life(
                stepping,
                [("a", 1, 12, 1), ("b", 5, 4, 2), ("c", 6, 6, 2)],
                "c was preempted; blocks, budget and a place are left for its first tokens: it begins again at once",
                blocks=4,
                budget=5,
            ),
            same_life(
                stepping,
                [("a", 4, 8, 1), ("b", 2, 5, 2)],
                "b comes back with half an answer and no keys: it misses more than one token, like a prompt",
                blocks=3,
                budget=3,
                places=2,
                steps=11,
            ),
            random_lives(stepping),
        ),
        hints=(
            "There is no phase. A prompt of 300 tokens, an answer that needs its next one, a chunk, a request that "
            "lost everything: each is only a number of missing tokens, and the step hands out a budget.",
            "One loop over running: tokens = min(missing, budget - number behind it), make_room, subtract. It gets "
            "shorter while you walk it when somebody is preempted, so walk by index. One loop over waiting[0]: tokens "
            "= min(missing, budget); stop when allocate says no.",
            "`tokens = min(engine.missing(request), budget - later)`",
        ),
        difficulty=3,
        importance=3,
        minutes=(15, 20),
        changes_inputs=True,
        seconds=30.0,
    ),
    Exercise(
        id="paging.make_room",
        lab=LAB,
        title="Out of blocks",
        asked="The pool is empty and a running request needs a block. Who pays, and what exactly does it lose?",
        spec="Write `make_room(engine, request, num_tokens)` for a running `request`: call `engine.allocate(request, "
        "num_tokens)`, and while it says False preempt the **youngest** running request, the last of "
        "`engine.running`. `engine.release(victim)` takes its blocks and its place; you set its `num_computed_tokens` "
        "to what is left of the computation, keep its tokens, and put it back at the **front** of `engine.waiting`. "
        "If `request` itself was the victim return False, else True once there is room.",
        reference=ref.make_room,
        stages=(
            same_life(making_room, [("a", 3, 9, 1)], "there is room, so nobody has to go"),
            same_life(
                making_room,
                [("a", 4, 4, 1), ("b", 4, 4, 1)],
                "a came first and needs a block; b is younger, so b goes",
                blocks=2,
                steps=2,
            ),
            same_life(
                making_room,
                [("a", 2, 6, 1), ("b", 4, 4, 1)],
                "b needs a block and is the youngest: it goes itself, and a is left alone",
                blocks=2,
                steps=2,
            ),
            same_life(
                making_room,
                [("a", 4, 4, 1), ("b", 4, 4, 1), ("c", 3, 4, 2)],
                "b has waited longer than c, and part of what it computed is still in the cache; c never ran",
                blocks=2,
                steps=2,
                places=2,
            ),
            same_life(
                making_room,
                [("b", 2, 19, 1), ("c", 2, 19, 1), ("d", 2, 19, 1), ("a", 19, 1, 2)],
                "a needs two blocks and every victim gives one: try again until there is room (shortest_first)",
                blocks=5,
                steps=3,
                budget=11,
                policy="shortest_first",
            ),
            random_lives(making_room),
        ),
        hints=(
            "Recompute is cheap to write: everything that must survive is the list of tokens. What must not survive is "
            "any belief about what is stored.",
            "while not engine.allocate(...): victim = the last one running; release; nothing computed; to the front of "
            "the queue; if it was the request itself, return False. After the loop return True.",
            "`while not engine.allocate(request, num_tokens):`",
        ),
        difficulty=2,
        importance=3,
        minutes=(8, 12),
        changes_inputs=True,
        seconds=30.0,
    ),
)
