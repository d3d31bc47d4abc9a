"""Heat against HotSpot 7 and closed forms.

Built in are small tables of HotSpot's results (planar, stacked, over time, microchannels) with the inputs that they
belong to, and cases whose answers are formulas.  With a folder, every subfolder that holds HotSpot inputs
(``*.config``, ``*.ptrace``, and ``*.flp`` or ``*.lcf``) is run and compared with its ``expected-block*.steady``,
``expected-grid<N>*.steady`` and ``expected-block-transient*.ttrace`` (from ``*.init``).  Agreement with a simulator is
not truth; the closed forms are.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tierform.compat.hotspot import run as hotspot
from tierform.compat.hotspot.files import read_power_trace, read_temperatures
from tierform.errors import fail
from tierform.files import read_text
from tierform.thermal.block import BlockModel
from tierform.thermal.grid import GridModel
from tierform.thermal.materials import Material
from tierform.thermal.network import Array
from tierform.thermal.stack import Channels, Plate, Region, Sink, Stack, StackLayer
from tierform.validation import thermal_closed_forms as closed
from tierform.validation.ledger import EngineLedger, Evidence, Point, Tolerance

_SOURCE = "hotspot-7"
_CARSLAW = "Carslaw and Jaeger 1959"
# Tolerances in kelvin: one floorplan's block model, its grid model, stacks, and transients.
BLOCK, GRID, STACK, TRANSIENT = (Tolerance(absolute=value) for value in (0.05, 0.15, 0.3, 0.3))
_EXACT = Tolerance(relative=1e-3)
_BALANCE = Tolerance(relative=1e-9)
_TABLES = Path(__file__).parent / "tables"
_COPPER = Material.isotropic("copper", 400.0, 3.55e6)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    if folder is None:
        points = [*_planar(), *_stacked(), *_steps(), *_channels(), *_closed_forms()]
    else:
        points = [*_folder(folder), *_closed_forms()]
    remarks = (
        "HotSpot's block and grid models differ from each other by about 4 K at the hot block of its first example; "
        "each is compared with ours of the same kind.",
        "HotSpot's heterogeneous 3D mode puts half of the convective resistance between spreader and sink as well; the "
        "stacked rows reproduce it, finite volumes (the convention 'centred') do not.",
    )
    return EngineLedger("thermal", points, remarks)


def _rows(name: str) -> list[dict[str, str]]:
    lines = [line for line in read_text(_TABLES / name).splitlines() if not line.startswith("#")]
    return list(csv.DictReader(lines))


def _region(row: dict[str, str]) -> Region:
    x, y, width, height = (float(row[key]) * 1e-3 for key in ("x_mm", "y_mm", "width_mm", "height_mm"))
    return Region(row["name"], x, y, width, height)


def _point(case: str, quantity: str, reference: float, ours: float, tolerance: Tolerance, note: str = "") -> Point:
    return Point(
        case=case,
        quantity=quantity,
        unit="K",
        reference=reference,
        ours=ours,
        tolerance=tolerance,
        source=_SOURCE,
        evidence="simulator",
        note=note,
    )


def _balance(case: str, given_W: float, out_W: float) -> Point:
    return Point(
        case=case,
        quantity="heat out for heat in",
        unit="W",
        reference=given_W,
        ours=out_W,
        tolerance=_BALANCE,
        source="conservation of energy",
        evidence="closed form",
    )


def _default_sink(silicon_side_m: float) -> Sink:
    """The package of HotSpot's examples."""
    assert silicon_side_m <= 0.03
    return Sink(Plate(0.03, 1e-3, _COPPER), Plate(0.06, 6.9e-3, _COPPER), 0.1, 140.4)


