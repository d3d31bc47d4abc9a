"""Routing of tokens to experts: the gates, the copies that are sent, the weighted sum that comes back.

Forward   gates = top-k of softmax(logits)      sent = rows of x, by expert      y = sum of gate * expert's result
Backward  dlogits from the gates      dx is the sum of what was sent      dresult = gate dy, dgate = <result, dy>
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value


def route(tape: Tape, logits: Value, name: str, chosen: int) -> Value:
    """The gates (tokens, chosen) of each token's experts; keeps them."""
    tokens, experts = logits.shape
    gates = tape.value("ffn.gates", (tokens, chosen))

    def backward(reverse: Reverse, dy: Value) -> None:
        reverse.unary(f"{name}.grad_input", logits, (gates,), dy, arithmetic.SOFTMAX_BACKWARD)

    cost = arithmetic.ROUTING * experts / chosen
    return tape.emit(name, Kind.ROUTING, "ffn", (logits,), gates, saved=(gates,), per_element=cost, backward=backward)


def dispatch(tape: Tape, x: Value, gates: Value, name: str, rows: int, suffix: str) -> Value:
    """`rows` copies of tokens, gathered by expert."""
    sent = tape.value(f"ffn.dispatched{suffix}", (rows, x.shape[-1]))

    def backward(reverse: Reverse, dy: Value) -> None:
        reverse.unary(f"{name}{suffix}.grad_input", x, (), dy, rows / x.shape[0])

    cost = arithmetic.GATHER
    return tape.emit(
        f"{name}{suffix}", Kind.ELEMENTWISE, "ffn", (x,), sent, waits=(gates,), per_element=cost, backward=backward
    )


def combine(tape: Tape, parts: tuple[Value, ...], gates: Value, name: str, like: Value) -> Value:
    """The weighted sum of the experts' results for each token of `like`; keeps gates, and results where gates learn."""
    y = tape.value("ffn.combined", like.shape)
    width, chosen = like.shape[-1], gates.shape[-1]

    def backward(reverse: Reverse, dy: Value) -> None:
        for item in parts:
            reverse.unary(f"{name}.grad_experts", item, (gates,), dy, arithmetic.MULTIPLY)
        reverse.unary(f"{name}.grad_gates", gates, parts, dy, 2.0 * width)

    return tape.emit(
        name,
        Kind.ELEMENTWISE,
        "ffn",
        (*parts, gates),
        y,
        saved=(gates, *parts) if gates.grad else (gates,),
        per_element=2.0 * chosen,
        backward=backward,
    )
