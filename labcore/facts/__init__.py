"""Facts about hardware, models, prices and workloads: data files with source and date, read into frozen dataclasses.

No such constant lives anywhere else in the package. Sizes are bytes, rates per second, money US dollars.
"""

from labcore.facts.browser import as_json
from labcore.facts.hardware import DTYPES, Hardware, hardware, hardware_ids
from labcore.facts.layers import MLA, GatedDeltaNet, LayerAttention, MoE
from labcore.facts.model import ModelConfig
from labcore.facts.models import model, model_ids

__all__ = [
    "DTYPES",
    "MLA",
    "GatedDeltaNet",
    "Hardware",
    "LayerAttention",
    "MoE",
    "ModelConfig",
    "as_json",
    "hardware",
    "hardware_ids",
    "model",
    "model_ids",
]
