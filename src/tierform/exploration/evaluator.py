"""What a point of a space costs: a Job is made from it, simulated, and told as figures and violations.

A point that cannot be is not a failure but a number: how far it is beyond each limit, and for what no number is known
(a chip file that contradicts itself, a split that does not divide) one that is larger than any, with the reason.
Everything that points share (model, chip file, tasks) is made once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from tierform.chip.description import Chip, load_chip
from tierform.errors import TierformError, fail
from tierform.exploration.space import Space, Value, Values
from tierform.files import Document
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.fit_floor import require_room
from tierform.simulation.job import Job
from tierform.simulation.job_file import job_of
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.task import FineTuning, Inference

# Figures that objectives and limits may name, with their units: of a job, of a service, of answers, and all.
JOB_FIGURES: dict[str, str] = {
    "latency_s": "s",
    "energy_J": "J",
    "energy_delay_product_Js": "",
    "average_power_W": "W",
    "area_m2": "m2",
    "peak_K": "K",
    "kelvin_over": "",
    "bytes_missing": "B",
    "chips": "",
    "cell_writes": "",
    "network_B": "B",
}
SERVICE_FIGURES: dict[str, str] = {
    "goodput_per_s": "",
    "within_slo": "",
    "requests_per_s": "",
    "output_tokens_per_s": "",
    "ttft_p50": "s",
    "ttft_p99": "s",
    "tpot_p50": "s",
    "tpot_p99": "s",
    "e2e_p99": "s",
    "energy_J_per_output_token": "J",
    "average_power_W": "W",
    "chips": "",
}
# Beside a job's, of a space that has an accuracy: a share, percentage points and nats lost against float.
ACCURACY_FIGURES: dict[str, str] = {"accuracy": "", "points_lost": "", "nats_lost": ""}
FIGURES = {**JOB_FIGURES, **SERVICE_FIGURES, **ACCURACY_FIGURES}
# What a path may begin with that is no part of a job file.
BESIDE_JOB = ("chip.", "service.", "accuracy.")
# A service has requests, and a job of it the least task.
NO_TASK: dict[str, Any] = {"task": {"kind": "inference", "batch": 1, "sequence": 1}}
# The violation of a point that is refused: beyond any limit that is missed by a number.
REFUSED = 1e6
# The violation of a point that has no room begins here: beyond limits that are missed by less than what there is.
NO_ROOM = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Figures of a point, how far it is beyond its limits (0: feasible), and why."""

    figures: dict[str, float] = field(default_factory=dict)
    violation: float = 0.0
    reason: str = ""


class Evaluator(Protocol):
    """Points in, outcomes out, in order."""

    def __call__(self, points: Sequence[Values]) -> list[Outcome]:
        """The outcome of each point."""
        ...


def figures_of_result(result: Result) -> dict[str, float]:
    """The figures of :data:`JOB_FIGURES`; `kelvin_over` is the worst excess over a limit of the chip."""
    thermal = result.thermal or {}
    over = [die["peak_K"] - die["limit_K"] for die in thermal.get("dies", []) if die["limit_K"] is not None]
    return {
        "latency_s": result.latency_s,
        "energy_J": result.energy_J,
        "energy_delay_product_Js": result.energy_delay_product_Js,
        "average_power_W": result.average_power_W,
        "area_m2": result.area_m2,
        "peak_K": float(thermal.get("peak_K", math.nan)),
        "kelvin_over": max([0.0, *over]),
        "bytes_missing": float(math.fsum(result.memory_spill_B.values())),
        "chips": float(result.chips),
        "cell_writes": float(result.wear.cell_writes),
        "network_B": float(result.network_B),
    }


def judge(space: Space, figures: Mapping[str, float]) -> Outcome:
    """The outcome of figures: the sum of relative violations, and which limits are missed by how much."""
    total, reasons = 0.0, []
    for bound in space.limits:
        beyond = bound.violation(figures[bound.figure])
        if beyond > 0 or math.isnan(beyond):
            total += beyond
            reasons.append(f"{bound.figure} = {figures[bound.figure]:.6g} is {100 * beyond:.3g} % beyond its limit")
    return Outcome(dict(figures), total, "; ".join(reasons))


def timed(space: Space) -> Space:
    """The space with the limits of its jobs alone."""
    return replace(space, limits=tuple(bound for bound in space.limits if bound.figure not in ACCURACY_FIGURES))


