"""What lab 3 asks for, solved: growing a block table, the scheduler's step, preemption, the shadow cache, two reports.

`remove` and `free_blocks`, the first answers, are the library's own (`labcore.kv.block_pool`).
Sources: PagedAttention (arXiv:2309.06180, sections 4.3 to 4.5); vLLM 0.9.2, vllm/v1/core/sched/scheduler.py; chunked
prefill, Sarathi-Serve (2403.02310, section 4).
"""

from __future__ import annotations


def grow(pool, table, num_computed, num_new, block_size):
    """Make room in `table` for `num_new` tokens behind `num_computed` ones: the copies to make, (source, target) each.

    A block that is written has one holder. None, with nothing changed, if too few blocks are free.
    """
    first = num_computed // block_size  # the first block that will be written
    shared = first < len(table) and pool.blocks[table[first]].ref_cnt > 1
    new = max(0, -(-(num_computed + num_new) // block_size) - len(table))
    if new + shared > pool.num_free_blocks:
        return None
    copies = []
    if shared:
        (private,) = pool.get_new_blocks(1)
        copies.append((table[first], private))
        pool.free_blocks([table[first]])
        table[first] = private
    table += pool.get_new_blocks(new)
    return copies


def step(engine, budget):
    """Plan one step of at most `budget` tokens: first whoever runs, then whoever waits, in order of arrival."""
    place = 0
    while place < len(engine.running):  # which gets shorter when somebody is preempted
        request, place = engine.running[place], place + 1
        later = len(engine.running) - place  # each of these needs a token, too
        tokens = min(engine.missing(request), budget - later)
        if engine.make_room(request, tokens):
            budget -= tokens
    while engine.waiting and budget and len(engine.running) < engine.config.max_num_seqs:
        request = engine.waiting[0]
        tokens = min(engine.missing(request), budget)  # a prompt that is too long is computed in chunks
        if not engine.allocate(request, tokens):
            return
        budget -= tokens


def make_room(engine, request, num_tokens):
    """Allocate for a running `request`; while blocks are short, preempt the youngest. False if that was itself."""
    while not engine.allocate(request, num_tokens):
        victim = engine.running[-1]
        engine.release(victim)
        victim.num_computed_tokens = 0  # its blocks are gone; its tokens are not
        engine.waiting.insert(0, victim)
        if victim is request:
            return False
    return True


def shadow_step(shadow, plan, block_size):
    """Carry out `plan` on `shadow`, a dict from slot to the tokens it stands for: the token there and all before it.

    Returns (request id, position) of the first read that finds anything else, or None.
    """

    def slot(row, position):
        return row.block_ids[position // block_size] * block_size + position % block_size

    for _, source, target in plan.moves:
        for i in range(block_size):
            shadow[target * block_size + i] = shadow.get(source * block_size + i)
    for row in plan.scheduled:
        for position in range(row.start, row.start + row.num_tokens):
            shadow[slot(row, position)] = tuple(row.request.all_token_ids[: position + 1])
    for row in plan.scheduled:
        for position in range(row.start + row.num_tokens):
            if shadow.get(slot(row, position)) != tuple(row.request.all_token_ids[: position + 1]):
                return row.request.request_id, position
    return None


def mend(case):
    """(name of the defect, a line as it stands, the line as it should be) of a case of the bug museum."""
    return case.name, case.exhibit.wrong, case.exhibit.right


GALLERY = (
    [(0, 5, 1)],  # one request, alone
    [(0, 4, 4), (0, 4, 4)],  # two alike
    [(0, 4, 2)] * 10,  # more than there are places
    [(0, 4, 30)] * 6,  # answers that grow beyond the pool together
    [(0, 4, 40), (3, 50, 2)],  # a long prompt meets a running answer
    [(0, 30, 30)] * 4,  # preempted while others need every block
)


def refute(claim):
    """A workload on which `claim` fails, or None if none of the gallery's does."""
    return next((workload for workload in GALLERY if not claim(workload)), None)
