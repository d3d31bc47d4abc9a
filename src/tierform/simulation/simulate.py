"""The main job: a model's task on a chip.

expand -> map -> cost each distinct operator once -> transfers and memory traffic -> schedule -> book -> Result.
The default number of micro-batches and the default mapping are the best of a few that are tried; the result notes say
which, and what it gained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tierform.chip.description import Chip
from tierform.collector import no_collection
from tierform.mapping import Mapping
from tierform.simulation.booking import book
from tierform.simulation.choose import Trial, choose
from tierform.simulation.collectives import require_cluster
from tierform.simulation.heat import Heat, HeatMap
from tierform.simulation.job import Fidelity, Job, Overflow, Thermal
from tierform.simulation.result import Result
from tierform.simulation.run import Run
from tierform.simulation.runtime import Runtime
from tierform.simulation.views_evidence import hash_of
from tierform.workload import Model, Task, Workload
from tierform.workload.parallel import MicroBatches, Parallelism

ALONE = Parallelism()


def simulate(
    model: Model | Workload | str | Path | Job,
    task: Task | None = None,
    chip: Chip | str | Path = "",
    *,
    fidelity: Fidelity = "analytic",
    mapping: Mapping | str | Path | None = None,
    overflow: Overflow = "stream",
    micro_batches: int | MicroBatches | None = None,
    thermal: Thermal = "steady",
    parallelism: Parallelism = ALONE,
    runtime: Runtime | str = "ideal",
    timeline: bool = False,
) -> Result:
    """What the task costs on the chip.

    The first argument is a :class:`Job`, or a model (or a Workload, as tracing makes one) with its task and chip.
    `mapping` replaces the default one (a file is checked against chip and workload); ``plain`` takes the first that is
    tried.  `overflow` says whether weights that do not fit in crossbars are streamed or refused.  A task without a
    precision of its own takes the chip's.  `thermal` closes the loop of power, temperature and leakage.  `parallelism`
    spreads the task over several of these chips (all figures are then for all of them together; temperatures and memory
    for one).  `timeline` keeps every bar of the schedule.  Raises TierformError with all problems found.
    """
    if isinstance(model, Job):
        return run_job(model, timeline=timeline)
    job = Job(
        model=model if isinstance(model, Model | Workload) else str(model),
        task=task,
        chip=chip if isinstance(chip, Chip) else str(chip),
        parallelism=parallelism,
        runtime=runtime,
        fidelity=fidelity,
        thermal=thermal,
        overflow=overflow,
        mapping="best" if mapping is None else mapping,
        micro_batches=micro_batches,
    )
    return run_job(job, timeline=timeline)


def simulate_many(jobs: Iterable[Job], *, workers: int = 1) -> Iterator[Result]:
    """The Result of each job, in order, as they are ready.

    Jobs in one process share expanded workloads, costs and networks.  `workers` processes share the jobs.
    """
    if workers == 1:
        yield from (run_job(job) for job in jobs)
        return
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_job, list(jobs), chunksize=4)


def run_job(job: Job, *, timeline: bool = False) -> Result:
    """The Result of a job; see :func:`simulate`."""
    with no_collection():
        return _run_job(job.loaded(), timeline)


def _run_job(job: Job, timeline: bool) -> Result:
    assert isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
    if job.parallelism.chips > 1:
        require_cluster(job.chip, job.parallelism.chips)
    trial = choose(job, timeline=timeline)
    ledger = book(trial.costing, trial.stages, trial.timed)
    heat: Heat | None = None
    if job.thermal != "none" and ledger.seconds > 0:
        heat_map = HeatMap(job.chip, ledger, trial.costing.fabric.leakage_W, job.parallelism.pipeline)
        heat = heat_map.steady()
        if timeline:
            heat.figures["cross_section"] = heat_map.cross_section(heat)
        if job.thermal == "transient":
            heat = heat_map.transient(heat)
    return Result(_run(job, trial, ledger, heat))


def _run(job: Job, trial: Trial, ledger: object, heat: Heat | None) -> Run:
    from tierform.simulation.ledger import Ledger

    assert isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime) and isinstance(ledger, Ledger)
    return Run(
        workload=trial.workload,
        chip=job.chip,
        mapping=trial.mapping,
        runtime=job.runtime,
        fidelity=job.fidelity,
        fabric=trial.costing.fabric,
        memory=trial.costing.memory,
        placement=trial.placement,
        footprint=trial.footprint.parts(),
        stages=trial.stages,
        timed=trial.timed,
        ledger=ledger,
        heat=heat,
        notes=trial.notes,
        inputs=hash_of(trial.workload),
        job=job,
    )