def planar_case() -> tuple[Stack, Array, list[dict[str, str]]]:
    """The planar table's stack, powers and rows."""
    rows = _rows("thermal_planar.csv")
    blocks = [row for row in rows if row["part"] == "block"]
    floor = tuple(_region(row) for row in blocks)
    layers = (
        StackLayer("chip", 0.15e-3, Material.isotropic("silicon", 130.0, 1630300.0), floor, powered=True),
        StackLayer("interface", 20e-6, Material.isotropic("interface", 4.0, 4.0e6)),
    )
    stack = Stack(0.016, 0.016, layers, _default_sink(0.016), ambient_K=318.15, convention="hotspot")
    return stack, np.array([float(row["power_W"]) for row in blocks]), rows


def stacked_case() -> tuple[Stack, Array, list[dict[str, str]]]:
    """The stacked table's stack, powers and rows."""
    rows = _rows("thermal_stacked.csv")
    lower, upper = ([row for row in rows if row["part"] == part] for part in ("lower", "upper"))
    silicon, paste = Material.isotropic("silicon", 100.0, 1.75e6), Material.isotropic("interface", 4.0, 4.0e6)
    layers = (
        StackLayer("lower", 0.15e-3, silicon, tuple(_region(row) for row in lower), powered=True),
        StackLayer("lower interface", 20e-6, paste),
        StackLayer("upper", 0.15e-3, silicon, tuple(_region(row) for row in upper), powered=True),
        StackLayer("upper interface", 20e-6, paste),
    )
    stack = Stack(0.016, 0.016, layers, _default_sink(0.016), ambient_K=318.15, convention="hotspot-detailed")
    return stack, np.array([float(row["power_W"]) for row in (*lower, *upper)]), rows


def transient_case() -> tuple[Stack, Array, Array, Array]:
    """The transient table's stack, powers (steps, blocks), and HotSpot's block and grid temperatures."""
    rows = _rows("thermal_transient.csv")
    corners = {
        "core0": (0, 6, 4, 4),
        "core1": (4, 6, 6, 4),
        "cache": (0, 3, 10, 3),
        "phy": (0, 0, 2, 3),
        "array": (2, 0, 5, 3),
        "io": (7, 0, 3, 3),
    }
    floor = tuple(
        Region(name, x * 1e-3, y * 1e-3, width * 1e-3, height * 1e-3) for name, (x, y, width, height) in corners.items()
    )
    layers = (
        StackLayer("chip", 0.3e-3, Material.isotropic("silicon", 120.0, 1.7e6), floor, powered=True),
        StackLayer("interface", 30e-6, Material.isotropic("interface", 5.0, 4.0e6)),
    )
    sink_metal = Material.isotropic("sink", 240.0, 2.4e6)
    sink = Sink(Plate(0.025, 1.5e-3, _COPPER), Plate(0.05, 6e-3, sink_metal), 0.25, 100.0)
    stack = Stack(0.01, 0.01, layers, sink, ambient_K=308.15, convention="hotspot")

    def grid(key: str) -> Array:
        return np.array([float(row[key]) for row in rows]).reshape(-1, len(floor))

    return stack, grid("power_W"), grid("block_K"), grid("grid32_K")


def channels_case() -> tuple[Stack, Array, list[dict[str, str]]]:
    """The microchannel table's stack, powers and rows."""
    silicon = Material.isotropic("silicon", 125.0, 1.6e6)
    # HotSpot's defaults for water where a configuration is silent (hotspot-7).
    water = Material.isotropic("water", 1 / 1.647717911, 4172638.0, viscosity_Pa_s=0.000889)
    pattern = tuple("2" + "1" * 14 + "3" if row % 4 == 2 else "0" * 16 for row in range(16))
    halves = (Region("west", 0.0, 0.0, 4e-3, 8e-3), Region("east", 4e-3, 0.0, 4e-3, 8e-3))
    layers = (
        StackLayer("base", 0.2e-3, silicon, halves),
        StackLayer("channels", 0.1e-3, silicon, channels=Channels(pattern, water, 30000.0, 298.15, 25000.0)),
        StackLayer("die", 0.3e-3, silicon, halves, powered=True),
    )
    sink = Sink(Plate(0.012, 1e-3, _COPPER), Plate(0.02, 2e-3, _COPPER), 20.0, 100.0)
    stack = Stack(8e-3, 8e-3, layers, sink, ambient_K=308.15, convention="hotspot-detailed")
    return stack, np.array([20.0, 10.0]), _rows("thermal_channels.csv")


