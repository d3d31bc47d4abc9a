"""Compute-in-memory tiles against what their designs publish and measure.

- ISAAC's tile part by part: power and area of its data sheet, energy of a MAC.
- NeuRRAM over its range of input and output bits: eight parameters fitted on three points, the rest held out.
- Three SRAM macros (two analog, one digital), and the ratios that PipeLayer, ReTransformer and X-Former publish.
- NeuroSim on the shapes of VGG-8, part by part: a cross-check without a tolerance, with the reasons in the remarks.

Rates and energies are those that a product is charged which fills every array of one tile.  With a folder, its
``neurram.csv`` (output_bits, input_bits, one_phase, tops, tops_per_w) replaces the NeuRRAM points.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tierform.chip.crossbar.component import CrossbarTiles
from tierform.chip.crossbar.parameters import CrossbarParameters
from tierform.chip.crossbar.tile import area_by_part, mac_energy_at_full_load, power_by_part
from tierform.chip.description import load_component
from tierform.chip.sample_operators import product
from tierform.errors import Problem, TierformError, fail
from tierform.files import read_text
from tierform.provenance import Constant
from tierform.simulation import charge
from tierform.validation.charged import chip_of
from tierform.validation.ledger import EngineLedger, Evidence, Point, Tolerance

_TABLES = Path(__file__).parent / "tables"
_TOPS, _TOPS_PER_W = Tolerance(relative=0.15), Tolerance(relative=0.20)
_VECTORS = 4096  # enough that filling the pipeline does not count
_FITTED_ON = {(4, 2, 0), (6, 4, 0), (9, 7, 0)}  # output bits, input bits, one phase
# VGG-8 on 32 x 32 images: output places, window elements, filters of each layer.
_VGG8 = (
    (1024, 27, 128),
    (1024, 1152, 128),
    (256, 1152, 256),
    (256, 2304, 256),
    (64, 2304, 512),
    (64, 4608, 512),
    (1, 8192, 1024),
    (1, 1024, 10),
)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    rows = _neurram_rows(None if folder is None else folder / "neurram.csv")
    points = [*(point for row in rows for point in _neurram(row)), *_published(), *_charged_macs()]
    remarks = (
        "NeuRRAM: three times and five energies are fitted on the points of 4/2, 6/4 and 9/7 output/input bits.  That "
        "a neuron's energy goes with input bits, not with integration pulses, was chosen with all points in view.",
        "NeuRRAM's energy split, as digitised, sums to half of what TOPS/W with two operations a MAC implies: it is "
        "per operation, and is scaled by that factor (2.01 at each of the three fitted points).",
        "NeuroSim, ADC energy: over the 315 million conversions that we count, its 5-bit current-mode sense amplifier "
        "(22 nm) takes 64 fJ each; ours is a 5-bit SAR of ISAAC's family (32 nm, 1.2 GS/s) of 990 fJ.",
        "NeuroSim, other energy: its cells are of 100 kohm and half of its input bits are zero and skipped; ISAAC's "
        "arrays draw 30 pJ a read and its DACs 0.39 pJ a row, for every bit.",
        "NeuroSim, area: its 1T1R cell takes 48 F2 where ISAAC's cross-point takes 25 um2 an array; it duplicates "
        "early layers for the pipeline and counts global buffers, accumulators and H-trees.",
        "ISAAC publishes power over rate of a tile with every part at full load; a product is charged the actions that "
        "it takes of each part, 11 % less.",
        "Parameters fitted on a single published ratio (PipeLayer, ReTransformer, X-Former) return that ratio: this "
        "checks that the model adds up, not that it predicts.",
    )
    return EngineLedger("cim", points, remarks)


def _parameters(name: str, **changes: object) -> CrossbarParameters:
    component = cast(CrossbarTiles, load_component(name, 1, name))
    return component.parameters.model_copy(update=changes)


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in read_text(path).splitlines() if not line.startswith("#")))


def _neurram_rows(path: Path | None) -> list[tuple[int, int, int, float, float]]:
    source = path or _TABLES / "cim_neurram.csv"
    rows: list[tuple[int, int, int, float, float]] = []
    problems: list[Problem] = []
    columns = ("output_bits", "input_bits", "one_phase", "tops", "tops_per_w")
    for number, row in enumerate(_table(source), 1):
        try:
            values = [float(row[name]) for name in columns]
        except (KeyError, TypeError, ValueError):
            problems.append(
                Problem(f"numbers are needed for {', '.join(columns)}", str(source), None, f"row {number}", str(row))
            )
            continue
        rows.append((int(values[0]), int(values[1]), int(values[2]), values[3], values[4]))
    if problems:
        raise TierformError(problems)
    if not rows:
        fail("no rows", file=str(source))
    return rows


def _neurram(row: tuple[int, int, int, float, float]) -> Iterator[Point]:
    output_bits, input_bits, one_phase, tops, tops_per_w = row
    read = _parameters("neurram-130nm", adc_bits=output_bits)
    assert read.neuron is not None
    read = read.model_copy(update={"neuron": read.neuron.model_copy(update={"one_phase": bool(one_phase)})})
    found = _filled(read, 4, input_bits)
    case = f"neurram {output_bits}/{input_bits} bits" + (", one phase" if one_phase else "")
    fitted = (output_bits, input_bits, one_phase) in _FITTED_ON
    ours = found.operations_per_s / 1e12
    yield Point(
        case=case,
        quantity="throughput",
        unit="TOPS",
        reference=tops,
        ours=ours,
        tolerance=_TOPS,
        source="wan-2022",
        evidence="measured",
        fitted=fitted,
    )
    ours = found.operations_per_J / 1e12
    yield Point(
        case=case,
        quantity="efficiency",
        unit="TOPS/W",
        reference=tops_per_w,
        ours=ours,
        tolerance=_TOPS_PER_W,
        source="wan-2022",
        evidence="measured",
        fitted=fitted,
    )


@dataclass(frozen=True, slots=True)
class Filled:
    """What a tile whose arrays are filled is charged: operations a second, and a joule (buses and buffers apart)."""

    operations_per_s: float
    operations_per_J: float
    operations_per_J_with_bytes: float


def _filled(read: CrossbarParameters, weight_bits: int, input_bits: int) -> Filled:
    tile = CrossbarTiles("tile", 1, read)
    layout = tile.layout(weight_bits)
    wide = read.crossbars // layout.stacked * layout.weights_per_row
    operator = product(_VECTORS, wide, read.rows, precision=f"int{input_bits}", weight_precision=f"int{weight_bits}")
    (cost,) = charge(chip_of(tile), (operator,))
    reading = math.fsum(J for name, J in cost.energy_J.items() if not read.parts[name].charge.endswith("byte"))
    return Filled(
        operations_per_s=cost.operations / cost.occupancy_s,
        operations_per_J=cost.operations / reading,
        operations_per_J_with_bytes=cost.operations / cost.total_energy_J,
    )


def _published() -> Iterator[Point]:
    designs: dict[str, Callable[[], dict[str, float]]] = {
        "isaac": _isaac,
        "pipelayer": _pipelayer,
        "retransformer": _retransformer,
        "x-former": _xformer,
        "hermes-pcm": _hermes,
        "sinangil-7nm": _sinangil,
        "jia-65nm": _jia,
        "colonnade-65nm": _colonnade,
        "neurosim-vgg8": _neurosim,
    }
    ours: dict[str, dict[str, float]] = {}
    for row in _table(_TABLES / "cim_published.csv"):
        case, quantity = row["case"], row["quantity"]
        if case not in ours:
            ours[case] = designs[case]()
        tolerance = Tolerance(relative=float(row["tolerance"]) / 100) if row["tolerance"] else None
        yield Point(
            case=case,
            quantity=quantity,
            unit=row["unit"],
            reference=float(row["value"]),
            ours=ours[case][quantity],
            tolerance=tolerance,
            source=row["source"],
            evidence=cast(Evidence, row["evidence"]),
            fitted=row["fitted"] == "1",
        )


def _isaac() -> dict[str, float]:
    read = _parameters("isaac-tile-32nm")
    power, area = power_by_part(read), area_by_part(read)
    return {
        "crossbars of a tile": read.crossbars,
        **{f"power: {name}": value * 1e3 for name, value in power.items()},
        "power of a tile": sum(power.values()) * 1e3,
        **{f"area: {name}": value * 1e6 for name, value in area.items()},
        "area of a tile": sum(area.values()) * 1e6,
        "energy of a 16 x 16-bit MAC": mac_energy_at_full_load(read, 16, 16) * 1e12,
        "energy of an 8 x 8-bit MAC": mac_energy_at_full_load(read, 8, 8) * 1e12,
    }


def _charged_macs() -> Iterator[Point]:
    """ISAAC's energy of a MAC as a product is charged it: without what idles at full load, for information."""
    read = _parameters("isaac-tile-32nm")
    for bits, published in ((16, 2.69), (8, 0.67)):
        ours = 2e12 / _filled(read, bits, bits).operations_per_J_with_bytes
        what = f"energy of a {bits} x {bits}-bit MAC, as charged"
        yield Point(
            case="isaac",
            quantity=what,
            unit="pJ",
            reference=published,
            ours=ours,
            tolerance=None,
            source="isaac-2016",
            evidence="published",
        )


