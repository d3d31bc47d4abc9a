"""Products of a step whose sizes follow from its tokens: those that grow evenly, and those of experts.

Two passes tell how an ordinary product grows.  A mixture's tokens are shared out among the experts that they touch, in
whole numbers: groups of experts with so many rows each, as :mod:`tierform.workload.experts` says for any number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tierform.simulation.software import joined
from tierform.workload.operator import Operand, Operator

LEARNED = (16, 17)  # tokens of the passes that tell how products grow
Groups = Callable[[int], list[tuple[int, int]]]


@dataclass(frozen=True)
class GrowingProduct:
    """A product, or several that run as one, whose sizes grow evenly with the tokens of a step.

    `layer` is its place among the kinds of layers; `weights` are those of its members.
    """

    first: Operator
    second: Operator
    times: float
    layer: int
    weights: frozenset[str]

    def at(self, tokens: int) -> list[Operator]:
        """The product in a step of so many tokens."""
        beyond, (one, two) = tokens - LEARNED[0], (self.first, self.second)

        def grown(here: Operand, there: Operand) -> Operand:
            if here.shape == there.shape:
                return here
            shape = tuple(a + (b - a) * beyond for a, b in zip(here.shape, there.shape, strict=True))
            return replace(here, shape=shape)

        made = replace(
            one,
            m=one.m + (two.m - one.m) * beyond,
            inputs=tuple(map(grown, one.inputs, two.inputs)),
            outputs=tuple(map(grown, one.outputs, two.outputs)),
        )
        return [made]


@dataclass(frozen=True)
class ExpertProduct:
    """A product of a mixture's experts, or several that run as one; `groups` says who has how many rows of a step."""

    one: Operator
    times: float
    layer: int
    weights: frozenset[str]
    groups: Groups

    def at(self, tokens: int) -> list[Operator]:
        """The products of all groups in a step of so many tokens."""
        first, *others = self.one.inputs
        (result,) = self.one.outputs
        return [
            replace(
                self.one,
                m=rows,
                count=count,
                inputs=(replace(first, shape=(rows, self.one.k)), *others),
                outputs=(replace(result, shape=(rows, self.one.n)),),
            )
            for count, rows in self.groups(tokens)
        ]


def as_one(operators: Sequence[Operator]) -> Operator:
    """A product, or several that run as one."""
    return joined(operators) if len(operators) > 1 else operators[0]


def grows(one: Operator, two: Operator) -> bool:
    """Whether a product has other rows in a larger step, and is the same else."""
    same = (one.n, one.k, one.batch, one.count) == (two.n, two.k, two.batch, two.count)
    return same and one.m != two.m and len(one.inputs) == len(two.inputs)


__all__ = ["LEARNED", "ExpertProduct", "GrowingProduct", "as_one", "grows"]
