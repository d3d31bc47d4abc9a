"""What links cost a search: cycles, energy and wire between any two routers, and what a search of links leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tierform.exploration.network_search import Floats, NetworkProblem
from tierform.exploration.pillars import may_stand
from tierform.network.topology import VERTICAL


class LinkCosts(NamedTuple):
    """(routers, routers) tables of links between any two of them."""

    cycles: Floats  # of a planar link, and where a pillar may stand of that
    energy: Floats  # J a byte
    apart: Floats  # m
    wire: Floats  # m of a planar link, infinity where none may be
    stands: NDArray[np.bool_]  # where a pillar may stand


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
    energy = problem.network.energy
    one_die = topology.chiplet[:, None] == topology.chiplet[None]
    cycles = problem.network.router.pipeline_cycles + steps * problem.pitch_cycles
    joules = 8 * (energy.router_J_per_bit + energy.wire_J_per_bit_m * apart)
    upright, stands = topology.link_kind == VERTICAL, may_stand(topology)
    if upright.any():
        # All vertical links of a chip are alike.
        cycles[stands], joules[stands] = problem.cycles[upright].mean(), problem.energy[upright].mean()
    return LinkCosts(cycles, joules, apart, np.where(one_die & (apart > 0) & (steps <= longest), apart, np.inf), stands)


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
