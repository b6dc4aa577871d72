"""Lab 3: a paged engine. Build its memory and its step, test them without a model, and mend what others got wrong.

References: `lab03_references`, and methods of `labcore.kv.block_pool`. The checks hold the reader's functions against
the engine's own invariants (`labcore.engine.check`) in small random lives.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab03_claims, lab03_museum, lab03_pool, lab03_schedule

remove, free_blocks, grow = lab03_pool.EXERCISES
step, make_room = lab03_schedule.EXERCISES
shadow, mend = lab03_museum.EXERCISES
(refute,) = lab03_claims.EXERCISES
register(remove, free_blocks, grow, step, make_room, shadow, mend, refute)
