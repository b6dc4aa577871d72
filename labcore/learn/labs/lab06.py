"""Lab 6: Triton kernels. Softmax, attention in tiles, parts of it merged, keys behind a page table, 4-bit weights.

References: short kernels in `lab06_references`, which the tests hold against `labcore.kernels`. Everything runs in
Triton's interpreter on a CPU and natively on a GPU.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab06_attention, lab06_cost, lab06_paged, lab06_softmax, lab06_states

absorb, merge = lab06_states.EXERCISES
softmax, online = lab06_softmax.EXERCISES
tiled, tail = lab06_attention.EXERCISES
paged, gemv = lab06_paged.EXERCISES
traffic, split = lab06_cost.EXERCISES
register(absorb, softmax, online, tiled, traffic, tail, merge, paged, split, gemv)
