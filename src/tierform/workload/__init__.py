"""What is computed: models, tasks, number formats, and the operators that a task becomes."""

from tierform.workload.adapter_methods import IA3, AdapterBatch, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
from tierform.workload.expand import expand
from tierform.workload.graph import Block, Stage, StageKind, Wave, Weight, Workload
from tierform.workload.memory import BlockKind, BlockMemory, Footprint
from tierform.workload.models import Model, load_model, model_from_config
from tierform.workload.operator import Attention, Kind, Operand, Operator, Origin, Phase, Role, Shard
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.precision import PRECISIONS, PrecisionPlan, bits
from tierform.workload.task import (
    Adapters,
    BitFit,
    Distillation,
    FineTuning,
    Full,
    Inference,
    LastLayers,
    LoRA,
    QLoRA,
    SequenceGroup,
    Step,
    Task,
    Training,
    describe,
    is_training,
    resolved_precision,
)
from tierform.workload.tracing import load_traced, trace

__all__ = [
    "AdapterBatch",
    "Adapters",
    "Attention",
    "BitFit",
    "Block",
    "BlockKind",
    "BlockMemory",
    "Distillation",
    "DoRA",
    "FineTuning",
    "Footprint",
    "Full",
    "GaLore",
    "IA3",
    "Inference",
    "Kind",
    "LastLayers",
    "LoRA",
    "LoRAFA",
    "MicroBatches",
    "Model",
    "Operand",
    "Operator",
    "Origin",
    "PRECISIONS",
    "Parallelism",
    "Phase",
    "PrecisionPlan",
    "PromptTuning",
    "QLoRA",
    "Role",
    "SequenceGroup",
    "Shard",
    "Stage",
    "StageKind",
    "Step",
    "Task",
    "Training",
    "Wave",
    "Weight",
    "VeRA",
    "Workload",
    "bits",
    "describe",
    "expand",
    "is_training",
    "load_model",
    "load_traced",
    "model_from_config",
    "resolved_precision",
    "trace",
]
