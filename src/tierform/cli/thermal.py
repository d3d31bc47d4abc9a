"""``tierform thermal``: HotSpot's files in, temperatures out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tierform.cli.output import console, json_option, print_table
from tierform.errors import fail
from tierform.files import write_json, write_text

if TYPE_CHECKING:
    from tierform.compat.hotspot.run import Outcome


_FILE = click.Path(path_type=Path)


class _HotSpotCommand(click.Command):
    """A command that also takes every key of a HotSpot configuration in that tool's spelling, ``-key value``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn keys into settings before the options are read; what is an option stays one."""
        known = {name for parameter in self.params for name in parameter.opts}
        rest: list[str] = []
        position = 0
        while position < len(args):
            word = args[position]
            position += 1
            if word[:1] != "-" or word[:2] == "--" or len(word) < 3 or word in known:
                rest.append(word)
                continue
            from tierform.compat.hotspot.keys import KEYS

            if word[1:] not in KEYS:
                rest.append(word)
            elif position == len(args):
                fail("this key needs a value", key=word)
            else:
                rest += ["--set", f"{word[1:]}={args[position]}"]
                position += 1
        return super().parse_args(ctx, rest)


def _grid(text: str) -> tuple[int, int]:
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) == 1:
        parts *= 2
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 5 for part in parts):
        fail("a grid is ROWSxCOLUMNS", key="--grid", value=text, fix="For example --grid 64x64.")
    return int(parts[0]), int(parts[1])


@click.command("thermal", cls=_HotSpotCommand)
@click.option("-c", "configuration", type=_FILE, help="HotSpot configuration.")
@click.option("-f", "floorplan", type=_FILE, help="Floorplan of a planar chip.")
@click.option("-p", "trace", type=_FILE, required=True, help="Power trace.")
@click.option("-g", "--layers", "-grid_layer_file", "layers", type=_FILE, help="Layer file of a 3D stack.")
@click.option("-m", "--materials", "-materials_file", "materials", type=_FILE, help="Materials file.")
@click.option("--model", "-model_type", "model", type=click.Choice(["block", "grid"]), help="Block or grid model.")
@click.option("--grid", "grid", metavar="ROWSxCOLUMNS", help="Grid of the grid model; any numbers.")
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
@json_option
def command(
    configuration: Path | None,
    floorplan: Path | None,
    trace: Path,
    layers: Path | None,
    materials: Path | None,
    model: str | None,
    grid: str | None,
    detailed: str | None,
    convention: str | None,
    trace_out: Path | None,
    transient: bool,
    steady_out: Path | None,
    cells_out: Path | None,
    solver: str,
    settings: tuple[str, ...],
    json_file: Path | None,
) -> None:
    """Temperatures of a chip described by HotSpot's files: steady for the mean power, and over time with -o."""
    overrides: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not value:
            fail("a setting is KEY=VALUE", key="--set", value=setting)
        overrides[key.lstrip("-")] = value
    if grid is not None:
        sizes = _grid(grid)
        overrides |= {"grid_rows": str(sizes[0]), "grid_cols": str(sizes[1])}
    if model:
        overrides["model_type"] = model
    elif {"grid_rows", "grid_cols"} & overrides.keys():
        overrides.setdefault("model_type", "grid")
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


def _show(outcome: Outcome) -> None:
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
