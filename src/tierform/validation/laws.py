"""Scaling laws against what they were taken from and what they were not: converters, SRAM, routers, processes, boards.

Converters go through a chip that is varied, as users vary it: ISAAC's tile, given at 8 bits, at 4 to 10.  SRAM is held
against runs of CACTI 7 from 8 KiB to 8 MiB, every second size held out.  What macros on silicon do at other precisions
than the one that was fitted is in the ledger ``cim`` (NeuRRAM, Colonnade).  With a folder, its ``laws_adc.csv`` and
``laws_sram.csv`` replace the tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, fsum, log
from pathlib import Path

import numpy as np

from tierform import library
from tierform.chip.crossbar import CrossbarTiles
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.laws import laws
from tierform.chip.process import energy_factor, logic, node_ratios, published_factor
from tierform.files import read_text
from tierform.network import energy_parameters
from tierform.validation.interposer_links import interposer_links
from tierform.validation.ledger import EngineLedger, Point, Tolerance

_TABLES = Path(__file__).parent / "tables"
_ADC = Tolerance(relative=0.10)
_ROUTER = Tolerance(relative=0.45)  # of one point, as of SRAM
# The boards of which the law was made; others of the library are told beside it and decide nothing.
_LAW_BOARDS = (
    *("a100-gpu", "a100-pcie-gpu", "b200-gpu", "h100-gpu", "h200-gpu", "jetson-agx-orin-gpu", "l40s-gpu"),
    *("mi210-gpu", "rtx-4090-gpu"),
)
_BOARD = Tolerance(relative=0.45)  # of one board: the smallest is a module, not a card
_SRAM = Tolerance(relative=0.30)  # of one point; the median has its own bar in the tests


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    at = folder or _TABLES
    remarks = (
        "The converter's law has four coefficients for fourteen published figures, all of which were fitted.",
        "The SRAM's law is held against another model, CACTI, whose own distance from silicon is not in these errors.",
        "From node to node, energies go with the node to a power that was fitted to every second published chip, and "
        "with the supply's square.  Chips of one class differ by more than their nodes: the level of a class is the "
        "mean of its fitted chips, and single chips are up to nine times off.  Stillmaker and Baas' is beside it.",
        "Energies of single operations at 7 nm are as commonly quoted, not checked against the article: SRAM shrank "
        "less than logic.  No shipped chip uses a 'process' or another 'node'.",
        "An interposer's drivers are those of the UCIe standard, whatever their node; silicon of 5 to 45 nm is beside "
        "them, each single link up to three times off.",
        "The router's law is held against CACTI, and from PUMA's router of four ports to that of eight (32 bits and 32 "
        "flits assumed); the power of GPU boards against their data sheets, each board left out of its own fit.",
    )
    points = [
        *_converters(at / "laws_adc.csv"),
        *_sram(at / "laws_sram.csv"),
        *_routers(at / "laws_router.csv"),
        *interposer_links(at / "laws_interposer.csv"),
        *_boards(),
        *_silicon(_TABLES / "laws_silicon.csv"),
        *_process(_TABLES / "laws_process.csv"),
    ]
    return EngineLedger("laws", points, remarks)


def _texts(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in read_text(path).splitlines() if not line.startswith("#")))


def _rows(path: Path) -> list[dict[str, float]]:
    return [{key: float(value) for key, value in row.items()} for row in _texts(path)]


def _routers(path: Path) -> Iterator[Point]:
    law = laws().router
    for row in _rows(path):
        width, ports, flits = row["width_bit"], row["ports"], row["flits"]
        for quantity, unit, ours, reference in (
            ("energy of a flit", "pJ", law.energy_per_bit(width, ports, flits) * width, row["energy_pJ"]),
            ("static power of a router", "mW", law.leakage(width, ports, flits), row["leakage_mW"]),
            ("area of a router", "mm2", law.size(width, ports, flits), row["area_mm2"]),
        ):
            yield Point(
                case=f"{width:.0f} bit, {ports:.0f} ports, {flits:.0f} flits",
                quantity=quantity,
                unit=unit,
                reference=reference,
                ours=ours,
                tolerance=_ROUTER,
                source="cacti-7",
                evidence="simulator",
                fitted=row["fitted"] == 1,
            )
    of, four, eight = energy_parameters, (32.0, 4.0, 32.0), (32.0, 8.0, 32.0)
    before, after = of(router="puma-4port"), of(router="puma-8port")
    for quantity, unit, scale, given, grown, reference in (
        ("area of PUMA's router", "mm2", 1e6, before.router_area_m2, law.size, after.router_area_m2),
        ("static power of PUMA's router", "mW", 1e3, before.router_leakage_W, law.leakage, after.router_leakage_W),
    ):
        yield Point(
            case="from four to eight ports",
            quantity=quantity,
            unit=unit,
            reference=reference * scale,
            ours=given * scale * grown(*eight) / grown(*four),
            tolerance=_ROUTER,
            source="puma-2019",
            evidence="published",
        )


def _boards() -> Iterator[Point]:
    """Power limits of the library's GPUs beside the law, and of its own ones beside one without them."""
    boards: list[tuple[str, str, float, float, float]] = []
    names = library.names("components")
    for name in (*_LAW_BOARDS, *(name for name in names if name not in _LAW_BOARDS)):
        part = load_component("gpu", 1, name)
        if isinstance(part, Gpu):
            p = part.parameters
            core = p.multiprocessors.value * p.clock.value / 1e9
            source = p.board_power.source or ""
            boards.append((name, source, core, p.memory_bandwidth.value, p.board_power.value))
    own = len(_LAW_BOARDS)
    sizes = np.array([[core, bandwidth / 1e12] for _, _, core, bandwidth, _ in boards])
    limits = np.array([limit for *_, limit in boards])
    for index, (name, source, core, bandwidth, limit) in enumerate(boards):
        others = np.arange(own) != index
        weighed = sizes[:own][others] / limits[:own][others, None]
        without = np.linalg.lstsq(weighed, np.ones(len(weighed)), rcond=None)[0]
        by_law = (laws().gpu_power.board(core, bandwidth), index < own)
        for ours, fitted in (by_law, (float(sizes[index] @ without), False)) if index < own else (by_law,):
            yield Point(
                case=name,
                quantity="power limit of a board",
                unit="W",
                reference=limit,
                ours=ours,
                tolerance=_BOARD if index < own else None,
                source=source,
                evidence="published",
                fitted=fitted,
            )


