"""The winners of a study as ordinary files, and what the cycle-level engines say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tierform.chip.description import Chip
from tierform.errors import TierformError, fail
from tierform.exploration.evaluator import JobEvaluator
from tierform.exploration.results_base import Row
from tierform.exploration.service_space import ServiceEvaluator
from tierform.exploration.study import Study
from tierform.files import make_folder, write_json
from tierform.serving.engine import SCHEMA as ENGINE
from tierform.simulation.job_file import save_job


@dataclass(frozen=True, slots=True)
class Verified:
    """A winner by both fidelities: seconds by formula and by cycle, or why there is no second figure."""

    number: int
    latency_s: float
    cycle_latency_s: float | None
    reason: str = ""

    @property
    def disagreement(self) -> float | None:
        """Cycle over formula, less one."""
        return None if self.cycle_latency_s is None else self.cycle_latency_s / self.latency_s - 1


def write_winners(study: Study, folder: Path | str, rows: Sequence[Row] | None = None) -> list[Path]:
    """Write ``NUMBER-chip.yaml`` and ``NUMBER-job.yaml`` (and its mapping) for each winner; the job files.

    Of a space of services the engine's file, ``NUMBER-engine.yaml``, takes the place of the job's.
    """
    folder = make_folder(folder, parents=True)
    if study.space.service:
        return [_write_service(study, folder, row) for row in (study.front() if rows is None else rows)]
    evaluator = JobEvaluator(study.space)
    written = []
    for row in study.front() if rows is None else rows:
        job = evaluator.job(row.chosen)
        assert isinstance(job.chip, Chip)
        chip, mapping = folder / f"{row.number}-chip.yaml", folder / f"{row.number}-mapping.yaml"
        job.chip.write(chip)
        result = job.simulate()
        if result.mapping is not None:
            result.mapping.save(mapping)
        path = folder / f"{row.number}-job.yaml"
        save_job(replace(job, chip=chip.name), path)
        written.append(path)
    return written


def _write_service(study: Study, folder: Path, row: Row) -> Path:
    """The chip and the engine of a service: the engine's file."""
    chip = JobEvaluator(study.space).job(row.chosen).chip
    assert isinstance(chip, Chip)
    chip.write(folder / f"{row.number}-chip.yaml")
    given, _ = ServiceEvaluator(study.space).settings(row.chosen)
    path = folder / f"{row.number}-engine.yaml"
    # JSON is YAML, too.
    write_json(path, {"schema": ENGINE, **given.engine.model_dump(exclude_unset=True)})
    return path


def verify(study: Study, rows: Sequence[Row]) -> list[Verified]:
    """Simulate winners at cycle fidelity."""
    if study.space.service:
        fail("services are not simulated cycle by cycle", key=study.space.name, fix="Leave --verify out.")
    evaluator = JobEvaluator(study.space)
    found = []
    for row in rows:
        job = evaluator.job(row.chosen)
        latency = job.simulate().latency_s
        try:
            found.append(Verified(row.number, latency, replace(job, fidelity="cycle").simulate().latency_s))
        except TierformError as error:
            found.append(Verified(row.number, latency, None, str(error)))
    return found
