"""Facts about hardware, models, prices and workloads: data files with source and date, read into frozen dataclasses.

No such constant lives anywhere else in the package. Sizes are bytes, rates per second, money US dollars.
"""

from labcore.facts.browser import as_json
from labcore.facts.hardware import DTYPES, Hardware, hardware, hardware_ids
from labcore.facts.layers import MLA, GatedDeltaNet, LayerAttention, MoE
from labcore.facts.lengths import BinnedLengths, Lengths
from labcore.facts.model import ModelConfig
from labcore.facts.models import model, model_ids
from labcore.facts.prices import ApiPrice, GpuPrice, price, price_ids
from labcore.facts.workloads import Workload, workload, workload_ids

__all__ = [
    "DTYPES",
    "MLA",
    "ApiPrice",
    "BinnedLengths",
    "GatedDeltaNet",
    "GpuPrice",
    "Hardware",
    "LayerAttention",
    "Lengths",
    "MoE",
    "ModelConfig",
    "Workload",
    "as_json",
    "hardware",
    "hardware_ids",
    "model",
    "model_ids",
    "price",
    "price_ids",
    "workload",
    "workload_ids",
]
