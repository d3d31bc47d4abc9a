"""``tierform simulate MODEL --chip CHIP``: what a task costs on a chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tierform.cli.output import (
    SCREEN,
    InputPath,
    OutputFile,
    console,
    json_option,
    one_thread,
    print_lines,
    print_pairs,
    print_table,
    print_text,
)
from tierform.cli.run_options import make_jobs, run_options
from tierform.cli.task_options import task_options
from tierform.errors import Problem, TierformError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierform.simulation.elasticity import Elasticity
    from tierform.simulation.job import Job
    from tierform.simulation.result import Result

_SOME = 0.005  # what is worth telling: 0.005 % of a figure, or 5 mK


@click.command("simulate")
@click.argument("model", required=False)
@click.option("--chip", help="A chip of the library or a YAML file.")
@task_options
@run_options
@click.option("--job", "job_file", type=InputPath(), help="Simulate the job of this file instead.")
@click.option("--save-job", type=OutputFile(), help="Write what is asked as a job file.")
@click.option("--traced", is_flag=True, help="Trace MODEL's module (a folder with config.json) instead of reading it.")
@click.option("--save-mapping", type=OutputFile(), help="Write the mapping used, to be edited.")
@click.option("--detail", is_flag=True, help="Print every table, the busiest operators and all notes, too.")
@click.option("--influence", is_flag=True, help="Print how much each assumed constant matters: runs with 1 % more.")
@click.option("--assumptions", is_flag=True, help="Print every constant with its kind and source, too.")
@json_option
@click.option("--trace", type=OutputFile(), help="Write the timeline for Perfetto.")
@click.option("--report", type=OutputFile(), help="Write the studio's pages as one offline file.")
def command(
    model: str | None,
    chip: str | None,
    job_file: Path | None,
    save_job: Path | None,
    traced: bool,
    save_mapping: Path | None,
    detail: bool,
    influence: bool,
    assumptions: bool,
    json_file: Path | None,
    trace: Path | None,
    report: Path | None,
    **given: object,
) -> None:
    """What MODEL's task costs on a chip: time, energy, area, memory, wear.

    MODEL is a name of the library (`tierform list models`), a folder with a Hugging Face config.json, a GGUF file, or
    a Hub id.
    """
    one_thread()
    job = _job(model, chip, job_file, traced, given)
    if save_job:
        from tierform.simulation.job_file import save_job as write_job

        write_job(_named(job, model, chip), save_job)
    result = job.simulate(timeline=bool(trace or report))
    if save_mapping and result.mapping:
        result.mapping.save(save_mapping)
    matters = _influence(job) if influence else None
    if matters:
        result.view(matters)
    if json_file:
        result.save(json_file)
    if trace:
        result.trace(trace)
    if report:
        result.report(report)
    show(result, detail=detail, assumptions=assumptions)
    if matters is not None:
        _show_influence(matters)
    written = (
        ("job", save_job),
        ("mapping", save_mapping),
        ("figures", json_file),
        ("timeline", trace),
        ("report", report),
    )
    for kind, path in written:
        if path:
            console().print(f"{kind}: {path}", highlight=False, markup=False, soft_wrap=True)


def _job(model: str | None, chip: str | None, file: Path | None, traced: bool, given: dict[str, object]) -> Job:
    """The job that the options describe."""
    if file is not None:
        changed = sorted(
            parameter.opts[0]
            for parameter in click.get_current_context().command.params
            if parameter.name in {*given, "model", "chip", "traced"}
            and click.get_current_context().get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        )
        if changed:
            raise TierformError(
                [Problem("the job file says it already", key=name, fix="Change the file.") for name in changed]
            )
        from tierform.simulation.job_file import load_job

        return load_job(file).loaded()
    missing = [name for name, value in (("MODEL", model), ("--chip", chip)) if value is None]
    if missing:
        raise TierformError([Problem("is missing", key=name, fix="Give it, or a --job file.") for name in missing])
    assert model is not None and chip is not None
    return make_jobs(model, [chip], given, traced=traced)[0]


def _named(job: Job, model: str | None, chip: str | None) -> Job:
    """The job with model and chip as they were named, which is what its file holds."""
    from dataclasses import replace

    return job if model is None or chip is None else replace(job, model=model, chip=chip)


def show(result: Result, *, detail: bool = False, assumptions: bool = False) -> None:
    """Print a Result for people: what it answers on one screen, and what more is asked for."""
    from tierform.provenance import KINDS
    from tierform.report import tables
    from tierform.report.answer import task_line

    task = task_line(result.task)
    title = f"{result.model} on {result.chip}: {task} ({result.fidelity}, runtime {result.runtime})"
    with console().capture() as answered:
        print_text(title, style="bold")
        _answer(result)
    text = answered.get()
    console().file.write(text)
    weak = sum(line.kind in ("assumed", "fitted") for line in result.assumptions)
    end = f"{weak} of {len(result.assumptions)} constants are assumed or fitted (--assumptions, --influence)."
    end += "" if detail else "  Tables and operators: --detail."
    notes = [f"note: {note}" for note in result.notes]
    print_lines(notes, end, SCREEN - text.count("\n"), "All {} notes: there, too.", whole=detail)
    if detail:
        for table in [*tables.all_tables(result), tables.operators(result, 12)]:
            print_table(table.title, table.head, table.rows)
    if assumptions:
        listed = tables.assumptions(result.assumptions, KINDS)
        print_table(listed.title, listed.head, listed.rows)


def _influence(job: Job) -> list[Elasticity]:
    from tierform.simulation.elasticity import assumed, elasticities

    return elasticities(job, assumed(job))


def _show_influence(matters: Sequence[Elasticity]) -> None:
    """The assumed constants that change a figure, by what 1 % more of each does."""
    hot = any(one.heat_K is not None for one in matters)
    found = [
        one for one in matters if max(abs(one.latency), abs(one.energy), abs(one.area), abs(one.heat_K or 0.0)) >= _SOME
    ]
    if not found:
        print_text("No assumed constant of the chip's network and components changes a figure.")
        return
    head = ("constant", "value", "time", "energy", "area", *(("hottest",) if hot else ()))
    rows = []
    for one in found:
        shown = [f"{amount:+.2f} %" for amount in (one.latency, one.energy, one.area)]
        shown += [f"{1000 * (one.heat_K or 0.0):+.0f} mK"] if hot else []
        rows.append((one.path, one.value, *shown))
    print_table("What 1 % more of an assumed constant changes", head, rows)


def _answer(result: Any) -> None:
    from tierform.report.answer import answer

    found = answer(result)
    print_pairs(found.figures)
    console().print()
    print_table("", found.stages.head, found.stages.rows)
    for label, text in found.shares:
        print_text(f"{label}: {text}", indent=2)
