"""``tierform calibrate``: measure this machine's GPU (or CPU) and write it as a chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierform.cli.output import InputPath, OutputFolder, console, json_option, print_table, progress
from tierform.errors import fail
from tierform.files import make_folder, write_json, write_text

if TYPE_CHECKING:
    from tierform.chip.gpu.calibration import Calibration
    from tierform.chip.gpu.measure import Device
    from tierform.chip.gpu.samples import Sample
    from tierform.decoding.reference_step import InStep

_HEAD = "device,dtype,m,n,k,latency_ms"


@click.command("calibrate")
@click.option("--name", default="my-device", show_default=True, help="Name of the chip; files are called after it.")
@click.option("--out", type=OutputFolder(), default=Path(), help="Folder for the files.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
@click.option("--format", "form", default="", help="Format of products: fp32, bf16 or fp16 (GPU bf16, CPU fp32).")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the CPU; one is timed by processor time.")
@click.option("--quick", is_flag=True, help="Fewer and smaller products: about half a minute on a CPU.")
@click.option("--planes", is_flag=True, help="Products straight from planes on one thread (as stores are read).")
@click.option("--points", type=click.IntRange(1, 2000), help="How many products (default 160, quick 64).")
@click.option("--samples", type=InputPath(), help="Fit to this CSV of products instead of measuring.")
@click.option("--from", "figures", type=InputPath(), help="Fit to a file of benchmarks/device.py, of any machine.")
@click.option("--board-power", type=click.FloatRange(min=0, min_open=True), help="Board power in watts, for energies.")
@click.option("--seed", type=int, default=0, show_default=True, help="Which shapes are drawn.")
@json_option
def command(
    name: str,
    out: Path,
    device: str,
    form: str,
    threads: int | None,
    quick: bool,
    planes: bool,
    points: int | None,
    samples: Path | None,
    figures: Path | None,
    board_power: float | None,
    seed: int,
    json_file: Path | None,
) -> None:
    """Measure this machine with torch, fit a GPU's kernel parameters, hold products out, and write a chip file."""
    from tierform.chip.gpu.calibration import LEAST_ROWS, calibrate, write_files
    from tierform.chip.gpu.measure import measure_device
    from tierform.chip.gpu.samples import read_samples

    make_folder(out)
    if planes:
        _calibrate_planes(name, out, json_file)
        return
    if figures is not None:
        if samples is not None or form or threads:
            given = "--samples" if samples is not None else "--format" if form else "--threads"
            fail("the device's file decides that", key=given, fix="Leave it out, or leave --from out.")
        _from_file(figures, name, out, board_power, seed, json_file)
        return
    rows: list[Sample] = []
    if samples is not None:
        rows = [row for row in read_samples(samples, "samples") if row.kind == "product"]
    count = points or (64 if quick else 160)
    if samples is None and count < LEAST_ROWS:
        fail("too few products to calibrate a device", key="--points", value=count, fix=f"At least {LEAST_ROWS}.")
    found = measure_device(device, threads, form)
    wrong = sorted({row.format for row in rows} - {found.format})
    if wrong:
        fail(
            f"this device was measured with {found.format}, the samples are of {', '.join(wrong)}",
            file=str(samples),
            fix="Give samples of this device in that format.",
        )
    if samples is None:
        rows = _measure(found, count, quick, seed, out / f"{name}-samples.csv")
    with progress() as shown:
        shown.add_task("fitting", total=None)
        result = calibrate(found, rows, seed=seed)
    files = write_files(result, name, out, board_power)
    ratio = None
    if found.issue_s:  # a processor, whose kernels were measured one by one
        from tierform.tuning.reference_step import in_step_ratio

        ratio = in_step_ratio(files[-1], found.pace)
        files = write_files(result, name, out, board_power, ratio)
    steps = _decoding(files[-1], result, 1 if quick else 3) if found.issue_s else None
    if steps is not None:
        from tierform.decoding.reference_step import runtime_text

        files = write_files(result, name, out, board_power, ratio, steps.products)
        files.append(out / f"{name}-decoding.yaml")
        write_text(files[-1], runtime_text(steps, name, found.name))
    _show(result, files, ratio, steps)
    if json_file:
        write_json(json_file, _figures(result, files))


def _calibrate_planes(name: str, out: Path, json_file: Path | None) -> None:
    from dataclasses import asdict

    from tierform.store.plane_speed import calibrate_planes, write_chip

    with progress() as shown:
        shown.add_task("measuring products from planes", total=None)
        found = calibrate_planes()
    files = write_chip(found, name, out)
    figures = [
        ["a product without bytes", f"{found.launch_s * 1e6:.3g} us"],
        ["bytes of planes", f"{found.bandwidth_B_per_s / 1e9:.3g} GB/s"],
        ["held out, median |error|", f"{100 * found.held_out_error:.1f} %"],
        ["load", f"{found.load:.1f}"],
    ]
    print_table("products straight from planes, one thread", ["figure", "value"], figures)
    for file in files:
        console().print(f"wrote {file}", highlight=False, markup=False)
    if json_file:
        write_json(json_file, {"schema": "tierform.plane-calibration/1", **asdict(found), "files": [*map(str, files)]})


