"""Turns any ``torch.nn.Module`` into the same operator graph, without loading weights.

The module is exported by ``torch.export`` under fake tensors (it may live on the meta device); each ATen node is made
an operator (:mod:`tierform.workload.tracing.translate`).  Nodes are grouped by the first numbered module on their path
(the layers of a ModuleList), and equal consecutive layers become one block.  With ``training=True`` the backward pass
is derived by the rules of :mod:`tierform.workload.reverse` for the parameters whose ``requires_grad`` is set; a module
that PEFT wraps gives its adapters' training.  Limits: control flow that depends on values cannot be exported; what an
operator outside the table costs beyond one operation per output value is not known, and those that hide a matmul are
refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tierform.errors import MissingDependency, Problem, TierformError, fail
from tierform.workload.footprint import peak_B, states_of
from tierform.workload.graph import Block, Stage, StageKind, Wave, Weight, Workload
from tierform.workload.layout import read_by, weight_of, with_rest, written_by
from tierform.workload.memory import BlockKind, BlockMemory, even_cut
from tierform.workload.models import Model
from tierform.workload.operator import Operator, Phase, Role
from tierform.workload.ops.optimizer import update_operators
from tierform.workload.parallel import ALONE, Parallelism, split_problems
from tierform.workload.precision import PrecisionPlan
from tierform.workload.reductions import reduction_blocks
from tierform.workload.reverse import Reverse, kept_and_recomputed
from tierform.workload.sharding import backward_stages, gathered_B, sharded_backward, unscattered_B, with_gathers
from tierform.workload.tape import Learning, Tape, Value
from tierform.workload.task import FineTuning, Inference, Task, resolved_precision
from tierform.workload.tracing.cores import mark_cores

if TYPE_CHECKING:
    import torch

REPEATED = "traced: products with weights are cut by outputs and gathered; all else is repeated on every chip"
_LAYER = re.compile(r"^((?:[A-Za-z_]\w*\.)*)(\d+)(?:\.|$)")


@dataclass(eq=False)
class TracedRun:
    """Consecutive nodes of one layer (or of none): their tape, and the tensors that cross its border by node name."""

    prefix: str
    index: int | None
    tape: Tape
    entering: dict[str, Value] = field(default_factory=dict)
    leaving: dict[str, Value] = field(default_factory=dict)
    backward: tuple[Operator, ...] = ()
    scores: frozenset[str] = frozenset()
    entered: dict[int, Value] = field(default_factory=dict)  # for cut weights
    kept: tuple[Value, ...] = ()

    @property
    def saved_B(self) -> int:
        """Bytes that wait for the backward pass."""
        return sum(value.operand().size_B for value in self.kept)

    def same_as(self, other: TracedRun) -> bool:
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
    task: Task | None = None,
    parallelism: Parallelism = ALONE,
) -> Workload:
    """The workload of one forward pass of `module` on `inputs` (and, `training`, its backward and update).

    `inputs` are tensors by position or by name; only shapes and types matter.  The first tensor's two leading sizes
    are taken as batch and sequence, unless a `task` states them.  With data parallelism they are those of one copy.
    Tensor parallelism cuts each product with a weight by its outputs, where they divide, and gathers its result;
    everything else is repeated on every chip, and a note says so.  Raises TierformError where the module cannot be
    exported or torch is missing.
    """
    from tierform.workload.tracing.translate import Translation

    if find_spec("torch") is None:
        raise MissingDependency("torch", "tracing a module", "train")
    program, batch, sequence = _export(module, inputs)
    if task is None:
        make = FineTuning if training else Inference
        task = make(batch=batch * parallelism.data, sequence=sequence, precision=precision)
    plan, training = resolved_precision(task), isinstance(task, FineTuning)
    passes = task.gradient_accumulation if isinstance(task, FineTuning) else 1
    problems = split_problems(training, passes, parallelism)
    if parallelism.context > 1:
        what = "a traced module's attention is not laid out for chips that share a sequence"
        problems.append(Problem(what, key="context", value=parallelism.context, fix="Leave context out."))
    if problems:
        raise TierformError(problems)
    translation = Translation(program, module, plan, training)
    runs = _runs(translation, parallelism)
    for run in runs:
        mark_cores(run.tape)
    if training:
        accumulate = isinstance(task, FineTuning) and task.gradient_accumulation > 1 and parallelism.zero < 2
        _differentiate(runs, translation.outputs, accumulate)
    total = sum(p.numel() for p in module.parameters())
    model = _model(name or type(module).__name__, runs, total)
    return _workload(model, task, runs, total, parallelism)


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

    def placed(value: object) -> object:
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


def _runs(translation: Any, split: Parallelism) -> list[TracedRun]:
    """The graph's nodes, translated, in runs of one layer each; runs without operators are left out."""
    runs: list[TracedRun] = []
    for node in translation.nodes:
        prefix, index = layer_of(translation.path(node))
        last = runs[-1] if runs else None
        if last is None or (last.prefix, last.index) != (prefix, index):
            tape = Tape(translation.formats, Learning(), training=translation.training, tensor=split.tensor)
            last = TracedRun(prefix, index, tape)
            runs.append(last)
        translation.translate(node, last)
    return [run for run in runs if run.tape.operators]