def _channels() -> Iterator[Point]:
    stack, powers, rows = channels_case()
    field = GridModel(stack, 16, 16).steady(powers)
    halves = stack.layers[2].regions
    for row in rows:
        layer, place, reference = row["layer"], row["place"], float(row["temperature_K"])
        if row["row"]:
            ours = float(field.layer_K(layer)[int(row["row"]), int(row["column"])])
            place = f"{place} in row {row['row']}, column {row['column']}"
        else:
            ours = float(field.regions_K(layer, halves, "touched")[["west", "east"].index(place)])
        yield _point(f"microchannels: {layer}, {place}", "steady temperature with coolant", reference, ours, STACK)
    yield _balance("microchannels", float(powers.sum()), field.heat_out_W)


def _planar() -> Iterator[Point]:
    stack, powers, rows = planar_case()
    block = BlockModel(stack).steady(powers)
    grid = GridModel(stack, 64, 64).steady(powers)
    for case, key, tiles, package, tolerance in (
        ("planar, block model", "block_K", block.tiles_K, block.package_K, BLOCK),
        ("planar, grid 64 × 64", "grid64_K", grid.tiles_K("touched"), grid.package_K, GRID),
    ):
        yield from _compare(case, rows, key, ("block",), tiles, package, tolerance)
    yield _balance("planar, block model", float(powers.sum()), block.heat_out_W)
    yield _balance("planar, grid 64 × 64", float(powers.sum()), grid.heat_out_W)


def _stacked() -> Iterator[Point]:
    stack, powers, rows = stacked_case()
    for cells in (32, 64):
        field = GridModel(stack, cells, cells).steady(powers)
        case = f"stacked, grid {cells} × {cells}"
        tiles = field.tiles_K("touched")
        yield from _compare(case, rows, f"grid{cells}_K", ("lower", "upper"), tiles, field.package_K, STACK)
        yield _balance(case, float(powers.sum()), field.heat_out_W)


def _compare(
    case: str,
    rows: list[dict[str, str]],
    key: str,
    parts: tuple[str, ...],
    tiles: Array,
    package: dict[str, float],
    tolerance: Tolerance,
) -> Iterator[Point]:
    blocks = [row for part in parts for row in rows if row["part"] == part]
    for row, ours in zip(blocks, tiles.tolist(), strict=True):
        yield _point(f"{case}: {row['name']}", "steady block temperature", float(row[key]), ours, tolerance)
    for row in rows:
        if row["part"] == "package":
            name = row["name"]
            yield _point(f"{case}: {name}", "steady package temperature", float(row[key]), package[name], tolerance)


def _steps() -> Iterator[Point]:
    stack, powers, block_K, grid_K = transient_case()
    _, block, _ = BlockModel(stack).transient(powers, 5e-3, start=313.15)
    grid = GridModel(stack, 32, 32).transient(powers, 5e-3, start=313.15, steps_per_interval=8, reduction="touched")
    for case, ours, reference in (
        ("steps, block model", block, block_K),
        ("steps, grid 32 × 32", grid.tiles_K, grid_K),
    ):
        for step, (row, expected) in enumerate(zip(ours, reference, strict=True), 1):
            place = int(np.abs(row - expected).argmax())
            name = f"{case}: step {step}, {stack.tiles[place].name}"
            yield _point(
                name, "transient, farthest block of a step", float(expected[place]), float(row[place]), TRANSIENT
            )


