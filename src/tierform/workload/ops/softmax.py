"""Softmax over the last axis, with scale and mask.

Forward   p = exp(s - max s) / sum exp(s - max s)
Backward  ds = p (dp - sum(p dp)), from p
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.composed import composed_of
from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def softmax(tape: Tape, x: Value, name: str, part: str, *, causal: bool = False) -> Value:
    """The probabilities; keeps them."""
    y = tape.value(f"{name}.out", x.shape, cut=x.cut)
    y.scores = x.scores
    forward, again = composed_of("softmax")

    def backward(reverse: Reverse, dy: Value) -> None:
        cost = arithmetic.SOFTMAX_BACKWARD
        reverse.unary(f"{name}.grad_input", x, (y,), dy, cost, causal=causal, composed=again)

    return tape.emit(
        name,
        Kind.SOFTMAX,
        part,
        (x,),
        y,
        saved=(y,),
        per_element=arithmetic.SOFTMAX,
        causal=causal,
        backward=backward,
        composed=forward,
    )
