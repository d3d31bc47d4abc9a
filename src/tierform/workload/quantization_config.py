"""What ``quantization_config`` of a ``config.json`` says: the number formats in which a checkpoint's layers are stored.

Read are AWQ and GPTQ (bits and group), bitsandbytes (NF4, or LLM.int8), fp8 (whole or blockwise, with fp8 inputs),
mxfp4, and compressed-tensors (the first group of its ``config_groups``).  Embedding and head stay wide, as those
quantizers leave them.  `simulate` takes these formats in inference, unless the task's own weights are narrower than 16
bits already.

Where the checkpoint exempts attention or FFN in every layer (`modules_to_not_convert` and its kin), they stay wide,
too, as in Meta's Llama 3.1 405B in fp8.

Limits: modules that are exempted in some layers alone are counted as quantized; zero points of AWQ and GPTQ are counted
with the scales of their groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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


_EXEMPTING = ("modules_to_not_convert", "ignored_layers", "ignore", "llm_int8_skip_modules")
_PARTS = {"self_attn": "attention", "attention": "attention", "attn": "attention", "mlp": "ffn", "feed_forward": "ffn"}
# The last product of a part: where it is exempted, its part is (a router, `mlp.gate`, is no part).
_LAST = ("o_proj", "out_proj", "dense", "wo", "down_proj", "fc2", "w2")
_MODULE = re.compile(rf"(?:[a-z_]*\.)*?(?:([0-9]{{1,5}})\.)?({'|'.join(_PARTS)})(?:\.({'|'.join(_LAST)}))?", re.ASCII)


def exempted(config: Config, layers: int) -> tuple[str, ...]:
    """Parts of a layer (attention, ffn) that a quantized checkpoint keeps wide in all of them."""
    stated = config.values.get("quantization_config")
    if not isinstance(stated, Mapping):
        return ()
    whole: set[str] = set()
    places: dict[str, set[str]] = {}
    for module in _exempted_modules(stated):
        found = _MODULE.fullmatch(module)
        if found is not None:
            part = _PARTS[found[2]]
            whole.update((part,) if found[1] is None else ())
            places.setdefault(part, set()).add(found[1] or "")
    return tuple(part for part in ("attention", "ffn") if part in whole or len(places.get(part, ())) >= layers)


def _exempted_modules(stated: Mapping[str, object]) -> Iterator[str]:
    """Modules that are named one by one, or by the pattern `re:.*self_attn.*`."""
    for key in _EXEMPTING:
        listed = stated.get(key)
        for module in listed if isinstance(listed, list) else ():
            if isinstance(module, str) and len(module) < 1000:
                yield module.removeprefix("re:").replace(".*", "").replace("\\", "").strip(".$^")


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
        attention_weights=plan.attention_weights or (wide if "attention" in model.wide_parts else None),
        ffn_weights=plan.ffn_weights or (wide if "ffn" in model.wide_parts else None),
        weights=model.weights_format,
        embedding_weights=plan.embedding_weights or (own.embedding if own else "") or wide,
        head_weights=plan.head_weights or (own.head if own else "") or wide,
        matmul_inputs=plan.matmul_inputs or model.inputs_format or None,
    )
    return replace(task, precision=made)
