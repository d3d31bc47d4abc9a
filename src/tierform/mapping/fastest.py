"""Which of several components an operator runs on when nothing else decides: the fastest."""

from __future__ import annotations

from tierform.chip.component import Component
from tierform.workload.operator import Operator


def fastest(able: dict[str, Component], operator: Operator) -> str:
    """The component that runs the operator fastest; of equal ones the one that needs less energy."""
    if len(able) == 1:
        return next(iter(able))

    def rank(name: str) -> tuple[float, float, str]:
        cost = able[name].cost(operator)
        # What is left equal differs in nothing but its parameters: their text decides, never a name or an order.
        return cost.occupancy_s, cost.total_energy_J, repr(able[name].assumptions())

    return min(able, key=rank)
