"""Tierform: what a transformer costs on a chip, and what the chip does to the transformer.

The names below are loaded when they are first used, so that ``import tierform`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tierform.compiled import prepare as _prepare

if TYPE_CHECKING:
    from tierform.chip.description import Chip, load_chip
    from tierform.errors import TierformError
    from tierform.exploration.study import Study, explore
    from tierform.mapping import Mapping, load_mapping
    from tierform.serving.engine import Engine, load_engine
    from tierform.serving.requests import Requests
    from tierform.serving.serve import serve
    from tierform.serving.service import Service
    from tierform.serving.slo import Slo
    from tierform.serving.traces import load_trace
    from tierform.simulation.fit import fit
    from tierform.simulation.job import Job
    from tierform.simulation.job_file import load_job, save_job
    from tierform.simulation.result import Result
    from tierform.simulation.runtime import Runtime, load_runtime
    from tierform.simulation.simulate import simulate, simulate_many
    from tierform.workload.adapter_methods import IA3, AdapterBatch, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
    from tierform.workload.graph import Workload
    from tierform.workload.models import Model, load_model
    from tierform.workload.parallel import MicroBatches, Parallelism
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
        SequenceGroup,
        Step,
        Training,
    )

__version__ = "0.1.0"
_prepare()

_HOME = {
    "AdapterBatch": "workload.adapter_methods",
    "Adapters": "workload.task",
    "BitFit": "workload.task",
    "Chip": "chip.description",
    "DoRA": "workload.adapter_methods",
    "Engine": "serving.engine",
    "FineTuning": "workload.task",
    "Full": "workload.task",
    "GaLore": "workload.adapter_methods",
    "IA3": "workload.adapter_methods",
    "Inference": "workload.task",
    "Job": "simulation.job",
    "LastLayers": "workload.task",
    "LoRA": "workload.task",
    "LoRAFA": "workload.adapter_methods",
    "Mapping": "mapping",
    "MicroBatches": "workload.parallel",
    "Model": "workload.models",
    "Parallelism": "workload.parallel",
    "PrecisionPlan": "workload.precision",
    "PromptTuning": "workload.adapter_methods",
    "QLoRA": "workload.task",
    "Requests": "serving.requests",
    "Result": "simulation.result",
    "Runtime": "simulation.runtime",
    "SequenceGroup": "workload.task",
    "Service": "serving.service",
    "Slo": "serving.slo",
    "Step": "workload.task",
    "Study": "exploration.study",
    "TierformError": "errors",
    "Training": "workload.task",
    "VeRA": "workload.adapter_methods",
    "Workload": "workload.graph",
    "explore": "exploration.study",
    "fit": "simulation.fit",
    "load_chip": "chip.description",
    "load_engine": "serving.engine",
    "load_job": "simulation.job_file",
    "load_mapping": "mapping",
    "load_model": "workload.models",
    "load_runtime": "simulation.runtime",
    "load_trace": "serving.traces",
    "save_job": "simulation.job_file",
    "serve": "serving.serve",
    "simulate": "simulation.simulate",
    "simulate_many": "simulation.simulate",
    "load_traced": "workload.tracing",
    "trace": "workload.tracing",
}

__all__ = [
    "AdapterBatch",
    "Adapters",
    "BitFit",
    "Chip",
    "DoRA",
    "Engine",
    "FineTuning",
    "Full",
    "GaLore",
    "IA3",
    "Inference",
    "Job",
    "LastLayers",
    "LoRA",
    "LoRAFA",
    "Mapping",
    "MicroBatches",
    "Model",
    "Parallelism",
    "PrecisionPlan",
    "PromptTuning",
    "QLoRA",
    "Requests",
    "Result",
    "Runtime",
    "SequenceGroup",
    "Service",
    "Slo",
    "Step",
    "Study",
    "TierformError",
    "Training",
    "VeRA",
    "Workload",
    "explore",
    "fit",
    "load_chip",
    "load_engine",
    "load_job",
    "load_mapping",
    "load_model",
    "load_runtime",
    "load_trace",
    "load_traced",
    "save_job",
    "serve",
    "simulate",
    "simulate_many",
    "trace",
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
