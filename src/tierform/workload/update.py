"""The optimizer's update, one operator per trainable weight.

AdamW in mixed precision reads the gradient, the 32-bit master weight and both moments, and writes the master weight,
the moments and the weight in its working format (Micikevicius et al., 2018; Loshchilov and Hutter, 2019).
"""

from __future__ import annotations

from collections.abc import Iterable

from tierform.workload.arithmetic import OPTIMIZER, OPTIMIZER_STATES
from tierform.workload.graph import Weight
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role
from tierform.workload.precision import bits
from tierform.workload.task import FineTuning


def master_format(weight: Weight, task: FineTuning) -> str | None:
    """The format of the separate master copy of a weight, where it is wider than the weight."""
    master = task.precision.master_weights
    return master if master and bits(master) > bits(weight.precision) else None


def update_operators(weights: Iterable[Weight], task: FineTuning) -> tuple[Operator, ...]:
    """One update per weight of a layer (all its groups); independent of one another."""
    return tuple(_update(weight, task) for weight in weights)


def _update(weight: Weight, task: FineTuning) -> Operator:
    plan, name = task.precision, weight.name
    state = [
        Operand(f"{name}.state{index}", weight.shape, plan.optimizer_states, Role.OPTIMIZER_STATE)
        for index in range(OPTIMIZER_STATES[task.optimizer])
    ]
    own = Operand(name, weight.shape, weight.precision, Role.WEIGHT, False, True)
    master = master_format(weight, task)
    if master:
        state.insert(0, Operand(f"{name}.master", weight.shape, master, Role.OPTIMIZER_STATE))
    inputs = (Operand(f"{name}.gradient", weight.shape, plan.gradients, Role.GRADIENT), *(() if master else (own,)))
    outputs = (own, *state)
    return Operator(
        f"{name}.update",
        Kind.OPTIMIZER,
        "optimizer",
        Phase.UPDATE,
        (*inputs, *state),
        outputs,
        count=weight.groups,
        operations_per_element=OPTIMIZER[task.optimizer] / len(outputs),
        weight=name,
    )
