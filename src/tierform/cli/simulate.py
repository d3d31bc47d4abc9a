"""``tierform simulate MODEL --chip CHIP``: what a task costs on a chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import console, json_option, one_thread, print_table
from tierform.cli.task_options import make_task, task_options

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("simulate")
@click.argument("model")
@click.option("--chip", required=True, help="A chip of the library or a YAML file.")
@task_options
@click.option("--fidelity", type=click.Choice(["analytic", "cycle"]), default="analytic", show_default=True)
@click.option("--thermal", type=click.Choice(["none", "steady", "transient"]), default="steady", show_default=True)
@click.option("--mapping", type=_FILE, help="Use this mapping instead of the default one.")
@click.option("--save-mapping", type=_FILE, help="Write the mapping used, to be edited.")
@click.option(
    "--overflow",
    type=click.Choice(["stream", "refuse"]),
    default="stream",
    show_default=True,
    help="Weights that do not fit in crossbars.",
)
@click.option("--micro-batches", type=int, help="Parts that the batch is cut into.  [default: chosen for the chip]")
@click.option("--tensor", type=int, default=1, show_default=True, help="Chips that share every layer.")
@click.option(
    "--pipeline", type=int, default=1, show_default=True, help="Groups of chips, each with some of the layers."
)
@click.option(
    "--data", type=int, default=1, show_default=True, help="Copies of the model, each with part of the batch."
)
@click.option("--all-assumptions", is_flag=True, help="Print every constant with its source.")
@json_option
@click.option("--trace", type=_FILE, help="Write the timeline for Perfetto.")
@click.option("--report", type=_FILE, help="Write an HTML report with pictures.")
def command(
    model: str,
    chip: str,
    fidelity: Any,
    thermal: Any,
    mapping: Path | None,
    save_mapping: Path | None,
    overflow: Any,
    micro_batches: int | None,
    tensor: int,
    pipeline: int,
    data: int,
    all_assumptions: bool,
    json_file: Path | None,
    trace: Path | None,
    report: Path | None,
    **task_given: Any,
) -> None:
    """What MODEL's task costs on a chip: time, energy, area, memory, wear.

    MODEL is a name of the library (`tierform list models`), a folder with a Hugging Face config.json, or a Hub id.
    """
    one_thread()
    from tierform.chip.description import load_chip
    from tierform.simulation import simulate
    from tierform.simulation.simulate import inputs
    from tierform.workload import load_model
    from tierform.workload.parallel import Parallelism

    loaded_model, loaded_chip, task = inputs(
        lambda: load_model(model),
        lambda: load_chip(chip),
        lambda c: make_task(c.precision if c else None, **task_given),
    )
    result = simulate(
        loaded_model,
        task,
        loaded_chip,
        fidelity=fidelity,
        thermal=thermal,
        mapping=mapping,
        overflow=overflow,
        micro_batches=micro_batches,
        parallelism=Parallelism(tensor, pipeline, data),
        timeline=bool(trace or report),
    )
    if save_mapping and result.mapping:
        result.mapping.save(save_mapping)
    if json_file:
        result.save(json_file)
    if trace:
        result.trace(trace)
    if report:
        result.report(report)
    show(result, all_assumptions)
    for kind, path in (("mapping", save_mapping), ("figures", json_file), ("timeline", trace), ("report", report)):
        if path:
            console().print(f"{kind}: {path}", highlight=False, markup=False, soft_wrap=True)


def show(result: Any, all_assumptions: bool = False) -> None:
    """Print a Result for people."""
    from tierform.provenance import KINDS
    from tierform.report import tables

    task = result.task
    console().print(
        f"{result.model} on {result.chip}: {describe_task(task)} ({result.fidelity})", style="bold", highlight=False
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