def _closed_forms() -> Iterator[Point]:
    closed_form: Evidence = "closed form"
    for case, refined in (
        ("slab with heat production", closed.slab_with_heat_production()),
        ("point source in an infinite slab", closed.point_source()),
        ("two layers, 2 ms after power on", closed.two_layer_transient()),
    ):
        for cells, ours, exact in zip(refined.cells, refined.ours, refined.exact, strict=True):
            finest = cells == refined.cells[-1]
            tolerance = _EXACT if finest else None
            yield Point(
                case=f"{case}, {cells} cells",
                quantity="rise",
                unit="K",
                reference=exact,
                ours=ours,
                tolerance=tolerance,
                source=_CARSLAW,
                evidence=closed_form,
            )
        order = Tolerance(absolute=0.15)
        yield Point(
            case=case,
            quantity="order of convergence",
            unit="",
            reference=2.0,
            ours=refined.order,
            tolerance=order,
            source="finite volumes",
            evidence=closed_form,
        )
    ours, exact = closed.layered_slab()
    yield Point(
        case="heater under two layers and a film",
        quantity="rise",
        unit="K",
        reference=exact,
        ours=ours,
        tolerance=_EXACT,
        source=_CARSLAW,
        evidence=closed_form,
    )


def _folder(folder: Path) -> Iterator[Point]:
    cases = sorted(path.parent for path in folder.rglob("*.ptrace"))
    if not cases:
        fail("the folder holds no HotSpot case (a subfolder with a *.ptrace)", file=str(folder))
    for case in cases:
        yield from _case(case)


def _one(folder: Path, pattern: str, without: str = "") -> Path | None:
    found = [path for path in sorted(folder.glob(pattern)) if not without or without not in path.name]
    return found[0] if found else None


def _case(folder: Path) -> Iterator[Point]:
    trace = _one(folder, "*.ptrace")
    layers = _one(folder, "*.lcf")
    floorplan = None if layers else _one(folder, "*.flp")
    configuration, materials = _one(folder, "*.config", "package"), _one(folder, "*.materials")
    assert trace is not None
    for expected in sorted(folder.glob("expected-*")):
        size = re.match(r"expected-grid(\d+)", expected.name)
        overrides = {"model_type": "grid" if size else "block"}
        if size:
            overrides |= {"grid_rows": size.group(1), "grid_cols": size.group(1)}
        start = _one(folder, "*.init")
        transient = expected.suffix == ".ttrace"
        if transient and start is not None:
            overrides["init_file"] = str(start)
        loaded = hotspot.load(
            trace,
            configuration=configuration,
            floorplan=floorplan,
            layers=layers,
            materials=materials,
            overrides=overrides,
        )
        outcome = hotspot.run(loaded, transient=transient)
        label = f"{folder.name}, {expected.stem.removeprefix('expected-')}"
        if transient:
            yield from _trace_points(label, expected, loaded, outcome)
            continue
        tolerance = STACK if layers else (GRID if size else BLOCK)
        for name, reference in read_temperatures(expected).items():
            ours = outcome.temperature_K.get(name, math.nan)
            kind = "steady package temperature" if name.startswith("inode_") else "steady block temperature"
            yield _point(f"{label}: {name}", kind, reference, ours, tolerance)
        yield _balance(label, outcome.power_W, outcome.heat_out_W)


def _trace_points(label: str, expected: Path, case: hotspot.Case, outcome: hotspot.Outcome) -> Iterator[Point]:
    reference = read_power_trace(expected)  # a temperature trace has the same form
    assert outcome.trace_K is not None
    if reference.names != case.trace.names or reference.power_W.shape != outcome.trace_K.shape:
        fail("the expected trace has other blocks or another length than the power trace", file=str(expected))
    for sample, (ours, other) in enumerate(zip(outcome.trace_K, reference.power_W, strict=True), 1):
        place = int(np.abs(ours - other).argmax())
        name = f"{label}: sample {sample}, {reference.names[place]}"
        yield _point(name, "transient, farthest block of a sample", float(other[place]), float(ours[place]), TRANSIENT)
