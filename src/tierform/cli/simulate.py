"""``tierform simulate MODEL --chip CHIP``: what a task costs on a chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tierform.cli.output import InputPath, OutputFile, console, json_option, one_thread, print_table
from tierform.cli.run_options import make_jobs, run_options
from tierform.cli.task_options import task_options
from tierform.errors import Problem, TierformError


@click.command("simulate")
@click.argument("model", required=False)
@click.option("--chip", help="A chip of the library or a YAML file.")
@task_options
@run_options
@click.option("--job", "job_file", type=InputPath(), help="Simulate the job of this file instead.")
@click.option("--save-job", type=OutputFile(), help="Write what is asked as a job file.")
@click.option("--traced", is_flag=True, help="Trace MODEL's module (a folder with config.json) instead of reading it.")
@click.option("--save-mapping", type=OutputFile(), help="Write the mapping used, to be edited.")
@click.option("--all-assumptions", is_flag=True, help="Print every constant with its source.")
@json_option
@click.option("--trace", type=OutputFile(), help="Write the timeline for Perfetto.")
@click.option("--report", type=OutputFile(), help="Write an HTML report with pictures.")
def command(
    model: str | None,
    chip: str | None,
    job_file: Path | None,
    save_job: Path | None,
    traced: bool,
    save_mapping: Path | None,
    all_assumptions: bool,
    json_file: Path | None,
    trace: Path | None,
    report: Path | None,
    **given: Any,
) -> None:
    """What MODEL's task costs on a chip: time, energy, area, memory, wear.

    MODEL is a name of the library (`tierform list models`), a folder with a Hugging Face config.json, or a Hub id.
    """
    one_thread()
    job = _job(model, chip, job_file, traced, given)
    if save_job:
        from tierform.simulation.job_file import save_job as write_job

        write_job(_named(job, model, chip), save_job)
    result = job.simulate(timeline=bool(trace or report))
    if save_mapping and result.mapping:
        result.mapping.save(save_mapping)
    if json_file:
        result.save(json_file)
    if trace:
        result.trace(trace)
    if report:
        result.report(report)
    show(result, all_assumptions)
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


def _job(model: str | None, chip: str | None, file: Path | None, traced: bool, given: dict[str, Any]) -> Any:
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


def _named(job: Any, model: str | None, chip: str | None) -> Any:
    """The job with model and chip as they were named, which is what its file holds."""
    from dataclasses import replace

    return job if model is None or chip is None else replace(job, model=model, chip=chip)


def show(result: Any, all_assumptions: bool = False) -> None:
    """Print a Result for people."""
    from tierform.provenance import KINDS
    from tierform.report import tables

    task = result.task
    console().print(
        f"{result.model} on {result.chip}: {describe_task(task)} ({result.fidelity}, runtime {result.runtime})",
        style="bold",
        highlight=False,
    )
    for table in [*tables.all_tables(result), tables.operators(result, 8)]:
        print_table(table.title, table.head, table.rows)
    for note in result.notes:
        console().print(f"note: {note}", highlight=False, markup=False)
    kinds = KINDS if all_assumptions else ("assumed", "fitted")
    listed = tables.assumptions(result.assumptions, kinds)
    print_table(listed.title, listed.head, listed.rows)
    if not all_assumptions:
        rest = len(result.assumptions) - len(listed.rows)
        console().print(
            f"{rest} more constants are published, from data sheets or measured: --all-assumptions "
            f"prints them, --json has them all.",
            highlight=False,
        )


def describe_task(task: dict[str, Any]) -> str:
    """A task in a line."""
    if task["task"] == "Inference":
        parts = [f"inference, batch {task['batch']}, sequence {task['sequence']}"]
        if task["decode"]:
            parts.append(f"{task['decode']} tokens generated")
    else:
        method = task["method"]
        details = ", ".join(
            f"{key} {'+'.join(value) if isinstance(value, list) else value}"
            for key, value in method.items()
            if key != "name" and value != []
        )
        named = method["name"] + (f" ({details})" if details else "")
        kind = "fine-tuning" if task["task"] == "FineTuning" else "training"
        parts = [f"{kind} {named}, batch {task['batch']}, sequence {task['sequence']}, {task['steps']} step(s)"]
    precision = task["precision"]
    weights = precision["weights"]
    if precision["attention_weights"]:
        weights = f"{precision['attention_weights']} attention, {precision['ffn_weights']} FFN"
    parts.append(f"weights {weights}, activations {precision['activations']}")
    return "; ".join(parts)
