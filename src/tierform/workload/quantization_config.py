"""What ``quantization_config`` of a ``config.json`` says: the number formats in which a checkpoint's layers are stored.

Read are AWQ and GPTQ (bits and group), bitsandbytes (NF4, or LLM.int8), fp8 (whole or blockwise, with fp8 inputs),
mxfp4, and compressed-tensors (the first group of its ``config_groups``).  Embedding and head stay wide, as those
quantizers leave them.  `simulate` takes these formats in inference, unless the task's own weights are narrower than 16
bits already.

Limits: modules that a checkpoint exempts beyond embedding and head are counted as quantized; zero points of AWQ and
GPTQ are counted with the scales of their groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tierform.errors import nearest
from tierform.workload.precision import PrecisionPlan, bits
from tierform.workload.task import Inference, Step, Task, resolved_precision

if TYPE_CHECKING:
    from tierform.workload.config import Config
    from tierform.workload.models import Model

METHODS = ("awq", "gptq", "bitsandbytes", "fp8", "fbgemm_fp8", "mxfp4", "compressed-tensors")
NF4_BLOCK = 64


def read_formats(config: Config) -> tuple[str, str]:
    """(format of the layers' weights, format of their inputs); empty where nothing is said."""
    stated = config.values.get("quantization_config")
    if stated is None:
        return "", ""
    if not isinstance(stated, Mapping):
        config.problem("an object is needed", "quantization_config", stated)
        return "", ""
    method = stated.get("quant_method")
    if method is None and (stated.get("load_in_4bit") or stated.get("load_in_8bit")):
        method = "bitsandbytes"
    match method:
        case "awq" | "gptq":
            return _grouped(config, stated.get("bits", stated.get("w_bit", 4)), stated.get("group_size", 128)), ""
        case "bitsandbytes":
            return (f"nf4-{NF4_BLOCK}", "") if stated.get("load_in_4bit") else ("int8-channel", "int8")
        case "fp8" | "fbgemm_fp8":
            return "fp8", "fp8"
        case "mxfp4":
            return "mxfp4", ""
        case "compressed-tensors":
            return _compressed(config, stated)
    fix = f"Known: {', '.join(METHODS)}; or take the key out and say the formats with --weights and --inputs."
    near = nearest(str(method), METHODS)
    config.problem("no such quantization", "quantization_config.quant_method", method, near=near, fix=fix)
    return "", ""


def _grouped(config: Config, width: object, group: object) -> str:
    if isinstance(width, bool) or not isinstance(width, int) or not 2 <= width <= 8:
        config.problem("must be a whole number from 2 to 8", "quantization_config.bits", width)
        return ""
    if isinstance(group, bool) or not isinstance(group, int) or (group != -1 and group < 1):
        config.problem("must be a whole number of at least 1, or -1", "quantization_config.group_size", group)
        return ""
    return f"int{width}-channel" if group == -1 else f"int{width}-g{group}"


def _compressed(config: Config, stated: Mapping[str, object]) -> tuple[str, str]:
    groups = stated.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if not isinstance(first, Mapping) or not isinstance(weights, Mapping):
        config.problem("a group with `weights` is needed", "quantization_config.config_groups", stated.get("format"))
        return "", ""
    inputs = first.get("input_activations")
    narrow = isinstance(inputs, Mapping) and inputs.get("num_bits") == 8
    if weights.get("type") == "float":
        form = "fp8" if weights.get("num_bits") == 8 else "mxfp4"
    else:
        group = weights.get("group_size")
        form = _grouped(config, weights.get("num_bits"), -1 if group is None else group)
    given = str(inputs.get("type")) if isinstance(inputs, Mapping) else ""
    return form, ({"float": "fp8"}.get(given, "int8") if narrow else "")


def quantized(task: Task, model: Model) -> Task:
    """The task in the formats of the model's checkpoint; the task itself where it has its own or is a training."""
    if not model.weights_format or not isinstance(task, (Inference, Step)):
        return task
    plan: PrecisionPlan = resolved_precision(task)
    if bits(plan.weights) < 16:
        return task
    wide, own = plan.weights, model.matrix_formats
    made = replace(
        plan,
        weights=model.weights_format,
        embedding_weights=plan.embedding_weights or (own.embedding if own else "") or wide,
        head_weights=plan.head_weights or (own.head if own else "") or wide,
        matmul_inputs=plan.matmul_inputs or model.inputs_format or None,
    )
    return replace(task, precision=made)