def _from_file(file: Path, name: str, out: Path, board_power: float | None, seed: int, json_file: Path | None) -> None:
    """A chip of a device that was measured elsewhere."""
    from tierform.chip.gpu.calibration import calibrate, write_files
    from tierform.chip.gpu.device_file import device_of, energies_of, read_device

    given = read_device(file)
    device, rows = device_of(given, file)
    with progress() as shown:
        shown.add_task("fitting", total=None)
        energies, turning = energies_of(given), float(given.weights_in_turn)
        result = calibrate(device, rows, seed=seed, weights_in_turn=turning, energies=energies)
    files = write_files(result, name, out, board_power)
    _show(result, files, None)
    if energies.operation_J:
        told = ", ".join(f"{form} {joules * 1e12:.3g} pJ" for form, joules in energies.operation_J)
        watts = f"idle {energies.idle_W:.4g} W, floor {energies.floor_W:.4g} W"
        text = f"{watts}, a byte {(energies.byte_J or 0) * 1e12:.3g} pJ, an operation {told}; "
        console().print(f"{text}powers miss by {energies.error * 100:.1f} % (median)", highlight=False)
    if given.dry:
        console().print("A dry run's figures are of tiny sizes: this chip stands for nothing.", highlight=False)
    if json_file:
        write_json(json_file, _figures(result, files))


def _measure(device: Device, count: int, quick: bool, seed: int, file: Path) -> list[Sample]:
    """Measured products; what there is is written, also after Ctrl-C."""
    from tierform.chip.gpu.measure import measure_products

    rows: list[Sample] = []
    try:
        with progress() as shown:
            bar = shown.add_task("measuring products", total=count)
            for row in measure_products(device, count, quick=quick, seed=seed):
                rows.append(row)
                shown.advance(bar)
    finally:
        lines = [
            f"{r.device.replace(',', ' ')},{r.format},{r.shape[0]},{r.shape[1]},{r.shape[2]},{r.seconds * 1e3:.6g}"
            for r in rows
        ]
        if rows:
            write_text(file, "\n".join([_HEAD, *lines]) + "\n")
    return rows


def _decoding(chip: Path, result: Calibration, rounds: int) -> InStep | None:
    """Measure reference steps of decoding; None where there is no term for their products, or no transformers."""
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        console().print("Without transformers (the extra train) steps of decoding are not measured.", highlight=False)
    if find_spec("transformers") is None or result.few_rows is None:
        return None
    from tierform.decoding.reference_step import calibrate_steps

    with progress() as shown:
        shown.add_task("measuring steps of decoding", total=None)
        return calibrate_steps(chip, result.device.format, rounds)


def _show(result: Calibration, files: list[Path], in_step: float | None, steps: InStep | None = None) -> None:
    import numpy as np

    device = result.device
    figures = [
        ["device", device.name],
        [f"products ({device.format})", f"{device.peak_per_s / 1e9:.4g} GFLOP/s"],
        ["memory bandwidth", f"{device.bandwidth_B_per_s / 1e9:.4g} GB/s"],
        ["launch", f"{device.launch_s * 1e6:.3g} us"],
    ]
    if device.cores:  # of this machine, not of a file
        figures.append(["load before", f"{device.load:.1f} processes on {device.cores} cores"])
    if in_step is not None:
        figures += [
            ["an operator's issue", f"{device.issue_s * 1e6:.3g} us"],
            ["a kernel in a step over alone", f"{in_step:.3g}"],
        ]
    if steps is not None:
        figures += [
            ["decoding: products of 1 to 8 rows in a step", ", ".join(f"{one:.2f}" for one in steps.products)],
            ["decoding: other kernels in a step over alone", f"{steps.light_time:.3g}"],
            ["decoding: reference steps, largest error", f"{100 * steps.error:.1f} %"],
        ]
    print_table("measured", ["figure", "value"], figures)
    rows = [
        [
            label,
            str(len(errors)),
            *(
                f"{value * 100:.1f} %"
                for value in (np.median(np.abs(errors)), np.quantile(np.abs(errors), 0.9), np.median(errors))
            ),
        ]
        for label, errors in (("fitted", result.fit.fitted_errors), ("held out", result.fit.held_out_errors))
    ]
    print_table("products", ["rows", "number", "median |error|", "90th percentile", "bias"], rows)
    if result.few_rows_median is not None:
        few = f"held out, one to eight rows: median |error| {result.few_rows_median * 100:.1f} %"
        console().print(few, highlight=False)
    if result.warning:
        console().print(result.warning, highlight=False, markup=False)
    for file in files:
        console().print(f"wrote {file}", highlight=False, markup=False)


def _figures(result: Calibration, files: list[Path]) -> dict[str, object]:
    return {
        "schema": "tierform.calibration/1",
        "device": result.device.name,
        "format": result.device.format,
        "peak_FLOP_per_s": result.device.peak_per_s,
        "bandwidth_B_per_s": result.device.bandwidth_B_per_s,
        "fitted_rows": result.fitted_rows,
        "held_out_rows": result.held_out_rows,
        "held_out_median": result.held_out_median,
        "held_out_percentile_90": result.held_out_percentile_90,
        "held_out_few_rows_median": result.few_rows_median,
        "load": result.device.load,
        "cores": result.device.cores,
        "warning": result.warning,
        "parameters": result.fit.parameters,
        "files": [str(file) for file in files],
    }
