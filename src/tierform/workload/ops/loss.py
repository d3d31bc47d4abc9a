"""Heads' ends: cross-entropy over logits, and a squared error on outputs without classes.

Forward   -log softmax(logits)[target]      (y - target)^2
Backward  dlogits = softmax(logits) - onehot(target), from the log-probabilities      dy = 2 (y - target)

Logits that are cut by the vocabulary stay cut: the chips tell each other, for each row, the largest logit, the sum
of exponentials and the target's logit (Shoeybi et al., 2019).

A fused loss goes through the rows in pieces: a piece's logits, log-probabilities and gradient are made, and the
gradients of the head's input and weight from them, before the next piece (Hsu et al., Liger Kernel, 2024; Wijmans et
al., Cut Cross-Entropy, 2024).  It computes the same and keeps none of the three; operators are listed as without it.
"""

from __future__ import annotations

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Role
from tierform.workload.ops.collective import all_reduce
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Tape, Value

_TOLD = 3  # figures for each row


def cross_entropy(tape: Tape, logits: Value, name: str = "loss") -> Value:
    """Log-softmax and negative log-likelihood; keeps the log-probabilities for backward."""
    rows = logits.elements // logits.shape[-1]
    kept = tape.value(f"{name}.log_probabilities", logits.shape, precision=tape.formats.loss, cut=logits.cut)
    # Pieces of so many rows that a piece of logits is about as large as the head's input (Hsu et al., Liger, 2024).
    pieces = -(-logits.shape[-1] // tape.operators[-1].k) if tape.operators and tape.operators[-1].k else 1
    for value in (logits, kept):
        tape.pieces[value.name] = -(-value.operand().size_B // pieces)
    tape.pieces[f"{logits.name}.gradient"] = tape.pieces[logits.name]
    target = Operand(f"{name}.targets", (rows,), "int32", Role.INDEX, static=True)

    def backward(reverse: Reverse, dy: Value) -> None:
        _from_the_loss(reverse, f"{name}.grad_input", logits, (kept.operand(), target), arithmetic.LOSS_BACKWARD)

    if logits.cut and tape.tensor > 1:
        told = tape.value(f"{name}.rows", (rows, _TOLD), precision="fp32")
        told.after = logits.after
        all_reduce(tape, told, f"{name}.rows")
    return tape.emit(
        name,
        Kind.LOSS,
        "head",
        (logits,),
        kept,
        saved=(kept,),
        indices=(target,),
        per_element=arithmetic.LOSS,
        backward=backward,
    )


def squared_error(tape: Tape, output: Value, name: str = "loss") -> Value:
    """Mean squared error of an output."""
    difference = tape.value(f"{name}.difference", output.shape, precision=tape.formats.loss, cut=output.cut)

    def backward(reverse: Reverse, dy: Value) -> None:
        _from_the_loss(reverse, f"{name}.grad_input", output, (difference.operand(),), arithmetic.MULTIPLY)

    cost = arithmetic.REGRESSION_LOSS
    return tape.emit(
        name, Kind.LOSS, "head", (output,), difference, saved=(difference,), per_element=cost, backward=backward
    )


def _from_the_loss(reverse: Reverse, name: str, x: Value, kept: tuple[Operand, ...], per_element: float) -> None:
    """The first gradient: the loss is one number, so nothing but what was kept is read."""
    if x.grad:
        dx = reverse.gradient_of(x)
        reverse.emit(name, Kind.LOSS, kept, dx, per_element=per_element)
        reverse.arrive(x, dx)
