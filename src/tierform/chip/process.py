"""What a process node gives: energy of a MAC, of an SRAM byte, and area, scaled from one published set at 45 nm.

Energies of 45 nm (Horowitz, ISSCC 2014) are scaled to other nodes by E = E45 * (node / 45 nm)^k * (supply / 0.9 V)^2,
with k fitted to published chips (Shanbhag and Roy, CICC 2022), areas with the factors of Stillmaker and Baas
(Integration 58, 2017).  Their polynomials for the energy, :func:`published_factor`, are farther from these
chips at small nodes; the ledger ``laws`` shows both.  This is a coarse law: published designs scatter around it by
about a factor of two, so every number it gives is marked `assumed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log
from typing import Annotated

import numpy as np
from pydantic import Field

from tierform import library
from tierform.errors import fail
from tierform.files import read_yaml
from tierform.provenance import Constant
from tierform.schema import FileModel, quantity, validate

FILE = "logic"


class NodeFile(FileModel):
    """One node: its supply, the three coefficients of its energy polynomial, its area factor."""

    supply: Annotated[Constant, quantity("V", above=0)] = Field(description="Supply voltage of the node")
    energy: tuple[float, float, float] | None = Field(
        None, description="Published polynomial of the energy in the supply, for comparison: square, linear, constant"
    )
    area: float = Field(description="Area factor of the node, relative to the others")


class BaseFile(FileModel):
    """The node and supply that the energies of the file hold for."""

    node: str = Field(description="Node that the energies of the file hold for")
    supply: Annotated[Constant, quantity("V", above=0)] = Field(description="Supply that they hold for")


class ScalingFile(FileModel):
    """Where the scaling comes from."""

    source: str = Field(description="Where the scaling between nodes comes from")
    note: str = Field(description="What it is and where it ends")


class LogicFile(FileModel):
    """The process file of digital logic."""

    mac_energy: dict[str, Annotated[Constant, quantity("J", above=0)]] = Field(
        description="Energy of a multiply-accumulate at the base node, by number format"
    )
    mac_area: dict[str, Annotated[Constant, quantity("m^2", above=0)]] = Field(
        description="Area of a multiply-accumulate unit at the base node, by number format"
    )
    element_registers: Annotated[Constant, quantity("m^2", minimum=0)] = Field(
        description="Area of the registers of one processing element at the base node"
    )
    sram_energy: Annotated[Constant, quantity("J/B", above=0)] = Field(
        description="Energy of an SRAM byte at the base node"
    )
    sram_area: Annotated[Constant, quantity("m^2/B", above=0)] = Field(
        description="Area of an SRAM byte at the base node"
    )
    leakage_share: Annotated[Constant, quantity("1", minimum=0)] = Field(
        description="Static power over dynamic power of all elements at full rate"
    )
    energy_exponent: Annotated[Constant, quantity("1", minimum=0)] = Field(
        description="Power of the node with which the energy of an operation goes, at one supply"
    )
    base: BaseFile = Field(description="The node and supply of the figures above")
    nodes: dict[str, NodeFile] = Field(description="Nodes that can be named, with their scaling")
    scaling: ScalingFile = Field(description="Where the scaling comes from")


@dataclass(frozen=True)
class Process:
    """A node of the process file."""

    name: str
    file: LogicFile

    @property
    def energy_factor(self) -> float:
        """Energy of an operation here over that at the base node and supply."""
        return energy_factor(self.file, nanometres(self.name), self.file.nodes[self.name].supply.value)

    @property
    def area_factor(self) -> float:
        """Area here over that at the base node."""
        return self.file.nodes[self.name].area / self.file.nodes[self.file.base.node].area

    def _scaled(self, constant: Constant, factor: float, unit: str) -> Constant:
        note = f"{constant.note or 'base value'}; times {factor:.4g} for {self.name}"
        return Constant(constant.value * factor, unit, "assumed", self.file.energy_exponent.source, note)

    def mac_energy(self) -> dict[str, Constant]:
        """Energy of a multiply-accumulate by number format."""
        return {name: self._scaled(c, self.energy_factor, "J") for name, c in self.file.mac_energy.items()}

    def sram_energy(self) -> Constant:
        """Energy of an SRAM byte."""
        return self._scaled(self.file.sram_energy, self.energy_factor, "J/B")

    def array_area_m2(self, elements: int, sram_B: float, precision: str = "int8") -> float:
        """Area of so many elements of a number format and their SRAM."""
        element = self.file.mac_area[precision].value + self.file.element_registers.value
        return (elements * element + sram_B * self.file.sram_area.value) * self.area_factor

    def systolic(
        self, rows: int, columns: int, sram_B: float, clock_Hz: float, wanted: Sequence[str]
    ) -> dict[str, object]:
        """The named parameters of a systolic array; the elements' area is that of the widest format they have."""
        macs = self.mac_energy()
        precision = "fp16" if "fp16" in self.file.mac_area else "int8"
        area = self.array_area_m2(rows * columns, sram_B, precision)
        share = self.file.leakage_share
        leakage = rows * columns * clock_Hz * macs["int8"].value * share.value
        source = self.file.scaling.source
        note = f"{rows} x {columns} elements with {precision} MACs and {sram_B / 1024:.0f} KiB of SRAM at {self.name}"
        found: dict[str, object] = {
            "mac_energy": macs,
            "sram_energy": self.sram_energy(),
            "array_area": Constant(area, "m^2", "assumed", source, note),
            "leakage": Constant(leakage, "W", "assumed", source, share.note),
        }
        return {key: found[key] for key in wanted}


