"""Tierform: what a transformer costs on a chip, and what the chip does to the transformer.

The names below are loaded when they are first used, so that ``import tierform`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierform.compiled import prepare as _prepare

if TYPE_CHECKING:
    from tierform.chip.description import Chip, load_chip
    from tierform.errors import TierformError
    from tierform.mapping import Mapping, load_mapping
    from tierform.simulation.result import Result
    from tierform.simulation.simulate import simulate
    from tierform.workload.models import Model, load_model
    from tierform.workload.precision import PrecisionPlan
    from tierform.workload.task import (
        Adapters,
        BitFit,
        FineTuning,
        Full,
        Inference,
        LastLayers,
        LoRA,
        QLoRA,
        Training,
    )

__version__ = "0.1.0"
_prepare()

_HOME = {
    "Adapters": "workload.task",
    "BitFit": "workload.task",
    "Chip": "chip.description",
    "FineTuning": "workload.task",
    "Full": "workload.task",
    "Inference": "workload.task",
    "LastLayers": "workload.task",
    "LoRA": "workload.task",
    "Mapping": "mapping",
    "Model": "workload.models",
    "PrecisionPlan": "workload.precision",
    "QLoRA": "workload.task",
    "Result": "simulation.result",
    "TierformError": "errors",
    "Training": "workload.task",
    "load_chip": "chip.description",
    "load_mapping": "mapping",
    "load_model": "workload.models",
    "simulate": "simulation.simulate",
}

__all__ = [
    "Adapters",
    "BitFit",
    "Chip",
    "FineTuning",
    "Full",
    "Inference",
    "LastLayers",
    "LoRA",
    "Mapping",
    "Model",
    "PrecisionPlan",
    "QLoRA",
    "Result",
    "TierformError",
    "Training",
    "load_chip",
    "load_mapping",
    "load_model",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        value = getattr(importlib.import_module(f"tierform.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'tierform' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
