"""The backward pass of a recorded block: its steps in reverse, as reverse-mode differentiation runs them.

A matmul with a weight gives two matmuls, the input gradient (with the transposed weight) and the weight gradient; only
the one that somebody needs is emitted.  A product of two dynamic tensors gives one per operand that needs a gradient.
Attention is differentiated as written (scores, softmax, context), so its backward has four matmuls and keeps the
probabilities.  Gradients that meet are added by an elementwise operator.  Recomputation runs again, before the gradient
operators, exactly the forward operators whose results are needed and were not kept (Chen et al., 2016; selective:
the attention core only, Korthikanti et al., 2022).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.tape import Parameter, Shape, Step, Tape, Value


@dataclass(slots=True)
class Reverse:
    """Gradients flowing back through one block, and the operators that compute them."""

    tape: Tape
    accumulate: bool = False  # weight gradients are added to those of earlier micro-batches
    operators: list[Operator] = field(default_factory=list)
    gradients: dict[int, Value] = field(default_factory=dict)
    recomputed: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    def emit(
        self,
        name: str,
        kind: Kind,
        module: str,
        inputs: tuple[Value | Operand, ...],
        output: Value | Operand,
        *,
        batch: int = 1,
        m: int = 0,
        n: int = 0,
        k: int = 0,
        count: int = 1,
        per_element: float = 1.0,
        weight: str | None = None,
        transposed: bool = False,
        causal: bool = False,
    ) -> str:
        """Append one backward operator and return its name."""
        seen = self._names.get(name, 0) + 1
        self._names[name] = seen
        name = name if seen == 1 else f"{name}.{seen}"
        after = [item for value in inputs if isinstance(value, Value) for item in self._after(value)]
        sources = tuple(item.operand() if isinstance(item, Value) else item for item in inputs)
        result = output.operand() if isinstance(output, Value) else output
        made = Operator(
            name,
            kind,
            module,
            Phase.BACKWARD,
            sources,
            (result,),
            batch,
            m,
            n,
            k,
            count,
            per_element,
            tuple(dict.fromkeys(after)),
            weight,
            transposed,
            causal,
        )
        self.operators.append(made)
        if isinstance(output, Value):
            output.after = (name,)
        return name

    def _after(self, value: Value) -> tuple[str, ...]:
        if value.role is Role.GRADIENT:
            return value.after
        return self.recomputed.get(id(value), ())

    def gradient_of(self, value: Value, shape: Shape | None = None) -> Value:
        """A new gradient tensor for `value`."""
        return Value(f"{value.name}.gradient", shape or value.shape, self.tape.formats.gradients, Role.GRADIENT)

    def arrive(self, value: Value, gradient: Value) -> None:
        """A gradient contribution has reached `value`; a second one is added to the first."""
        before = self.gradients.get(id(value))
        if before is None:
            self.gradients[id(value)] = gradient
            return
        total = self.gradient_of(value)
        self.emit(f"{value.name}.gradient_add", Kind.ELEMENTWISE, "other", (before, gradient), total)
        self.gradients[id(value)] = total

    # -- one method per kind of forward operator ----------------------------------------------------------------
    def linear(
        self,
        name: str,
        module: str,
        x: Value,
        w: Parameter,
        biases: tuple[Parameter, ...],
        gradient: Value,
        m: int,
        n: int,
        k: int,
        count: int,
    ) -> None:
        """Gradients of a matmul with a weight: dX = dY W; dW = dY^T X; db = sum of dY's rows."""
        incoming = gradient.operand((m, n))
        after = gradient.after
        if x.grad:
            dx = self.gradient_of(x)
            self.emit(
                f"{name}.grad_input",
                Kind.MATMUL,
                module,
                (incoming, w.operand()),
                dx,
                m=m,
                n=k,
                k=n,
                count=count,
                weight=w.name,
                transposed=True,
            )
            self._set_after(after)
            self.operators[-1] = replace(self.operators[-1], outputs=(dx.operand((m, k)),))
            self.arrive(x, dx)
        if w.trainable:
            dw = self._weight_gradient(w)
            self.emit(
                f"{name}.grad_weight",
                Kind.MATMUL,
                module,
                (incoming, x.operand((m, k)), *self._earlier(dw)),
                dw,
                m=n,
                n=k,
                k=m,
                count=count,
                weight=w.name,
            )
            self._set_after((*after, *self.recomputed.get(id(x), ())))
        for bias in biases:
            if bias.trainable:
                db = self._weight_gradient(bias)
                self.emit(
                    f"{name}.grad_bias",
                    Kind.ELEMENTWISE,
                    module,
                    (incoming, *self._earlier(db)),
                    db,
                    per_element=float(m),
                    count=count,
                    weight=bias.name,
                )
                self._set_after(after)

    def _set_after(self, after: tuple[str, ...]) -> None:
        self.operators[-1] = replace(self.operators[-1], after=tuple(dict.fromkeys(after)))

    def _weight_gradient(self, w: Parameter) -> Operand:
        return Operand(f"{w.name}.gradient", w.shape, self.tape.formats.gradients, Role.GRADIENT)

    def _earlier(self, gradient: Operand) -> tuple[Operand, ...]:
        return (gradient,) if self.accumulate else ()

    def matmul(
        self,
        name: str,
        module: str,
        a: Value,
        b: Value,
        gradient: Value,
        batch: int,
        m: int,
        n: int,
        k: int,
        causal: bool,
    ) -> None:
        """Gradients of a product: dA = dC B^T; dB = A^T dC."""
        if a.grad:
            da = self.gradient_of(a)
            self.emit(
                f"{name}.grad_left", Kind.MATMUL, module, (gradient, b), da, batch=batch, m=m, n=k, k=n, causal=causal
            )
            self.arrive(a, da)
        if b.grad:
            db = self.gradient_of(b)
            self.emit(
                f"{name}.grad_right", Kind.MATMUL, module, (gradient, a), db, batch=batch, m=k, n=n, k=m, causal=causal
            )
            self.arrive(b, db)

    def unary(
        self,
        name: str,
        kind: Kind,
        module: str,
        x: Value,
        kept: tuple[Value, ...],
        gradient: Value,
        per_element: float,
        causal: bool = False,
    ) -> None:
        """The input gradient of a value-by-value operator from the tensors it kept."""
        if x.grad:
            dx = self.gradient_of(x)
            self.emit(name, kind, module, (gradient, *kept), dx, per_element=per_element, causal=causal)
            self.arrive(x, dx)

    def normalization(self, name: str, kind: str, x: Value, weights: tuple[Parameter, ...], gradient: Value) -> None:
        """Input gradient; gain and shift gradients are sums over rows."""
        if x.grad:
            dx = self.gradient_of(x)
            gains = tuple(w.operand() for w in weights[:1])
            self.emit(
                f"{name}.grad_input",
                Kind.NORMALIZATION,
                "normalization",
                (gradient, x, *gains),
                dx,
                per_element=arithmetic.NORMALIZATION_BACKWARD[kind],
            )
            self.arrive(x, dx)
        rows = gradient.operand().elements
        for w in weights:
            if w.trainable:
                dw = self._weight_gradient(w)
                shift = w.name.endswith("bias")
                cost = 1.0 if shift else arithmetic.NORMALIZATION_PARAMETERS[kind] - 1.0
                inputs = (gradient,) if shift else (gradient, x)
                self.emit(
                    f"{w.name}.grad_weight",
                    Kind.NORMALIZATION,
                    "normalization",
                    (*inputs, *self._earlier(dw)),
                    dw,
                    per_element=cost * rows / w.elements,
                    weight=w.name,
                )

    def add(self, terms: tuple[Value, ...], gradient: Value) -> None:
        """The gradient passes on unchanged; a broadcast term gets its sum."""
        for term in terms:
            if not term.grad:
                continue
            if term.operand().elements == gradient.operand().elements:
                self.arrive(term, gradient)
            else:
                reduced = self.gradient_of(term)
                share = gradient.operand().elements / term.operand().elements
                self.emit(
                    f"{term.name}.gradient_sum", Kind.ELEMENTWISE, "other", (gradient,), reduced, per_element=share
                )
                self.arrive(term, reduced)

    def add_parameter(self, name: str, x: Value, w: Parameter, gradient: Value, copies: int) -> None:
        """The gradient passes on; the learned tensor gets the sum over its copies."""
        if w.trainable:
            dw = self._weight_gradient(w)
            self.emit(
                f"{name}.grad_weight",
                Kind.ELEMENTWISE,
                "embedding",
                (gradient, *self._earlier(dw)),
                dw,
                per_element=float(copies),
                weight=name,
            )
        if x.grad:
            self.arrive(x, gradient)

    def multiply(self, name: str, module: str, a: Value, b: Value, gradient: Value) -> None:
        """Gradients of a value-by-value product: da = g b; db = g a."""
        for value, other, side in ((a, b, "left"), (b, a, "right")):
            if value.grad:
                dx = self.gradient_of(value)
                share = max(1.0, gradient.operand().elements / value.operand().elements)
                self.emit(
                    f"{name}.grad_{side}",
                    Kind.ELEMENTWISE,
                    module,
                    (gradient, other),
                    dx,
                    per_element=arithmetic.MULTIPLY * share,
                )
                self.arrive(value, dx)

    def parameter_sum(self, w: Parameter, gradient: Value, module: str) -> None:
        """The gradient of a learned tensor that takes part value by value: the sum over its repetitions."""
        dw = self._weight_gradient(w)
        share = gradient.operand().elements / w.elements
        self.emit(
            f"{w.name}.grad_weight",
            Kind.ELEMENTWISE,
            module,
            (gradient, *self._earlier(dw)),
            dw,
            per_element=max(1.0, share),
            weight=w.name,
        )

    def embedding(self, name: str, table: Parameter, gradient: Value, shared: bool) -> None:
        """Rows of the gradient are added into a dense gradient of the whole table."""
        if table.trainable:
            dw = self._weight_gradient(table)
            before = (dw,) if self.accumulate or shared else ()
            self.emit(
                f"{name}.grad_weight",
                Kind.EMBEDDING,
                "embedding",
                (gradient, *before),
                dw,
                per_element=gradient.operand().elements / table.elements,
                weight=name,
            )

    # -- the walk -----------------------------------------------------------------------------------------------
    def run(self, outputs: dict[int, Value], recompute: tuple[Step, ...] = ()) -> None:
        """Walk the tape backwards from the gradients that arrive at the block's outputs."""
        self.gradients.update(outputs)
        for step in recompute:
            if step.operator is None:
                continue
            operator = replace(
                step.operator,
                name=f"{step.operator.name}.recompute",
                phase=Phase.BACKWARD,
                after=tuple(f"{name}.recompute" for name in step.operator.after if f"{name}.recompute" in self._names),
            )
            self._names[operator.name] = 1
            self.recomputed[id(step.output)] = (operator.name,)
            self.operators.append(operator)
        for step in reversed(self.tape.steps):
            gradient = self.gradients.pop(id(step.output), None)
            if gradient is not None:
                step.backward(self, gradient)


def kept_and_recomputed(tape: Tape, mode: str) -> tuple[tuple[Value, ...], tuple[Step, ...]]:
    """(tensors kept until backward, forward steps run again) of a block.

    `mode` is ``none``, ``selective`` (the attention core is run again) or ``full`` (only the block's inputs are kept).
    """
    made_by = {id(step.output): step for step in tape.steps}
    for step in tape.steps:
        for value in step.saved:  # what only this step makes, such as a dropout mask
            if id(value) not in made_by and value not in step.inputs:
                made_by[id(value)] = step
    wanted = {id(value): value for step in tape.steps for value in step.saved}
    if mode == "none":
        return tuple(wanted.values()), ()
    again: dict[int, Step] = {}
    kept: dict[int, Value] = {}
    outside = {id(v) for step in tape.steps if not step.attention_core for v in step.saved}
    pending = list(wanted.values())
    while pending:
        value = pending.pop()
        maker = made_by.get(id(value))
        if maker is None or (mode == "selective" and (not maker.attention_core or id(value) in outside)):
            kept[id(value)] = value
        elif id(maker) not in again:
            again[id(maker)] = maker
            pending.extend(maker.inputs)
    order = tuple(step for step in tape.steps if id(step) in again)
    return tuple(kept.values()), order
