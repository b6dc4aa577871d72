"""Lab 2: the KV cache. Write one that runs a real model, compute its size for any model, make it smaller, and debug it.

References: `lab02_references`, and the library's own attention. The checks use published configs from `labcore.facts`
and a small model with random weights, held against passes without a cache.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab02_cache, lab02_sizes, lab02_smaller

attention, cached_pass, debug_stream = lab02_cache.EXERCISES
config_bytes, fit, falsify = lab02_sizes.EXERCISES
absorb, quantize = lab02_smaller.EXERCISES
register(attention, cached_pass, config_bytes, fit, absorb, quantize, debug_stream, falsify)
