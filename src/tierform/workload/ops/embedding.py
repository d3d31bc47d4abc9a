"""Rows of a table, by index.

Forward   y[i] = table[index[i]]
Backward  the table's gradient is dense, as in PyTorch: rows of dy are added into it

A vocabulary that is cut by rows gives partial sums: a chip adds zeros for the rows that it does not have.
"""

from __future__ import annotations

from math import prod

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Origin, Role, Shard
from tierform.workload.ops.collective import leave
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Shape, Tape, Value


def embedding(
    tape: Tape, name: str, rows: int, width: int, lead: Shape, *, shared: bool = False, shard: Shard = Shard.WHOLE
) -> Value:
    """One row of the (rows, width) table for each of `lead`.

    `shared`: the table's gradient already holds the head's.  `shard`: INPUT cuts the rows of the table, HEADS its
    columns.
    """
    by_rows, by_columns = shard is Shard.INPUT, shard is Shard.HEADS
    held = (tape.share(rows) if by_rows else rows, tape.share(width) if by_columns else width)
    table = tape.parameter(name, held, "embedding", matrix=True, whole=rows * width)
    number = prod(lead)
    index = Operand(f"{name}.index", (number,), "int32", Role.INDEX, static=True)
    read = tape.share(number) if by_rows else number
    y = tape.value(f"{name}.out", (*lead, held[1]), cut=by_columns)

    def backward(reverse: Reverse, dy: Value) -> None:
        if table.trainable:
            dw, earlier = reverse.weight_gradient(table)
            reverse.emit(
                f"{name}.grad_weight",
                Kind.EMBEDDING,
                (dy, *(earlier or ((dw,) if shared else ()))),
                dw,
                per_element=dy.elements / table.elements,
                weight=name,
                origin=Origin.WEIGHT_GRADIENT,
            )

    y = tape.emit(
        f"{name}.lookup",
        Kind.EMBEDDING,
        "embedding",
        (),
        y,
        operands=(index, table.operand((read, held[1]))),
        learners=(table,),
        per_element=arithmetic.GATHER,
        weight=name,
        shard=shard,
        backward=backward,
    )
    return leave(tape, y, lead[0], name) if by_rows else y
