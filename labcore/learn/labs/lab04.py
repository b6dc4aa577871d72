"""Lab 4: speculative decoding. Write the rule, test it, plan it, draft without a model, verify a tree, and measure.

References: `labcore.sampling.rejection` and `lab04_references`. Every law is small enough to be exact; the last section
runs drafts of known acceptance through the engine and counts passes.
"""

from labcore.learn.exercises import register
from labcore.learn.labs import lab04_audit, lab04_candidates, lab04_cost, lab04_drafts, lab04_rule, lab04_tree

accept, chain = lab04_rule.EXERCISES
(biased,) = lab04_audit.EXERCISES
plan, lookup = lab04_drafts.EXERCISES
tree, rollback = lab04_tree.EXERCISES
(candidates,) = lab04_candidates.EXERCISES
typical, estimate = lab04_cost.EXERCISES
register(accept, chain, biased, plan, lookup, tree, rollback, candidates, typical, estimate)
