"""Mixture of experts: a router, the experts that tokens are sent to, and their weighted sum.

How many distinct experts a pass touches is its expected value when each token picks k of E experts uniformly and
independently: E (1 - (1 - k/E)^tokens), rounded.  The tokens * k assignments are shared out evenly, so that the number
of multiply-accumulates is exact; where they do not divide, some experts take one row more (operators named ``.rest``).
Real routing is less even: fewer experts are touched, and the busiest takes more rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.workload import arithmetic
from tierform.workload.layers import feed_forward
from tierform.workload.operator import Kind
from tierform.workload.tape import Tape, Value

if TYPE_CHECKING:
    from tierform.workload.backward import Reverse
    from tierform.workload.models import Model


def experts_touched(tokens: int, experts: int, per_token: int) -> int:
    """Expected number of distinct experts that `tokens` tokens use, rounded to a whole number."""
    expected = experts * (1.0 - (1.0 - per_token / experts) ** tokens)
    return max(per_token, min(experts, round(expected)))


def shares(tokens: int, experts: int, per_token: int) -> list[tuple[int, int]]:
    """[(number of experts, rows for each)]: all tokens * per_token assignments, evenly."""
    touched = experts_touched(tokens, experts, per_token)
    rows, rest = divmod(tokens * per_token, touched)
    return [(count, size) for count, size in ((touched - rest, rows), (rest, rows + 1)) if count and size]


def mixture(tape: Tape, model: Model, x: Value) -> Value:
    """Routed experts and, where the model has them, shared ones beside."""
    y = _routed(tape, model, x)
    if not model.shared_ffn_size:
        return y
    shared = feed_forward(tape, model, x, model.shared_ffn_size, name="ffn.shared", gated=True)
    if model.shared_gate:
        gate = tape.linear(x, "ffn.shared_gate", 1, "ffn", quantizable=False)
        gate = tape.activation(gate, "ffn.shared_gate.sigmoid", "sigmoid", "ffn")
        shared = tape.multiply(shared, gate, "ffn.shared_gate.multiply", "ffn")
    return tape.add(y, shared, "ffn.shared_add", "ffn")


def _routed(tape: Tape, model: Model, x: Value) -> Value:
    experts, chosen, d, width = model.experts, model.experts_per_token, model.hidden_size, model.expert_ffn_size
    tokens = x.operand().elements // d
    logits = tape.linear(x, "ffn.router", experts, "ffn", quantizable=False)
    gates = tape.value("ffn.gates", (tokens, chosen))
    cost = arithmetic.ROUTING * experts / chosen
    tape.emit(
        "ffn.routing",
        Kind.ROUTING,
        "ffn",
        (logits,),
        gates,
        saved=(gates,),
        per_element=cost,
        backward=lambda reverse, gradient: reverse.unary(
            "ffn.routing.grad_input", Kind.ROUTING, "ffn", logits, (gates,), gradient, arithmetic.SOFTMAX_BACKWARD
        ),
    )
    parts = [
        _group(tape, model, x, gates, count, rows, width, "" if index == 0 else ".rest")
        for index, (count, rows) in enumerate(shares(tokens, experts, chosen))
    ]
    y = tape.value("ffn.combined", x.shape)

    def backward(reverse: Reverse, gradient: Value) -> None:
        for part in parts:
            reverse.unary(
                "ffn.combine.grad_experts", Kind.ELEMENTWISE, "ffn", part, (gates,), gradient, arithmetic.MULTIPLY
            )
        reverse.unary("ffn.combine.grad_gates", Kind.ELEMENTWISE, "ffn", gates, tuple(parts), gradient, 2.0 * d)

    saved = (gates, *parts) if gates.grad else (gates,)
    return tape.emit(
        "ffn.combine",
        Kind.ELEMENTWISE,
        "ffn",
        (*parts, gates),
        y,
        saved=saved,
        backward=backward,
        per_element=2.0 * chosen,
    )


def _group(tape: Tape, model: Model, x: Value, gates: Value, count: int, rows: int, width: int, suffix: str) -> Value:
    """`count` experts on `rows` gathered tokens each."""
    d, name = model.hidden_size, "ffn.experts"
    total = count * rows
    sent = tape.value(f"ffn.dispatched{suffix}", (total, d))
    scatter = total * d / x.operand().elements
    tape.emit(
        f"ffn.dispatch{suffix}",
        Kind.ELEMENTWISE,
        "ffn",
        (x,),
        sent,
        waits=(gates,),
        per_element=arithmetic.GATHER,
        backward=lambda reverse, gradient: reverse.unary(
            f"ffn.dispatch{suffix}.grad_input", Kind.ELEMENTWISE, "ffn", x, (), gradient, scatter
        ),
    )

    def product(source: Value, part: str, n: int) -> Value:
        return tape.linear(
            source,
            f"{name}.{part}{suffix}",
            n,
            "ffn",
            rows=rows,
            count=count,
            groups=model.experts,
            active=model.experts_per_token,
            shape=(total, n),
            weight=f"{name}.{part}",
            target=part,
        )

    gate = product(sent, "gate", width)
    up = product(sent, "up", width)
    active = tape.activation(gate, f"{name}.activation{suffix}", model.activation, "ffn")
    hidden = tape.multiply(active, up, f"{name}.multiply{suffix}", "ffn")
    return product(hidden, "down", d)
