"""LayerNorm and RMSNorm.

Forward   y = (x - mean(x)) / deviation(x) * gain + shift      RMSNorm: y = x / rms(x) * gain
Backward  dx from dy and x; the gain's gradient is the sum of dy x_normalized over the rows, the shift's that of dy
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Role
from tierform.workload.ops.elementwise import parameter_gradient
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def normalization(
    tape: Tape,
    x: Value,
    name: str,
    kind: str,
    *,
    bias: bool | None = None,
    gain: bool = True,
    size: int | None = None,
    role: Role = Role.ACTIVATION,
    precision: str | None = None,
) -> Value:
    """`kind` (layernorm, rmsnorm) over the last axis, or groups of `size` of it; keeps its input where it learns."""
    width = size or x.shape[-1]
    shifted = bias if bias is not None else kind == "layernorm"
    weights = (
        *((tape.parameter(f"{name}.weight", (width,), "normalization"),) if gain else ()),
        *((tape.parameter(f"{name}.bias", (width,), "normalization", bias=True),) if shifted else ()),
    )
    read = x.grad or any(w.trainable and not w.bias for w in weights)
    y = tape.value(f"{name}.out", x.shape, role=role, precision=precision, cut=x.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        if x.grad:
            dx = reverse.gradient_of(x)
            gains = tuple(w.operand() for w in weights[:1])
            cost = arithmetic.NORMALIZATION_BACKWARD[kind]
            reverse.emit(f"{name}.grad_input", Kind.NORMALIZATION, (dy, x, *gains), dx, per_element=cost)
            reverse.arrive(x, dx)
        for w in weights:
            if w.trainable:
                cost = 1.0 if w.bias else arithmetic.NORMALIZATION_PARAMETERS[kind] - 1.0
                inputs = (dy,) if w.bias else (dy, x)
                parameter_gradient(reverse, w, inputs, cost * dy.elements / w.elements, Kind.NORMALIZATION)

    return tape.emit(
        name,
        Kind.NORMALIZATION,
        "normalization",
        (x,),
        y,
        weights=weights,
        saved=(x,) if read else (),
        per_element=arithmetic.NORMALIZATION[kind],
        backward=backward,
    )
