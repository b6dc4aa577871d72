"""Lab 1: the roofline. Count, bound and predict a decode step, and refute what people say about it.

References: `lab01_references`. The checks use real models and devices, from `labcore.facts`.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab01_bounds, lab01_steps

register(*lab01_bounds.EXERCISES, *lab01_steps.EXERCISES)
