"""Which number format each kind of tensor of a block has, by the task's precision plan."""

from __future__ import annotations

from tierform.workload.formats import resolved
from tierform.workload.models import Model
from tierform.workload.precision import PrecisionPlan, bits
from tierform.workload.tape import Formats


def formats_of(plan: PrecisionPlan, training: bool, model: Model | None = None) -> Formats:
    """The formats of a block's tensors; biases and gains stay wide where weights are narrow."""
    return Formats(
        activations=plan.activations,
        gradients=plan.gradients,
        weight_gradients=plan.weight_gradients,
        kv_cache=plan.activations if training else plan.kv_cache,
        adapters=plan.adapters,
        weights=plan.weights,
        attention=plan.weight_precision("attention"),
        ffn=plan.weight_precision("ffn"),
        vectors=plan.activations if bits(plan.weights) < 16 else plan.weights,
        loss="fp32" if bits(plan.activations) < 32 else plan.activations,
        embedding=plan.weight_precision("embedding"),
        head=plan.weight_precision("head"),
        inputs=None if training else plan.matmul_inputs,
        unpack=None if training else plan.unpacked_weights,
        mixed=None if model is None else lambda name, part, target: resolved(name, part, target, model),
    )
