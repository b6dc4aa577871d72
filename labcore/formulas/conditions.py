"""Ranges that several formulas share."""

from labcore.formulas.registry import Condition
from labcore.formulas.symbols import L, n_kv, n_q

CONTEXT = Condition(L > 0, "L=0 holds no cache to count with; give a context of 1 token or more")
GROUPS = Condition(n_kv <= n_q, "n_kv={n_kv} exceeds n_q={n_q}; a key/value head serves one query head or more")
