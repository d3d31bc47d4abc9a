"""A chip of one component, to charge operators on."""

from __future__ import annotations

from dataclasses import replace

from tierform.chip.component import Component
from tierform.chip.description import Chip, Tile, load_chip

# Any planar chip of one tile: its component is exchanged.
_ONE_TILE = "a100"


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
