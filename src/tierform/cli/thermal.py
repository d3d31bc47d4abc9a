"""``tierform thermal``: HotSpot's files in, temperatures out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tierform.cli.output import console, json_option, print_table
from tierform.errors import fail
from tierform.files import write_json, write_text

_FILE = click.Path(path_type=Path)
# Keys of a configuration that may be given as options in HotSpot's own spelling.
_PASSED = (
    "init_file",
    "sampling_intvl",
    "ambient",
    "r_convec",
    "init_temp",
    "grid_map_mode",
    "model_secondary",
    "use_microchannels",
)


def _grid(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        fail("a grid is ROWSxCOLUMNS", key="--grid", value=text, fix="For example --grid 64x64.")
    return int(parts[0]), int(parts[1])


@click.command("thermal")
@click.option("-c", "configuration", type=_FILE, help="HotSpot configuration.")
@click.option("-f", "floorplan", type=_FILE, help="Floorplan of a planar chip.")
@click.option("-p", "trace", type=_FILE, required=True, help="Power trace.")
@click.option("-g", "--layers", "-grid_layer_file", "layers", type=_FILE, help="Layer file of a 3D stack.")
@click.option("-m", "--materials", "-materials_file", "materials", type=_FILE, help="Materials file.")
@click.option("--model", "-model_type", "model", type=click.Choice(["block", "grid"]), help="Block or grid model.")
@click.option("--grid", "grid", metavar="ROWSxCOLUMNS", help="Grid of the grid model; any numbers.")
@click.option("-grid_rows", "rows", type=int, hidden=True)
@click.option("-grid_cols", "columns", type=int, hidden=True)
@click.option(
    "--detailed-3d", "-detailed_3D", "detailed", type=click.Choice(["on", "off"]), help="Heterogeneous 3D mode."
)
@click.option(
    "--convention",
    type=click.Choice(["centred", "hotspot", "hotspot-detailed"]),
    help="Where a layer's node sits; HotSpot's way unless said.",
)
@click.option("-o", "trace_out", type=_FILE, help="Compute the transient and write its trace here.")
@click.option("--transient", is_flag=True, help="Compute the transient (for --json or the table).")
@click.option(
    "--steady", "-steady_file", "steady_out", type=_FILE, help="Write steady temperatures in HotSpot's format."
)
@click.option(
    "--grid-steady", "-grid_steady_file", "cells_out", type=_FILE, help="Write every cell's steady temperature."
)
@click.option("--solver", type=click.Choice(["auto", "blocks", "direct", "spectral", "multigrid"]), default="auto")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a key of the configuration.")
@click.option("-init_file", "init_file", hidden=True)
@click.option("-sampling_intvl", "sampling_intvl", hidden=True)
@click.option("-ambient", "ambient", hidden=True)
@click.option("-r_convec", "r_convec", hidden=True)
@click.option("-init_temp", "init_temp", hidden=True)
@click.option("-grid_map_mode", "grid_map_mode", hidden=True)
@click.option("-model_secondary", "model_secondary", hidden=True)
@click.option("-use_microchannels", "use_microchannels", hidden=True)
@json_option
def command(
    configuration: Path | None,
    floorplan: Path | None,
    trace: Path,
    layers: Path | None,
    materials: Path | None,
    model: str | None,
    grid: str | None,
    rows: int | None,
    columns: int | None,
    detailed: str | None,
    convention: str | None,
    trace_out: Path | None,
    transient: bool,
    steady_out: Path | None,
    cells_out: Path | None,
    solver: str,
    settings: tuple[str, ...],
    json_file: Path | None,
    **passed: str | None,
) -> None:
    """Temperatures of a chip described by HotSpot's files: steady for the mean power, and over time with -o."""
    overrides = {key: value for key in _PASSED if (value := passed.get(key)) is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not value:
            fail("a setting is KEY=VALUE", key="--set", value=setting)
        overrides[key.lstrip("-")] = value
    sizes = _grid(grid) or (rows, columns)
    overrides |= {
        key: str(value) for key, value in zip(("grid_rows", "grid_cols"), sizes, strict=True) if value is not None
    }
    if model:
        overrides["model_type"] = model
    elif any(value is not None for value in sizes):
        overrides["model_type"] = "grid"
    if detailed:
        overrides["detailed_3D"] = detailed
    from tierform.compat.hotspot import run as hotspot

    case = hotspot.load(
        trace,
        configuration=configuration,
        floorplan=floorplan,
        layers=layers,
        materials=materials,
        overrides=overrides,
        convention=convention,  # type: ignore[arg-type]
    )
    if cells_out is not None and case.mode == "block":
        fail("the block model has no cells", key="--grid-steady", fix="Use --model grid.")
    outcome = hotspot.run(case, transient=transient or trace_out is not None, solver=solver)  # type: ignore[arg-type]
    steady_out, cells_out = steady_out or case.steady_file, cells_out or case.cells_file
    if steady_out:
        write_text(steady_out, outcome.steady_text())
    if trace_out:
        write_text(trace_out, outcome.trace_text())
    if cells_out and case.mode == "grid":
        write_text(cells_out, _cells_text(outcome))
    if json_file:
        write_json(json_file, outcome.to_dict())
    _show(outcome)


def _cells_text(outcome: Any) -> str:
    """One block per layer of cells: a head line, then index and kelvin, rows from the north, as HotSpot writes it."""
    lines = []
    for layer, cells in enumerate(outcome.steady.cells_K):
        lines.append(f"Layer {layer}:")
        lines += [f"{index}\t{value:.2f}" for index, value in enumerate(cells[::-1].ravel())]
    return "\n".join(lines) + "\n"


def _show(outcome: Any) -> None:
    case = outcome.case
    powers = dict(zip((tile.key for tile in case.stack.tiles), case.tile_powers_W().mean(axis=0), strict=True))
    rows = [
        [name, f"{powers[name]:.4g}", f"{value:.2f}", f"{value - 273.15:.2f}"]
        for name, value in outcome.blocks_K.items()
    ]
    rows.sort(key=lambda row: -float(row[2]))
    how = "block model" if case.mode == "block" else f"grid model, {case.rows} × {case.columns} cells"
    shown = rows if len(rows) <= 60 else rows[:60]
    print_table(f"steady temperatures ({how})", ["block", "mean power W", "K", "°C"], shown)
    out = console()
    if len(shown) < len(rows):
        out.print(f"... and {len(rows) - len(shown)} cooler blocks", highlight=False)
    if outcome.trace_K is not None:
        hottest = outcome.trace_K.max(axis=0)
        place = int(hottest.argmax())
        out.print(
            f"transient: {len(outcome.trace_K)} intervals of {case.interval_s:g} s, "
            f"hottest {case.trace.names[place]} at {hottest[place]:.2f} K",
            highlight=False,
        )
    out.print(
        f"power {outcome.power_W:.4f} W in, {outcome.heat_out_W:.4f} W out; "
        f"hottest point {outcome.peak_cell_K:.2f} K; {outcome.cpu_s:.3f} s CPU",
        highlight=False,
    )
    for remark in case.remarks:
        out.print(f"- {remark}", highlight=False, markup=False)
