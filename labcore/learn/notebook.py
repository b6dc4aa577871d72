"""The one star import of every notebook.

Checks and claims (TODO, check, use, card, hint, solution, report, claim, quoted, given), ways to show things (source,
show, show_table, predict), what the book computes with (formula, same, facts, Quantity), and np, plt, sp.
"""

# ruff: noqa: E402
from labcore.learn.setup import NEEDED, live, require, setup

require(*NEEDED)

import matplotlib.pyplot as plt
import numpy as np
import sympy as sp

from labcore import facts
from labcore.core.units import Quantity
from labcore.formulas import formula, same
from labcore.learn.claims import claim, given, quoted
from labcore.learn.exercises import TODO, card, check, hint, report, solution, use
from labcore.learn.player import predict
from labcore.learn.plots import show
from labcore.learn.source import source
from labcore.learn.tables import show_table

__all__ = [
    "TODO",
    "Quantity",
    "card",
    "check",
    "claim",
    "facts",
    "formula",
    "given",
    "hint",
    "live",
    "np",
    "plt",
    "predict",
    "quoted",
    "report",
    "same",
    "setup",
    "show",
    "show_table",
    "solution",
    "source",
    "sp",
    "use",
]
