"""Attention over a paged KV cache: one description of a step, interchangeable backends that carry it out."""
