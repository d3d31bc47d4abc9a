"""Which number format each kind of tensor of a block has, by the task's precision plan."""

from __future__ import annotations

from tierform.workload.formats import element, resolved
from tierform.workload.matrix_formats import LayerFormats, MatrixFormats
from tierform.workload.models import Model
from tierform.workload.precision import PrecisionPlan, bits
from tierform.workload.tape import Formats


def formats_of(plan: PrecisionPlan, training: bool, model: Model | None = None, own: LayerFormats = ()) -> Formats:
    """The formats of a block's tensors; biases and gains stay wide where weights are narrow.

    `own` are the formats of the layer's matrices, where each has its own.
    """
    return Formats(
        activations=plan.activations,
        gradients=plan.gradients,
        weight_gradients=plan.weight_gradients,
        kv_cache=plan.activations if training else plan.kv_cache,
        adapters=plan.adapters,
        weights=plan.weights,
        attention=plan.weight_precision("attention"),
        ffn=plan.weight_precision("ffn"),
        vectors=plan.activations if bits(plan.weights) < 16 else element(plan.weights),
        loss="fp32" if bits(plan.activations) < 32 else plan.activations,
        embedding=plan.weight_precision("embedding"),
        head=plan.weight_precision("head"),
        inputs=None if training else plan.matmul_inputs,
        unpack=None if training else plan.unpacked_weights,
        mixed=None if model is None else lambda name, part, target: resolved(name, part, target, model, own),
    )


def own_formats(plan: PrecisionPlan, training: bool, model: Model) -> MatrixFormats | None:
    """The formats of every single matrix of the model's checkpoint, where an inference runs in them."""
    return model.matrix_formats if plan.weights == model.weights_format and not training else None
