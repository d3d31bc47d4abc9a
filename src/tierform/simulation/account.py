"""What a simulation keeps while it runs: running sums, and everything that its summary is made from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tierform.chip.description import Chip
from tierform.mapping import Mapping
from tierform.simulation.costing import Executed, Segment
from tierform.simulation.fabric import Fabric
from tierform.simulation.heat import Heat
from tierform.simulation.offchip import OffChip
from tierform.simulation.result import Bar
from tierform.workload import Model, Task, Workload
from tierform.workload.graph import Stage
from tierform.workload.parallel import Parallelism


@dataclass(slots=True)
class Account:
    """Running sums over the whole task."""

    energy_by_component: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    energy_by_operator: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    energy_by_part: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operations_by_component: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    operations_by_operator: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    busy_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    crossbar_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    memory_read_B: float = 0.0
    memory_write_B: float = 0.0
    memory_busy_s: float = 0.0
    network_B: float = 0.0
    spill_B: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cell_writes: int = 0
    link_B: Any = None

    def add_energy(self, component: str, operator: str, part: str, energy_J: float) -> None:
        """Book an energy once in each of the three views."""
        self.energy_by_component[component] += energy_J
        self.energy_by_operator[operator] += energy_J
        self.energy_by_part[f"{component}: {part}"] += energy_J

    @property
    def energy_J(self) -> float:
        """Everything booked so far."""
        return sum(self.energy_by_component.values())


@dataclass(frozen=True)
class Finished:
    """Everything that the summary of a task is made from."""

    model: Model
    task: Task
    chip: Chip
    workload: Workload
    plan: Mapping
    fabric: Fabric
    offchip: OffChip
    account: Account
    stages: list[tuple[Stage, float, float]]
    executed: list[tuple[Stage, Segment, Executed, int]]
    placement: Any
    bars: list[Bar]
    heat: Heat | None
    parallelism: Parallelism
