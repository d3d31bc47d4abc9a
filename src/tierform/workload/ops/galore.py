"""GaLore's update: AdamW on gradients that are projected to a subspace of rank r (Zhao et al., ICML 2024, algorithm 2).

For a matrix G of short and long side with r below the short one, and P (short, r):

    R = P' G        (r, long)       moments and step of AdamW on R
    G~ = a P N      (short, long)   added to the weight; a = 1 multiplies nothing

P comes from a singular value decomposition of G every `every` steps: about 4 short^2 long + 8 short^3 operations (Golub
and Van Loan, Matrix Computations, section 8.6), charged in every step at its share.  Kept are two moments of R and P:
(2 long + short) r numbers; vectors, embedding and head are left to AdamW.

Limits: the decomposition is charged at the rate of products, which no library reaches.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from tierform.workload.arithmetic import OPTIMIZER
from tierform.workload.graph import Weight
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role
from tierform.workload.precision import PrecisionPlan

PREFIX = "galore:"


def galore_name(rank: int, every: int, scale: float) -> str:
    """How the optimizer is called inside."""
    return f"{PREFIX}{rank}:{every}:{scale!r}"


def settings(optimizer: str) -> tuple[int, int, float]:
    """(rank, steps between decompositions, scale) of an optimizer's name."""
    _, rank, every, scale = optimizer.split(":")
    return int(rank), int(every), float(scale)


def projected(weight: Weight, optimizer: str) -> bool:
    """Whether the gradients of a weight are projected."""
    if not optimizer.startswith(PREFIX) or not weight.matrix or weight.part in ("embedding", "head"):
        return False
    return _sides(weight)[0] > settings(optimizer)[0]


def _sides(weight: Weight) -> tuple[int, int]:
    short, long = sorted((weight.elements // weight.shape[-1], weight.shape[-1]))
    return short, long


def galore_numbers(weight: Weight, optimizer: str) -> tuple[int, int, int]:
    """Numbers of both moments and of the projection."""
    (short, long), (rank, _, _) = _sides(weight), settings(optimizer)
    return rank * long, rank * long, rank * short


def galore_update(
    weight: Weight, optimizer: str, plan: PrecisionPlan, own: Operand, copies: tuple[Operand, ...]
) -> list[Operator]:
    """Projection, decomposition at its share, AdamW in the subspace, and the way back."""
    (short, long), (rank, every, scale) = _sides(weight), settings(optimizer)
    name, form = weight.name, plan.gradients
    gradient = Operand(f"{name}.gradient", (short, long), plan.weight_gradients, Role.GRADIENT, trainable=True)
    moments = [Operand(f"{name}.state{i}", (rank, long), plan.optimizer_states, Role.OPTIMIZER_STATE) for i in (0, 1)]
    base = Operand(f"{name}.state2", (short, rank), plan.optimizer_states, Role.OPTIMIZER_STATE)
    low = Operand(f"{name}.projected", (rank, long), form, Role.ACTIVATION)
    step = replace(low, name=f"{name}.step")
    back = Operand(f"{name}.direction", (short, long), form, Role.ACTIVATION)
    whole = 4.0 * short * short * long + 8.0 * short**3
    columns = max(1, ceil(whole / every / (2.0 * short * long)))

    def product(
        what: str, left: Operand, right: Operand, made: Operand, sizes: tuple[int, int, int], *after: str
    ) -> Operator:
        return Operator(
            f"{name}.{what}",
            Kind.MATMUL,
            "optimizer",
            Phase.UPDATE,
            (left, right),
            (made,),
            m=sizes[0],
            n=sizes[1],
            k=sizes[2],
            count=weight.groups,
            after=tuple(f"{name}.{item}" for item in after),
            origin=Origin.UPDATE,
        )

    def light(
        what: str, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], cost: float, after: str
    ) -> Operator:
        return Operator(
            f"{name}.{what}",
            Kind.OPTIMIZER,
            "optimizer",
            Phase.UPDATE,
            inputs,
            outputs,
            count=weight.groups,
            operations_per_element=cost,
            after=(f"{name}.{after}",),
            weight=name,
            origin=Origin.UPDATE,
        )

    back_cost = 2.0 + (scale != 1.0)  # step size and subtraction, for each number of the weight; and the scale
    share = OPTIMIZER["adamw"] / 3.0  # over the numbers written: step and both moments; the weight and its copy below
    return [
        product("decompose", gradient, replace(low, shape=(columns, long)), base, (short, columns, long)),
        product("project", base, gradient, low, (rank, long, short), "decompose"),
        light("moments", (low, *moments), (step, *moments), share, "project"),
        product("unproject", base, step, back, (short, long, rank), "moments"),
        light("update", (back, *(copies or (own,))), (own, *copies), back_cost / (1 + len(copies)), "unproject"),
    ]
