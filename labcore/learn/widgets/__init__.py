"""Interactive parts: the same calculator in a live notebook, in the built book, and as a table where nothing runs.

calc = roofline_explorer(hardware="h100-sxm", model="llama-3-70b", batch=32, context=4096)
calc.results()["t_step"]            # what the page shows, in base units, from the registered formulas
calc.value["results"]["t_step"]     # what the reader's page shows now, in a live kernel
"""

from labcore.learn.widgets.base import Widget
from labcore.learn.widgets.calculator import Calculator, formula_calculator
from labcore.learn.widgets.kv import kv_calculator
from labcore.learn.widgets.measured import measured_roofline
from labcore.learn.widgets.roofline import roofline_explorer
from labcore.learn.widgets.size import size_calculator
from labcore.learn.widgets.speculation import draft_planner

__all__ = [
    "Calculator",
    "Widget",
    "draft_planner",
    "formula_calculator",
    "kv_calculator",
    "measured_roofline",
    "roofline_explorer",
    "size_calculator",
]
