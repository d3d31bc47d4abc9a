"""Dropout, which acts in training only.

Forward   y = x mask / (1 - p), with a random mask of one byte a value
Backward  dx = dy mask / (1 - p)
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def dropout(tape: Tape, x: Value, name: str, part: str, probability: float) -> Value:
    """Dropout while training, x itself otherwise; keeps the mask."""
    if not tape.training or probability <= 0:
        return x
    y = tape.value(f"{name}.out", x.shape, cut=x.cut)
    mask = tape.value(f"{name}.mask", x.shape, precision="int8", cut=x.cut)
    y.scores = mask.scores = x.scores

    def backward(reverse: Reverse, dy: Value) -> None:
        reverse.unary(f"{name}.grad_input", x, (mask,), dy, arithmetic.MULTIPLY)

    return tape.emit(
        name,
        Kind.ELEMENTWISE,
        part,
        (x,),
        y,
        outputs=(y.operand(), mask.operand()),
        saved=(mask,),
        per_element=arithmetic.DROPOUT / 2,  # of two results
        backward=backward,
    )
