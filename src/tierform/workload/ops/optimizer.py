"""The optimizer's update, one operator per trainable weight.

AdamW in mixed precision reads the gradient, the 32-bit master weight and both moments, and writes the master weight,
the moments and the weight in its working format (Micikevicius et al., 2018; Loshchilov and Hutter, 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tierform.workload.arithmetic import OPTIMIZER, OPTIMIZER_STATES
from tierform.workload.graph import Weight
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role, Shard
from tierform.workload.precision import PrecisionPlan, bits


def master_format(weight: Weight, plan: PrecisionPlan) -> str | None:
    """The format of the separate master copy of a weight, where it is wider than the weight."""
    master = plan.master_weights
    return master if master and bits(master) > bits(weight.precision) else None


def update_operators(
    weights: Iterable[Weight], optimizer: str, plan: PrecisionPlan, copies: int = 1
) -> tuple[Operator, ...]:
    """One update per weight of a layer (all its groups); independent of one another.

    Each of `copies` that share the optimizer's states updates its part of every weight.
    """
    return tuple(_update(weight, optimizer, plan, copies) for weight in weights)


def _update(weight: Weight, optimizer: str, plan: PrecisionPlan, sharing: int) -> Operator:
    name = weight.name
    shape = weight.shape if sharing == 1 else (-(-weight.elements // sharing),)
    gradient = Operand(f"{name}.gradient", shape, plan.weight_gradients, Role.GRADIENT, trainable=True)
    own = Operand(name, shape, weight.precision, Role.WEIGHT, trainable=True)
    moments = tuple(
        Operand(f"{name}.state{index}", shape, plan.optimizer_states, Role.OPTIMIZER_STATE)
        for index in range(OPTIMIZER_STATES[optimizer])
    )
    master = master_format(weight, plan)
    copies = (Operand(f"{name}.master", shape, master, Role.MASTER_WEIGHT),) if master else ()
    outputs = (own, *copies, *moments)
    return Operator(
        f"{name}.update",
        Kind.OPTIMIZER,
        "optimizer",
        Phase.UPDATE,
        (gradient, *(copies or (own,)), *moments),
        outputs,
        count=weight.groups,
        operations_per_element=OPTIMIZER[optimizer] / len(outputs),
        weight=name,
        origin=Origin.UPDATE,
        shard=Shard.ELEMENTS if weight.total < weight.whole_total else Shard.WHOLE,
    )


def gradient_reduction(
    name: str, elements: int, precision: str, participants: int, *, copies: bool, scattered: bool = False
) -> Operator:
    """The all-reduce of so many gradient values before the update; `scattered`: each member keeps its part alone."""
    gradients = Operand(name, (elements,), precision, Role.GRADIENT, trainable=True)
    kept = replace(gradients, shape=(elements // participants,)) if scattered else gradients
    collective = "reduce_scatter" if scattered else "all_reduce"
    return Operator(
        f"{name}.{collective}",
        Kind.COLLECTIVE,
        "optimizer",
        Phase.UPDATE,
        (gradients,),
        (kept,),
        operations_per_element=0.0,
        collective=collective,
        participants=participants,
        copies=copies,
        origin=Origin.COLLECTIVE,
    )
