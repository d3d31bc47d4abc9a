"""The options that say how a task is run, shared by the commands that simulate, and the jobs they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tierform.cli.technique_options import read_reduction, reduction_options
from tierform.errors import Problem, TierformError
from tierform.units import whole_number

if TYPE_CHECKING:
    from tierform.simulation.job import Job
    from tierform.workload.parallel import MicroBatches, Parallelism

F = TypeVar("F", bound=Callable[..., Any])
PHASES = ("prefill", "decode", "training")

_OPTIONS = [
    click.option("--fidelity", type=click.Choice(["analytic", "cycle"]), default="analytic", show_default=True),
    click.option("--thermal", type=click.Choice(["none", "steady", "transient"]), default="steady", show_default=True),
    click.option("--runtime", default="ideal", show_default=True, help="What the software adds: a name, or a file."),
    click.option(
        "--mapping", help="A mapping file, 'best' (of several that are tried) or 'plain' (the first).  [default: best]"
    ),
    click.option(
        "--overflow",
        type=click.Choice(["stream", "refuse"]),
        default="stream",
        show_default=True,
        help="Weights that do not fit in crossbars.",
    ),
    click.option(
        "--micro-batches",
        help="Parts that the batch is cut into: 4, or by phase prefill=8,decode=1.  [default: the best of several]",
    ),
    click.option("--tensor", type=int, default=1, show_default=True, help="Chips that share every layer."),
    click.option(
        "--pipeline", type=int, default=1, show_default=True, help="Groups of chips, each with some of the layers."
    ),
    click.option(
        "--data", type=int, default=1, show_default=True, help="Copies of the model, each with part of the batch."
    ),
    click.option("--sequence-parallel", is_flag=True, help="Share tokens, too, among the chips of --tensor."),
    click.option(
        "--parallel",
        help="All of these in one: tensor=8,pipeline=4,interleave=2,context=2,zero=1,sequence; or a YAML file of it.",
    ),
]


def run_options(command: F) -> F:
    """Add the options of a run to a command; they arrive as keyword arguments for :func:`make_jobs`."""
    command = reduction_options(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_jobs(model: str, chips: list[str], given: dict[str, Any], *, traced: bool = False) -> list[Job]:
    """One job for each chip from a command's options; TierformError with the mistakes of all of them at once.

    `given` holds the options of :func:`run_options` and of :func:`tierform.cli.task_options.task_options`.  `traced`
    traces the module of the folder `model`; its batch is not cut, so it runs as one micro-batch.
    """
    from tierform.chip.description import load_chip
    from tierform.cli.task_options import make_task
    from tierform.simulation.choose import task_on
    from tierform.simulation.job import Job
    from tierform.simulation.runtime import load_runtime
    from tierform.workload import load_model, load_traced

    run = {
        name: given.pop(name)
        for name in ("fidelity", "thermal", "runtime", "mapping", "overflow", "micro_batches")
        if name in given
    }
    split = {name: given.pop(name) for name in ("tensor", "pipeline", "data")}
    split["sequence"] = given.pop("sequence_parallel")
    parallel = given.pop("parallel", None)
    problems: list[Problem] = []

    def attempt(make: Callable[[], object]) -> Any:
        try:
            return make()
        except TierformError as error:
            problems.extend(problem for problem in error.problems if problem not in problems)
            return None

    reduction = attempt(lambda: read_reduction(given))
    if traced and reduction is not None:
        problems.append(Problem("a traced model is not reduced", key="--traced"))
    loaded = None if traced else attempt(lambda: load_model(model))
    parallelism = attempt(lambda: _parallelism(split, parallel))
    micro_batches = attempt(lambda: read_micro_batches(run.pop("micro_batches")))
    if "runtime" in run:
        run["runtime"] = attempt(lambda: load_runtime(run["runtime"]))
    jobs = []
    for name in chips:
        chip = attempt(lambda name=name: load_chip(name))  # type: ignore[misc]
        task = attempt(lambda chip=chip: make_task(chip.precision if chip else None, **given))  # type: ignore[misc]
        if problems:
            continue
        given_model: Any
        options = {**run, "mapping": run.get("mapping") or "best"}
        if traced:
            task = attempt(lambda chip=chip, task=task: task_on(task, chip))  # type: ignore[misc]
            given_model = attempt(lambda task=task: load_traced(model, task, parallelism=parallelism))  # type: ignore[misc]
            if given_model is None:
                continue
            task = None
        else:
            given_model = loaded
        jobs.append(
            attempt(
                lambda chip=chip, task=task, options=options, asked=given_model: Job(  # type: ignore[misc]
                    asked,
                    task,
                    chip,
                    parallelism=parallelism,
                    micro_batches=micro_batches,
                    reduction=reduction,
                    **options,
                ).loaded()
            )
        )
    if problems:
        raise TierformError(problems)
    return jobs


def _parallelism(split: dict[str, Any], parallel: str | None) -> Parallelism:
    """The split of the single options, or of ``--parallel``; both at once are refused."""
    from tierform.workload.parallel import Parallelism
    from tierform.workload.split_text import read_parallel

    if parallel is None:
        return Parallelism(**split)
    twice = [
        Problem(
            "--parallel says how chips share the work already",
            key="--sequence-parallel" if name == "sequence" else f"--{name}",
            value=value,
            fix=f"Write {name}{'' if name == 'sequence' else f'={value}'} in --parallel.",
        )
        for name, value in split.items()
        if value != getattr(Parallelism(), name)
    ]
    if twice:
        raise TierformError(twice)
    return read_parallel(parallel)


def read_micro_batches(text: str | None) -> int | MicroBatches | None:
    """``4``, or ``prefill=8,decode=1``; TierformError with every part that is neither."""
    from tierform.errors import nearest
    from tierform.workload.parallel import MicroBatches

    if text is None:
        return None
    if "=" not in text:
        try:
            return int(text)
        except ValueError:
            fix = f"Give a whole number, or one for each of {', '.join(PHASES)}: prefill=8,decode=1."
            raise TierformError([Problem("not a whole number", key="--micro-batches", value=text, fix=fix)]) from None
    problems, found = [], {}
    for part in text.split(","):
        phase, _, number = part.partition("=")
        if phase.strip() not in PHASES:
            close = nearest(phase.strip(), PHASES)
            problems.append(Problem("not a phase", key="--micro-batches", value=phase, nearest=close))
        elif (parts := whole_number(number.strip())) is None:
            problems.append(Problem("not a whole number", key=f"--micro-batches {phase.strip()}", value=number))
        else:
            found[phase.strip()] = parts
    if problems:
        raise TierformError(problems)
    return MicroBatches(**found)
