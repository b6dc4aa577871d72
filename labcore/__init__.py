"""The engine, formulas and learning tools behind the book."""

__version__ = "0.1.0"