@dataclass(frozen=True, slots=True)
class Silicon:
    """A published chip at a node and a supply: energy of an operation on one bit of both operands."""

    number: int
    chip: str
    kind: str
    node_nm: float
    supply_V: float
    energy_fJ: float

    @property
    def fitted(self) -> bool:
        """Every second number of the database."""
        return self.number % 2 == 0


def silicon(path: Path = _TABLES / "laws_silicon.csv") -> list[Silicon]:
    """The published chips."""
    return [
        Silicon(
            number=int(row["number"]),
            chip=row["chip"],
            kind=row["class"],
            node_nm=float(row["node_nm"]),
            supply_V=float(row["supply_V"]),
            energy_fJ=1000 / float(row["bit_tops_per_W"]),
        )
        for row in _texts(path)
    ]


def _silicon(path: Path) -> Iterator[Point]:
    """Chips of a class beside the class's mean, carried to their nodes and supplies by both laws."""
    chips, file = silicon(path), logic()
    for quantity, law in (
        ("energy of a bit operation at a node", energy_factor),
        ("the same, by Stillmaker and Baas", published_factor),
    ):
        at_base: dict[str, list[float]] = {}
        for chip in chips:
            if chip.fitted:
                at_base.setdefault(chip.kind, []).append(log(chip.energy_fJ / law(file, chip.node_nm, chip.supply_V)))
        for chip in chips:
            level = exp(fsum(at_base[chip.kind]) / len(at_base[chip.kind]))
            yield Point(
                case=f"{chip.chip}, {chip.kind}, {chip.node_nm:g} nm, {chip.supply_V:g} V",
                quantity=quantity,
                unit="fJ",
                reference=chip.energy_fJ,
                ours=level * law(file, chip.node_nm, chip.supply_V),
                tolerance=None,
                source="shanbhag-2022",
                evidence="measured",
                fitted=chip.fitted,
            )


def _process(path: Path) -> Iterator[Point]:
    """Energies at 7 nm from those at 45 nm, for information."""
    ratio = node_ratios("45nm", "7nm")[1]
    for row in _texts(path):
        yield Point(
            case=f"{row['quantity']}, 45 to 7 nm",
            quantity="energy of one operation at 7 nm",
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