def no_room(error: DoesNotFit) -> Outcome:
    """The outcome of what finds no place in memory: the bytes that are missing, and their share of those there are."""
    missing = float(error.needed_B - error.available_B)
    beyond = missing / max(float(error.available_B), 1.0)
    return Outcome({"bytes_missing": missing}, min(NO_ROOM + beyond, REFUSED), str(error).split("\n")[0])


def _holds_all(job: Job) -> bool:
    """Whether a chip's own memory holds all that a task needs, so that bytes alone say whether it fits."""
    chip, task = job.chip, job.task
    return (
        isinstance(job.model, Model)
        and isinstance(chip, Chip)
        and isinstance(job.runtime, Runtime)
        and isinstance(task, FineTuning | Inference)
        and bool(chip.can.memories)
        and not (chip.memory or chip.pipelined or task.offload)
    )


class JobEvaluator:
    """Points of a space as simulated jobs."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._jobs: dict[tuple[tuple[str, Value], ...], Job] = {}
        self._chips: dict[str, Chip] = {}

    def job(self, point: Values) -> Job:
        """The job of a point; TierformError where it cannot be."""
        changes = self.space.changes(point)
        of_chip = {path.removeprefix("chip."): value for path, value in changes.items() if path.startswith("chip.")}
        rest = tuple(item for item in changes.items() if not item[0].startswith(BESIDE_JOB))
        job = self._jobs.get(rest)
        if job is None:
            if len(self._jobs) > 4096:
                self._jobs.clear()
            job = self._jobs[rest] = self._base(dict(rest))
        assert isinstance(job.chip, Chip)
        return replace(job, chip=job.chip.vary(of_chip)) if of_chip else job

    def _base(self, changes: dict[str, Value]) -> Job:
        content = {**(NO_TASK if self.space.service else {}), **self.space.base}
        for path, value in changes.items():
            content = put(content, path.split("."), value)
        job = job_of(Document(content, str(Path(self.space.folder) / "job")))
        name = str(job.chip)
        if name not in self._chips:
            self._chips[name] = load_chip(name)
        return replace(job, chip=self._chips[name]).loaded()

    def result(self, point: Values) -> Result:
        """The whole result of a point."""
        if self.space.service:
            fail("points of this space are services, not jobs", key=self.space.name)
        return self.job(point).simulate()

    def judged(self, point: Values, job: Job, figures: dict[str, float]) -> Outcome:
        """The outcome of a job's figures."""
        return judge(self.space, figures)

    def __call__(self, points: Sequence[Values]) -> list[Outcome]:
        """The outcome of each point."""
        found = []
        for point in points:
            try:
                job = self.job(point)
                if _holds_all(job):
                    # What has no room is found out before anything is timed.
                    require_room(job)
                found.append(self.judged(point, job, figures_of_result(job.simulate())))
            except DoesNotFit as error:
                found.append(no_room(error))
            except TierformError as error:
                found.append(Outcome({}, REFUSED, str(error).replace("\n    ", " ")))
        return found


def put(content: dict[str, Any], steps: Sequence[str], value: Value) -> dict[str, Any]:
    """The content of a job with a value at a path of keys."""
    if len(steps) == 1:
        return {**content, steps[0]: value}
    inner = content.get(steps[0])
    return {**content, steps[0]: put(dict(inner) if isinstance(inner, dict) else {}, steps[1:], value)}


class TableEvaluator:
    """Points looked up in a table of known outcomes: to try strategies on what was evaluated before."""

    def __init__(self, space: Space, rows: Sequence[Mapping[str, Value]]) -> None:
        self.space = space
        names = [parameter.name for parameter in space.parameters]
        self._rows = {tuple(row[name] for name in names): row for row in rows}
        self._names = names

    def __call__(self, points: Sequence[Values]) -> list[Outcome]:
        """The outcome of each point; a point that is not in the table is refused."""
        found = []
        for point in points:
            row = self._rows.get(tuple(point[name] for name in self._names))
            if row is None:
                found.append(Outcome({}, REFUSED, "not in the table"))
                continue
            figures = {
                name: float(value)
                for name, value in row.items()
                if name not in point and isinstance(value, int | float)
            }
            found.append(judge(self.space, figures))
        return found
