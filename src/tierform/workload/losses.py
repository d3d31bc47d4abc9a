"""Heads' ends: cross-entropy over logits, and a squared error on outputs without classes."""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Role
from tierform.workload.tape import Tape, Value


def cross_entropy(tape: Tape, logits: Value, name: str = "loss") -> Value:
    """Log-softmax and negative log-likelihood; keeps the log-probabilities for backward."""
    rows = logits.operand().elements // logits.shape[-1]
    kept = tape.value(f"{name}.log_probabilities", logits.shape, precision=tape.formats.loss)
    target = Operand(f"{name}.targets", (rows,), "int32", Role.INDEX, static=True)
    return tape.emit(
        name,
        Kind.LOSS,
        "head",
        (logits,),
        kept,
        saved=(kept,),
        indices=(target,),
        per_element=arithmetic.LOSS,
        backward=lambda reverse, gradient: reverse.unary(
            f"{name}.grad_input", Kind.LOSS, "head", logits, (kept,), gradient, arithmetic.LOSS_BACKWARD
        ),
    )


def squared_error(tape: Tape, output: Value, name: str = "loss") -> Value:
    """Mean squared error of an output."""
    difference = tape.value(f"{name}.difference", output.shape, precision=tape.formats.loss)
    return tape.emit(
        name,
        Kind.LOSS,
        "head",
        (output,),
        difference,
        saved=(difference,),
        per_element=arithmetic.REGRESSION_LOSS,
        backward=lambda reverse, gradient: reverse.unary(
            f"{name}.grad_input", Kind.LOSS, "head", output, (difference,), gradient, arithmetic.MULTIPLY
        ),
    )
