"""Turns any ``torch.nn.Module`` into the same operator graph, without loading weights.

The module is exported by ``torch.export`` under fake tensors (it may live on the meta device); each ATen node is made
an operator (:mod:`tierform.workload.aten`).  Nodes are grouped by the first numbered module on their path (the layers
of a ModuleList), and equal consecutive layers become one block.  With ``training=True`` the backward pass is derived by
the rules of :mod:`tierform.workload.backward` for the parameters whose ``requires_grad`` is set; a module that PEFT
wraps gives its adapters' training.  Limits: control flow that depends on values cannot be exported; what an operator
outside the table costs beyond one operation per output value is not known, and those that hide a matmul are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tierform.errors import MissingDependency, fail
from tierform.workload.backward import Reverse, kept_and_recomputed
from tierform.workload.footprint import footprint, peak_B
from tierform.workload.graph import Block, Stage, StageKind, Wave, Weight, Workload
from tierform.workload.models import Model
from tierform.workload.operator import Operator, Role
from tierform.workload.precision import PrecisionPlan
from tierform.workload.tape import Learning, Tape, Value
from tierform.workload.task import FineTuning, Inference, Task
from tierform.workload.update import update_operators

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"^((?:[A-Za-z_]\w*\.)*)(\d+)(?:\.|$)")


@dataclass(eq=False)
class Run:
    """Consecutive nodes of one layer (or of none): their tape, and the tensors that cross its border by node name."""

    prefix: str
    index: int | None
    tape: Tape
    entering: dict[str, Value] = field(default_factory=dict)
    leaving: dict[str, Value] = field(default_factory=dict)
    backward: tuple[Operator, ...] = ()

    def same_as(self, other: Run) -> bool:
        """Whether both are equal layers of the same list."""
        return (
            self.index is not None
            and other.index is not None
            and self.prefix == other.prefix
            and self.tape.operators == other.tape.operators
            and self.backward == other.backward
            and self.tape.parameters == other.tape.parameters
        )


def trace(
    module: torch.nn.Module,
    inputs: Sequence[Any] | Mapping[str, Any],
    *,
    training: bool = False,
    precision: PrecisionPlan | None = None,
    name: str | None = None,
) -> Workload:
    """The workload of one forward pass of `module` on `inputs` (and, `training`, its backward and update).

    `inputs` are tensors by position or by name; only shapes and types matter.  The first tensor's two leading sizes are
    taken as batch and sequence.  Raises TierformError where the module cannot be exported or torch is missing.
    """
    from tierform.workload.aten import Translation

    if find_spec("torch") is None:
        raise MissingDependency("torch", "tracing a module", "train")
    program, batch, sequence = _export(module, inputs)
    plan = precision or PrecisionPlan(master_weights="fp32" if training else None)
    task: Task = (
        FineTuning(batch=batch, sequence=sequence, precision=plan)
        if training
        else Inference(batch=batch, sequence=sequence, precision=plan)
    )
    translation = Translation(program, module, plan, training)
    runs = _runs(translation)
    if training:
        _differentiate(runs, translation.outputs)
    total = sum(p.numel() for p in module.parameters())
    model = _model(name or type(module).__name__, runs, total)
    return _workload(model, task, runs, total)


def _export(module: Any, inputs: Any) -> tuple[Any, int, int]:
    import torch

    positional, named = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    first = next((v for v in (*positional, *named.values()) if isinstance(v, torch.Tensor)), None)
    if first is None:
        fail("at least one input must be a tensor", key="inputs")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))

    class Outputs(torch.nn.Module):  # gives tensors only, whatever the module returns
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
            found = self.module(*args, **kwargs)
            values = found.values() if isinstance(found, Mapping) else found
            values = values if isinstance(values, (list, tuple, type({}.values()))) else [values]
            return [value for value in values if isinstance(value, torch.Tensor)]

    def placed(value: Any) -> Any:
        return torch.empty_like(value, device=device) if isinstance(value, torch.Tensor) else value

    settings = getattr(module, "config", None)
    caching = getattr(settings, "use_cache", None)
    try:
        if caching:
            settings.use_cache = False  # type: ignore[union-attr]
        with torch.no_grad():
            program = torch.export.export(
                Outputs(), tuple(map(placed, positional)), {k: placed(v) for k, v in named.items()}, strict=False
            )
    except Exception as error:
        reason = str(error).strip().splitlines()
        fail(
            f"torch.export cannot trace this module: {type(error).__name__}: {reason[0] if reason else ''}"[:400],
            value=type(module).__name__,
            fix="Control flow must not depend on tensor values.",
        )
    finally:
        if caching:
            settings.use_cache = caching  # type: ignore[union-attr]
    sizes = (*first.shape, 1, 1)
    return program, int(sizes[0]), int(sizes[1])


def layer_of(path: str) -> tuple[str, int | None]:
    """(list's path with a dot at its end, index) of a module path such as ``encoder.layer.3.attention``."""
    match = _LAYER.match(path)
    return (match.group(1), int(match.group(2))) if match else ("", None)


def _runs(translation: Any) -> list[Run]:
    """The graph's nodes, translated, in runs of one layer each; runs without operators are left out."""
    runs: list[Run] = []
    for node in translation.nodes:
        prefix, index = layer_of(translation.path(node))
        last = runs[-1] if runs else None
        if last is None or (last.prefix, last.index) != (prefix, index):
            tape = Tape(translation.formats, Learning(), translation.training)
            last = Run(prefix, index, tape)
            runs.append(last)
        translation.translate(node, last)
    return [run for run in runs if run.tape.operators]


def _differentiate(runs: list[Run], outputs: list[str]) -> None:
    """Walks the runs backwards; gradients of crossing tensors are passed on by node name."""
    arriving: dict[str, int] = dict.fromkeys(outputs, 1)
    for run in reversed(runs):
        reverse = Reverse(run.tape)
        starts: dict[int, Value] = {}
        for index, (node, value) in enumerate(run.leaving.items()):
            if value.grad and node in arriving:
                gradient = Value(f"out{index}.gradient", value.shape, run.tape.formats.gradients, Role.GRADIENT)
                if id(value) in starts:
                    continue
                starts[id(value)] = gradient
        reverse.run(starts)
        run.backward = tuple(reverse.operators)
        for node, value in run.entering.items():
            if id(value) in reverse.gradients:
                arriving[node] = 1


def _model(name: str, runs: list[Run], total: int) -> Model:
    layers = len({(run.prefix, run.index) for run in runs if run.index is not None})
    return Model(name, "traced", "traced", layers, 0, 0, 0, 0, 0, traced_parameters=max(1, total))


def _workload(model: Model, task: Task, runs: list[Run], total: int) -> Workload:
    grouped: list[tuple[str, list[Run]]] = []
    for run in runs:
        if grouped and grouped[-1][1][-1].same_as(run):
            grouped[-1][1].append(run)
        else:
            grouped.append(("", [run]))
    names: dict[str, int] = {}
    blocks: list[tuple[str, list[Run]]] = []
    for _, members in grouped:
        first, last = members[0], members[-1]
        base = first.prefix.rstrip(".") or ("layer" if first.index is not None else "other")
        if first.index is not None:
            base += f"[{first.index}]" if first is last else f"[{first.index}..{last.index}]"
        names[base] = names.get(base, 0) + 1
        blocks.append((base if names[base] == 1 else f"{base}.{names[base]}", members))
    weights = _weights(blocks)
    trained = sum(w.total for w in weights if w.trainable)
    forward = tuple(Block(label, len(members), tuple(members[0].tape.operators)) for label, members in blocks)
    tokens = task.batch * task.sequence
    if isinstance(task, Inference):
        memory = footprint(model, task, weights, max((peak_B(r.tape.operators) for r in runs), default=0), eager=True)
        return Workload(
            model, task, (Stage("prefill", StageKind.PREFILL, (Wave(forward, 1, tokens),)),), total, 0, memory, weights
        )
    backward = tuple(Block(n, len(rs), rs[0].backward) for n, rs in reversed(blocks) if rs[0].backward)
    update = tuple(
        Block(label, len(members), update_operators(own, task))
        for label, members in blocks
        if (own := [w for w in weights if w.block == label and w.trainable])
    )
    kept = sum(v.operand().size_B for run in runs for v in kept_and_recomputed(run.tape, "none")[0])
    stages = (
        Stage("forward", StageKind.FORWARD, (Wave(forward, 1, tokens),)),
        Stage("backward", StageKind.BACKWARD, (Wave(backward, 1, tokens),)),
        Stage("update", StageKind.UPDATE, (Wave(update),)),
    )
    return Workload(model, task, stages, total, trained, footprint(model, task, weights, kept, eager=True), weights)


def _weights(blocks: list[tuple[str, list[Run]]]) -> tuple[Weight, ...]:
    shared: set[str] = set()
    found = []
    for label, members in blocks:
        for name, w in members[0].tape.parameters.items():
            if members[0].index is None:
                if name in shared:
                    continue
                shared.add(name)
            found.append(
                Weight(
                    name,
                    label,
                    w.shape,
                    len(members),
                    w.groups,
                    w.active,
                    w.part,
                    w.precision,
                    w.trainable,
                    w.matrix,
                    w.adapter,
                )
            )
    return tuple(found)