def nanometres(node: str) -> float:
    """The number in a node's name."""
    return float(node.removesuffix("nm"))


def energy_factor(file: LogicFile, node_nm: float, supply_V: float) -> float:
    """Energy of an operation at a node and a supply over that at the base node and supply."""
    shrink = node_nm / nanometres(file.base.node)
    return float(shrink**file.energy_exponent.value * (supply_V / file.base.supply.value) ** 2)


def published_factor(file: LogicFile, node_nm: float, supply_V: float) -> float:
    """The same by Stillmaker and Baas: between their nodes on a straight line of logarithms, beyond as at the last."""
    known = sorted((nanometres(name), node.energy) for name, node in file.nodes.items() if node.energy)
    energies = [log(_polynomial(energy, supply_V)) for _, energy in known]
    here = float(np.interp(log(node_nm), [log(node) for node, _ in known], energies))
    base = file.nodes[file.base.node].energy
    assert base is not None
    return exp(here) / _polynomial(base, file.base.supply.value)


@lru_cache(maxsize=1)
def logic() -> LogicFile:
    """The library's process file of digital logic."""
    return validate(LogicFile, read_yaml(library.find("processes", FILE)))


def node_ratios(given: str | None, node: str | None) -> tuple[float, float, str]:
    """Area and energy at a node over those at the node for which they were given, and what to say of it."""
    if given is None or node is None or given == node:
        return 1.0, 1.0, ""
    here, there = load_process(node), load_process(given)
    return (
        here.area_factor / there.area_factor,
        here.energy_factor / there.energy_factor,
        f", from {given} to {node}",
    )


def _polynomial(coefficients: tuple[float, float, float], supply_V: float) -> float:
    a, b, c = coefficients
    return a * supply_V**2 + b * supply_V + c


@lru_cache(maxsize=64)
def load_process(node: str, key: str = "process") -> Process:
    """A node of the library's process file by name (``16nm``); TierformError with the nearest name otherwise."""
    described = logic()
    if node not in described.nodes:
        fail(
            "no such process node",
            key=key,
            value=node,
            choices=described.nodes,
            fix=f"Known: {', '.join(described.nodes)}.",
        )
    return Process(node, described)
