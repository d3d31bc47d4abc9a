"""What a framework's automatic differentiation keeps beside the tensors that the backward rules read.

The rules keep what mathematics needs.  Eager PyTorch keeps what its operators read, and some implementations make
copies.  Each habit is named, and a runtime lists those it has:

- ``wide-norms``: RMSNorm of separate operators widens its input to fp32 and keeps that copy; where the gain learns, the
  normalized result in the narrow format, too.  (LayerNorm is one operator and keeps its input.)
- ``joined-projections``: query, key and value are one product's result, of which the values are a view: all of it
  stays, though queries and keys are kept turned.  Where some of them have adapters, the adapters' results are copied
  into their places, and that copying keeps them (the gradient of ``index_copy`` asks for its source).
- ``adapter-dropout``: a mask of one byte for each value that enters an adapter.
- ``quantized-inputs``: a product with quantized weights keeps its input, frozen as its weight is.
- ``main-gradients``: weights' gradients are added up in fp32 (Megatron-LM's main gradients).

Limits: blocks of the memory allocator are not rounded up; workspace of kernel libraries is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from tierform.workload.operator import Kind
from tierform.workload.precision import PrecisionPlan, bits
from tierform.workload.tape import Entry, Tape, Value

Habit = Literal["wide-norms", "joined-projections", "adapter-dropout", "quantized-inputs", "main-gradients"]
HABITS: tuple[Habit, ...] = get_args(Habit)
Habits = frozenset[Habit]
NONE: Habits = frozenset()

_WIDE_B = 4  # bytes of an fp32 number


def with_main_gradients(plan: PrecisionPlan, habits: Habits) -> PrecisionPlan:
    """The formats of a training whose framework may add up gradients in fp32."""
    if "main-gradients" not in habits or plan.main_gradients is not None or bits(plan.gradients) > 16:
        return plan
    return replace(plan, main_gradients="fp32")


def kept_besides_B(
    tape: Tape, kept: Mapping[int, Value], again: Sequence[Entry], habits: Habits, norm: str = "layernorm"
) -> int:
    """Bytes of one layer; `kept` tensors are counted elsewhere, what runs `again` keeps nothing."""
    if not habits:
        return 0
    repeated = {id(step) for step in again}
    steps = [step for step in tape.steps if step.operator is not None and id(step) not in repeated]
    size_B = 0
    if "wide-norms" in habits and norm == "rmsnorm":
        size_B += _wide_norms_B(tape, steps, kept)
    if "joined-projections" in habits:
        size_B += _joined_B(steps, kept)
    entering = _entering_adapters(tape, steps)
    if "adapter-dropout" in habits:
        size_B += sum(value.elements for value in entering.values())
    if "quantized-inputs" in habits:
        dropped = entering if "adapter-dropout" in habits else {}
        size_B += _quantized_inputs_B(tape, steps, kept, dropped)
    return size_B


def _size_B(value: Value) -> int:
    return value.memory.operand().size_B


def _wide_norms_B(tape: Tape, steps: Sequence[Entry], kept: Mapping[int, Value]) -> int:
    norms = [step for step in steps if step.operator and step.operator.kind is Kind.NORMALIZATION and step.saved]
    own = {id(step) for step in norms}
    others = {id(value.memory) for step in steps if id(step) not in own for value in step.saved}
    total = 0
    for step in norms:
        x = step.saved[0]
        if bits(x.precision) >= 8 * _WIDE_B:
            continue
        total += _WIDE_B * x.elements
        if id(x.memory) in kept and id(x.memory) not in others:
            total -= _size_B(x)
        gains = (tape.parameters.get(operand.name) for operand in step.operator.inputs) if step.operator else ()
        if any(gain is not None and gain.trainable and not gain.bias for gain in gains):
            total += _size_B(step.output)
    return total


def _joined_B(steps: Sequence[Entry], kept: Mapping[int, Value]) -> int:
    """Of products of one input, whose results are one tensor: members that are not kept, though another one is."""
    added = {  # what an adapter's result is added to -> the step
        id(value.memory): step
        for step in steps
        if step.operator and step.operator.part == "adapter" and step.operator.kind is Kind.ELEMENTWISE
        for value in step.inputs
    }
    groups: dict[int, list[Value]] = {}
    for step in steps:
        operator = step.operator
        if (
            operator
            and operator.kind is Kind.MATMUL
            and operator.part == "attention"
            and operator.weight
            and step.inputs
        ):
            groups.setdefault(id(step.inputs[0].memory), []).append(step.output)
    total = 0
    for results in groups.values():
        adapted = [(value, added[id(value.memory)]) for value in results if id(value.memory) in added]
        last = [added[id(value.memory)].output if id(value.memory) in added else value for value in results]
        there = [id(value.memory) in kept for value in last]
        if len(last) > 1 and any(there):
            total += sum(_size_B(value) for value, is_kept in zip(last, there, strict=True) if not is_kept)
            if len(adapted) < len(last):
                total += sum(
                    _size_B(low) for value, step in adapted for low in step.inputs if low.memory is not value.memory
                )
    return total


def _entering_adapters(tape: Tape, steps: Sequence[Entry]) -> dict[int, Value]:
    """What enters the first matrix of an adapter that learns."""
    made = {id(step.output.memory) for step in steps if step.operator and step.operator.part == "adapter"}
    return {
        id(value.memory): value.memory
        for step in steps
        if step.operator and step.operator.part == "adapter" and step.operator.kind is Kind.MATMUL
        for value in step.saved
        if id(value.memory) not in made
    }


def _quantized_inputs_B(
    tape: Tape, steps: Sequence[Entry], kept: Mapping[int, Value], dropped: Mapping[int, Value]
) -> int:
    """`dropped`: kept as an adapter sees them, after dropout, unless another step keeps them, too."""
    form = tape.learning.quantized
    read: dict[int, Value] = {}
    others: set[int] = set()
    for step in steps:
        operator = step.operator
        weight = tape.parameters.get(operator.weight) if operator and operator.weight else None
        if operator and operator.part != "adapter":
            others |= {id(value.memory) for value in step.saved}
        if operator and weight is not None and form and operator.kind is Kind.MATMUL and weight.precision == form:
            read |= {id(value.memory): value.memory for value in step.inputs[:1] if value.grad}
    whole = {key for key in kept if key in others or key not in dropped}
    return sum(_size_B(value) for key, value in read.items() if key not in whole)
