"""Lays a model's sections out for one pass: runs of equal layers, forward and backward, and what each keeps.

Each distinct layer is laid out once.  Layers differ where the flow of gradients differs (under LoRA the lowest layer
needs no input gradient), so runs of equal layers become one segment with a count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tierform.workload.autograd import NONE, Habits, kept_besides_B
from tierform.workload.families import FAMILIES
from tierform.workload.footprint import peak_B
from tierform.workload.graph import Block, Weight
from tierform.workload.layers import Pass, Section, Streams
from tierform.workload.matrix_formats import LayerFormats
from tierform.workload.memory import BlockKind
from tierform.workload.methods import learning
from tierform.workload.models import Model
from tierform.workload.operator import Operator, Role
from tierform.workload.parallel import ALONE, Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.reduced import left_out
from tierform.workload.reverse import Reverse, kept_and_recomputed, log_sum_exp_B
from tierform.workload.spread import Spread
from tierform.workload.tape import Entry, Formats, Learning, Parameter, Tape, Value
from tierform.workload.task import FineTuning, Task
from tierform.workload.tensor_formats import formats_of, own_formats


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for every layer of a task: its formats, its chips, how attention and recomputation are done."""

    model: Model
    task: Task
    precision: PrecisionPlan
    parallelism: Parallelism = ALONE
    attention: str = "tiled"
    accumulate: bool = False
    habits: Habits = NONE

    @property
    def recomputation(self) -> str:
        """The task's, or none."""
        return self.task.recomputation if isinstance(self.task, FineTuning) else "none"

    @property
    def fused_loss(self) -> bool:
        """Whether logits are made by pieces."""
        return isinstance(self.task, FineTuning) and self.task.fused_loss


@dataclass(slots=True)
class Layout:
    """One distinct layer, laid out: its tape, the streams through it, what it keeps."""

    tape: Tape
    entering: Streams
    leaving: Streams
    kept: dict[int, Value] = field(default_factory=dict)
    through: dict[str, int] = field(default_factory=dict)
    recompute: tuple[Entry, ...] = ()
    saved_B: int = 0
    forward_B: int = 0

    @property
    def kept_names(self) -> frozenset[str]:
        """Tensors that are saved until the backward pass."""
        return frozenset(value.name for value in self.kept.values())


@dataclass(frozen=True, slots=True)
class Gradients:
    """A layer's backward pass: its operators, the streams a gradient leaves through, the operator that makes it."""

    operators: tuple[Operator, ...] = ()
    onward: frozenset[str] = frozenset()
    output: int = -1
    workspace_B: int = 0


NOTHING = Gradients()


@dataclass(frozen=True, slots=True)
class EqualLayers:
    """A run of `count` equal layers of a section: one layout forward, one backward."""

    name: str
    count: int
    layout: Layout
    gradients: Gradients
    kind: BlockKind

    @property
    def layered(self) -> bool:
        """Whether it is a run of layers, and no embedding or head."""
        return self.kind is BlockKind.LAYER

    @property
    def workspace_B(self) -> int:
        """What one layer needs beside what it saves."""
        return max(self.layout.forward_B, self.gradients.workspace_B)

    def forward(self) -> Block:
        """The block of the forward pass."""
        operators = tuple(self.layout.tape.operators)
        place = {operator.name: index for index, operator in enumerate(operators)}
        made = [place[name] for value in self.layout.leaving.values() for name in value.after if name in place]
        written = written_by(operators, self.layout.kept.values())
        return self._block(operators, max(made, default=-1), written)

    def backward(self) -> Block:
        """The block of the backward pass."""
        operators = self.gradients.operators
        return self._block(operators, self.gradients.output, read_by(operators, self.layout.kept.values()))

    def _block(self, operators: tuple[Operator, ...], output: int, saved: dict[int, int]) -> Block:
        kept = with_rest(saved, self.layout.saved_B) if self.layout.tape.training else ()
        return Block(self.name, self.count, operators, self.kind, output=output, saved=kept)


