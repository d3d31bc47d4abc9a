"""Finds attention cores in what was traced: a softmax between two products of dynamic tensors.

Eager modules write attention out: a product, a scale, a mask, a softmax, dropout, another product.  What stands
between the products gets one :class:`~tierform.workload.operator.Attention` record, so that a chip that fuses
attention may do so here, too.  Whether a mask is causal cannot be read from its shape: such cores count as whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tierform.workload.operator import Attention, Kind, Operator, Shard
from tierform.workload.tape import Entry, Tape, Value

_LIGHT = (Kind.ELEMENTWISE, Kind.SOFTMAX)


def mark_cores(tape: Tape) -> None:
    """Give every core on the tape that has no record its own."""
    place = {operator.name: index for index, operator in enumerate(tape.operators)}
    readers: dict[str, list[int]] = {}
    for index, operator in enumerate(tape.operators):
        for name in operator.after:
            readers.setdefault(name, []).append(index)
    entries = {entry.operator.name: entry for entry in tape.steps if entry.operator is not None}
    for index, operator in enumerate(tape.operators):
        if operator.kind is Kind.SOFTMAX and operator.attention is None:
            before = _walk(tape, index, lambda o: [place[name] for name in o.after if name in place])
            after = _walk(tape, index, lambda o: readers.get(o.name, []))
            if before and after:
                _mark(tape, entries, [*reversed(before), index, *after])


def _walk(tape: Tape, start: int, neighbours: Callable[[Operator], list[int]]) -> list[int]:
    """Operators from a softmax to the product at one end, without the softmax; empty where there is none."""
    found: list[int] = []
    here = start
    while True:
        near = [i for i in neighbours(tape.operators[here]) if _is_inside(tape.operators[i])]
        if len(near) != 1:
            return []
        here = near[0]
        found.append(here)
        if tape.operators[here].kind is Kind.MATMUL:
            return found


def _is_inside(operator: Operator) -> bool:
    return operator.kind in _LIGHT or (operator.kind is Kind.MATMUL and operator.weight is None)


def _mark(tape: Tape, entries: dict[str, Entry], members: list[int]) -> None:
    scores, context = tape.operators[members[0]], tape.operators[members[-1]]
    if (scores.batch, scores.m, scores.n) != (context.batch, context.m, context.k):
        return
    shape = scores.outputs[0].shape
    heads = shape[-3] if len(shape) > 3 else scores.batch
    keys_of_all = scores.inputs[1].elements / max(1, scores.batch * scores.n * scores.k)
    tape.cores += 1
    core = Attention(
        number=tape.cores,
        sequences=scores.batch // heads,
        queries=scores.m,
        keys=scores.n,
        heads=heads,
        kv_heads=max(1, round(heads * keys_of_all)),
        head_dim=scores.k,
        value_dim=context.n,
    )
    for index in members:
        marked = replace(tape.operators[index], attention=core, shard=Shard.HEADS)
        tape.operators[index] = marked
        entry = entries.get(marked.name)
        if entry is not None:
            entry.operator = marked
            if index != members[-1]:
                for value in _made_by(entry):
                    value.scores = True
        if index != members[-1]:
            tape.scores |= {operand.name for operand in marked.outputs}


def _made_by(entry: Entry) -> list[Value]:
    given = {id(value) for value in entry.inputs}
    return [value for value in (entry.output, *entry.saved) if id(value) not in given]
