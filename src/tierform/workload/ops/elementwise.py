"""Sums, products, concatenations and slices: one operation for each value, or only a copy.

Forward   y = a + b            y = a b
Backward  da = dy, db = dy     da = dy b, db = dy a     (of what was broadcast: the sum over its repetitions)
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Origin, Role
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Parameter, Shape, Tape, Value


def add(
    tape: Tape,
    a: Value,
    b: Value,
    name: str,
    part: str,
    *,
    result: str = "",
    role: Role = Role.ACTIVATION,
    precision: str | None = None,
    per_element: float = arithmetic.ADD,
) -> Value:
    """The sum (named `result`); the smaller of the two is broadcast."""
    shape = max(a, b, key=lambda value: value.elements).shape
    y = tape.value(result or f"{name}.out", shape, role=role, precision=precision, cut=a.cut or b.cut)
    y.scores = a.scores

    def backward(reverse: Reverse, dy: Value) -> None:
        pass_on(reverse, (a, b), dy)

    return tape.emit(name, Kind.ELEMENTWISE, part, (a, b), y, per_element=per_element, backward=backward)


def concatenate(tape: Tape, a: Value, b: Value, name: str, part: str, shape: Shape, *, result: str = "") -> Value:
    """Both, copied beside each other into a tensor of `shape` (named `result`)."""
    y = tape.value(result or f"{name}.out", shape, cut=a.cut or b.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        pass_on(reverse, (a, b), dy)

    cost = arithmetic.GATHER
    return tape.emit(name, Kind.ELEMENTWISE, part, (a, b), y, per_element=cost, backward=backward)


def pass_on(reverse: Reverse, terms: tuple[Value, ...], dy: Value) -> None:
    """The gradient of a sum is each term's; a term that was broadcast gets its sum over the repetitions."""
    for term in terms:
        if not term.grad:
            continue
        if term.elements >= dy.elements:
            reverse.arrive(term, dy)
            continue
        reduced, share = reverse.gradient_of(term), dy.elements / term.elements
        name, origin = f"{term.name}.gradient_sum", Origin.GRADIENT_SUM
        reverse.emit(name, Kind.ELEMENTWISE, (dy,), reduced, part="other", per_element=share, origin=origin)
        reverse.arrive(term, reduced)


def multiply(tape: Tape, a: Value, b: Value, name: str, part: str) -> Value:
    """The product, value by value; keeps each factor that the other's gradient needs."""
    y = tape.value(f"{name}.out", a.shape, cut=a.cut or b.cut)
    saved = tuple(value for value, other in ((b, a), (a, b)) if other.grad)

    def backward(reverse: Reverse, dy: Value) -> None:
        for value, other, side in ((a, b, "left"), (b, a, "right")):
            if value.grad:
                dx = reverse.gradient_of(value)
                cost = arithmetic.MULTIPLY * max(1.0, dy.elements / value.elements)
                reverse.emit(f"{name}.grad_{side}", Kind.ELEMENTWISE, (dy, other), dx, per_element=cost)
                reverse.arrive(value, dx)

    cost = arithmetic.MULTIPLY
    return tape.emit(name, Kind.ELEMENTWISE, part, (a, b), y, saved=saved, per_element=cost, backward=backward)


def add_parameter(
    tape: Tape, x: Value, name: str, shape: Shape, result: Shape, *, copies: int, adapter: bool = False
) -> Value:
    """The tensor x with a learned one added (or put in front) `copies` times; that one's gradient is their sum.

    `adapter`: one that was not the model's own.
    """
    form = tape.formats.adapters if adapter else None
    w = tape.parameter(name, shape, "embedding", trainable=adapter or None, adapter=adapter, precision=form)
    y = tape.value(f"{name}.out", result, cut=x.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        if w.trainable:
            parameter_gradient(reverse, w, (dy,), float(copies))
        if x.grad:
            reverse.arrive(x, dy)

    return tape.emit(
        f"{name}.add",
        Kind.ELEMENTWISE,
        "embedding",
        (x,),
        y,
        weights=(w,),
        per_element=arithmetic.ADD,
        weight=name,
        backward=backward,
    )


def parameter_gradient(
    reverse: Reverse, w: Parameter, inputs: tuple[Value, ...], per_element: float, kind: Kind = Kind.ELEMENTWISE
) -> None:
    """The gradient of a learned tensor that takes part value by value: a sum over its repetitions."""
    dw, earlier = reverse.weight_gradient(w)
    reverse.emit(
        f"{w.name}.grad_weight",
        kind,
        (*inputs, *earlier),
        dw,
        per_element=per_element,
        weight=w.name,
        origin=Origin.WEIGHT_GRADIENT,
    )


def part(tape: Tape, x: Value, name: str, shape: Shape) -> Value:
    """A part of x (a slice): nothing forward; backward writes its gradient into one of x's size."""
    y = Value(f"{name}.out", shape, x.precision, x.role, grad=x.grad, after=x.after, cut=x.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        if x.grad:
            dx = reverse.gradient_of(x)
            reverse.emit(f"{name}.grad_input", Kind.ELEMENTWISE, (dy,), dx, per_element=arithmetic.GATHER)
            reverse.arrive(x, dx)

    return tape.view(x, y, backward)
