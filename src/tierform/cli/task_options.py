"""The options that describe a task, shared by the commands that simulate, and the task they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from tierform.cli.technique_options import TASK_KEYS, read_techniques, technique_options
from tierform.errors import Problem, TierformError

F = TypeVar("F", bound=Callable[..., Any])

TASKS = ("inference", "finetune", "train", "distill")
OPTIMIZERS = ("adamw", "adamw-8bit", "adafactor", "muon", "sgd", "sgd-momentum")
METHODS = (
    *("full", "lora", "qlora", "dora", "lora-fa", "vera", "ia3", "prompt", "galore"),
    *("adapters", "bitfit", "last-layers"),
)

_OPTIONS = [
    click.option("--task", type=click.Choice(TASKS), default="inference", show_default=True),
    click.option("--method", type=click.Choice(METHODS), help="What learns (finetune, train).  [default: full]"),
    click.option("--rank", type=int, help="Rank of LoRA and its kin, and of GaLore.  [default: 8, 256 or 128]"),
    click.option(
        "--targets",
        help="Matrices with adapters: q,k,v,o,up,gate,down, Hugging Face's names, or all-linear.  [default: q,v]",
    ),
    click.option("--tokens", type=int, help="Learned vectors in front of a sequence, with prompt.  [default: 20]"),
    click.option("--bottleneck", type=int, help="Width of bottleneck adapters.  [default: 64]"),
    click.option("--last", type=int, help="How many layers learn with last-layers.  [default: 2]"),
    click.option("--batch", type=int, default=1, show_default=True),
    click.option("--sequence", type=int, help="Tokens of a prompt or sample.  [default: 512, or what the model has]"),
    click.option("--decode", type=int, default=0, show_default=True, help="Tokens to generate after the prompt."),
    click.option("--no-prefill", is_flag=True, help="Leave the prompt's own pass out."),
    click.option("--weights", help="Weights: a format (int8, int4-g128, q4_k_m), a width (8), or by module (M8F4)."),
    click.option("--activations", help="Format of activations."),
    click.option("--kv-cache", help="Format of the KV cache."),
    click.option("--gradients", help="Format of gradients."),
    click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="adamw", show_default=True),
    click.option("--gradient-accumulation", type=int, default=1, show_default=True),
    click.option(
        "--recomputation",
        default="none",
        show_default=True,
        help="none, selective or full; with layers behind it: full:12 (the first), full:0,4-7.",
    ),
    click.option("--fused-loss", is_flag=True, help="Make logits and loss a piece at a time, never whole in memory."),
    click.option("--teacher", help="distill: the model that the student learns from."),
    click.option("--teacher-weights", help="distill: the format of its weights.  [default: as the task's]"),
    click.option(
        "--fused-update", is_flag=True, help="Update each layer as soon as its gradients are there; drop them."
    ),
    click.option(
        "--offload",
        help="What waits in a host's memory: weights, kv-cache, gradients, optimizer, paged-optimizer, activations.",
    ),
    click.option("--host", help="The host's memory: pcie5-dram, pcie4-dram, nvme.  [default: pcie5-dram]"),
    click.option("--steps", type=int, default=1, show_default=True, help="Optimizer steps."),
]


def task_options(command: F) -> F:
    """Add the task's options to a command; they arrive as keyword arguments for :func:`make_task`."""
    command = technique_options(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_task(chip_precision: object, **given: Any) -> Any:
    """The task that the options describe; TierformError with every mistake.

    `chip_precision` is the chip's own precision plan (or None), which single options change.
    """
    from tierform.workload.task import FineTuning, Inference, Training

    problems: list[Problem] = []
    away: dict[str, Any] = {}
    if given["offload"]:
        away["offload"] = tuple(part.strip() for part in given["offload"].split(",") if part.strip())
    if given["host"]:
        away["host"] = given["host"]
    sequence = 512 if given["sequence"] is None else given["sequence"]
    precision = _attempt(problems, lambda: _precision(chip_precision, given))
    if given["task"] == "inference":
        problems += [
            Problem("has no meaning for inference", key=f"--{key}", value=given[key], fix="Add --task finetune.")
            for key in (
                *("method", "rank", "targets", "bottleneck", "last", "tokens", "fused_loss", "fused_update"),
                *("teacher", "teacher_weights"),
            )
            if given[key] not in (None, False)
        ]
        task = _attempt(
            problems,
            lambda: Inference(given["batch"], sequence, given["decode"], not given["no_prefill"], **away),
        )
        techniques = _attempt(problems, lambda: read_techniques(given))
        if task is not None and techniques:
            task = replace(task, **techniques)
    else:
        for key in ("decode", *TASK_KEYS):
            if given.get(key):
                option = f"--{key.replace('_', '-')}"
                problems.append(Problem("has no meaning for training", key=option, value=given[key]))
        if given["task"] != "distill":
            problems += [
                Problem("has no meaning without --task distill", key=f"--{key.replace('_', '-')}", value=given[key])
                for key in ("teacher", "teacher_weights")
                if given.get(key)
            ]
        method = _attempt(problems, lambda: _method(given))
        kind = {"finetune": FineTuning, "train": Training, "distill": _student(given)}[given["task"]]
        task = _attempt(
            problems,
            lambda: kind(
                method=method if method is not None else FineTuning().method,
                batch=given["batch"],
                sequence=sequence,
                steps=given["steps"],
                optimizer=given["optimizer"],
                gradient_accumulation=given["gradient_accumulation"],
                recomputation=given["recomputation"],
                fused_loss=given["fused_loss"],
                fused_update=given["fused_update"],
                **away,
            ),
        )
    if problems:
        raise TierformError(problems)
    return replace(task, precision=precision) if precision is not None else task


def _student(given: dict[str, Any]) -> Callable[..., Any]:
    """What makes a distillation of the options of a fine-tuning."""
    from functools import partial

    from tierform.workload.task import Distillation

    teacher, form = given.get("teacher") or "", given.get("teacher_weights") or ""
    return partial(Distillation, teacher=teacher, teacher_weights=form)


def _attempt(problems: list[Problem], make: Callable[[], object]) -> Any:
    try:
        return make()
    except TierformError as error:
        problems += error.problems
        return None


def _method(given: dict[str, Any]) -> Any:
    from tierform.workload.adapter_methods import IA3, DoRA, GaLore, LoRAFA, PromptTuning, VeRA
    from tierform.workload.task import Adapters, BitFit, Full, LastLayers, LoRA, QLoRA

    name = given["method"] or ("lora" if given["rank"] is not None or given["targets"] else "full")
    allowed = {
        "lora": ("rank", "targets"),
        **dict.fromkeys(("qlora", "dora", "lora-fa", "vera"), ("rank", "targets")),
        "ia3": ("targets",),
        "galore": ("rank",),
        "prompt": ("tokens",),
        "adapters": ("bottleneck",),
        "last-layers": ("last",),
    }.get(name, ())
    problems = [
        Problem(f"has no meaning for the method {name!r}", key=f"--{key}", value=given[key])
        for key in ("rank", "targets", "bottleneck", "last", "tokens")
        if given[key] is not None and key not in allowed
    ]
    if problems:
        raise TierformError(problems)
    targets = tuple(part.strip() for part in (given["targets"] or "q,v").split(",") if part.strip())
    newer = {"dora": DoRA, "lora-fa": LoRAFA, "vera": VeRA, "ia3": IA3, "prompt": PromptTuning, "galore": GaLore}
    if name in newer:
        chosen = {"rank": given["rank"], "targets": targets if given["targets"] else None, "tokens": given["tokens"]}
        return newer[name](**{key: value for key, value in chosen.items() if value is not None})
    rank = 8 if given["rank"] is None else given["rank"]
    match name:
        case "lora":
            return LoRA(rank, targets)
        case "qlora":
            return QLoRA(rank, targets)
        case "adapters":
            return Adapters(64 if given["bottleneck"] is None else given["bottleneck"])
        case "bitfit":
            return BitFit()
        case "last-layers":
            return LastLayers(2 if given["last"] is None else given["last"])
    return Full()


def _precision(chip_precision: Any, given: dict[str, Any]) -> Any:
    from tierform.workload.precision import PrecisionPlan, bits
    from tierform.workload.task import FineTuning, Inference, resolved_precision

    keys = {"activations": "activations", "kv_cache": "kv_cache", "gradients": "gradients"}
    own = {"matmul_inputs": given.get("inputs"), "unpacked_weights": given.get("unpack_weights")}
    changed = {name: value for name, value in own.items() if value}
    if not given["weights"] and not any(given[key] for key in keys) and not changed:
        return None
    inference = given["task"] == "inference"
    plan: PrecisionPlan = chip_precision or resolved_precision(Inference() if inference else FineTuning())
    if inference:
        plan = replace(plan, master_weights=None)
    if given["weights"]:
        plan = plan.with_weights(given["weights"])
    for option, name in keys.items():
        if given[option]:
            text = f"int{given[option]}" if str(given[option]).isdigit() else given[option]
            bits(text)
            plan = replace(plan, **{name: text})
    return replace(plan, **changed) if changed else plan
