"""``tierform tune CONFIG.yaml``: real training that switches itself from full-parameter to low-rank mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import InputPath, console, json_option, print_table, progress
from tierform.errors import Problem, TierformError
from tierform.files import write_json, write_text

if TYPE_CHECKING:
    from tierform.tuning.predict import Prediction
    from tierform.tuning.trainer import HybridTrainer


@click.command("tune")
@click.argument("config", type=InputPath())
@click.option("--fresh", is_flag=True, help="Begin anew even if the output folder holds a checkpoint.")
@click.option("--check", is_flag=True, help="Only check the file, the model and the samples; runs no code of yours.")
@click.option("--predict", "foretell", is_flag=True, help="What the run and its switch will cost on --chip; no step.")
@click.option("--chip", help="With --predict: a chip of the library, or a file as `calibrate` writes it.")
@click.option("--runtime", help="With --predict: what the software adds, a name or a file.  [default: ideal]")
@json_option
def command(
    config: Path,
    fresh: bool,
    check: bool,
    foretell: bool,
    chip: str | None,
    runtime: str | None,
    json_file: Path | None,
) -> None:
    """Train as CONFIG.yaml says; a run that was stopped goes on from its checkpoint.

    A model, a loss or data named FILE.py:NAME or MODULE:NAME are Python code, which a run executes.
    """
    _check_options(foretell, check or fresh, chip, runtime)
    from tierform.tuning.config import load_config

    if foretell:
        _predict(config, chip or "", runtime or "ideal", json_file)
        return
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


def _check_options(foretell: bool, others: bool, chip: str | None, runtime: str | None) -> None:
    problems = []
    if foretell and chip is None:
        fix = "Name a chip (`tierform list chips`), or measure this machine with `tierform calibrate`."
        problems.append(Problem("a prediction needs a chip", key="--chip", fix=fix))
    if foretell and others:
        problems.append(Problem("a prediction takes no step", key="--predict", fix="Leave --fresh and --check out."))
    for key, value in (("--chip", chip), ("--runtime", runtime)):
        if value is not None and not foretell:
            fix = "Add --predict; training runs on this machine."
            problems.append(Problem("only a prediction has this", key=key, value=value, fix=fix))
    if problems:
        raise TierformError(problems)


def _predict(config: Path, chip_name: str, runtime_name: str, json_file: Path | None) -> None:
    from tierform.chip.description import load_chip
    from tierform.simulation.runtime import load_runtime

    chip, runtime = load_chip(chip_name), load_runtime(runtime_name)
    from tierform.tuning.config import load_config
    from tierform.tuning.predict import predict

    file = load_config(config)
    with progress() as bar:
        bar.add_task("tracing a full and a low-rank step", total=None)
        found = predict(file, config.resolve().parent, chip, runtime)
    if json_file:
        write_json(json_file, found.to_dict())
    _print_prediction(found)


def _print_prediction(found: Prediction) -> None:
    phases = [
        [
            name,
            *(f"{1e3 * s:.4g}" for s in (one.forward_s, one.backward_s, one.update_s, one.seconds)),
            f"{one.joules:.4g}",
            f"{one.memory_B / 1e9:.4g}",
        ]
        for name, one in (("full", found.full), ("trial", found.trial), ("low-rank", found.low))
    ]
    head = ["phase", "forward (ms)", "backward (ms)", "update (ms)", "step (ms)", "energy (J)", "memory (GB)"]
    print_table(f"One step on {found.chip}, runtime {found.runtime}", head, phases)
    runs = [
        [
            "never" if run.switch is None else str(run.switch),
            str(run.trial),
            f"{run.seconds:.4g}",
            f"{run.joules:.4g}",
            f"{100 * run.saved_time:.1f} %",
            f"{100 * run.saved_energy:.1f} %",
        ]
        for run in found.runs
    ]
    head = ["switch after step", "trial steps", "time (s)", "energy (J)", "time saved", "energy saved"]
    print_table(f"The whole run of {found.steps} steps", head, runs)
    for note in found.notes:
        console().print(note, highlight=False, markup=False)


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