def written_by(operators: Sequence[Operator], kept: Iterable[Value]) -> dict[int, int]:
    """Place of the forward operator that makes kept tensors (-1: the layer's input) -> their bytes."""
    makers = {operand.name: index for index, operator in enumerate(operators) for operand in operator.outputs}
    return _by_place(makers, kept)


def read_by(operators: Sequence[Operator], kept: Iterable[Value]) -> dict[int, int]:
    """Place of the first backward operator that reads kept tensors -> their bytes."""
    readers: dict[str, int] = {}
    for index, operator in enumerate(operators):
        for operand in operator.inputs:
            readers.setdefault(operand.name, index)
    return _by_place(readers, kept)


def _by_place(places: dict[str, int], kept: Iterable[Value]) -> dict[int, int]:
    saved: dict[int, int] = {}
    for value in kept:
        place = places.get(value.name, -1)
        saved[place] = saved.get(place, 0) + value.operand().size_B
    return saved


def with_rest(saved: dict[int, int], total_B: int) -> tuple[tuple[int, int], ...]:
    """(place, bytes) of all that is saved; what no tensor of the tape stands for comes with the layer's input."""
    rest = total_B - sum(saved.values())
    if rest:
        saved[-1] = saved.get(-1, 0) + rest
    return tuple(sorted(saved.items()))


def lay_out(plan: Plan, p: Pass) -> list[EqualLayers]:
    """The model's sections as runs of equal layers, forward and backward; splits that cut layers alike share them."""
    split = plan.parallelism
    copies = split.data if split.expert > 1 else 1  # they matter to experts alone
    alike = replace(split, data=copies, pipeline=1, interleave=1, zero=0, overlap=False)
    return list(_laid_out(replace(plan, parallelism=alike), p))


@lru_cache(maxsize=512)
def _laid_out(plan: Plan, p: Pass) -> tuple[EqualLayers, ...]:
    return tuple(lay_out_sections(plan, p, FAMILIES.get(plan.model.family).plan(plan.model, p)))


def lay_out_sections(plan: Plan, p: Pass, sections: tuple[Section, ...]) -> list[EqualLayers]:
    """These sections as runs of equal layers."""
    own = own_formats(plan.precision, p.training, plan.model)
    formats: dict[LayerFormats, Formats] = {}
    total = sum(section.count for section in sections if section.start is not None)
    cache: dict[object, Layout] = {}
    chain: list[tuple[Section, int, Layout]] = []
    streams: Streams = {}
    for section in sections:
        known: tuple[object, Streams, Layout] | None = None  # of the layer before, which most are like
        for index in range(section.count):
            part: int | str = "head" if section is sections[-1] else "embedding"
            if section.start is not None:
                part = section.start + index
            rule = learning(plan.task, plan.model, part, total)
            missing = left_out(plan.model, part)
            single = own.of_layer(part) if own is not None else ()
            if known is None or known[1] is not streams or known[0] != (rule, missing, single):
                key = (section.name, rule, missing, single, tuple((n, v.grad) for n, v in streams.items()))
                if key not in cache:
                    if single not in formats:
                        formats[single] = formats_of(plan.precision, p.training, plan.model, single)
                    tape = _tape(plan, formats[single], rule, p, missing)
                    cache[key] = _layout(plan, section, streams, tape, p)
                known = (rule, missing, single), streams, cache[key]
            chain.append((section, index, known[2]))
            streams = known[2].leaving
    _keep_streams(chain)
    return _segments(plan, chain, p.training)


def _tape(plan: Plan, formats: Formats, rule: Learning, p: Pass, left_out: frozenset[str]) -> Tape:
    split = plan.parallelism
    return Tape(
        formats,
        rule,
        p.training,
        tensor=split.tensor,
        sequence=split.sequence,
        context=split.context,
        spread=Spread.of(split),
        left_out=left_out,
    )


