"""``tierform accuracy MODEL --chip CHIP --data DATA``: what the chip does to the model's answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import write_json

if TYPE_CHECKING:
    from tierform.numerics.accuracy import AccuracyTable


@click.command("accuracy")
@click.argument("model")
@click.option("--chip", default="atleus", show_default=True, help="A chip of the library or a YAML file.")
@click.option(
    "--data",
    required=True,
    help="digits, tilted-digits, pairs, articles:FILE.txt, a .txt/.jsonl/.csv/.tsv file, a Hub data set.",
)
@click.option("--test", default="", help="A separate file or data set for testing.")
@click.option("--bits", default="8", show_default=True, help="Weight and input bits: 8, W4A8, M8F4, M8F4A8KV8.")
@click.option("--noise", default="programming-2pct", show_default=True, help="Noise files, comma-separated, or none.")
@click.option("--temperature", default="300 K", show_default=True, help="Temperature of all tiles.")
@click.option("--after", default="1 s", show_default=True, help="Time since the cells were programmed.")
@click.option("--encoding", default="", help="offset, differential or differential-digital columns.")
@click.option("--adc-bits", type=int, default=None, help="ADC bits, 0 for ideal.  [default: the chip's]")
@click.option("--instances", default=3, show_default=True, help="Noisy chips measured for each training.")
@click.option("--seeds", default=3, show_default=True, help="Trainings of the adapters.")
@click.option("--steps", default=200, show_default=True, help="Training steps of the adapters.")
@click.option("--pretrain-steps", default=600, show_default=True, help="Steps for a small model trained here.")
@click.option("--batch", default=32, show_default=True, help="Examples of a step.")
@click.option("--learning-rate", default=1e-3, show_default=True, help="Greatest learning rate of the adapters.")
@click.option("--rank", default=8, show_default=True, help="Rank of the adapters.")
@click.option("--targets", default="q,v", show_default=True, help="Parts with adapters: q,k,v,o,gate,up,down or all.")
@click.option("--train-norms", is_flag=True, help="Also train normalizations and biases, which are digital.")
@click.option("--peak-rank", default=0, show_default=True, help="Further rank of noise-aware adapters: large weights.")
@click.option("--scale", default="crossbar", show_default=True, help="What shares a scale: crossbar or column.")
@click.option("--digital-channels", default=0, help="Input channels of each layer that stay digital.")
@click.option("--digital-influence", default=0.0, help="Share of all products: channels by influence on the loss.")
@click.option("--digital-weights", default=0.0, help="Share of single weights that stay digital.")
@click.option("--digital-layers", multiple=True, metavar="PATTERN", help="Layers that stay digital as a whole.")
@click.option("--fidelity", default="bits", show_default=True, help="Measured with: bits, surrogate or weights.")
@click.option("--training-fidelity", default="surrogate", show_default=True, help="Trained with, likewise.")
@click.option("--resample", default=10, show_default=True, help="Training steps between two chip instances.")
@click.option("--first-instance", default=1, show_default=True, help="Number of the first chip that is measured.")
@click.option("--choosing", is_flag=True, help="Measure on the data's validation part, to choose settings by.")
@click.option("--limit", default=0, help="Test at most so many examples.")
@click.option("--no-adapt", is_flag=True, help="Leave out the adapters.")
@json_option
def command(model: str, chip: str, data: str, test: str, json_file: Path | None, **options: Any) -> int:
    """Accuracy of MODEL on a chip: in float, quantized, noisy, and with noise-aware adapters.

    MODEL is a folder or a Hub id with a tokenizer, or `small`: a model for the data, trained here.
    """
    from tierform.compression.checkpoints.questions import model_and_task
    from tierform.numerics.accuracy import accuracy_table
    from tierform.numerics.adapters import Adapting
    from tierform.numerics.noise import load_noise
    from tierform.units import parse_quantity

    kelvin = parse_quantity(options["temperature"], "K", key="--temperature")
    seconds = parse_quantity(options["after"], "s", key="--after")
    noise = load_noise(options["noise"], time_s=seconds)
    changes: dict[str, Any] = {}
    if options["encoding"]:
        changes["encoding"] = options["encoding"]
    if options["adc_bits"] is not None:
        changes["adc_bits"] = options["adc_bits"]
    from tierform.numerics.chip_view import crossbar_format
    from tierform.numerics.digital import DigitalShare
    from tierform.numerics.formats import BitPlan
    from tierform.numerics.layer import FIDELITIES

    plan = BitPlan.parse(options["bits"])
    adapting = Adapting(
        options["steps"],
        options["batch"],
        options["learning_rate"],
        options["rank"],
        targets=tuple(options["targets"].split(",")),
        train_norms=options["train_norms"],
        resample_every=options["resample"],
        fidelity=options["training_fidelity"],
        peak_rank=options["peak_rank"],
    )
    for key in ("fidelity", "training_fidelity"):
        if options[key] not in FIDELITIES:
            fail("unknown fidelity", key=f"--{key.replace('_', '-')}", value=options[key], choices=FIDELITIES)
    crossbar_format(chip, **changes)  # a wrong chip or option is said before anything is trained
    if not 0 <= options["digital_influence"] < 1:
        wrong = options["digital_influence"]
        fail("a share from 0 to below 1 is needed", key="--digital-influence", value=wrong, fix="For example 0.05.")
    if options["digital_influence"] and options["digital_channels"]:
        fix = "Leave --digital-channels out."
        fail("channels are chosen by one rule", key="--digital-influence", value=options["digital_influence"], fix=fix)
    digital = DigitalShare(options["digital_channels"], options["digital_weights"], tuple(options["digital_layers"]))
    runs: list[dict[str, object]] = []
    with _kept(runs, json_file), progress() as display:
        bar = display.add_task("loading", total=None)
        network, task = model_and_task(
            model,
            data,
            test,
            options["pretrain_steps"],
            lambda step, loss: display.update(
                bar,
                description=f"training a small model, loss {loss:.3f}",
                total=options["pretrain_steps"],
                completed=step + 1,
            ),
        )
        if options["choosing"]:
            task = task.choosing()
        table = accuracy_table(
            network,
            task,
            chip,
            bits=plan,
            noise=noise,
            temperature_K=kelvin,
            instances=options["instances"],
            first_instance=options["first_instance"],
            seeds=options["seeds"],
            adapting=None if options["no_adapt"] else adapting,
            limit=options["limit"],
            fidelity=options["fidelity"],
            scale=options["scale"],
            digital=digital,
            influence=options["digital_influence"],
            on_run=lambda line, run: runs.append({"line": line, **asdict(run)}),
            progress=lambda what, done, total: display.update(bar, description=what, completed=done, total=total),
            **changes,
        )
    _show(table)
    if json_file:
        write_json(json_file, table.to_dict())
    return 0


@contextmanager
def _kept(runs: list[dict[str, Any]], json_file: Path | None) -> Iterator[None]:
    """What was measured before an interruption or an error is printed, and written where JSON was asked for."""
    try:
        yield
    except BaseException:
        if runs:
            rows = [
                [one["line"], str(one["seed"]), str(one["instance"]), f"{100 * one['accuracy']:.2f} %"] for one in runs
            ]
            print_table("measured before it ended", ["", "training", "chip", "accuracy"], rows)
            if json_file:
                write_json(json_file, {"schema": "tierform.accuracy-runs/1", "complete": False, "runs": runs})
        raise


def _show(table: AccuracyTable) -> None:
    rows = [
        [
            line.name,
            f"{100 * line.accuracy:.2f} %",
            f"±{100 * line.half_width:.2f}" if line.half_width else "",
            "" if line.points_lost is None else f"{line.points_lost:+.2f}",
            f"±{line.points_half_width:.2f}" if line.points_half_width else "",
            line.against,
            f"{line.loss:.4f}",
            str(len(line.runs)),
        ]
        for line in table.lines
    ]
    head = ["", "accuracy", "95 %", "points lost", "95 %", "against", "loss", "runs"]
    print_table(f"{table.task} on {table.chip}, {table.bits}, noise: {', '.join(table.noise) or 'none'}", head, rows)
    out = console()
    products = sum(layer["outputs"] * layer["inputs"] for layer in table.layers)
    beside = sum(layer["digital_products"] for layer in table.layers)
    if beside:
        out.print(f"{100 * beside / products:.2f} % of the layers' products are digital.", highlight=False)
    if others := table.settings.get("layers_not_in_crossbars", 0):
        out.print(f"{others} layers are not computed in crossbars: the mapping or a pattern leaves them digital.")
    lossless = sum(bool(layer["adc_lossless"]) for layer in table.layers)
    out.print(
        f"{table.examples} test examples ({table.unit}); {len(table.layers)} layers on "
        f"{sum(layer['crossbars'] for layer in table.layers)} crossbars, {lossless} of them with lossless ADCs.",
        highlight=False,
    )
    for line in table.assumptions:
        if line.kind == "assumed":
            out.print(f"assumed: {line.subject} = {line.value} ({line.note})", highlight=False, markup=False)