def _pipelayer() -> dict[str, float]:
    read = _parameters("pipelayer-32nm")
    found = _filled(read, 16, 16)
    return {
        "efficiency at 16 bits": found.operations_per_J / 1e9,
        "density at 16 bits": found.operations_per_s / 1e9 / (sum(area_by_part(read).values()) * 1e6),
    }


def _retransformer() -> dict[str, float]:
    return {"efficiency at 8 bits": _filled(_parameters("retransformer-tile"), 8, 8).operations_per_J / 1e9}


def _xformer() -> dict[str, float]:
    power = power_by_part(_parameters("xformer-projection-32nm"))
    return {"share of the ADC in a product's energy": 100 * power["adc"] / sum(power.values())}


def _hermes() -> dict[str, float]:
    found = _filled(_parameters("hermes-pcm-14nm"), 8, 8)
    return {
        "throughput at 8 bits": found.operations_per_s / 1e12,
        "efficiency at 8 bits": found.operations_per_J / 1e12,
    }


def _sinangil() -> dict[str, float]:
    read = _parameters("sinangil-sram-7nm")
    found = _filled(read, 4, 4)
    return {
        "throughput at 4 bits": found.operations_per_s / 1e9,
        "efficiency at 4 bits": found.operations_per_J / 1e12,
        "area": sum(area_by_part(read).values()) * 1e12,
    }


