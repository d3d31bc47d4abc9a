"""The backward pass of a recorded block: its steps in reverse, as reverse-mode differentiation runs them.

Each operator's own rule stands beside its forward form in :mod:`tierform.workload.ops`; here is the walk.  Gradients
that meet are added by an elementwise operator.  Recomputation runs again, before the gradient operators, exactly the
forward operators whose results are needed and were not kept, collectives included (Chen et al., 2016; selective: the
attention cores only, Korthikanti et al., 2022).  A fused attention kernel keeps its result and one log-sum-exp for
each row of scores, and rebuilds the rest inside (Dao, 2023): no operator is run again for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role, Shard
from tierform.workload.tape import Entry, Parameter, Product, Shape, Tape, Value

Reads = Value | Operand | tuple[Value, Shape]  # a tensor, as it is or in another shape


@dataclass(slots=True)
class Reverse:
    """Gradients flowing back through one block, and the operators that compute them."""

    tape: Tape
    accumulate: bool = False  # weight gradients are added to those of earlier micro-batches
    operators: list[Operator] = field(default_factory=list)
    gradients: dict[int, Value] = field(default_factory=dict)
    scores: set[str] = field(default_factory=set)
    together: list[int] = field(default_factory=list)
    _group: int = 0
    _recomputed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _step: Operator | None = None

    def emit(
        self,
        name: str,
        kind: Kind,
        inputs: tuple[Reads, ...],
        output: Value | Operand,
        *,
        part: str | None = None,
        written: Shape | None = None,
        sizes: Product | None = None,
        count: int = 1,
        per_element: float = 1.0,
        waits: tuple[Value, ...] = (),
        weight: str | None = None,
        transposed: bool = False,
        causal: bool = False,
        origin: Origin = Origin.INPUT_GRADIENT,
        shard: Shard | None = None,
        collective: str = "",
        members: int = 0,
        composed: float = 1.0,
    ) -> None:
        """Append one backward operator; what is not given is as in the forward operator of the present step."""
        seen = self._names.get(name, 0) + 1
        self._names[name] = seen
        name = name if seen == 1 else f"{name}.{seen}"
        read = [item if isinstance(item, Operand) else _operand(item) for item in inputs]
        values = [item[0] if isinstance(item, tuple) else item for item in inputs if not isinstance(item, Operand)]
        after = [source for value in (*values, *waits) for source in self._after(value)]
        step, work = self._step, sizes or Product(0, 0, 0, count=count)
        inside = step is not None and origin not in (Origin.GRADIENT_SUM, Origin.COLLECTIVE)
        made = Operator(
            name,
            kind,
            part or (step.part if step else "other"),
            Phase.BACKWARD,
            tuple(read),
            (output.operand(written) if isinstance(output, Value) else output,),
            batch=work.batch,
            m=work.m,
            n=work.n,
            k=work.k,
            count=work.count,
            operations_per_element=per_element,
            after=tuple(dict.fromkeys(after)),
            weight=weight,
            transposed=transposed,
            causal=causal,
            collective=collective,
            participants=(members or self.tape.tensor) if collective else 1,
            copies=members > 0,
            origin=origin,
            shard=shard or (step.shard if inside and step else _shard_of(output)),
            attention=step.attention if inside and step else None,
            together=self._group,
            composed=composed,
        )
        self.operators.append(made)
        self.together.append(self._group)
        if isinstance(output, Value):
            output.after = (name,)
            if output.scores:
                self.scores.add(output.name)

    def _after(self, value: Value) -> tuple[str, ...]:
        if value.role is Role.GRADIENT:
            return value.after
        return self._recomputed.get(id(value.memory), self._recomputed.get(id(value), ()))

    def gradient_of(self, value: Value, shape: Shape | None = None) -> Value:
        """A new gradient tensor for `value`."""
        return Value(
            f"{value.name}.gradient",
            shape or value.shape,
            self.tape.formats.gradients,
            Role.GRADIENT,
            cut=value.cut,
            scores=value.scores,
        )

    def weight_gradient(self, w: Parameter) -> tuple[Operand, tuple[Operand, ...]]:
        """(the gradient of a weight, what of it is read first: its sum so far, where micro-batches accumulate)."""
        made = Operand(f"{w.name}.gradient", w.shape, self.tape.formats.weight_gradients, Role.GRADIENT, trainable=True)
        return made, ((made,) if self.accumulate else ())

    def arrive(self, value: Value, gradient: Value) -> None:
        """A gradient contribution has reached `value`; a second one is added to the first."""
        before = self.gradients.get(id(value))
        if before is None:
            self.gradients[id(value)] = gradient
            return
        total = self.gradient_of(value)
        name = f"{value.name}.gradient_add"
        self.emit(name, Kind.ELEMENTWISE, (before, gradient), total, part="other", origin=Origin.GRADIENT_SUM)
        self.gradients[id(value)] = total

    def unary(
        self,
        name: str,
        x: Value,
        kept: tuple[Value, ...],
        gradient: Value,
        per_element: float,
        *,
        causal: bool = False,
        composed: float = 1.0,
    ) -> None:
        """The input gradient of a value-by-value operator from the tensors it kept."""
        if x.grad and self._step is not None:
            dx = self.gradient_of(x)
            inputs = (gradient, *kept)
            self.emit(name, self._step.kind, inputs, dx, per_element=per_element, causal=causal, composed=composed)
            self.arrive(x, dx)

    # -- the walk -----------------------------------------------------------------------------------------------
    def run(self, outputs: dict[int, Value], recompute: tuple[Entry, ...] = ()) -> None:
        """Walk the tape backwards from the gradients that arrive at the block's outputs."""
        self.gradients.update(outputs)
        renamed = {step.operator.name: f"{step.operator.name}.recompute" for step in recompute if step.operator}
        for step in recompute:
            if step.operator is None:
                continue
            given = {id(value) for value in step.inputs}
            operator = replace(
                step.operator,
                name=renamed[step.operator.name],
                phase=Phase.BACKWARD,
                origin=Origin.RECOMPUTED,
                after=tuple(renamed[name] for name in step.operator.after if name in renamed),
            )
            self._names[operator.name] = 1
            self.operators.append(operator)
            self.together.append(-step.together)  # apart from the gradients' numbers
            for value in (step.output, *step.saved):  # a mask is made with the result
                if id(value) not in given:
                    self._recomputed.setdefault(id(value), (operator.name,))
        for step in reversed(self.tape.steps):
            gradient = self.gradients.pop(id(step.output), None)
            if gradient is not None:
                self._step, self._group = step.operator, step.together
                step.backward(self, gradient)
        self._step, self._group = None, 0
        self._recompute_when_needed()

    def _recompute_when_needed(self) -> None:
        """What is recomputed starts when the gradient that needs it has come, not when the pass begins.

        That is when a checkpointed function's own backward pass starts (T. Chen et al., 2016; with full recomputation
        the layer is the function).  An input that is gathered again for a weight's gradient comes beside the input's
        gradient, which is computed before that (Korthikanti et al., 2022, section 4.2.2).
        """
        for chain in _chains(self.operators):
            names = {made.name for made in chain}
            readers = [at for at, made in enumerate(self.operators) if not names.isdisjoint(made.after)]
            reader = next((at for at in readers if self.operators[at].name not in names), 0)
            beside = max(0, reader - 1) if len(chain) == 1 and chain[0].collective else reader
            given = tuple(name for name in self.operators[beside].after if name not in names)
            if not given or self.operators[beside].origin is Origin.RECOMPUTED:
                continue
            items = list(zip(self.operators, self.together, strict=True))
            before, after = ([i for i in part if i[0].name not in names] for part in (items[:beside], items[beside:]))
            moved = [
                (made if made.after else replace(made, after=given), group)
                for made, group in items
                if made.name in names
            ]
            self.operators, self.together = map(list, zip(*before, *moved, *after, strict=True))


