"""Lab 3, what goes wrong: a shadow of the cache that finds every wrong read, and six cases of the bug museum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as once

from labcore.core.errors import DataError
from labcore.core.step_plan import BlockMove, Move, ScheduledRequest, StepPlan
from labcore.engine.check import Violation
from labcore.engine.scheduler import Scheduler
from labcore.learn.exercises import Attempt, Exercise, Fault
from labcore.learn.exercises.compare import describe
from labcore.learn.labs import lab03_references as ref
from labcore.learn.labs.lab03_pool import Handed
from labcore.learn.labs.lab03_tools import new_request, random_life, told, watched_life
from labcore.learn.museum import Exhibit, exhibit

LAB = "lab03"
SOUND_LIVES, REPAIRED_LIVES = 12, 20
# name of a defect -> what it looks like
NAMES = {
    "shared write": "a request writes into a block that another request holds, too",
    "use after free": "a block is in the free queue, and a table still names it",
    "cached too early": "a block can be found by its hash before its keys and values are computed",
    "broken chain": "a block's hash covers its own tokens and not what stands before them",
    "leaked reference": "a block counts more holders than there are tables that name it",
    "guessed state": "what a request still needs is inferred from something other than its computed tokens",
}


class Shadow(Handed, dict):
    """The dict that a check hands out, and with it the plan of the step."""

    def __init__(self, **slots):
        super().__init__(**slots)
        self.along = ()

    def __repr__(self) -> str:
        return "shadow"


def result(attempt: Attempt, shadow: Shadow, plan: StepPlan, block_size: int) -> tuple[str, int] | None:
    """What the reader's shadow says about a step. Raises Fault for anything that is no answer."""
    shadow.along = (plan,)
    got = attempt(shadow, plan, block_size)
    if got is None or (isinstance(got, tuple) and len(got) == 2 and isinstance(got[0], str) and type(got[1]) is int):
        return got
    raise Fault(f"shadow_step returned {describe(got)}, expected None or a tuple (request id, position)")


def line(name: str, tokens: list[int], start: int, count: int, table: list[int]) -> ScheduledRequest:
    """A row of a plan: `count` tokens of a request from position `start` on, in these blocks."""
    return ScheduledRequest(new_request(name, tokens), start, count, table, 0, 0, start + count == len(tokens))


def steps(*plans: tuple[list[ScheduledRequest], list[tuple[int, int]]], gives: object, says: str) -> Callable:
    """A stage: rows and copies step by step; the last one `gives` this, and those before it None."""

    def stage(attempt: Attempt) -> None:
        shadow = Shadow()
        for number, (rows, copies) in enumerate(plans, 1):
            moves = [BlockMove(Move.COPY, *pair) for pair in copies]
            got, want = result(attempt, shadow, StepPlan(number, rows, moves), 4), None
            if number == len(plans):
                want = gives
            if got != want:
                texts = (
                    f"{r.request.request_id} {r.start}–{r.start + r.num_tokens - 1} in {r.block_ids}" for r in rows
                )
                what = "; ".join([*(f"copy {a} to {b}" for a, b in copies), *texts])
                raise Fault(f"step {number} ({what}) gave {describe(got)}, expected {describe(want)}: {says}")

    return stage


def in_lives(id: str, *seeds: int, says: str = "") -> Callable[[Attempt], None]:
    """A stage: random lives of an engine with the exhibit's defect, or of a sound one; both shadows must agree."""

    def stage(attempt: Attempt) -> None:
        if not id:
            for seed in seeds:
                one_life(attempt, seed, "a sound engine", says)
            return
        with exhibit(id).installed():
            for seed in seeds:
                one_life(attempt, seed, f"an engine with the defect {id!r}", says)

    return stage


def lived(seed: int) -> Iterator[tuple[Scheduler, StepPlan]]:
    """A random life; one that the engine's defect ends is over."""
    with suppress(Violation):
        yield from random_life(seed)


def one_life(attempt: Attempt, seed: int, engine: str, says: str) -> None:
    """Two shadows follow one life until the first of them finds something."""
    mine, right = Shadow(), {}
    for scheduler, plan in lived(seed):
        size = scheduler.manager.block_size
        want, got = ref.shadow_step(right, plan, size), result(attempt, mine, plan, size)
        if got != want:
            raise Fault(
                f"step {plan.step} of random life {seed}, in {engine}, gave {describe(got)}, expected "
                f"{describe(want)}: {says}"
            )
        if want is not None:
            return


