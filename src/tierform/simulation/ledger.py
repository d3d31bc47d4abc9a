"""The Ledger: what every execution costs, booked once, and nothing else.

Energy stands by (component, operator class, part) and, stage by stage, by tile; bytes by where they went; time by what
was busy.  All figures of a :class:`~tierform.simulation.result.Result` are functions of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.mapping.plan import INTERCONNECT
from tierform.simulation.execution import Execution
from tierform.simulation.traffic import Traffic
from tierform.workload.graph import Block, Stage

Floats = NDArray[np.float64]
OFF_CHIP = "memory"
LINKS = "links"
NETWORK = "network"
ACTIVE = "active power"


@dataclass(frozen=True, slots=True)
class StageEntry:
    """One stage in all its repetitions: its time, and what was booked in it.

    `tile_J` (tiles,) and `link_B` (links,) are those of the chip; `memory_B` is read and written behind it.
    """

    stage: Stage
    seconds: float
    energy_J: float
    tile_J: Floats
    link_B: Floats
    memory_B: float
    network_B: float


@dataclass(frozen=True, slots=True)
class Booked:
    """An execution and how often it took place."""

    stage: Stage
    block: Block
    execution: Execution
    times: float


@dataclass(slots=True)
class _Spent:
    """Energy that is spread over tiles in one way: shares (tiles,), and joules so far."""

    where: Floats
    energy_J: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Sums over the whole task of one chip of each pipeline group; see the module's text."""

    tiles: int
    links: int
    energy: dict[tuple[str, str, str], float] = field(default_factory=lambda: defaultdict(float))
    operations: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    busy_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    crossbar_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    memory_busy_s: float = 0.0
    spill_B: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    network_B: float = 0.0
    cell_writes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    booked: list[Booked] = field(default_factory=list)
    stages: list[StageEntry] = field(default_factory=list)
    link_B: Floats = field(init=False)
    _read_B: float = 0.0
    _write_B: float = 0.0
    _spent: dict[int, _Spent] = field(default_factory=dict)
    _before_J: float = 0.0
    _before: tuple[Floats, float, float] = field(init=False)

    def __post_init__(self) -> None:
        self.link_B = np.zeros(self.links)
        self._before = (self.link_B.copy(), 0.0, 0.0)

    @property
    def memory(self) -> Traffic:
        """Bytes from and to memory, wherever it is."""
        return Traffic(self._read_B, self._write_B)

    @property
    def energy_J(self) -> float:
        """Everything booked so far."""
        return fsum(self.energy.values())

    def add(self, component: str, kind: str, part: str, energy_J: float, where: Floats | None = None) -> None:
        """Book an energy; `where` (tiles,) says which share of it each tile dissipates, if it is on the chip."""
        self.energy[component, kind, part] += energy_J
        if where is not None:
            self._spend(where, energy_J)

    def _spend(self, where: Floats, energy_J: float) -> None:
        found = self._spent.get(id(where))
        if found is None:  # the array is kept, so that its number is not given to another
            found = self._spent[id(where)] = _Spent(where)
        found.energy_J += energy_J

    def book(self, stage: Stage, block: Block, execution: Execution, times: float) -> None:
        """Book `times` executions of an operator: energy, operations, busy time, its own memory's traffic, wear."""
        cost, operator, name = execution.cost, execution.operator, execution.component
        kind = operator.kind.value
        self.booked.append(Booked(stage, block, execution, times))
        self.operations[name, kind] += cost.operations * times
        where, spent_J = execution.where, 0.0
        for part, energy in cost.energy_J.items():
            self.energy[name, kind, part] += energy * times
            spent_J += energy
        if execution.floor_W:
            board = name if name != INTERCONNECT else LINKS
            self.energy[board, kind, ACTIVE] += execution.floor_J * times
            spent_J += execution.floor_J
        if where is not None:
            self._spend(where, spent_J * times)
        placement = execution.placement
        if placement is not None and placement.resident:
            self.crossbar_s[name] += cost.occupancy_s * times * placement.crossbars * placement.replicas
        else:
            self.busy_s[name] += cost.occupancy_s * times
        self._read_B += cost.memory_read_B * times
        self._write_B += cost.memory_write_B * times
        if cost.cell_writes:
            self.cell_writes[name] += round(cost.cell_writes * times)
        if execution.programming is not None:
            for part, energy in execution.programming.energy_J.items():
                self.add(name, "programming", part, energy * times, where)
            self.cell_writes[name] += round(execution.programming.cell_writes * times)
        for move in execution.moves:
            self.move(move.size_B * times, move.route.energy_J_per_B, move.route.link_share, move.route.where)

    def move(self, size_B: float, energy_J_per_B: float, link_share: Floats, where: Floats | None) -> None:
        """Book bytes over the network: energy, and what each link carried."""
        self.network_B += size_B
        self.link_B += link_share * size_B
        self.add(NETWORK, NETWORK, "routers and links", size_B * energy_J_per_B, where)

    def book_memory(self, moved: Traffic, busy_s: float, energy_J: float) -> None:
        """Book traffic with the nearest memory device behind the chip."""
        self._read_B += moved.read_B
        self._write_B += moved.write_B
        self.memory_busy_s += busy_s
        self.add(OFF_CHIP, OFF_CHIP, "transfers", energy_J)

    def end_stage(self, stage: Stage, seconds: float) -> None:
        """Close a stage of so many seconds: what was booked since the last one is its."""
        energy = self.energy_J
        tile_J = np.zeros(self.tiles)
        for spent in self._spent.values():
            tile_J += spent.energy_J * spent.where
        links, memory_B, network_B = self._before
        self.stages.append(
            StageEntry(
                stage=stage,
                seconds=seconds,
                energy_J=energy - self._before_J,
                tile_J=tile_J,
                link_B=self.link_B - links,
                memory_B=self.memory.total_B - memory_B,
                network_B=self.network_B - network_B,
            )
        )
        self._before_J = energy
        self._before = (self.link_B.copy(), self.memory.total_B, self.network_B)
        self._spent.clear()

    # -- sums -------------------------------------------------------------------------------------------------
    @property
    def seconds(self) -> float:
        """Time of all stages."""
        return fsum(entry.seconds for entry in self.stages)

    def energy_by(self, place: int) -> dict[str, float]:
        """Energy summed by component (0), operator class (1), or by component and part (2)."""
        found: dict[str, list[float]] = defaultdict(list)
        for key, energy in self.energy.items():
            found[f"{key[0]}: {key[2]}" if place == 2 else key[place]].append(energy)
        return {name: fsum(values) for name, values in found.items() if any(values)}

    def operations_by(self, place: int) -> dict[str, float]:
        """Operations summed by component (0) or operator class (1)."""
        found: dict[str, list[float]] = defaultdict(list)
        for key, operations in self.operations.items():
            found[key[place]].append(operations)
        return {name: fsum(values) for name, values in found.items()}
