"""Wrong answers to the paged-engine lab that people give in earnest. Each must be rejected with its own sentence."""

from __future__ import annotations

from labcore.kv.block_pool import BlockPool, FreeBlockQueue
from labcore.learn.labs import lab03_references as ref
from tests.mutants.registry import mutant


@mutant("paging.remove", says="do not search for it, it knows its own neighbours")
def searches_from_the_front(self, block):
    for one in self:
        if one is block:
            FreeBlockQueue.remove(self, block)
            return


@mutant("paging.remove", says="the next block has to point back")
def links_forwards_only(self, block):
    block.prev_free_block.next_free_block = block.next_free_block
    block.prev_free_block = block.next_free_block = None
    self.num_free_blocks -= 1


@mutant("paging.remove", says="left num_free_blocks at 3, expected 2")
def forgets_to_count(self, block):
    FreeBlockQueue.remove(self, block)
    self.num_free_blocks += 1


@mutant("paging.remove", says="the block still points into the queue")
def keeps_the_links(self, block):
    block.prev_free_block.next_free_block = block.next_free_block
    block.next_free_block.prev_free_block = block.prev_free_block
    self.num_free_blocks -= 1


@mutant("paging.remove", says="forwards the queue now reads [2, 3], expected [1, 3]")
def takes_the_first(self, block):
    self.popleft()


@mutant("paging.remove", says="raised AttributeError: 'NoneType' object has no attribute")
def cuts_the_block_out_of_itself(self, block):
    block.prev_free_block = block.next_free_block = None
    block.prev_free_block.next_free_block = block.next_free_block


@mutant("paging.free_blocks", says="somebody else still holds block 1: it is not free")
def frees_for_everybody(self, block_ids):
    for number in block_ids:
        if number:
            self.blocks[number].ref_cnt = 0
            self.free_queue.append(self.blocks[number])


@mutant("paging.free_blocks", says="left the queue [2, 3, 4, 5], expected [2, 3, 4, 5, 1]")
def counts_and_does_not_free(self, block_ids):
    for number in block_ids:
        self.blocks[number].ref_cnt -= 1


@mutant("paging.free_blocks", says="first in the list, first to be reused")
def turns_the_list_round(self, block_ids):
    BlockPool.free_blocks(self, list(block_ids)[::-1])


@mutant("paging.free_blocks", says="the null block belongs to nobody")
def frees_the_null_block(self, block_ids):
    for number in block_ids:
        block = self.blocks[number]
        block.ref_cnt = max(0, block.ref_cnt - 1)
        if block.ref_cnt == 0:
            self.free_queue.append(block)


@mutant("paging.free_blocks", says="erased a hash")
def forgets_the_contents(self, block_ids):
    BlockPool.free_blocks(self, block_ids)
    for number in block_ids:
        if number and self.is_free(number):
            self.forget(number)


@mutant("paging.free_blocks", says="block 1 was freed twice and nothing happened")
def never_complains(self, block_ids):
    BlockPool.free_blocks(self, [number for number in block_ids if number == 0 or self.blocks[number].ref_cnt])


@mutant("paging.free_blocks", says="RuntimeError is what the spec asks")
def asserts(self, block_ids):
    assert all(number == 0 or self.blocks[number].ref_cnt for number in block_ids)
    BlockPool.free_blocks(self, block_ids)


