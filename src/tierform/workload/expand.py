"""Turns a model and a task into operators: the forward pass, its backward pass, the optimizer's update.

Each distinct layer is laid out once.  Layers differ where the flow of gradients differs (under LoRA the lowest layer
needs no input gradient), so runs of equal layers become one block with a count.  Passes: inference is one prefill and
runs of decode steps; training is forward, backward and update of one optimizer step, in which forward and backward run
`micro_batches` times gradient accumulation.

Choices, stated: prefill computes the logits of each sequence's last token only, attention behind a sliding window is
counted within the window, and decoding with latent attention absorbs its up-projections; ``eager=True`` counts what
the Hugging Face eager code computes instead.  Embedding gradients are dense, as in PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierform.errors import Problem, TierformError, fail
from tierform.workload.backward import Reverse, kept_and_recomputed
from tierform.workload.families import FAMILIES
from tierform.workload.footprint import footprint, peak_B
from tierform.workload.graph import Block, BlockKind, Stage, StageKind, Wave, Weight, Workload
from tierform.workload.layers import Pass, Section, Streams
from tierform.workload.methods import learning
from tierform.workload.operator import Operator, Role
from tierform.workload.precision import PrecisionPlan, bits
from tierform.workload.tape import Formats, Learning, Parameter, Step, Tape, Value
from tierform.workload.task import FineTuning, Inference, Task
from tierform.workload.update import update_operators

if TYPE_CHECKING:
    from tierform.workload.models import Model

DECODE_RUNS = 16  # decode steps are grouped in about this many runs


@dataclass(slots=True)
class Layout:
    """One distinct layer, laid out: its tape, the streams through it, its backward pass."""

    tape: Tape
    entering: Streams
    leaving: Streams
    kept_B: int = 0
    peak_B: int = 0
    recompute: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of `count` equal layers of a section: one layout forward, one backward."""

    name: str
    count: int
    layout: Layout
    backward: tuple[Operator, ...]
    kind: BlockKind

    @property
    def layered(self) -> bool:
        """Whether it is a run of layers, and no embedding or head."""
        return self.kind is BlockKind.LAYER


def expand(model: Model, task: Task, micro_batches: int = 1, *, eager: bool = False) -> Workload:
    """The operators of `task` on `model`.

    With `micro_batches` M the operators of forward and backward (or prefill and decode) are those of batch/M sequences
    and run M times; training's gradient accumulation multiplies this.  Raises TierformError where M does not divide the
    batch, the sequence does not fit the model, or nothing would learn.
    """
    _check(model, task, micro_batches)
    if isinstance(task, Inference):
        return _inference(model, task, micro_batches, eager)
    return _training(model, task, micro_batches, eager)


def count_parameters(model: Model) -> tuple[int, int]:
    """(all parameters, those that one token uses) of a model without adapters."""
    segments = _lay_out(model, Inference(batch=1, sequence=1), Pass(1, 1, 1, 1))
    weights = _weights(segments)
    return sum(w.total for w in weights), sum(w.elements * w.active * w.layers for w in weights)


def _check(model: Model, task: Task, micro_batches: int) -> None:
    problems = []
    if micro_batches < 1 or task.batch % micro_batches:
        problems.append(Problem(f"must divide the batch ({task.batch})", key="micro_batches", value=micro_batches))
    length = task.sequence + (task.decode if isinstance(task, Inference) and model.kind == "decoder" else 0)
    if not model.fixed_tokens and model.positions == "learned" and length > model.max_positions:
        problems.append(
            Problem(
                f"{model.name} has learned positions for at most {model.max_positions} tokens",
                key="sequence",
                value=length,
                fix="Shorten the sequence (with its decoded tokens).",
            )
        )
    if isinstance(task, Inference) and not model.generative:
        if task.decode:
            problems.append(
                Problem(
                    f"{model.name} does not generate tokens", key="decode", value=task.decode, fix="Leave decode at 0."
                )
            )
        if not task.prefill:
            problems.append(Problem(f"{model.name} has no decode phase to leave prefill out for", key="prefill"))
    if isinstance(task, Inference) and not task.prefill and not task.decode:
        problems.append(Problem("neither prefill nor decode is asked for", key="decode", value=task.decode))
    if problems:
        raise TierformError(dict.fromkeys(problems))


