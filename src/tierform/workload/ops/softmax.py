"""Softmax over the last axis, with scale and mask.

Forward   p = exp(s - max s) / sum exp(s - max s)
Backward  ds = p (dp - sum(p dp)), from p
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def softmax(tape: Tape, x: Value, name: str, part: str, *, causal: bool = False) -> Value:
    """The probabilities; keeps them."""
    y = tape.value(f"{name}.out", x.shape, cut=x.cut)
    y.scores = x.scores

    def backward(reverse: Reverse, dy: Value) -> None:
        reverse.unary(f"{name}.grad_input", x, (y,), dy, arithmetic.SOFTMAX_BACKWARD, causal=causal)

    cost = arithmetic.SOFTMAX
    return tape.emit(name, Kind.SOFTMAX, part, (x,), y, saved=(y,), per_element=cost, causal=causal, backward=backward)
