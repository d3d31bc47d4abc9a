"""Rotary position embedding (Su et al., 2021).

Forward   y = x cos + rotate(x) sin
Backward  dx = dy cos - rotate(dy) sin, from dy alone
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Role
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def rotary(
    tape: Tape,
    x: Value,
    name: str,
    *,
    size: int | None = None,
    role: Role = Role.ACTIVATION,
    precision: str | None = None,
) -> Value:
    """X turned by its position, on `size` values of it (default: all)."""
    y = tape.value(f"{name}.out", x.shape, role=role, precision=precision, cut=x.cut)
    cost = arithmetic.ROTARY * (size / x.elements if size else 1.0)

    def backward(reverse: Reverse, dy: Value) -> None:
        reverse.unary(f"{name}.grad_input", x, (), dy, cost)

    return tape.emit(name, Kind.ROTARY, "attention", (x,), y, per_element=cost, backward=backward)
