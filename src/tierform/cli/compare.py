"""``tierform compare MODEL --chips A,B,C``: one task on several chips, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import console, json_option, one_thread, print_table
from tierform.cli.task_options import make_task, task_options
from tierform.errors import fail


@click.command("compare")
@click.argument("model")
@click.option("--chips", required=True, help="Chips, separated by commas; the last one is the baseline.")
@task_options
@click.option("--thermal", type=click.Choice(["none", "steady"]), default="steady", show_default=True)
@json_option
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report with pictures.")
def command(
    model: str, chips: str, thermal: Any, json_file: Path | None, report: Path | None, **task_given: Any
) -> None:
    """MODEL's task on several chips, with ratios against the last one and what that baseline assumes."""
    one_thread()
    from tierform.chip.description import load_chip
    from tierform.files import write_json
    from tierform.report import tables
    from tierform.simulation import simulate
    from tierform.simulation.simulate import inputs
    from tierform.workload import load_model

    names = [name.strip() for name in chips.split(",") if name.strip()]
    if len(names) < 2:
        fail("at least two chips are needed", key="--chips", value=chips, fix="For example --chips atleus,a100.")
    results = []
    for name in names:
        loaded_model, chip, task = inputs(
            lambda: load_model(model),
            lambda name=name: load_chip(name),  # type: ignore[misc]
            lambda c: make_task(c.precision if c else None, **task_given),
        )
        results.append(simulate(loaded_model, task, chip, thermal=thermal, timeline=bool(report)))
    table = tables.comparison(results)
    content = {
        "schema": "tierform.comparison/1",
        "baseline": results[-1].chip,
        "results": [result.to_dict() for result in results],
    }
    if json_file:
        write_json(json_file, content)
    if report:
        from tierform.report.page import write

        write(report, results)
    from tierform.cli.simulate import describe_task

    console().print(f"{results[0].model}: {describe_task(results[0].task)}", style="bold", highlight=False)
    print_table(table.title, table.head, table.rows)
    for result in results:
        console().print(f"{result.chip}: {_differences(result)}", highlight=False, markup=False)
        for note in result.notes:
            console().print(f"  note: {note}", highlight=False, markup=False)
    listed = tables.assumptions(results[-1].assumptions)
    print_table(f"The baseline {results[-1].chip} assumes", listed.head, listed.rows)
    for path in (json_file, report):
        if path:
            console().print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)


def _differences(result: Any) -> str:
    precision = result.task["precision"]
    weights = precision["weights"]
    if precision["attention_weights"]:
        weights = f"{precision['attention_weights']}/{precision['ffn_weights']}"
    return (
        f"weights {weights}, activations {precision['activations']}, gradients {precision['gradients']}; "
        f"{sum(line.kind == 'assumed' for line in result.assumptions)} assumed constants"
    )
