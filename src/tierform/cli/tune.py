"""``tierform tune CONFIG.yaml``: real training that switches itself from full-parameter to low-rank mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import console, json_option, print_table, progress
from tierform.files import write_json, write_text

if TYPE_CHECKING:
    from tierform.tuning.trainer import HybridTrainer


@click.command("tune")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--fresh", is_flag=True, help="Begin anew even if the output folder holds a checkpoint.")
@click.option("--check", is_flag=True, help="Only check the file, the model and the samples; runs no code of yours.")
@json_option
def command(config: Path, fresh: bool, check: bool, json_file: Path | None) -> None:
    """Train as CONFIG.yaml says; a run that was stopped goes on from its checkpoint.

    A model, a loss or data named FILE.py:NAME or MODULE:NAME are Python code, which a run executes.
    """
    from tierform.tuning.config import load_config

    file = load_config(config)
    from tierform.tuning.run import check as check_only
    from tierform.tuning.run import run

    folder = config.resolve().parent
    if check:
        notes = check_only(file, folder)
        console().print("\n".join(["nothing is wrong with it", *notes]))
        return
    with progress() as bar:
        task = bar.add_task("full", total=file.steps)

        def tell(trainer: HybridTrainer) -> None:
            loss = trainer.journal.rows[-1][2]
            bar.update(task, completed=trainer.step_number, description=f"{trainer.phase}, loss {loss:.4g}")

        summary = run(file, folder, fresh=fresh, tell=tell)
    from tierform.report.tuning import loss_picture

    write_text(file.output / "loss.svg", loss_picture(summary["loss_points"], summary["decisions"]))
    _print(summary)
    console().print(f"written to {file.output}", highlight=False, markup=False)
    if json_file:
        write_json(json_file, summary)


def _print(summary: dict[str, Any]) -> None:
    parts = ("forward_s", "backward_s", "optimizer_s", "step_s")
    rows = [
        [
            phase,
            f"{sums['steps']:.0f}",
            f"{sums['seconds']:.2f}",
            *(f"{1e3 * sums[f'mean_{part}']:.2f}" for part in parts),
        ]
        for phase, sums in summary["phases"].items()
    ]
    print_table(
        "Time by phase", ["phase", "steps", "s", "forward (ms)", "backward (ms)", "optimizer (ms)", "step (ms)"], rows
    )
    shown = [
        [str(one["step"]), one["action"], one["reason"], _numbers(one["numbers"])]
        for one in summary["decisions"]
        if one["action"] != "wait"
    ]
    if shown:
        print_table("Decisions", ["step", "decision", "because", "numbers"], shown)
    saved = summary["projection"]["saved_share"]
    trained, total = summary["trainable_parameters"], summary["parameters"]
    facts = [
        ["switch after step", str(summary["switch_step"] or "none")],
        ["parameters that learn", f"{trained} of {total}"],
        ["time saved against full training", f"{100 * saved:.1f} %" if saved is not None else "no switch"],
        ["energy", f"{summary['energy_J']:.0f} J" if summary["energy_J"] is not None else summary["energy_note"]],
    ]
    if met := summary["conditions"]:
        shares = f"{met['loss']}, {met['weights']}, {met['both']} of {met['windows']}"
        facts.append(["windows that met the loss test, the weight test, both", shares])
    facts += [[f"test {name}", f"{value:.4g}"] for name, value in (summary["test"] or {}).items()]
    print_table("", ["", ""], facts)


def _numbers(numbers: dict[str, object]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers.items() if isinstance(value, (int, float)))
