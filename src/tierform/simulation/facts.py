"""What the schedule and the traffic need to know of a block's operators, read off them once."""

from __future__ import annotations

from dataclasses import dataclass

from tierform.simulation.remember import Bounded
from tierform.workload.graph import Block
from tierform.workload.operator import Kind, Operator, Origin, Role

BLOCK_INPUT = -1
PREVIOUS_INPUT = -3  # that of the block before: where what is done ahead may begin
# Products of two activations and gradients of weights need all tokens of what they are given.  The rows of a softmax,
# and what is done to it element by element, are used as they come.
_FOLLOWS_CHUNKS = (Kind.SOFTMAX, Kind.ELEMENTWISE)
Source = tuple[int, bool, float]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one operator of a block.

    `sources`: (place of the operator from which it takes, or one of the inputs; whether it needs all of its chunks;
    bytes that come from there, none from a gather of weights, which arrive where weights wait).  `key` stands for
    everything that its cost depends on.
    """

    operator: Operator
    sources: tuple[Source, ...]
    key: int
    matmul: bool
    has_weight: bool
    adapter: bool
    dequantizes: bool
    collective: bool


_facts: Bounded = Bounded(4096)  # block -> (the block, its facts)
_keys: dict[object, int] = {}  # shape -> a small number that stands for it


def facts_of(block: Block) -> tuple[Facts, ...]:
    """The facts of a block's operators, in order."""
    known = _facts.get(id(block))
    if known is None or known[0] is not block:
        known = _facts[id(block)] = (block, _read(block))
    found: tuple[Facts, ...] = known[1]
    return found


def _read(block: Block) -> tuple[Facts, ...]:
    number: dict[str, int] = {}
    found: list[Facts] = []
    operators = block.operators
    gathers = tuple((place, True, 0.0) for place, operator in enumerate(operators) if operator.ahead)
    for place, operator in enumerate(operators):
        matmul, collective = operator.kind is Kind.MATMUL, operator.kind is Kind.COLLECTIVE
        has_weight = any(operand.role is Role.WEIGHT for operand in operator.inputs)
        moving = matmul and not has_weight
        waits: list[Source] = []
        for name in operator.after:
            source = number[name]
            giver = operators[source]
            waits.append((source, moving and giver.kind not in _FOLLOWS_CHUNKS, float(_taken_B(operator, giver))))
        if operator.ahead:
            waits = [(PREVIOUS_INPUT, False, 0.0)]
        else:
            if not waits:
                waits.append((BLOCK_INPUT, moving, float(_entering_B(operator))))
            if gathers and has_weight and not collective:
                waits += gathers
        number[operator.name] = place
        found.append(
            Facts(
                operator=operator,
                sources=tuple(waits),
                key=_keys.setdefault(operator.shape_key, len(_keys)),
                matmul=matmul,
                has_weight=has_weight,
                adapter=operator.part == "adapter",
                dequantizes=operator.origin is Origin.DEQUANTIZE,
                collective=collective,
            )
        )
    return tuple(found)


def _taken_B(operator: Operator, giver: Operator) -> int:
    """Bytes of another operator's result that an operator takes: of fewer rows where it reads fewer.

    A result that it reads under another name (a view of several) is taken whole.
    """
    given = [operand.name for operand in giver.outputs]
    read_B = sum([operand.size_B for operand in operator.inputs if operand.name in given]) * operator.count
    return min(giver.output_B, read_B) if read_B else giver.output_B


def _entering_B(operator: Operator) -> int:
    """Bytes of the layer's input that the operator reads."""
    first = next((o for o in operator.inputs if o.role not in (Role.WEIGHT, Role.INDEX)), None)
    return operator.count * first.size_B if first else 0