def _chains(operators: Sequence[Operator]) -> list[list[Operator]]:
    """Recomputed operators that hang together."""
    chains: list[list[Operator]] = []
    for made in operators:
        if made.origin is Origin.RECOMPUTED:
            joined = [chain for chain in chains if any(other.name in made.after for other in chain)]
            chains = [chain for chain in chains if chain not in joined] + [[*(o for c in joined for o in c), made]]
    return chains


def _operand(item: Value | tuple[Value, Shape]) -> Operand:
    return item[0].operand(item[1]) if isinstance(item, tuple) else item.operand()


def _shard_of(output: Value | Operand) -> Shard:
    return Shard.ELEMENTS if isinstance(output, Value) and output.cut else Shard.WHOLE


# -- what is kept ------------------------------------------------------------------------------------------------
def kept_and_recomputed(tape: Tape, mode: str, attention: str) -> tuple[tuple[Value, ...], tuple[Entry, ...]]:
    """(tensors kept until backward, forward steps run again) of a block.

    `mode` is ``none``, ``selective`` (the attention cores are run again) or ``full`` (only the block's inputs are
    kept).  With fused `attention` the kernel itself does what ``selective`` asks for.
    """
    fused = attention == "fused"
    if fused and mode == "selective":
        mode = "none"
    made_by = _makers(tape)
    wanted = _wanted(tape, fused)
    again: dict[int, Entry] = {}
    kept: dict[int, Value] = {}
    outside = {id(v.memory) for step in tape.steps if not _in_core(step) for v in step.saved}
    pending = list(wanted.values())
    while pending:
        value = pending.pop()
        maker = made_by.get(id(value))
        if maker is None:
            kept[id(value)] = value
        elif id(maker) in again:
            continue
        elif maker.operator is None or maker.again or mode == "full" or _selected(mode, maker, value, outside):
            again[id(maker)] = maker
            pending.extend(item.memory for item in maker.inputs)
        else:
            kept[id(value)] = value
    order = tuple(step for step in tape.steps if id(step) in again)
    return tuple(kept.values()), order