def _differentiate(runs: list[TracedRun], outputs: list[str], accumulate: bool) -> None:
    """Walks the runs backwards; gradients of crossing tensors are passed on by node name."""
    arriving: dict[str, int] = dict.fromkeys(outputs, 1)
    for run in reversed(runs):
        reverse = Reverse(run.tape, accumulate)
        starts: dict[int, Value] = {}
        for index, (node, value) in enumerate(run.leaving.items()):
            if value.grad and node in arriving:
                gradient = Value(f"out{index}.gradient", value.shape, run.tape.formats.gradients, Role.GRADIENT)
                if id(value) in starts:
                    continue
                starts[id(value)] = gradient
        reverse.run(starts)
        run.kept = kept_and_recomputed(run.tape, "none", "tiled")[0]
        run.backward, run.scores = tuple(reverse.operators), frozenset(run.tape.scores | reverse.scores)
        for node, value in run.entering.items():
            if id(value) in reverse.gradients:
                arriving[node] = 1


def _model(name: str, runs: list[TracedRun], total: int) -> Model:
    layers = len({(run.prefix, run.index) for run in runs if run.index is not None})
    return Model(
        name,
        "traced",
        "traced",
        layers,
        hidden_size=0,
        heads=0,
        kv_heads=0,
        head_dim=0,
        ffn_size=0,
        traced_parameters=max(1, total),
    )


def _workload(model: Model, task: Task, runs: list[TracedRun], total: int, split: Parallelism) -> Workload:
    grouped: list[tuple[str, list[TracedRun]]] = []
    for run in runs:
        if grouped and grouped[-1][1][-1].same_as(run):
            grouped[-1][1].append(run)
        else:
            grouped.append(("", [run]))
    names: dict[str, int] = {}
    blocks: list[tuple[str, list[TracedRun]]] = []
    for _, members in grouped:
        first, last = members[0], members[-1]
        base = first.prefix.rstrip(".") or ("layer" if first.index is not None else "other")
        if first.index is not None:
            base += f"[{first.index}]" if first is last else f"[{first.index}..{last.index}]"
        names[base] = names.get(base, 0) + 1
        blocks.append((base if names[base] == 1 else f"{base}.{names[base]}", members))
    weights = _weights(blocks)
    places = [index for index, (_, members) in enumerate(blocks) if members[0].index is not None]
    kinds = [_kind(index, places) for index in range(len(blocks))]
    plan = resolved_precision(task)
    memory = _memory(task, plan, blocks, kinds, weights, split)
    even_cut(memory, split.parts)
    around = reduction_blocks(weights, memory, plan, split)
    return Workload(
        model=model,
        task=task,
        stages=_stages(task, plan, blocks, kinds, weights, around, split),
        parameters=total,
        trainable_parameters=sum(w.whole_total for w in weights if w.trainable),
        weights=weights,
        memory=memory,
        parallelism=split,
        notes=(REPEATED,) if split.tensor > 1 else (),
    )