@dataclass(frozen=True)
class Case(Handed):
    """An exhibit without its label. number: as the lab counts; name: one of NAMES; seed: the life that shows it."""

    number: int
    name: str
    exhibit: Exhibit
    seed: int

    def __repr__(self) -> str:
        return f"case {self.number}"

    @property
    def code(self) -> str:
        """The function with the defect in it."""
        return self.exhibit.code

    def trace(self, last: int = 3) -> str:
        """The failing run: its engine, its last steps, and what the check said."""
        with self.exhibit.installed():
            engine, told_steps, violation = failing(self.seed)
        return "\n".join([engine, *told_steps[-last:], f"{violation}"])

    def repaired(self, line: str, better: str) -> str:
        """The code with `line` replaced by `better`. Raises DataError unless the line is there once, and Python."""
        if self.code.count(line) != 1:
            raise DataError(f"{line!r} stands {self.code.count(line)} times in {self.exhibit.function}, expected once")
        code = self.code.replace(line, better)
        try:
            compile(code, f"<{self!r}>", "exec")
        except SyntaxError as error:
            raise DataError(f"with {better!r} in its place it is no Python: {error.msg}") from None
        return code


def failing(seed: int) -> tuple[str, list[str], Violation | None]:
    """A life up to the violation: engine and requests in words, its steps, and what was found."""
    told_steps, scheduler, violation, seen = [], None, None, {}
    try:
        for scheduler, plan in watched_life(seed):
            told_steps.append(told(scheduler, plan))
            seen |= scheduler.requests
    except Violation as found:
        violation = found
    named = [f"{one.request_id} {one.num_prompt_tokens}" for one in seen.values()]
    forks = [f"{one.request_id} of {one.fork_of.request_id}" for one in seen.values() if one.fork_of]
    size, budget = scheduler.manager.block_size, scheduler.config.max_num_batched_tokens
    head = f"blocks of {size}, budget {budget}; prompts: {', '.join(named)}"
    return head + f"; samples of one prompt: {', '.join(forks)}" * bool(forks), told_steps, violation


CASES = (
    Case(1, "shared write", exhibit("no_copy_on_write"), 0),
    Case(2, "use after free", exhibit("duplicates_freed"), 0),
    Case(3, "cached too early", exhibit("hashed_before_computed"), 25),
    Case(4, "leaked reference", exhibit("touched_too_early"), 22),
    Case(5, "guessed state", exhibit("resumed_as_decode"), 85),
    Case(6, "broken chain", exhibit("lost_chain"), 8),
)


@once
def enough_tokens(seeds: range) -> int:
    """Tokens that the sound engine computes in these lives."""
    return computed_tokens(seeds)


def computed_tokens(seeds: range) -> int:
    """Tokens that the engine computes in these lives. Raises Violation if anything is wrong in them."""
    return sum(plan.num_tokens for seed in seeds for _, plan in watched_life(seed))


def mends(case: Case) -> Callable[[Attempt], None]:
    """A stage: the case is named, and with the reader's line no life shows anything wrong."""

    def stage(attempt: Attempt) -> None:
        got = attempt(case)
        if not (isinstance(got, tuple | list) and len(got) == 3 and all(isinstance(one, str) for one in got)):
            raise Fault(f"mend({case}) gave {describe(got)}, expected three texts: name, line, better line")
        name, line, better = got
        if name not in NAMES:
            raise Fault(f"mend({case}): {name!r} is none of the names; they are {', '.join(NAMES)}")
        if name != case.name:
            raise Fault(f"mend({case}) says {name!r}: then {NAMES[name]}. The trace shows something else")
        try:
            code = case.repaired(line, better)
        except DataError as problem:
            raise Fault(f"mend({case}): {problem}") from None
        seeds = range(REPAIRED_LIVES)
        enough = enough_tokens(seeds)
        with case.exhibit.installed(code):
            try:
                taken = computed_tokens(seeds)
            except Violation as violation:
                raise Fault(
                    f"mend({case}) is named rightly; with your line a random life ends with {violation}"
                ) from None
        if taken > enough:
            raise Fault(
                f"mend({case}) leaves nothing wrong, at a price: your engine computes {taken:,} tokens where "
                f"{enough:,} are enough; repair the defect without giving up what the line was for"
            )

    return stage


ABCD, EFGH = [1, 2, 3, 4], [5, 6, 7, 8]

