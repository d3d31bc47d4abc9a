"""A finished simulation: everything that its figures are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tierform.chip.description import Chip
from tierform.mapping import Mapping
from tierform.simulation.fabric import Fabric
from tierform.simulation.heat import Heat
from tierform.simulation.ledger import Ledger
from tierform.simulation.runtime import Runtime
from tierform.simulation.stages import Stages, Timed
from tierform.simulation.traffic import MemoryBehind
from tierform.workload.graph import Workload
from tierform.workload.task import FineTuning

if TYPE_CHECKING:
    from tierform.simulation.job import Job

STATIC_TEMPERATURE_K = 330.0


@dataclass(frozen=True)
class Run:
    """A finished simulation: everything that its figures are made from."""

    workload: Workload
    chip: Chip
    mapping: Mapping
    runtime: Runtime
    fidelity: str
    fabric: Fabric
    memory: MemoryBehind
    placement: Any
    footprint: dict[str, int]
    stages: Stages
    timed: list[Timed]
    ledger: Ledger
    heat: Heat | None
    notes: tuple[str, ...]
    inputs: str
    job: Job

    @property
    def steps(self) -> int:
        """Optimizer steps, or one."""
        return self.workload.task.steps if isinstance(self.workload.task, FineTuning) else 1

    @property
    def scale(self) -> int:
        """Chips that do the same, times steps."""
        split = self.workload.parallelism
        return self.steps * split.tensor * split.copies

    @property
    def pipeline(self) -> int:
        """Pipeline groups."""
        return self.workload.parallelism.pipeline

    @cached_property
    def pass_s(self) -> float:
        """Seconds of all stages, of one step."""
        return self.ledger.seconds

    @cached_property
    def static_J(self) -> dict[str, float]:
        """Energy of idling and leakage by component, of one chip of each pipeline group, of one step."""
        if self.heat is None:
            power = {name: part.leakage_W(STATIC_TEMPERATURE_K) for name, part in self.chip.components.items()}
        else:
            power = dict(self.heat.leakage_W)
        power["network"] = self.fabric.leakage_W
        found = {name: watts * self.pass_s * self.pipeline for name, watts in power.items()}
        busy_s = self.ledger.memory_busy_s / self.pipeline
        found["memory"] = self.memory.background_J(self.pass_s, busy_s) * self.pipeline
        return {name: energy for name, energy in found.items() if energy}
