"""The optimizer's update, one operator per trainable weight.

AdamW in mixed precision reads the gradient, the 32-bit master weight and both moments, and writes the master weight,
the moments and the weight in its working format (Micikevicius et al., 2018; Loshchilov and Hutter, 2019).

8-bit AdamW (Dettmers et al., ICLR 2022) keeps both moments of matrices of 4,096 numbers or more in 8 bits, with a scale
for each block of 2,048.  Adafactor (Shazeer and Stern, ICML 2018), without momentum, keeps sums by row and by column of
a matrix, and the second moment of a vector.  Muon (Jordan, 2024; Liu et al., 2025) keeps one momentum for the matrices
of layers and makes it orthogonal by five Newton-Schulz steps in the gradients' format; all else is left to AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tierform.errors import Problem
from tierform.workload.arithmetic import OPTIMIZER, OPTIMIZER_STATES
from tierform.workload.graph import Weight
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role, Shard
from tierform.workload.ops.galore import PREFIX, galore_numbers, galore_update, projected
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan, bits

BLOCK_8BIT, LEAST_8BIT = 2048, 4096
NEWTON_SCHULZ = 5
_MOMENTUM = 7.0  # operations a number before the products


def master_format(weight: Weight, plan: PrecisionPlan) -> str | None:
    """The format of the separate master copy of a weight, where it is wider than the weight."""
    master = plan.master_weights
    return master if master and bits(master) > bits(weight.precision) else None


def optimizer_problems(optimizer: str, split: Parallelism) -> list[Problem]:
    """What an optimizer asks for that a split does not give."""
    if not (optimizer == "muon" or optimizer.startswith(PREFIX)) or (split.tensor == 1 and not split.zero):
        return []
    if optimizer != "muon":
        what = "GaLore decomposes whole gradients, and they are cut by tensor parallelism or sharded states"
        return [Problem(what, key="method", value="galore", fix="Leave tensor at 1 and zero at 0.")]
    what = "Muon makes whole matrices orthogonal, and their momentum is cut by tensor parallelism or sharded states"
    return [Problem(what, key="optimizer", value=optimizer, fix="Choose adamw, or leave tensor at 1 and zero at 0.")]


def orthogonal(weight: Weight, optimizer: str) -> bool:
    """Whether Muon takes a weight: matrices of layers; embedding, head and vectors are left to AdamW."""
    return optimizer == "muon" and weight.matrix and weight.part not in ("embedding", "head")


def state_numbers(weight: Weight, optimizer: str, plan: PrecisionPlan, sharing: int = 1) -> list[tuple[str, int]]:
    """(format, numbers) of each state of one group of a weight, or of the part that one of `sharing` copies keeps."""
    number = -(-weight.elements // sharing)
    form = plan.optimizer_states
    if projected(weight, optimizer):
        return [(form, number) for number in galore_numbers(weight, optimizer)]
    optimizer = "adamw" if optimizer.startswith(PREFIX) else optimizer
    if optimizer == "adamw-8bit" and weight.matrix and weight.elements >= LEAST_8BIT:
        scales = -(-number // BLOCK_8BIT)
        return [("int8", number), ("int8", number), ("fp32", scales), ("fp32", scales)]
    if optimizer == "adafactor" and weight.matrix and len(weight.shape) == 2:
        return [(form, -(-side // sharing)) for side in weight.shape]
    if optimizer == "muon" and not orthogonal(weight, optimizer):
        optimizer = "adamw"
    return [(form, number)] * OPTIMIZER_STATES[optimizer]


def update_operators(
    weights: Iterable[Weight], optimizer: str, plan: PrecisionPlan, sharing: int = 1
) -> tuple[Operator, ...]:
    """The updates of the weights of a layer (all their groups); independent of one another.

    Each of `sharing` copies updates its part of every weight.
    """
    found: list[Operator] = []
    for weight in weights:
        if orthogonal(weight, optimizer):
            found += _muon(weight, plan)
        elif projected(weight, optimizer):
            found += galore_update(weight, optimizer, plan, *_copies(weight, plan, weight.shape))
        else:
            plain = "adamw" if optimizer == "muon" or optimizer.startswith(PREFIX) else optimizer
            found.append(_update(weight, plain, plan, sharing))
    return tuple(found)


def _update(weight: Weight, optimizer: str, plan: PrecisionPlan, sharing: int) -> Operator:
    name = weight.name
    shape = weight.shape if sharing == 1 else (-(-weight.elements // sharing),)
    gradient = Operand(f"{name}.gradient", shape, plan.weight_gradients, Role.GRADIENT, trainable=True)
    own, copies = _copies(weight, plan, shape)
    states = tuple(
        Operand(f"{name}.state{index}", shape if number == gradient.elements else (number,), form, Role.OPTIMIZER_STATE)
        for index, (form, number) in enumerate(state_numbers(weight, optimizer, plan, sharing))
    )
    outputs = (own, *copies, *states)
    return Operator(
        f"{name}.update",
        Kind.OPTIMIZER,
        "optimizer",
        Phase.UPDATE,
        (gradient, *(copies or (own,)), *states),
        outputs,
        count=weight.groups,
        operations_per_element=OPTIMIZER[optimizer] * own.elements / sum(o.elements for o in outputs),
        weight=name,
        origin=Origin.UPDATE,
        shard=Shard.ELEMENTS if weight.total < weight.whole_total else Shard.WHOLE,
    )


def _copies(weight: Weight, plan: PrecisionPlan, shape: tuple[int, ...]) -> tuple[Operand, tuple[Operand, ...]]:
    """The weight, and its master copy where there is one."""
    own = Operand(weight.name, shape, weight.precision, Role.WEIGHT, trainable=True)
    master = master_format(weight, plan)
    return own, (Operand(f"{weight.name}.master", shape, master, Role.MASTER_WEIGHT),) if master else ()


def _muon(weight: Weight, plan: PrecisionPlan) -> list[Operator]:
    """Momentum, five Newton-Schulz steps on X (short, long), and the update.

    A step is A = X X', B = b A + c A A, X = a X + B X: (short, long, short), (short, short, short), (short, short,
    long).  The steps follow each other; they are charged as so many products of their sizes.
    """
    name, shape, form = weight.name, weight.shape, plan.gradients
    short, long = sorted((weight.elements // shape[-1], shape[-1]))
    gradient = Operand(f"{name}.gradient", shape, plan.weight_gradients, Role.GRADIENT, trainable=True)
    momentum = Operand(f"{name}.state0", shape, plan.optimizer_states, Role.OPTIMIZER_STATE)
    x = Operand(f"{name}.direction", (short, long), form, Role.ACTIVATION)
    turned = replace(x, name=f"{name}.direction.turned", shape=(long, short))
    square = Operand(f"{name}.square", (short, short), form, Role.ACTIVATION)
    own, copies = _copies(weight, plan, shape)
    first, last = _MOMENTUM, OPTIMIZER["muon"] - _MOMENTUM

    def light(
        what: str, inputs: tuple[Operand, ...], outputs: tuple[Operand, ...], count: float, *after: str
    ) -> Operator:
        return Operator(
            f"{name}.{what}",
            Kind.OPTIMIZER,
            "optimizer",
            Phase.UPDATE,
            inputs,
            outputs,
            count=weight.groups,
            operations_per_element=count * own.elements / sum(o.elements for o in outputs),
            after=after,
            weight=name,
            origin=Origin.UPDATE,
        )

    def product(what: str, left: Operand, right: Operand, n: int, k: int, after: str) -> Operator:
        return Operator(
            f"{name}.{what}",
            Kind.MATMUL,
            "optimizer",
            Phase.UPDATE,
            (left, right),
            (replace(x, name=f"{name}.{what}", shape=(short, n)),),
            m=short,
            n=n,
            k=k,
            count=weight.groups * NEWTON_SCHULZ,
            after=(f"{name}.{after}",),
            origin=Origin.UPDATE,
        )

    return [
        light("momentum", (gradient, momentum), (momentum, x), first),
        product("gram", x, turned, short, long, "momentum"),
        product("gram_square", square, square, short, short, "gram"),
        product("turn", square, x, long, short, "gram_square"),
        light("update", (x, *(copies or (own,))), (own, *copies), last, f"{name}.turn"),
    ]


def gradient_reduction(
    name: str,
    elements: int,
    precision: str,
    participants: int,
    *,
    copies: bool,
    scattered: bool = False,
    weight: str | None = None,
) -> Operator:
    """The all-reduce of so many gradient values before the update; `scattered`: each member keeps its part alone.

    `weight` names the one whose copies in several pipeline groups take part.
    """
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
        weight=weight,
        collective=collective,
        participants=participants,
        copies=copies,
        origin=Origin.COLLECTIVE,
    )
