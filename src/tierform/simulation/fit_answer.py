"""The answer of :func:`tierform.fit`: the cheapest way of each method, what others cost, why some were not timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tierform.simulation.fit_ways import FitWay
from tierform.workload.task import describe

Objective = Literal["time", "energy"]
OBJECTIVES = ("time", "energy")


@dataclass(frozen=True)
class FitFound:
    """A way that fits, with what it costs: bytes by part and place on one chip, seconds and joules of all chips."""

    way: FitWay
    placed_B: dict[str, dict[str, int]]
    chip_B: int
    latency_s: float
    energy_J: float
    tokens_per_s: float | None
    most_batch: int | None = None
    passes_s: float = 0.0  # forward and backward passes, without the update

    def cost(self, objective: Objective) -> tuple[float, float]:
        """What is made least: the objective, and the other one where ways are equal."""
        both = (self.latency_s, self.energy_J)
        return both if objective == "time" else (both[1], both[0])

    def content(self) -> dict[str, object]:
        """The way as plain data."""
        way = self.way
        return {
            "method": way.method,
            "task": describe(way.task),
            "parallelism": way.parallelism.content(),
            "micro_batches": way.micro_batches,
            "recomputation": way.recomputation,
            "offload": list(way.offload),
            "memory_placement_B": self.placed_B,
            "memory_B": self.chip_B,
            "latency_s": self.latency_s,
            "energy_J": self.energy_J,
            "tokens_per_s": self.tokens_per_s,
            "most_batch": self.most_batch,
        }


@dataclass(frozen=True)
class FitAnswer:
    """The answer: the cheapest way of each method, cheapest first, and why all others are not it.

    `ways` is their number in all, `timed` every way that was simulated, `pruned` the others by reason.  Where none
    fits, `closest` is the way that lacks least, with its bytes by part and the bytes missing.
    """

    model: str
    chip: str
    gpus: int
    runtime: str
    objective: Objective
    capacity_B: int
    ways: int
    timed: tuple[FitFound, ...]
    methods: tuple[FitFound, ...]
    pruned: dict[str, int]
    without: dict[str, str]
    closest: tuple[FitWay, dict[str, int], int] | None = None

    @property
    def fits(self) -> bool:
        """Whether any way fits."""
        return bool(self.methods)

    @property
    def best(self) -> FitFound | None:
        """The cheapest way of all."""
        return self.methods[0] if self.methods else None

    def content(self) -> dict[str, object]:
        """The answer as plain data."""
        closest = None
        if self.closest is not None:
            way, parts, missing = self.closest
            closest = {
                "method": way.method,
                "parallelism": way.parallelism.content(),
                "micro_batches": way.micro_batches,
                "recomputation": way.recomputation,
                "offload": list(way.offload),
                "parts_B": parts,
                "missing_B": missing,
            }
        return {
            "schema": "tierform.fit/1",
            "model": self.model,
            "chip": self.chip,
            "gpus": self.gpus,
            "runtime": self.runtime,
            "objective": self.objective,
            "fits": self.fits,
            "capacity_B": self.capacity_B,
            "methods": [found.content() for found in self.methods],
            "methods_without_a_way": self.without,
            "closest": closest,
            "counts": {"ways": self.ways, "timed": len(self.timed), "pruned": self.pruned},
            "timed": [found.content() for found in self.timed],
        }
