"""What links cost a search: cycles, energy and wire between any two routers, and what a search of links leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.network_search import Floats, NetworkProblem
from tierform.network.topology import PLANAR


class LinkCosts(NamedTuple):
    """(routers, routers) cycles, J a byte, m of planar links between them; m or infinity where none may be."""

    cycles: Floats
    energy: Floats
    apart: Floats
    wire: Floats


@dataclass(frozen=True, eq=False)
class FoundLinks:
    """What the long search leaves: channels without ends are not built."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]
    weight: Floats
    table: NDArray[np.int32]
    tile: NDArray[np.int32]  # at each router
    classes: NDArray[np.int32] | None = None  # of virtual channels, as `table`


def link_costs(problem: NetworkProblem, longest: int) -> LinkCosts:
    """Of planar links of at most `longest` pitches, each within a die."""
    topology = problem.network.topology
    apart = np.abs(topology.position_m[:, None] - topology.position_m[None])[..., :2].sum(axis=2)
    steps = np.ceil(apart / max(problem.pitch_m, 1e-12) - 1e-6)
    cycle = float(topology.link_latency_cycles[topology.link_kind == PLANAR].min(initial=1))
    energy = problem.network.energy
    one_die = topology.chiplet[:, None] == topology.chiplet[None]
    return LinkCosts(
        problem.network.router.pipeline_cycles + steps * cycle,
        8 * (energy.router_J_per_bit + energy.wire_J_per_bit_m * apart),
        apart,
        np.where(one_die & (apart > 0) & (steps <= longest), apart, np.inf),
    )


def relative_loads(problem: NetworkProblem) -> Floats:
    """(links,) load of a byte in units of the reference's busiest link."""
    rate = np.minimum(problem.network.topology.link_width_bits, problem.network.router.flit_bits)
    relative: Floats = 8 / rate / problem.network.clock_Hz / problem.reference[2]
    return relative


def byte_weight(problem: NetworkProblem, cycles: Floats, energy: Floats, energy_share: float = 0.5) -> Floats:
    """The objective for a byte: its cycles and energy, as shares of the reference's; together they weigh 2."""
    late, spent, _ = problem.reference
    shares = 2 * ((1 - energy_share) * cycles / late + energy_share * energy / spent)
    weight: Floats = shares / float(problem.flow.sum())
    return weight
