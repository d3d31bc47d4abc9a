"""Scaling laws against what they were taken from and against what they were not: converters, SRAM, processes.

Converters go through a chip that is varied, as users vary it: ISAAC's tile, given at 8 bits, at 4 to 10.  SRAM is held
against runs of CACTI 7 from 8 KiB to 8 MiB, every second size held out.  What macros on silicon do at other precisions
than the one that was fitted is in the ledger ``cim`` (NeuRRAM, Colonnade).  With a folder, its ``laws_adc.csv`` and
``laws_sram.csv`` replace the tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from tierform.chip.crossbar import CrossbarTiles
from tierform.chip.description import load_component
from tierform.chip.laws import laws
from tierform.chip.process import node_ratios
from tierform.files import read_text
from tierform.validation.ledger import EngineLedger, Point, Tolerance

_TABLES = Path(__file__).parent / "tables"
_ADC = Tolerance(relative=0.10)
_SRAM = Tolerance(relative=0.30)  # of one point; the median has its own bar in the tests


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    at = folder or _TABLES
    remarks = (
        "The converter's law has four coefficients for fourteen published figures, all of which were fitted.",
        "The SRAM's law is held against another model, CACTI, whose own distance from silicon is not in these errors.",
        "From 45 to 7 nm the process law (Stillmaker and Baas) takes six times more off an operation than the energies "
        "that a designer of chips at 7 nm published: energies of a 'process' or a changed 'node' below 16 nm are lower "
        "bounds.  No bar is set; the shipped chips use neither.",
    )
    points = [*_converters(at / "laws_adc.csv"), *_sram(at / "laws_sram.csv"), *_process(_TABLES / "laws_process.csv")]
    return EngineLedger("laws", points, remarks)


def _texts(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in read_text(path).splitlines() if not line.startswith("#")))


def _rows(path: Path) -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in _texts(path)]


def _process(path: Path) -> Iterator[Point]:
    """Energies at 7 nm from those at 45 nm, for information."""
    ratio = node_ratios("45nm", "7nm")[1]
    for row in _texts(path):
        yield Point(
            case=f"{row['quantity']}, 45 to 7 nm",
            quantity="energy at another node",
            unit="pJ",
            reference=float(row["energy_7nm_pJ"]),
            ours=float(row["energy_45nm_pJ"]) * ratio,
            tolerance=None,
            source="jouppi-2021",
            evidence="published",
        )


def _converters(path: Path) -> Iterator[Point]:
    for row in _rows(path):
        bits = int(row["bits"])
        # The library's figures are at 1.2 GS/s, where 2 mW are 1.667 pJ; ISAAC's are given at 1.28 GS/s.
        tile = load_component("tile", 1, "isaac-tile-32nm", {"adc_bits": bits})
        assert isinstance(tile, CrossbarTiles)
        adc = tile.parameters.parts["adc"]
        assert adc.energy is not None and adc.area is not None
        for quantity, unit, reference, ours in (
            ("energy of a conversion", "pJ", row["energy_pJ"], adc.energy.value * 1e12 * 1.28 / 1.2),
            ("area of a converter", "um2", row["area_um2"], adc.area.value * 1e12),
        ):
            yield Point(
                case=f"{bits} bits",
                quantity=quantity,
                unit=unit,
                reference=reference,
                ours=ours,
                tolerance=_ADC,
                source="accelergy-isaac",
                evidence="published",
                fitted=True,
            )


def _sram(path: Path) -> Iterator[Point]:
    law = laws().sram
    for row in _rows(path):
        size, width, banks = row["size_KiB"] * 1024, int(row["width_B"]), int(row["banks"])
        for quantity, unit, ours, reference in (
            ("energy of an access", "pJ", law.energy(size, banks, width) * width, row["energy_pJ"]),
            ("area of an SRAM", "mm2", law.size(size, banks, width), row["area_mm2"]),
        ):
            yield Point(
                case=f"{row['size_KiB']:.0f} KiB, {width} B wide, {banks} bank{'s' if banks > 1 else ''}",
                quantity=quantity,
                unit=unit,
                reference=reference,
                ours=ours,
                tolerance=_SRAM,
                source="cacti-7",
                evidence="simulator",
                fitted=row["fitted"] == 1,
            )