# -- inference ---------------------------------------------------------------------------------------------------
def _inference(model: Model, task: Inference, micro_batches: int, eager: bool) -> Workload:
    batch = task.batch // micro_batches
    sequence = model.fixed_tokens or task.sequence
    cached = model.generative
    queries = 1 if model.kind == "encoder-decoder" and not eager else sequence
    segments = _lay_out(model, task, Pass(batch, queries, queries, sequence, cached=cached, eager=eager))
    stages, largest = [], 0
    if task.prefill:
        wave = Wave(_blocks(segments), micro_batches, batch * sequence)
        stages.append(Stage("prefill", StageKind.PREFILL, (wave,)))
        largest = max(s.layout.peak_B for s in segments)
    start = 1 if model.kind == "encoder-decoder" else sequence
    for first, count in _decode_runs(start + 1, task.decode, model.sliding_window if not eager else 0):
        p = Pass(batch, 1, first + count // 2, sequence, cached=True, decode=True, eager=eager)
        runs = _lay_out(model, task, p)
        name = f"decode[{first}..{first + count - 1}]" if count > 1 else f"decode[{first}]"
        stages.append(Stage(name, StageKind.DECODE, (Wave(_blocks(runs), micro_batches, batch),), count))
        largest = max(largest, *(s.layout.peak_B for s in runs))
    weights = _weights(segments)
    memory = footprint(model, task, weights, largest, eager=eager)
    return Workload(
        model,
        task,
        tuple(stages),
        sum(w.total for w in weights),
        0,
        memory,
        weights,
        _notes(model, task, eager),
    )


def _decode_runs(first: int, steps: int, window: int) -> list[tuple[int, int]]:
    """(first context length, odd number of steps) of each run; no run crosses the sliding window's edge."""
    width = -(-steps // DECODE_RUNS)
    width += 1 - width % 2
    runs, last = [], first + steps - 1
    while first <= last:
        edge = min(last, window) if window and first <= window else last
        count = min(width, edge - first + 1)
        count -= 1 - count % 2
        runs.append((first, count))
        first += count
    return runs


# -- training ----------------------------------------------------------------------------------------------------
def _training(model: Model, task: FineTuning, micro_batches: int, eager: bool) -> Workload:
    batch = task.batch // micro_batches
    sequence = model.fixed_tokens or task.sequence
    passes = micro_batches * task.gradient_accumulation
    p = Pass(batch, sequence, sequence, sequence, training=True, eager=eager)
    segments = _lay_out(model, task, p, accumulate=passes > 1)
    weights = _weights(segments)
    trainable = sum(w.total for w in weights if w.trainable)
    if trainable == 0:
        fail(
            f"nothing would learn: {model.name} has no parameter that {type(task.method).__name__} trains",
            key="method",
            value=type(task.method).__name__,
            fix="Choose other targets or another method, for example LoRA on q and v.",
        )
    reverse = tuple(
        Block(s.name, s.count, s.backward, s.kind, _onward(s.backward)) for s in reversed(segments) if s.backward
    )
    update = []
    for segment in segments:
        own = [w for w in weights if w.trainable and w.block == segment.name]
        if own:
            update.append(Block(segment.name, segment.count, update_operators(own, task), segment.kind))
    tokens = batch * sequence
    stages = (
        Stage("forward", StageKind.FORWARD, (Wave(_blocks(segments), passes, tokens),)),
        Stage("backward", StageKind.BACKWARD, (Wave(reverse, passes, tokens),)),
        Stage("update", StageKind.UPDATE, (Wave(tuple(update)),)),
    )
    kept = sum(s.layout.kept_B * s.count for s in segments)
    rerun = max((_recomputed_B(s.layout) for s in segments), default=0)
    memory = footprint(model, task, weights, kept + rerun, eager=eager)
    return Workload(
        model,
        task,
        stages,
        sum(w.total for w in weights),
        trainable,
        memory,
        weights,
        _notes(model, task, eager),
    )


def _recomputed_B(layout: Layout) -> int:
    """Bytes that one layer's recomputed tensors take while its backward runs."""
    return sum(step.output.operand().size_B for step in layout.recompute)


# -- laying out --------------------------------------------------------------------------------------------------
def _lay_out(model: Model, task: Task, p: Pass, *, accumulate: bool = False) -> list[Segment]:
    """The model's sections as runs of equal layers, forward and backward."""
    sections: tuple[Section, ...] = FAMILIES.get(model.family).plan(model, p)
    formats = _formats(task.precision, p.training)
    total = sum(section.count for section in sections if section.start is not None)
    recomputation = task.recomputation if isinstance(task, FineTuning) else "none"
    cache: dict[object, Layout] = {}
    chain: list[tuple[Section, int, Layout]] = []
    streams: Streams = {}
    for section in sections:
        layered = section.start is not None
        for index in range(section.count):
            part: int | str = (
                section.start + index
                if section.start is not None
                else ("head" if section is sections[-1] else "embedding")
            )
            rule = learning(task, model, part, total)
            key = (section.name, rule, tuple((n, v.grad) for n, v in streams.items()))
            if key not in cache:
                cache[key] = _layout(section, streams, formats, rule, p, recomputation if layered else "none")
            layout = cache[key]
            chain.append((section, index, layout))
            streams = layout.leaving
    return _segments(chain, p.training, accumulate)


def _layout(
    section: Section, streams: Streams, formats: Formats, rule: Learning, p: Pass, recomputation: str
) -> Layout:
    tape = Tape(formats, rule, p.training)
    entering = {n: Value(n, v.shape, v.precision, v.role, v.grad) for n, v in streams.items()}
    leaving = section.build(tape, dict(entering))
    layout = Layout(tape, entering, leaving)
    if p.training:
        kept, layout.recompute = kept_and_recomputed(tape, recomputation)
        layout.kept_B = sum(value.operand().size_B for value in kept)
    else:
        layout.peak_B = peak_B(tape.operators)
    return layout


def _segments(chain: list[tuple[Section, int, Layout]], training: bool, accumulate: bool) -> list[Segment]:
    """Groups the chain into runs of equal (forward, backward) layers, walking it backwards for the gradients."""
    cache: dict[object, tuple[tuple[Operator, ...], frozenset[str]]] = {}
    arriving: frozenset[str] = frozenset()
    backwards: list[tuple[Operator, ...]] = []
    for position in range(len(chain) - 1, -1, -1):
        layout = chain[position][2]
        if not training:
            backwards.append(())
            continue
        if position == len(chain) - 1:
            arriving = frozenset(name for name, value in layout.leaving.items() if value.grad)
        key = (id(layout), arriving)
        if key not in cache:
            cache[key] = _reverse(layout, arriving, accumulate)
        operators, arriving = cache[key]
        backwards.append(operators)
    backwards.reverse()
    runs: list[list[object]] = []
    for (section, index, layout), operators in zip(chain, backwards, strict=True):
        last = runs[-1] if runs else None
        if last and last[0] is section and last[3] is layout and last[4] is operators:
            last[2] = index
        else:
            runs.append([section, index, index, layout, operators])
    names = [section.name for section, index, _ in chain if index == 0]
    segments = []
    for section_, first, end, layout_, operators_ in runs:
        alone = names.count(section_.name) == 1  # type: ignore[attr-defined]
        kind = BlockKind.LAYER
        if section_.start is None:  # type: ignore[attr-defined]
            kind = BlockKind.HEAD if section_ is chain[-1][0] else BlockKind.EMBEDDING
        segments.append(_segment(section_, first, end, layout_, operators_, alone, kind))  # type: ignore[arg-type]
    return segments


def _segment(
    section: Section,
    first: int,
    end: int,
    layout: Layout,
    operators: tuple[Operator, ...],
    alone: bool,
    kind: BlockKind,
) -> Segment:
    name, count = section.name, end - first + 1
    if not alone or count < section.count:
        base = section.numbered_from if section.numbered_from is not None else section.start or 0
        name += f"[{base + first}]" if count == 1 else f"[{base + first}..{base + end}]"
    return Segment(name, count, layout, operators, kind)


def _reverse(layout: Layout, arriving: frozenset[str], accumulate: bool) -> tuple[tuple[Operator, ...], frozenset[str]]:
    """The backward operators of a layer, and the streams that a gradient leaves through."""
    reverse = Reverse(layout.tape, accumulate)
    gradients = {}
    for name in sorted(arriving):
        value = layout.leaving[name]
        gradients[id(value)] = Value(f"{name}.gradient", value.shape, layout.tape.formats.gradients, Role.GRADIENT)
    reverse.run(gradients, layout.recompute)
    onward = frozenset(name for name, value in layout.entering.items() if value.grad and id(value) in reverse.gradients)
    return tuple(reverse.operators), onward


def _onward(operators: tuple[Operator, ...]) -> int:
    """The operator of a backward block that makes the gradient of its input, or the last."""
    made = [i for i, o in enumerate(operators) if any(operand.name == "x.gradient" for operand in o.outputs)]
    return made[-1] if made else -1


def _blocks(segments: list[Segment]) -> tuple[Block, ...]:
    return tuple(
        Block(s.name, s.count, tuple(s.layout.tape.operators), s.kind) for s in segments if s.layout.tape.operators
    )


def _weights(segments: list[Segment]) -> tuple[Weight, ...]:
    shared: dict[str, Parameter] = {}
    found = []
    for segment in segments:
        for name, w in segment.layout.tape.parameters.items():
            if not segment.layered:
                if name in shared:
                    continue
                shared[name] = w
            made = Weight(
                name,
                segment.name,
                w.shape,
                segment.count,
                w.groups,
                w.active,
                w.part,
                w.precision,
                w.trainable,
                w.matrix,
                w.adapter,
            )
            found.append(made)
    return tuple(found)


def _formats(plan: PrecisionPlan, training: bool) -> Formats:
    narrow = bits(plan.weights) < 16
    return Formats(
        plan.activations,
        plan.gradients,
        plan.kv_cache if not training else plan.activations,
        plan.adapters,
        plan.weights,
        plan.weight_precision("attention"),
        plan.weight_precision("ffn"),
        plan.activations if narrow else plan.weights,
        "fp32" if bits(plan.activations) < 32 else plan.activations,
    )


def _notes(model: Model, task: Task, eager: bool) -> tuple[str, ...]:
    notes = []
    if model.fixed_tokens and task.sequence != model.fixed_tokens:
        notes.append(f"{model.name} fixes its sequence at {model.fixed_tokens} tokens")
    if model.experts:
        notes.append("experts touched: expected number under uniform independent routing")
    if isinstance(task, Inference) and model.generative and not eager:
        notes.append("logits of the last token only")
    return tuple(notes)
