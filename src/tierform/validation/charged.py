"""What `simulate` charges for operators, and a chip of one component to charge them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tierform.chip.component import Component, Cost, OperatorFuser
from tierform.chip.description import Chip, Tile, load_chip
from tierform.errors import fail
from tierform.workload.operator import Operator

# Any planar chip of one tile: its component is exchanged.
_ONE_TILE = "a100"


def charge(chip: Chip, operators: Sequence[Operator]) -> tuple[Cost, ...]:
    """Costs of operators of one block in order, each on the first component that supports it, fused where it fuses."""
    homes: list[Component] = []
    for operator in operators:
        able = [part for part in chip.components.values() if part.supports(operator)]
        if not able:
            fail(f"no component of {chip.name!r} supports this operator", value=operator.name)
        homes.append(able[0])
    costs = [home.cost(operator) for home, operator in zip(homes, operators, strict=True)]
    for part in chip.components.values():
        own = [place for place, home in enumerate(homes) if home is part]
        if own and isinstance(part, OperatorFuser):
            for kernel in part.fuse([operators[place] for place in own]):
                for member, cost in zip(kernel.members, kernel.costs, strict=True):
                    costs[own[member]] = cost
    return tuple(costs)


def chip_of(part: Component) -> Chip:
    """A planar chip of one tile that holds nothing but this component."""
    chip = load_chip(_ONE_TILE)
    die = chip.package.dies[0].model_copy(update={"grid": (1, 1), "holds": {part.name: part.units}})
    return replace(
        chip,
        name=part.name,
        package=chip.package.model_copy(update={"dies": [die]}),
        tiles=(Tile(number=0, die=0, x=0, y=0, holds=((part.name, part.units),)),),
        components={part.name: part},
        component_types={},
        place={},
        fingerprint="",
    )