def _kind(index: int, layers: list[int]) -> BlockKind:
    """Layers are numbered modules; what stands before, between and after them is embedding or head."""
    if not layers or index in layers:
        return BlockKind.LAYER
    return BlockKind.HEAD if index > layers[-1] else BlockKind.EMBEDDING


Blocks = list[tuple[str, list[TracedRun]]]


def _stages(
    task: Task,
    plan: PrecisionPlan,
    blocks: Blocks,
    kinds: list[BlockKind],
    weights: tuple[Weight, ...],
    around: tuple[tuple[Block, ...], tuple[Block, ...]],
    split: Parallelism,
) -> tuple[Stage, ...]:
    tokens = task.batch // split.data * task.sequence
    forward = tuple(
        with_gathers(
            Block(label, len(members), operators, kind, saved=with_rest(written_by(operators, run.kept), run.saved_B)),
            weights,
            split,
            Phase.FORWARD,
        )
        for (label, members), kind in zip(blocks, kinds, strict=True)
        for run in members[:1]
        for operators in (tuple(run.tape.operators),)
    )
    if not isinstance(task, FineTuning):
        return (Stage("prefill", StageKind.PREFILL, (Wave(forward, 1, tokens),)),)
    sums = task.gradient_accumulation > 1
    backward = tuple(
        sharded_backward(
            Block(
                label, len(members), run.backward, kind, saved=with_rest(read_by(run.backward, run.kept), run.saved_B)
            ),
            weights,
            plan,
            split,
            sums,
        )
        for (label, members), kind in zip(reversed(blocks), reversed(kinds), strict=True)
        for run in members[:1]
        if run.backward
    )
    update = tuple(
        Block(label, len(members), update_operators(own, task.optimizer, plan, split.data if split.zero else 1), kind)
        for (label, members), kind in zip(blocks, kinds, strict=True)
        if (own := [w for w in weights if w.block == label and w.trainable])
    )
    times = task.gradient_accumulation
    parts, repeat = (times, 1) if split.pipeline > 1 else (1, times)
    return (
        Stage("forward", StageKind.FORWARD, (Wave(forward, parts, tokens),), repeat),
        *backward_stages((Wave(backward, parts, tokens),), repeat, weights, plan, split),
        Stage("update", StageKind.UPDATE, (Wave((*around[0], *update, *around[1])),)),
    )


def _memory(
    task: Task,
    plan: PrecisionPlan,
    blocks: Blocks,
    kinds: list[BlockKind],
    weights: tuple[Weight, ...],
    split: Parallelism,
) -> tuple[BlockMemory, ...]:
    found = []
    for (label, members), kind in zip(blocks, kinds, strict=True):
        run = members[0]
        own = [w for w in weights if w.block == label]
        states, whole = states_of(own, task, plan, split=split), gathered_B(own, split)
        names, hidden = frozenset(value.name for value in run.kept), run.scores or frozenset(run.tape.scores)
        space = max(
            peak_B(operators, [0] * len(operators), kept=names, hidden=hidden)
            for operators in (run.tape.operators, run.backward)
        )
        saved = (run.saved_B,) if run.tape.training else ()
        layer = kind is BlockKind.LAYER
        found.append(
            BlockMemory(
                label,
                kind,
                len(members),
                states,
                saved_B=saved,
                workspace_B=space,
                moving_B=unscattered_B(own, plan, split) + (whole if layer else 0),
                root_B=0 if layer else whole,
            )
        )
    return tuple(found)


def _weights(blocks: Blocks) -> tuple[Weight, ...]:
    shared: set[str] = set()
    found = []
    for label, members in blocks:
        for name, w in members[0].tape.parameters.items():
            if members[0].index is None:
                if name in shared:
                    continue
                shared.add(name)
            found.append(weight_of(w, label, len(members)))
    return tuple(found)