def _layout(plan: Plan, section: Section, streams: Streams, tape: Tape, p: Pass) -> Layout:
    entering = {n: Value(n, v.shape, v.precision, v.role, grad=v.grad, cut=v.cut) for n, v in streams.items()}
    layout = Layout(tape, entering, section.build(tape, dict(entering)))
    hidden = _hidden(plan, tape)
    if p.training:
        layout.kept, layout.recompute = _kept(tape, tape.learning.recomputation, plan.attention)
        for name, value in entering.items():  # a stream that flows on unchanged is kept by the layer that made it
            if layout.leaving.get(name) is value and id(value) in layout.kept:
                layout.through[name] = layout.kept.pop(id(value)).operand().size_B
        if plan.fused_loss:
            layout.kept = {key: value for key, value in layout.kept.items() if value.name not in tape.pieces}
        layout.saved_B = sum(value.operand().size_B for value in layout.kept.values())
        if plan.attention == "fused":
            layout.saved_B += log_sum_exp_B(tape)
        layout.saved_B += kept_besides_B(tape, layout.kept, layout.recompute, plan.habits, plan.model.norm)
    names = frozenset((*layout.kept_names, *layout.through))
    layout.forward_B = peak_B(tape.operators, tape.together, kept=names, hidden=hidden) + _pieces_B(plan, tape)
    return layout


def _hidden(plan: Plan, tape: Tape, scores: Iterable[str] = ()) -> frozenset[str]:
    """Tensors that never lie in memory whole: scores, unless attention is eager, and the logits of a fused loss."""
    found = {*tape.scores, *scores} if plan.attention != "eager" else set()
    return frozenset(found | set(tape.pieces) if plan.fused_loss else found)


def _pieces_B(plan: Plan, tape: Tape) -> int:
    """Bytes of one piece of what a fused loss makes by pieces."""
    return sum(tape.pieces.values()) if plan.fused_loss else 0


def _kept(tape: Tape, mode: str, attention: str) -> tuple[dict[int, Value], tuple[Entry, ...]]:
    """Tensors kept and entries run again; a layer in which recomputation would keep more (short sequences) has none."""
    plain, _ = kept_and_recomputed(tape, "none", attention)
    kept, again = kept_and_recomputed(tape, mode, attention) if mode != "none" else (plain, _)
    if sum(v.operand().size_B for v in kept) > sum(v.operand().size_B for v in plain):
        kept, again = plain, _
    return {id(value): value for value in kept}, again


def _keep_streams(chain: list[tuple[Section, int, Layout]]) -> None:
    """Streams that later layers keep, and that flow through them, are saved where they were made."""
    wanted = {name: size for _, _, layout in chain for name, size in layout.through.items()}
    for name, size in wanted.items():
        for _, _, layout in chain:
            value = layout.leaving.get(name)
            if value is not None and layout.entering.get(name) is not value:
                if id(value.memory) not in layout.kept:
                    layout.kept[id(value.memory)] = value.memory
                    layout.saved_B += size
                break


def _segments(plan: Plan, chain: list[tuple[Section, int, Layout]], training: bool) -> list[EqualLayers]:
    """Groups the chain into runs of equal (forward, backward) layers, walking it backwards for the gradients."""
    backwards = _backwards(plan, chain) if training else [NOTHING] * len(chain)
    runs: list[tuple[Section, list[int], Layout, Gradients]] = []
    for (section, index, layout), gradients in zip(chain, backwards, strict=True):
        last = runs[-1] if runs else None
        if last and last[0] is section and last[2] is layout and last[3] is gradients:
            last[1].append(index)
        else:
            runs.append((section, [index], layout, gradients))
    names = [section.name for section, index, _ in chain if index == 0]
    return [
        EqualLayers(
            _label(section, indices, names.count(section.name) == 1),
            len(indices),
            layout,
            gradients,
            _kind(section, section is chain[-1][0]),
        )
        for section, indices, layout, gradients in runs
    ]


