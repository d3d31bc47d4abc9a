"""Learned factors of features, and the norms of a weight with its adapter.

Forward   y = v * x                             v (width) for every row of x
Backward  dx = v * dy       dv = the sum of dy * x over the rows
DoRA      m / ||W + B A||, norm by output: B A is made, added to W, squared and summed; no gradient flows through the
          norm (Liu et al., 2024, section 4.3)
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind
from tierform.workload.ops.elementwise import parameter_gradient
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Parameter, Product, Tape, Value

NORM = 4.0  # add, square, sum, and the root and division over a row


def scale(tape: Tape, x: Value, name: str, whole: int, *, waits: tuple[Value, ...] = ()) -> Value:
    """X with each feature multiplied by a learned factor; `whole` counts the factors of all chips."""
    width = x.shape[-1]
    form = tape.formats.adapters
    w = tape.parameter(name, (width,), "adapter", trainable=True, adapter=True, precision=form, whole=max(whole, width))
    y = tape.value(f"{name}.out", x.shape, role=x.role, precision=x.precision, cut=x.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        parameter_gradient(reverse, w, (dy, x), 2.0 * x.elements / width)
        if x.grad:
            dx = reverse.gradient_of(x)
            cost = arithmetic.MULTIPLY
            reverse.emit(f"{name}.grad_input", Kind.ELEMENTWISE, (dy, w.operand()), dx, per_element=cost)
            reverse.arrive(x, dx)

    return tape.emit(
        name,
        Kind.ELEMENTWISE,
        "adapter",
        (x,),
        y,
        weights=(w,),
        saved=(x,),
        waits=waits,
        per_element=arithmetic.MULTIPLY,
        weight=name,
        backward=backward,
    )


def norms(tape: Tape, name: str, w: Parameter, a: Parameter, b: Parameter) -> Value:
    """The norm of each output's row of W + B A."""
    outputs, inputs = w.shape
    rank = a.shape[0]
    made = tape.value(f"{name}.product.out", w.shape)
    tape.emit(
        f"{name}.product",
        Kind.MATMUL,
        "adapter",
        (),
        made,
        operands=(b.operand(), a.operand()),
        sizes=Product(outputs, inputs, rank),
        weight=a.name,
    )
    found = tape.value(f"{name}.norm.out", (outputs,))
    cost = NORM * inputs
    return tape.emit(f"{name}.norm", Kind.ELEMENTWISE, "adapter", (made,), found, weights=(w,), per_element=cost)
