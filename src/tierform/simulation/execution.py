"""What stands between a mapping and the ledger: operators on their components, and the layers that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import Cost
from tierform.mapping.plan import INTERCONNECT, WeightPlacement
from tierform.simulation.fabric import Place, Route
from tierform.simulation.schedule_layers import Layer
from tierform.simulation.traffic import NOTHING, Traffic
from tierform.workload.graph import Block
from tierform.workload.operator import Operator

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Move:
    """Bytes over a route, per execution of the layer."""

    route: Route
    size_B: float


@dataclass(slots=True)
class Execution:
    """An operator on its component in one run of layers: its cost, traffic, and how its weight sits.

    `arriving` holds the move from each operator from which it takes, `moves` all bytes that it brings over the network
    (those that nothing before it has brought to its place, and its traffic with memory).  `kernel` names the fused
    kernel of which it is a part.  `floor_W` is the power of a working board on top of idling; during a collective its
    boards work, too, unless it runs `beside` computation.  `once`: its component takes all tokens of a micro-batch
    together; where they come in parts, `parted_s` is what that takes more.
    """

    operator: Operator
    component: str
    cost: Cost
    place: Place
    traffic: Traffic = NOTHING
    placement: WeightPlacement | None = None
    programming: Cost | None = None
    moves: list[Move] = field(default_factory=list)
    arriving: dict[int, Move] = field(default_factory=dict)
    kernel: str = ""
    floor_W: float = 0.0
    beside: bool = False
    once: bool = False
    parted_s: float = 0.0

    @property
    def floor_J(self) -> float:
        """Energy that the board draws in its time whatever it does."""
        return self.floor_W * self.cost.occupancy_s

    @property
    def where(self) -> Floats | None:
        """(tiles,) where its energy is spent; None between chips."""
        return None if self.component == INTERCONNECT else self.place.where


@dataclass(frozen=True, slots=True)
class Segment:
    """`count` layers that cost the same: the schedule's layer and the executions."""

    block: Block
    count: int
    layer: Layer
    executions: tuple[Execution, ...]
