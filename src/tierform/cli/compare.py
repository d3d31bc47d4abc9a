"""``tierform compare MODEL --chips A,B,C``: one task on several chips, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import (
    SCREEN,
    OutputFile,
    console,
    json_option,
    one_thread,
    print_lines,
    print_table,
    print_text,
)
from tierform.cli.run_options import make_jobs, run_options
from tierform.cli.task_options import task_options
from tierform.errors import fail

if TYPE_CHECKING:
    from tierform.simulation.result import Result


@click.command("compare")
@click.argument("model")
@click.option("--chips", required=True, help="Chips, separated by commas; the last one is the baseline.")
@task_options
@run_options
@json_option
@click.option("--report", type=OutputFile(), help="Write the studio's pages as one offline file.")
@click.option("--trace", type=OutputFile(), help="Write the baseline's timeline for Perfetto.")
@click.option("--detail", is_flag=True, help="Print all notes.")
@click.option("--assumptions", is_flag=True, help="Print what the baseline assumes, too.")
def command(
    model: str,
    chips: str,
    json_file: Path | None,
    report: Path | None,
    trace: Path | None,
    detail: bool,
    assumptions: bool,
    **given: object,
) -> None:
    """MODEL's task on several chips, with ratios against the last one and what that baseline assumes.

    Each chip runs at its best number of micro-batches and its best mapping, unless they are given.
    """
    one_thread()
    from tierform.files import write_json
    from tierform.report import tables

    names = [name.strip() for name in chips.split(",") if name.strip()]
    if len(names) < 2:
        fail("at least two chips are needed", key="--chips", value=chips, fix="For example --chips atleus,a100.")
    jobs = make_jobs(model, names, given)
    results = [job.simulate(timeline=bool(report or (trace and job is jobs[-1]))) for job in jobs]
    if trace:
        results[-1].trace(trace)
    table = tables.comparison(results)
    content = {
        "schema": "tierform.comparison/1",
        "baseline": results[-1].chip,
        "results": [result.content() for result in results] if json_file else [],
    }
    if json_file:
        write_json(json_file, content)
    if report:
        from tierform.studio.export import write

        write(report, results)
    from tierform.report.answer import task_line

    with console().capture() as answered:
        print_text(f"{results[0].model}: {task_line(results[0].task)}", style="bold")
        print_table("", table.head, table.rows)
        for result in results:
            print_text(f"{result.chip}: {_differences(result)}", indent=2)
    text = answered.get()
    console().file.write(text)
    lines = [f"note ({', '.join(chips)}): {note}" for note, chips in _notes(results).items()]
    end = f"What the baseline {results[-1].chip} assumes: --assumptions."
    print_lines(lines, end, SCREEN - text.count("\n"), "All {} notes: --detail.", whole=detail)
    if assumptions:
        listed = tables.assumptions(results[-1].assumptions)
        print_table(f"The baseline {results[-1].chip} assumes", listed.head, listed.rows)
    for path in (json_file, report, trace):
        if path:
            console().print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)


def _notes(results: Sequence[Result]) -> dict[str, list[str]]:
    """Each note, and the chips of which it is told."""
    found: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            found.setdefault(note, []).append(result.chip)
    return found


def _differences(result: Result) -> str:
    precision = result.task["precision"]
    weights = precision["weights"]
    if precision["attention_weights"]:
        weights = f"{precision['attention_weights']}/{precision['ffn_weights']}"
    return (
        f"weights {weights}, activations {precision['activations']}, gradients {precision['gradients']}; "
        f"{sum(line.kind == 'assumed' for line in result.assumptions)} assumed constants"
    )