EXERCISES = (
    Exercise(
        id="paging.shadow",
        lab=LAB,
        title="The test that finds wrong reads",
        asked="How do you test a block manager and a scheduler without a model, so that a wrong block cannot hide?",
        spec="A key depends on its token and on every token before it. So let a dict `shadow` hold, for each slot, "
        "the **whole prefix** that the slot stands for. Write `shadow_step(shadow, plan, block_size)`, which carries "
        "out one step on it: first `plan.moves`, each `(kind, source, target)` a copy of a whole block (all of its "
        "slots); then **all** rows write; then all rows read. A row of `plan.scheduled` has "
        "`row.request.all_token_ids`, `row.start`, `row.num_tokens` and `row.block_ids`; position p lies in slot "
        "`block_ids[p // block_size] * block_size + p % block_size`. It writes its new tokens, and reads every "
        "position up to its last. Return the first wrong read as a tuple (request id, position), or None.",
        reference=ref.shadow_step,
        stages=(
            steps(([line("a", [9], 0, 1, [1])], []), gives=None, says="a token that was just written is read back"),
            steps(
                ([line("a", [*ABCD, 5], 0, 5, [2, 1])], []),
                ([line("a", [*ABCD, 5, 6], 5, 1, [2, 1])], []),
                gives=None,
                says="position 4 lies in slot 1 · 4 + 0; what earlier steps wrote is still there",
            ),
            steps(
                ([line("a", [*ABCD, 5], 4, 1, [1, 2])], []),
                gives=("a", 0),
                says="nobody ever wrote positions 0 to 3; attention reads them all the same",
            ),
            steps(
                ([line("a", ABCD, 0, 4, [1])], []),
                ([line("b", [1, 9, 3, 4, 5], 4, 1, [1, 2])], []),
                gives=("b", 1),
                says="a's block holds another token at position 1",
            ),
            steps(
                ([line("a", [*ABCD, *EFGH], 0, 8, [1, 2])], []),
                ([line("b", [9, 9, 9, 9], 0, 4, [3])], []),
                ([line("b", [9, 9, 9, 9, *EFGH, 1], 8, 1, [3, 2, 4])], []),
                gives=("b", 4),
                says="block 2 holds the right tokens after another prefix, so other keys",
            ),
            steps(
                ([line("a", [1, 2], 0, 2, [1]), line("b", [1, 3], 1, 1, [1])], []),
                gives=("a", 1),
                says="b writes into the same slot in this step, before anybody reads",
            ),
            steps(
                ([line("a", [1, 2], 0, 2, [1])], []),
                ([line("b", [1, 2, 5], 2, 1, [3]), line("a", [1, 2, 6], 2, 1, [1])], [(1, 3)]),
                gives=None,
                says="block 1 was copied to 3 before b wrote",
            ),
            steps(
                ([line("a", ABCD, 0, 4, [1])], []),
                ([line("c", EFGH, 0, 4, [1]), line("b", [*ABCD, 5], 4, 1, [3, 2])], [(1, 3)]),
                gives=None,
                says="the copy comes first; c overwrites block 1 only then",
            ),
            steps(
                ([line("a", ABCD, 0, 4, [1])], []),
                ([line("b", [*ABCD, 5], 4, 1, [4, 2])], [(1, 3), (3, 4)]),
                gives=None,
                says="block 1 went to 3, and then 3 to 4: one copy after the other",
            ),
            steps(
                ([line("a", ABCD, 0, 4, [3])], []),
                ([line("b", [*ABCD, 5], 4, 1, [3, 2])], [(5, 3)]),
                gives=("b", 0),
                says="nobody ever wrote block 5, so its copy in block 3 holds nothing either",
            ),
            steps(
                ([line("a", [1, 2, 3, 9], 0, 4, [1])], []),
                ([line("b", [*ABCD, 5], 4, 1, [1, 2])], []),
                gives=("b", 3),
                says="b writes position 4 alone; position 3 still holds what a wrote",
            ),
            in_lives("", *range(SOUND_LIVES), says="that was a false alarm"),
            in_lives("no_copy_on_write", *range(12), says="two requests wrote into one block"),
            in_lives("stale_index", *range(8), says="a reused block was found under its old hash"),
            in_lives("duplicates_freed", *range(8), says="a freed block was given to somebody else"),
        ),
        hints=(
            "Three loops, one after the other: copies, writes, reads. The order is the runner's, and the reason why "
            "each of them is a loop of its own.",
            "Write: shadow[slot] = tuple(tokens[: p + 1]) for the new positions. Read: for every p below start + "
            "num_tokens compare shadow.get(slot) with tuple(tokens[: p + 1]).",
            "`slot = row.block_ids[p // block_size] * block_size + p % block_size`",
        ),
        difficulty=2,
        importance=3,
        minutes=(10, 15),
        changes_inputs=True,
        seconds=30.0,
    ),
    Exercise(
        id="paging.mend",
        lab=LAB,
        title="The bug museum",
        asked="Here is the trace of a run that failed, and the function. Name the defect and repair it.",
        spec="Write `mend(case)`: for each of the six cases, told apart by `case.number`, a tuple of three texts. The "
        "**name** of the defect, one of `NAMES`; the **line**, or part of a line, as it stands, which must occur once "
        "in `case.code`; and the **better** one in its place. Your repair is installed in the engine, which then "
        "lives through twenty random lives with every check on. Any repair counts that leaves nothing wrong and "
        "computes no more than the sound engine.",
        reference=ref.mend,
        stages=tuple(map(mends, CASES)),
        hints=(
            "Read the last line of the trace first: which two facts contradict each other? Then find in the code where "
            "each of the two is written.",
            "The six sentences of NAMES are what the last lines say in other words. For the line: what did you have to "
            "do in your own functions at that place?",
            '`answers = {1: ("shared write", "copied = False", "copied = …")}`',
        ),
        difficulty=3,
        importance=3,
        minutes=(20, 30),
        seconds=120.0,
    ),
)