def _kind(section: Section, is_last: bool) -> BlockKind:
    if section.start is not None:
        return BlockKind.LAYER
    return BlockKind.HEAD if is_last else BlockKind.EMBEDDING


def _label(section: Section, indices: list[int], alone: bool) -> str:
    if alone and len(indices) == section.count:
        return section.name
    base = section.numbered_from if section.numbered_from is not None else section.start or 0
    first, last = base + indices[0], base + indices[-1]
    return f"{section.name}[{first}]" if first == last else f"{section.name}[{first}..{last}]"


def _backwards(plan: Plan, chain: list[tuple[Section, int, Layout]]) -> list[Gradients]:
    cache: dict[object, Gradients] = {}
    found: list[Gradients] = []
    arriving = frozenset(name for name, value in chain[-1][2].leaving.items() if value.grad)
    for _, _, layout in reversed(chain):
        key = (id(layout), arriving)
        if key not in cache:
            cache[key] = _reverse(plan, layout, arriving)
        found.append(cache[key])
        arriving = cache[key].onward
    return found[::-1]


def _reverse(plan: Plan, layout: Layout, arriving: frozenset[str]) -> Gradients:
    """The backward pass of a layer at whose end gradients of these streams arrive."""
    reverse = Reverse(layout.tape, plan.accumulate)
    starts = {}
    for name in sorted(arriving):
        value = layout.leaving[name]
        starts[id(value)] = Value(f"{name}.gradient", value.shape, layout.tape.formats.gradients, Role.GRADIENT)
    reverse.run(starts, layout.recompute)
    flows = {n: reverse.gradients[id(v)] for n, v in layout.entering.items() if v.grad and id(v) in reverse.gradients}
    operators = tuple(reverse.operators)
    place = {operator.name: index for index, operator in enumerate(operators)}
    made = [place[name] for value in flows.values() for name in value.after if name in place]
    kept = frozenset((*layout.kept_names, *layout.through))
    hidden = _hidden(plan, layout.tape, reverse.scores)
    space = peak_B(operators, reverse.together, kept=kept, hidden=hidden) + _pieces_B(plan, layout.tape)
    return Gradients(operators, frozenset(flows), max(made, default=-1), space)


def weights_of(segments: list[EqualLayers]) -> tuple[Weight, ...]:
    """Every parameter once, under the first block that has it."""
    shared: set[str] = set()
    found = []
    for segment in segments:
        for name, w in segment.layout.tape.parameters.items():
            if not segment.layered:
                if name in shared:
                    continue
                shared.add(name)
            found.append(weight_of(w, segment.name, segment.count))
    return tuple(found)


def borrowed_by(segments: Sequence[EqualLayers]) -> dict[str, tuple[Weight, ...]]:
    """For each block that uses weights of blocks before it (a head tied to the embedding): these, as their owner's."""
    owners: dict[str, str] = {}
    found: dict[str, tuple[Weight, ...]] = {}
    for segment in segments:
        if segment.layered:
            continue
        own = segment.layout.tape.parameters
        shared = tuple(weight_of(w, owners[name], 1) for name, w in own.items() if name in owners)
        if shared:
            found[segment.name] = shared
        for name in own:
            owners.setdefault(name, segment.name)
    return found


def weight_of(w: Parameter, block: str, layers: int) -> Weight:
    """A parameter as one of a block of equal layers."""
    return Weight(
        name=w.name,
        block=block,
        shape=w.shape,
        layers=layers,
        groups=w.groups,
        active=w.active,
        part=w.part,
        precision=w.precision,
        trainable=w.trainable,
        matrix=w.matrix,
        adapter=w.adapter,
        whole=w.whole,
        partial=w.partial,
        spread=w.spread,
    )
