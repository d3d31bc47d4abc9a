"""What is computed: models, tasks, number formats, and the operators that a task becomes."""

from tierform.workload.expand import expand
from tierform.workload.graph import Block, Footprint, Stage, Weight, Workload
from tierform.workload.models import Model, load_model, model_from_config
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.precision import PRECISIONS, PrecisionPlan, bits
from tierform.workload.task import (
    Adapters,
    BitFit,
    FineTuning,
    Full,
    Inference,
    LastLayers,
    LoRA,
    QLoRA,
    Task,
    Training,
    describe,
    is_training,
)
from tierform.workload.trace import trace

__all__ = [
    "Adapters",
    "BitFit",
    "Block",
    "FineTuning",
    "Footprint",
    "Full",
    "Inference",
    "Kind",
    "LastLayers",
    "LoRA",
    "Model",
    "Operand",
    "Operator",
    "PRECISIONS",
    "Phase",
    "PrecisionPlan",
    "QLoRA",
    "Role",
    "Stage",
    "Task",
    "Training",
    "Weight",
    "Workload",
    "bits",
    "describe",
    "expand",
    "is_training",
    "load_model",
    "model_from_config",
    "trace",
]