def _jia() -> dict[str, float]:
    read = _parameters("jia-sram-65nm")
    array = read.model_copy(update={"parts": {name: read.parts[name] for name in ("crossbar", "adc")}})
    found = _filled(array, 1, 1)
    return {
        "throughput at 1 bit": found.operations_per_s / 1e12,
        "efficiency at 1 bit": found.operations_per_J / 1e12,
        "density at 1 bit": found.operations_per_s / 1e12 / (sum(area_by_part(array).values()) * 1e6),
    }


def _colonnade() -> dict[str, float]:
    read = _parameters("colonnade-sram-65nm")
    sizes = (1, 2, 3, 4, 8, 16)
    return {
        f"energy of a MAC at {size} bit{'s' if size > 1 else ''}": 2e15 / _filled(read, size, size).operations_per_J
        for size in sizes
    }


def _neurosim() -> dict[str, float]:
    """VGG-8 in 1-bit cells with 5-bit converters, from the parts of ISAAC's tile."""
    read = _parameters("isaac-tile-32nm", cell_bits=1, adc_bits=5)
    converter = read.parts["adc"].model_copy(
        update={
            "energy": Constant(0.99e-12, "J", "published", "accelergy-isaac", "5 bits"),
            "area": Constant(477e-12, "m^2", "published", "accelergy-isaac", "5 bits"),
        }
    )
    read = read.model_copy(update={"parts": {**read.parts, "adc": converter}})
    tile = CrossbarTiles("vgg8", 1, read)
    chip = chip_of(tile)
    energy: dict[str, float] = {}
    arrays = 0
    for places, window, filters in _VGG8:
        operator = product(places, filters, window)
        arrays += tile.crossbars_for(operator)
        for part, value in charge(chip, (operator,))[0].energy_J.items():
            energy[part] = energy.get(part, 0.0) + value * 1e6
    area = {name: value * 1e6 * arrays / read.crossbars for name, value in area_by_part(read, beside=False).items()}
    accumulation = ("shift-add", "tile-shift-add")
    summed, added = (sum(group.get(name, 0.0) for name in accumulation) for group in (energy, area))
    return {
        "energy: ADC": energy["adc"],
        "energy: accumulation": summed,
        "energy: other": sum(energy.values()) - energy["adc"] - summed,
        "energy": sum(energy.values()),
        "area: array": area["crossbar"],
        "area: ADC": area["adc"],
        "area: accumulation": added,
        "area: other": sum(area.values()) - area["crossbar"] - area["adc"] - added,
    }