def _selected(mode: str, maker: Entry, value: Value, outside: set[int]) -> bool:
    return mode == "selective" and _in_core(maker) and id(value) not in outside


def _in_core(step: Entry) -> bool:
    return step.operator is not None and step.operator.attention is not None


def _makers(tape: Tape) -> dict[int, Entry]:
    """Which step makes a tensor; one that only a step itself keeps (a mask, a log-sum-exp) is made by it."""
    made_by = {id(step.output): step for step in tape.steps if step.output.root is None}
    for step in tape.steps:
        inputs = {id(item.memory) for item in step.inputs}
        for value in step.saved:
            if id(value.memory) not in inputs:
                made_by.setdefault(id(value.memory), step)
    return made_by


def _wanted(tape: Tape, fused: bool) -> dict[int, Value]:
    """The tensors that the backward rules read, each once."""
    wanted: dict[int, Value] = {}
    if not fused:
        return {id(value.memory): value.memory for step in tape.steps for value in step.saved}
    ends = {step.operator.attention: step for step in tape.steps if step.operator and step.operator.attention}
    for step in tape.steps:
        for value in step.saved:
            core = step.operator.attention if step.operator else None
            if value.scores and core is not None:
                end = tape.merged.get(core.number, ends[core].output).memory
                wanted.setdefault(id(end), end)
            else:
                wanted.setdefault(id(value.memory), value.memory)
    return wanted


def log_sum_exp_B(tape: Tape) -> int:
    """Bytes of one fp32 number for each row of scores of every core that needs a backward pass.

    Cores whose results are merged have one number for each row together.
    """
    rows = {
        id(tape.merged.get(step.operator.attention.number, step)): prod(step.output.shape[:-1])
        for step in tape.steps
        if step.operator and step.operator.attention and step.operator.kind is Kind.SOFTMAX and step.saved
    }
    return 4 * sum(rows.values())
