"""Lab 5: quantization. Make a grid, round to it, let other weights make up for the error, and judge the result.

References: `labcore.quant` and `labcore.formats`, in the shapes of `lab05_references`. Matrices are small and float64
until the last section, which quantizes a model that was trained in float.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab05_activations, lab05_blocked, lab05_grid, lab05_obs, lab05_protocol

grid, rtn = lab05_grid.EXERCISES
obs, eliminate, gptq = lab05_obs.EXERCISES
(blocked,) = lab05_blocked.EXERCISES
awq, outliers = lab05_activations.EXERCISES
nf4, decide = lab05_protocol.EXERCISES
register(grid, rtn, obs, eliminate, gptq, blocked, awq, outliers, nf4, decide)
