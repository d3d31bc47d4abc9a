"""Activation functions, value by value.

Forward   y = f(x)
Backward  dx = dy f'(x), from x; of ReLU and tanh from y, which says as much
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.composed import composed_of
from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value

FROM_OUTPUT = ("relu", "tanh")


def activation(tape: Tape, x: Value, name: str, function: str, part: str) -> Value:
    """f(x), of x's shape; `function` is a key of :data:`arithmetic.ACTIVATION`."""
    y = tape.value(f"{name}.out", x.shape, cut=x.cut)
    kept = (y,) if function in FROM_OUTPUT else (x,)
    forward, again = composed_of(function)

    def backward(reverse: Reverse, dy: Value) -> None:
        cost = arithmetic.ACTIVATION_BACKWARD[function]
        reverse.unary(f"{name}.grad_input", x, kept, dy, cost, composed=again)

    cost = arithmetic.ACTIVATION[function]
    return tape.emit(
        name, Kind.ACTIVATION, part, (x,), y, saved=kept, per_element=cost, backward=backward, composed=forward
    )