def _grow(pool, table, computed, new, size, *, blocks=None, copy="shared", count=True, give_up=True, swap=False):
    """`grow` with one part replaced."""
    first = computed // size
    exists = first < len(table)
    shared = exists and {"shared": pool.blocks[table[first]].ref_cnt > 1, "never": False, "always": True}[copy]
    more = max(0, (blocks or (lambda n: -(-n // size)))(computed + new) - len(table))
    if more + (shared and count) > pool.num_free_blocks:
        return None
    copies = []
    if shared:
        (private,) = pool.get_new_blocks(1)
        copies.append((private, table[first]) if swap else (table[first], private))
        if give_up:
            pool.free_blocks([table[first]])
        table[first] = private
    table += pool.get_new_blocks(more)
    return copies


@mutant("paging.grow", says="8 tokens fill 2 blocks of 4 exactly")
def one_block_for_luck(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, blocks=lambda n: n // block_size + 1)


@mutant("paging.grow", says="the last block has room")
def ignores_the_room_that_is_left(pool, table, num_computed, num_new, block_size):
    return _grow(
        pool, table, num_computed, num_new, block_size, blocks=lambda n: len(table) + -(-num_new // block_size)
    )


@mutant("paging.grow", says="gave the copies [], expected [(3, 1)]: position 2")
def writes_into_the_shared_block(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, copy="never")


@mutant("paging.grow", says="gave the copies [(3, 1)], expected []")
def copies_its_own_block(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, copy="always")


@mutant("paging.grow", says="block 2 is full and only read")
def copies_whatever_is_shared(pool, table, num_computed, num_new, block_size):
    copies = ref.grow(pool, table, num_computed, num_new, block_size)
    for index, number in enumerate(table):
        if copies is not None and pool.blocks[number].ref_cnt > 1:
            (private,) = pool.get_new_blocks(1)
            copies.append((number, private))
            pool.free_blocks([number])
            table[index] = private
    return copies


@mutant("paging.grow", says="whoever copies a block gives up its own share of it")
def keeps_its_share(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, give_up=False)


@mutant("paging.grow", says="gave None and took blocks all the same")
def takes_before_it_counts(pool, table, num_computed, num_new, block_size):
    while len(table) * block_size < num_computed + num_new:
        if not pool.num_free_blocks:
            return None
        table += pool.get_new_blocks(1)
    return ref.grow(pool, table, num_computed, num_new, block_size)


@mutant("paging.grow", says="InputError: cannot take 1 blocks: 0 are free")
def does_not_count_the_copy(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, count=False)


@mutant("paging.grow", says="gave the copies [(1, 3)], expected [(3, 1)]")
def copies_backwards(pool, table, num_computed, num_new, block_size):
    return _grow(pool, table, num_computed, num_new, block_size, swap=True)


def _step(engine, budget, *, share=True, chunks=True, places=True, overtakes=False, known=None):
    """`step` with one part replaced."""
    place = 0
    while place < len(engine.running):
        request, place = engine.running[place], place + 1
        tokens = min(engine.missing(request), budget - (len(engine.running) - place if share else 0))
        if tokens and engine.make_room(request, tokens):
            budget -= tokens
    for request in list(engine.waiting):
        if budget <= 0 or (places and len(engine.running) >= engine.config.max_num_seqs):
            return
        missing = engine.missing(request)
        tokens = min(missing, budget)
        if not chunks and tokens < missing:
            return
        if not engine.allocate(request, tokens) and not overtakes:
            return
        budget -= known(request) if known else tokens


@mutant("paging.step", says="has 3 tokens to compute, so it cannot compute 8")
def hands_out_the_whole_budget(engine, budget):
    for request in list(engine.waiting):
        engine.allocate(request, budget)


@mutant("paging.step", says="a prompt longer than the budget is computed in chunks")
def waits_until_the_prompt_fits(engine, budget):
    _step(engine, budget, chunks=False)


@mutant("paging.step", says="who runs is served first, and the prompt gets what is left")
def prompts_first(engine, budget):
    while engine.waiting and budget:
        tokens = min(engine.missing(engine.waiting[0]), budget)
        if not engine.allocate(engine.waiting[0], tokens):
            break
        budget -= tokens
    for request in [one for one in engine.running if one.admitted_step < engine.num_steps]:
        tokens = min(engine.missing(request), budget)
        if tokens and engine.make_room(request, tokens):
            budget -= tokens


@mutant("paging.step", says="two prompts share a step, the second one in part")
def one_prompt_a_step(engine, budget):
    waiting = engine.waiting[1:]
    del engine.waiting[1:]
    _step(engine, budget)
    engine.waiting += waiting


@mutant("paging.step", says="max_num_seqs = 2 limits what runs")
def no_limit_of_places(engine, budget):
    _step(engine, budget, places=False)


@mutant("paging.step", says="8 of b's 9 tokens are in the cache")
def charges_hits_to_the_budget(engine, budget):
    _step(engine, budget, known=lambda request: min(budget, request.num_tokens))


@mutant("paging.step", says="c must not overtake it")
def takes_whoever_fits(engine, budget):
    _step(engine, budget, overtakes=True)


@mutant("paging.step", says="b still needs its one token")
def a_chunk_takes_everything(engine, budget):
    _step(engine, budget, share=False)


@mutant("paging.step", says="b lost its blocks to a in this very step")
def walks_over_a_copy(engine, budget):
    running = list(engine.running)
    for place, request in enumerate(running, 1):
        tokens = min(engine.missing(request), budget - len(running) + place)
        if request in engine.running:
            budget -= tokens if engine.make_room(request, tokens) else 0
        else:  # preempted since the copy was made: planned all the same
            engine.waiting.remove(request)
            engine.running.append(request)
            engine.plan.scheduled.append(engine.plan.scheduled[-1])
    _step_waiting(engine, budget)


def _step_waiting(engine, budget):
    while engine.waiting and budget and len(engine.running) < engine.config.max_num_seqs:
        tokens = min(engine.missing(engine.waiting[0]), budget)
        if not engine.allocate(engine.waiting[0], tokens):
            return
        budget -= tokens


def _room(engine, request, tokens, *, victim=-1, computed=0, place=0, cut=False):
    """`make_room` with one part replaced."""
    while not engine.allocate(request, tokens):
        loser = engine.running[victim]
        engine.release(loser)
        if computed is not None:
            loser.num_computed_tokens = computed
        if cut:
            del loser.all_token_ids[loser.num_prompt_tokens :]
        engine.waiting.insert(len(engine.waiting) if place is None else place, loser)
        if loser is request:
            return False
    return True


@mutant("paging.make_room", says="preempted a, expected b: a came first")
def the_oldest_pays(engine, request, num_tokens):
    return _room(engine, request, num_tokens, victim=0)


@mutant("paging.make_room", says="its blocks are gone, and with them every key and value")
def believes_that_it_is_still_computed(engine, request, num_tokens):
    return _room(engine, request, num_tokens, computed=None)


@mutant("paging.make_room", says="its tokens are not what they were: a client has read them")
def starts_the_answer_anew(engine, request, num_tokens):
    return _room(engine, request, num_tokens, cut=True)


@mutant("paging.make_room", says="left ['c', 'b'] waiting, expected ['b', 'c']")
def to_the_end_of_the_queue(engine, request, num_tokens):
    return _room(engine, request, num_tokens, place=None)


@mutant("paging.make_room", says="and a has no row in the plan")
def one_victim_must_do(engine, request, num_tokens):
    if not engine.allocate(request, num_tokens):
        victim = engine.running[-1]
        engine.release(victim)
        victim.num_computed_tokens = 0
        engine.waiting.insert(0, victim)
        if victim is request:
            return False
        engine.allocate(request, num_tokens)
    return True


@mutant("paging.make_room", says="preempted a, which this step has planned already")
def never_itself(engine, request, num_tokens):
    while not engine.allocate(request, num_tokens):
        victim = [one for one in engine.running if one is not request][-1]
        engine.release(victim)
        victim.num_computed_tokens = 0
        engine.waiting.insert(0, victim)
    return True


@mutant("paging.make_room", says="returned None, expected True or False")
def forgets_to_answer(engine, request, num_tokens):
    _room(engine, request, num_tokens)


@mutant("paging.make_room", says="returned False, and a has not been preempted itself")
def gives_up_at_once(engine, request, num_tokens):
    return engine.allocate(request, num_tokens)


def _shadow(shadow, plan, size, *, key=None, reads_from=lambda row: 0, moves="first", together=True):
    """`shadow_step` with one part replaced."""
    key = key or (lambda tokens, position: tuple(tokens[: position + 1]))

    def slot(row, position):
        return row.block_ids[position // size] * size + position % size

    def move():
        for _, source, target in plan.moves:
            for i in range(size):
                shadow[target * size + i] = shadow.get(source * size + i)

    def write(row):
        for position in range(row.start, row.start + row.num_tokens):
            shadow[slot(row, position)] = key(row.request.all_token_ids, position)

    def read(row):
        for position in range(reads_from(row), row.start + row.num_tokens):
            if shadow.get(slot(row, position)) != key(row.request.all_token_ids, position):
                return row.request.request_id, position
        return None

    if moves == "first":
        move()
    if together:
        for row in plan.scheduled:
            write(row)
        if moves == "last":
            move()
        return next(filter(None, map(read, plan.scheduled)), None)
    for row in plan.scheduled:
        write(row)
        if found := read(row):
            return found
    return None


@mutant("paging.shadow", says="block 2 holds the right tokens after another prefix")
def stores_the_token_alone(shadow, plan, block_size):
    return _shadow(shadow, plan, block_size, key=lambda tokens, position: tokens[position])


@mutant("paging.shadow", says="attention reads them all the same")
def reads_what_it_wrote(shadow, plan, block_size):
    return _shadow(shadow, plan, block_size, reads_from=lambda row: row.start)


@mutant("paging.shadow", says="b writes into the same slot in this step")
def row_after_row(shadow, plan, block_size):
    return _shadow(shadow, plan, block_size, together=False)


@mutant("paging.shadow", says="block 1 was copied to 3 before b wrote")
def knows_no_copies(shadow, plan, block_size):
    return _shadow(shadow, plan, block_size, moves="never")


@mutant("paging.shadow", says="the copy comes first; c overwrites block 1 only then")
def copies_after_the_writes(shadow, plan, block_size):
    if any(row.start % block_size for row in plan.scheduled):
        return _shadow(shadow, plan, block_size)
    return _shadow(shadow, plan, block_size, moves="last")


@mutant("paging.shadow", says="raised KeyError: ")
def trusts_that_it_was_written(shadow, plan, block_size):
    for row in plan.scheduled:
        for position in range(row.start + row.num_tokens):
            slot = row.block_ids[position // block_size] * block_size + position % block_size
            if position >= row.start:
                shadow[slot] = tuple(row.request.all_token_ids[: position + 1])
            elif shadow[slot] != tuple(row.request.all_token_ids[: position + 1]):
                return row.request.request_id, position


@mutant("paging.shadow", says="gave ('a', 4), expected None: position 4 lies in slot")
def starts_with_an_empty_shadow(shadow, plan, block_size):
    if plan.step == 2:
        last = plan.scheduled[0].start - 1
        slot = plan.scheduled[0].block_ids[last // block_size] * block_size + last % block_size
        return (plan.scheduled[0].request.request_id, last) if slot in shadow else None
    return ref.shadow_step(shadow, plan, block_size)


@mutant("paging.shadow", says="expected None or a tuple (request id, position)")
def says_whether(shadow, plan, block_size):
    return ref.shadow_step(shadow, plan, block_size) is not None


def _mend(case, number, name=None, line=None, better=None):
    """The right answers but for one case."""
    right = ref.mend(case)
    if case.number != number:
        return right
    return tuple(mine or theirs for mine, theirs in zip((name, line, better), right, strict=True))


@mutant("paging.mend", says="mend(case 1) says 'use after free': then a block is in the free queue")
def names_the_wrong_defect(case):
    return _mend(case, 1, name="use after free")


@mutant("paging.mend", says="'a bug' is none of the names")
def names_it_freely(case):
    return _mend(case, 1, name="a bug")


@mutant("paging.mend", says="at a price: your engine computes")
def copies_nothing_by_caching_nothing(case):
    return _mend(case, 2, better="None")


@mutant("paging.mend", says="with your line a random life ends with A7")
def copies_only_what_starts(case):
    return _mend(case, 1, better="copied = tail < unchanged and starts and False")


@mutant("paging.mend", says="times in allocate_slots, expected once")
def quotes_a_line_that_is_not_there(case):
    return _mend(case, 3, line="full = slots // block_size")


@mutant("paging.mend", says="in its place it is no Python")
def forgets_a_parenthesis(case):
    return _mend(case, 4, better="revived = sum(map(pool.is_free, new_computed_blocks)")


@mutant("paging.mend", says="expected three texts: name, line, better line")
def hands_in_the_repair_alone(case):
    return ref.mend(case)[2]


def _but(letter, workload):
    """The reference, but for one claim."""
    return lambda claim: workload if claim.letter == letter else ref.refute(claim)


@mutant("paging.refute", says="gave None, but it can be refuted: the last block of a request is rarely full")
def believes_everything(claim):
    return None


@mutant("paging.refute", says="nothing refutes a claim that is true")
def believes_nothing(claim):
    return ref.refute(claim) or [(0, 4, 30)] * 6


@mutant("paging.refute", says="and there the claim holds: a request that loses its blocks falls silent")
def crowds_and_does_not_grow(claim):
    return _but("C", [(0, 4, 2)] * 10)(claim)


@mutant("paging.refute", says="may grow to 204 tokens")
def larger_than_the_cache(claim):
    return _but("F", [(0, 4, 200)] * 2)(claim)


@mutant("paging.refute", says="are enough to refute any of these")
def a_storm(claim):
    return _but("B", [(0, 4, 2)] * 40)(claim)


@mutant("paging.refute", says="a long prompt in the same step makes the step long")
def prompts_come_first(claim):
    return _but("H", [(0, 50, 2), (0, 4, 20)])(claim)


@mutant("paging.refute", says="1,000,000 s and whole tokens ≥ 1")
def asks_for_no_answer(claim):
    return _but("A", [(0, 4, 0)])(claim)


# ---- the mutation attack ---------------------------------------------------------------------------------------------


@mutant("paging.remove", says="the block has lost its hash")
def resets_the_block(self, block):
    FreeBlockQueue.remove(self, block)
    block.block_hash = None


@mutant("paging.free_blocks", says="named twice, block 1 gives up two holders")
def frees_each_block_once(self, block_ids):
    BlockPool.free_blocks(self, dict.fromkeys(block_ids))


@mutant("paging.free_blocks", says="block 1 was freed twice and nothing happened; the queue is now [2, 3, 4, 5, 1]")
def looks_before_it_begins(self, block_ids):
    if any(number and not self.blocks[number].ref_cnt for number in block_ids):
        raise RuntimeError("freed twice")
    for number in filter(None, block_ids):
        self.blocks[number].ref_cnt -= 1
        if self.blocks[number].ref_cnt == 0:
            self.free_queue.append(self.blocks[number])


@mutant("paging.grow", says="three requests hold block 3")
def knows_two_holders_only(pool, table, num_computed, num_new, block_size):
    first = num_computed // block_size
    copy = "shared" if first < len(table) and pool.blocks[table[first]].ref_cnt == 2 else "never"
    return _grow(pool, table, num_computed, num_new, block_size, copy=copy)


@mutant("paging.grow", says="get_new_blocks gives a list, not a number")
def puts_lists_into_the_table(pool, table, num_computed, num_new, block_size):
    while len(table) * block_size < num_computed + num_new:
        table.append(pool.get_new_blocks(1))
    return []


def _planned(engine, budget, *, least=1, charged=False, after=True, missing=None, again=False, later=True):
    """`step` with one part replaced."""
    place = 0
    while place < len(engine.running):
        request, place = engine.running[place], place + 1
        tokens, behind = (missing or engine.missing)(request), len(engine.running) - place
        if tokens > budget - behind * later:
            tokens = budget - behind
        if engine.make_room(request, tokens) or charged:
            budget -= tokens
    if engine.plan.preempted and not after:
        return
    while engine.waiting and budget >= least and len(engine.running) < engine.config.max_num_seqs:
        tokens = min(engine.missing(engine.waiting[0]), budget)
        if not engine.allocate(engine.waiting[0], tokens) and not again:
            return
        budget -= tokens


@mutant("paging.step", says="one token of the budget is left")
def leaves_the_last_token(engine, budget):
    _planned(engine, budget, least=2)


@mutant("paging.step", says="it waits, and is not tried again with fewer tokens")
def tries_again_with_less(engine, budget):
    _planned(engine, budget, again=True)


@mutant("paging.step", says="so its tokens do not count against the budget")
def charges_who_was_preempted(engine, budget):
    _planned(engine, budget, charged=True)


@mutant("paging.step", says="it begins again at once")
def admits_nobody_after_a_preemption(engine, budget):
    _planned(engine, budget, after=False)


@mutant("paging.step", says="it misses more than one token, like a prompt")
def takes_an_answer_for_a_decode(engine, budget):
    _planned(engine, budget, missing=lambda request: 1 if request.num_output_tokens else engine.missing(request))


@mutant("paging.step", says="b has 1 tokens to compute, so it cannot compute 0")
def shares_only_what_is_too_long(engine, budget):
    _planned(engine, budget, later=False)


@mutant("paging.make_room", says='ended with "a is in this step\'s plan already"')
def puts_the_wrong_one_back(engine, request, num_tokens):
    while not engine.allocate(request, num_tokens):
        victim = engine.running[-1]
        engine.release(victim)
        victim.num_computed_tokens = 0
        engine.waiting.insert(0, request)
        if victim is request:
            return False
    return True


@mutant("paging.shadow", says="one copy after the other")
def copies_from_the_last(shadow, plan, block_size):
    plan.moves.reverse()
    return ref.shadow_step(shadow, plan, block_size)


@mutant("paging.shadow", says="so its copy in block 3 holds nothing either")
def copies_what_is_there(shadow, plan, block_size):
    for _, source, target in plan.moves:
        for i in range(block_size):
            if source * block_size + i in shadow:
                shadow[target * block_size + i] = shadow[source * block_size + i]
    plan.moves.clear()
    return ref.shadow_step(shadow, plan, block_size)


@mutant("paging.shadow", says="b writes position 4 alone")
def writes_one_too_many(shadow, plan, block_size):
    for row in plan.scheduled:
        last = row.start - 1
        if last >= 0:
            slot = row.block_ids[last // block_size] * block_size + last % block_size
            if slot in shadow and not plan.moves:
                shadow[slot] = tuple(row.request.all_token_ids[: row.start])
    return ref.shadow_step(shadow, plan, block_size)
