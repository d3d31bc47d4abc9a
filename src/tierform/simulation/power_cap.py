"""The power limit of a board over a pass, and the clock that follows from it.

The limit acts on the mean power of many kernels, not on a single short one.  In a pass of T seconds the boards spend
E_o on operations and E_m on bytes at their full clock.  Above the limit they lower the clock to a share c < 1 of it:
the part of each kernel's time in which it does not wait for memory, T_c in all, grows to T_c / c, and with the clock
the voltage falls, so that an operation takes c^2 of its energy (dynamic power is C V^2 f; that V follows f is assumed).
With the headroom H that the limit leaves above what a working board draws in any case,

    c^2 E_o + E_m = H (T - T_c + T_c / c),

solved by bisection.  Where even the lowest clock does not suffice, time is lengthened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import fsum
from typing import TYPE_CHECKING

from tierform.chip.component import Cost, PoweredBoard

if TYPE_CHECKING:
    from tierform.simulation.execution import Execution
    from tierform.simulation.stages import Timed

LOWEST_CLOCK = 0.2
ARITHMETIC = "arithmetic"


def clock_of(seconds: float, clocked_s: float, operations_J: float, bytes_J: float, headroom_W: float) -> float:
    """The share of the full clock at which the board keeps its limit; see the module's text."""

    def above(clock: float) -> bool:
        longer_s = seconds + clocked_s * (1 / clock - 1)
        return clock * clock * operations_J + bytes_J > headroom_W * longer_s

    if not above(1.0):
        return 1.0
    low, high = LOWEST_CLOCK, 1.0
    if above(low):
        return low
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if above(middle) else (middle, high)
    return low


def held_to_limit(
    name: str, board: PoweredBoard, executions: Iterable[tuple[Execution, float]], seconds: float, groups: int = 1
) -> tuple[float, float]:
    """(clock, seconds) of a pass of `seconds` on a board; its executions' costs are changed to those at that clock.

    `executions`: each with how often it runs in the pass.  `groups` boards of a pipeline share them.
    """
    own = [(item, times) for item, times in executions if item.component == name]
    operations_J = fsum(item.cost.energy_J.get(ARITHMETIC, 0.0) * times for item, times in own) / groups
    bytes_J = fsum((item.cost.total_energy_J - item.cost.energy_J.get(ARITHMETIC, 0.0)) * times for item, times in own)
    bytes_J /= groups
    clocked_s = min(seconds, fsum(_clocked_s(board, item.cost) * times for item, times in own) / groups)
    clock = clock_of(seconds, clocked_s, operations_J, bytes_J, board.headroom_W)
    if clock == 1.0:
        return 1.0, seconds
    for item, _ in own:
        item.cost = at_clock(item.cost, _clocked_s(board, item.cost), clock)
    longer_s = seconds + clocked_s * (1 / clock - 1)
    return clock, max(longer_s, (clock * clock * operations_J + bytes_J) / board.headroom_W)


def slowed(timed: Iterable[Timed]) -> tuple[str, ...]:
    """A sentence for each kind of stage that the limit slows, with its lowest clock."""
    lowest: dict[str, float] = {}
    for made in timed:
        if made.clock < 1.0:
            kind = made.stage.kind.value
            lowest[kind] = min(made.clock, lowest.get(kind, 1.0))
    return tuple(f"{kind}: the board's power limit holds the clock at {clock:.0%}" for kind, clock in lowest.items())


def _clocked_s(board: PoweredBoard, cost: Cost) -> float:
    """The part of a kernel's time that grows when the clock falls."""
    return max(0.0, cost.occupancy_s - board.memory_s(cost.memory_read_B + cost.memory_write_B))


def at_clock(cost: Cost, clocked_s: float, clock: float) -> Cost:
    """The cost of a kernel of which `clocked_s` follow the clock, at a share of the full clock."""
    more_s = clocked_s * (1 / clock - 1)
    if not cost.occupancy_s:
        return cost
    energy = {part: joules * clock * clock if part == ARITHMETIC else joules for part, joules in cost.energy_J.items()}
    return replace(
        cost,
        latency_s=cost.latency_s + more_s,
        occupancy_s=cost.occupancy_s + more_s,
        energy_J=energy,
        utilization=cost.utilization * cost.occupancy_s / (cost.occupancy_s + more_s),
    )
