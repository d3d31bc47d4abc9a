"""States of training that are sharded over the copies of the model: ZeRO (Rajbhandari et al., SC 2020).

With N copies, Psi parameters of 2 bytes each, and K bytes of optimizer states and master weight for each parameter, a
copy keeps

    zero=0    2 Psi + 2 Psi + K Psi               an all-reduce of the gradients: 2 Psi values cross each chip
    zero=1    2 Psi + 2 Psi + K Psi / N           a reduce-scatter before the update, an all-gather of the weights after
    zero=2    2 Psi + (2 + K) Psi / N             the reduce-scatter of each layer in the backward pass
    zero=3    (2 + 2 + K) Psi / N                 and an all-gather of each layer before each pass through it

so 0, 1 and 2 move the same 2 Psi values (times (N - 1) / N), 3 moves 3 Psi.  A layer is the unit of gathering, as in
FSDP: it is gathered one layer ahead, beside the computation of the layer before, and freed after its use, so two layers
are whole at once; gradients wait whole for their scatter, of two layers as well.  What is no layer (embedding, head) is
one unit that is gathered in the forward pass and kept until the backward pass has ended (PyTorch's ``fully_shard``
leaves its root unit so).  Gradients are scattered after every micro-batch and added up in shards.  Every weight is
padded to a multiple of the copies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tierform.workload.formats import packed_B
from tierform.workload.graph import Block, Stage, StageKind, Wave, Weight
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan


def shard_of(elements: int, copies: int) -> int:
    """Numbers of a weight that one of so many copies keeps."""
    return -(-elements // copies)


def kept_numbers(weight: Weight, copies: int) -> int:
    """Numbers of all groups of a weight of one layer that one of so many copies keeps."""
    return shard_of(weight.elements, copies) * weight.groups


def with_gathers(block: Block, weights: Iterable[Weight], split: Parallelism, phase: Phase) -> Block:
    """The block with all-gathers of its weights before it, where they are sharded and not at hand."""
    if split.zero < 3 or (phase is Phase.BACKWARD and block.kind is not BlockKind.LAYER):
        return block
    own = [w for w in weights if w.block == block.name]
    gathers = tuple(replace(made, ahead=True) for made in gathers_of(own, split.copies, phase))
    if not gathers or not block.operators:
        return block
    more = len(gathers)
    return replace(
        block,
        operators=(*gathers, *block.operators),
        output=block.output % len(block.operators) + more,
        saved=tuple((place + more if place >= 0 else place, size_B) for place, size_B in block.saved),
    )


def gathers_of(weights: Sequence[Weight], copies: int, phase: Phase) -> tuple[Operator, ...]:
    """The all-gathers of the weights of a layer, one for each format."""
    numbers: dict[str, int] = {}
    for w in weights:
        numbers[w.precision] = numbers.get(w.precision, 0) + kept_numbers(w, copies)
    return tuple(
        _collective(
            f"weights.{precision}",
            "all_gather",
            (Operand(f"weights.{precision}.shard", (number,), precision, Role.WEIGHT),),
            (Operand(f"weights.{precision}", (number * copies,), precision, Role.WEIGHT),),
            phase,
            copies,
        )
        for precision, number in numbers.items()
    )


def with_scatter(
    block: Block, weights: Iterable[Weight], plan: PrecisionPlan, split: Parallelism, accumulate: bool
) -> Block:
    """The block of a backward pass with the reduce-scatter of its gradients behind it, where those are sharded."""
    own = [w for w in weights if w.block == block.name and w.trainable]
    if split.zero < 2 or not own or not block.operators:
        return block
    number = sum(kept_numbers(w, split.copies) for w in own)
    whole = Operand("gradients", (number * split.copies,), plan.weight_gradients, Role.GRADIENT, trainable=True)
    part = Operand("gradients.shard", (number,), plan.weight_gradients, Role.GRADIENT, trainable=True)
    waits = _makers(block)
    scatter = _collective("gradients", "reduce_scatter", (whole,), (part,), Phase.BACKWARD, split.copies, after=waits)
    added: tuple[Operator, ...] = (scatter,)
    if accumulate:
        total = replace(part, name="gradients.sum")
        added += (
            Operator(
                "gradients.sum",
                Kind.ELEMENTWISE,
                "optimizer",
                Phase.BACKWARD,
                (part, total),
                (total,),
                after=(scatter.name,),
                origin=Origin.GRADIENT_SUM,
            ),
        )
    return replace(block, operators=(*block.operators, *added), output=block.output % len(block.operators))


def with_reduction(block: Block, weights: Iterable[Weight], plan: PrecisionPlan, split: Parallelism) -> Block:
    """The block of the last backward pass with the reduction of its gradients behind it, where that overlaps."""
    own = [w for w in weights if w.block == block.name and w.trainable]
    if not split.overlap or split.zero > 1 or not own or not block.operators:
        return block
    copies = split.copies if split.zero else 1
    number = sum(kept_numbers(w, copies) for w in own)
    whole = Operand("gradients", (number * copies,), plan.weight_gradients, Role.GRADIENT, trainable=True)
    kind, kept = ("reduce_scatter", replace(whole, shape=(number,))) if split.zero else ("all_reduce", whole)
    made = _collective("gradients", kind, (whole,), (kept,), Phase.BACKWARD, split.copies, after=_makers(block))
    return replace(block, operators=(*block.operators, made), output=block.output % len(block.operators))


def backward_stages(
    waves: Sequence[Wave], repeat: int, weights: Sequence[Weight], plan: PrecisionPlan, split: Parallelism
) -> tuple[Stage, ...]:
    """The backward passes of a step; the last one apart where it reduces its gradients."""
    if not split.overlap or split.zero > 1:
        return (Stage("backward", StageKind.BACKWARD, tuple(waves), repeat),)
    last = tuple(
        replace(wave, blocks=tuple(with_reduction(block, weights, plan, split) for block in wave.blocks))
        for wave in waves
    )
    found = (Stage("backward[last]", StageKind.BACKWARD, last),)
    return (Stage("backward", StageKind.BACKWARD, tuple(waves), repeat - 1), *found) if repeat > 1 else found


def _makers(block: Block) -> tuple[str, ...]:
    """The operators of a block that make gradients of weights."""
    return tuple(o.name for o in block.operators if any(r.trainable and r.role is Role.GRADIENT for r in o.outputs))


def sharded_backward(
    block: Block, weights: Sequence[Weight], plan: PrecisionPlan, split: Parallelism, accumulate: bool
) -> Block:
    """A block of the backward pass with the gathers before and the scatter behind it."""
    return with_gathers(with_scatter(block, weights, plan, split, accumulate), weights, split, Phase.BACKWARD)


def _collective(
    name: str,
    collective: str,
    inputs: tuple[Operand, ...],
    outputs: tuple[Operand, ...],
    phase: Phase,
    copies: int,
    after: tuple[str, ...] = (),
) -> Operator:
    return Operator(
        f"{name}.{collective}",
        Kind.COLLECTIVE,
        "optimizer",
        phase,
        inputs,
        outputs,
        operations_per_element=0.0,
        after=after,
        collective=collective,
        participants=copies,
        copies=True,
        origin=Origin.COLLECTIVE,
    )


def gathered_B(weights: Iterable[Weight], split: Parallelism) -> int:
    """Bytes of one layer's weights while they are whole."""
    return (
        sum(_bytes(kept_numbers(w, split.copies) * split.copies, w.precision) for w in weights)
        if split.zero == 3
        else 0
    )


def unscattered_B(weights: Iterable[Weight], plan: PrecisionPlan, split: Parallelism) -> int:
    """Bytes of one layer's gradients before they are scattered."""
    numbers = sum(kept_numbers(w, split.copies) for w in weights if w.trainable) * split.copies
    return _bytes(numbers, plan.weight_gradients) if split.zero >= 2 else 0


def _bytes(number: int, precision: str) -> int:
    return packed_B(number, precision)
