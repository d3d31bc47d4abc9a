"""Scaling laws: how a constant changes with the size of its part.  Coefficients stand in the library's `laws` file.

Every law gives a ratio between two sizes, so a constant stays what its file says at the size for which the file gives
it.  A component's class that scales its parameters is a :class:`Scalable`; :func:`times` writes a scaled constant with
what was done to it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import lru_cache
from math import log, pi
from typing import Annotated, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from tierform import library
from tierform.files import read_yaml
from tierform.provenance import Constant
from tierform.schema import Bits, FileModel, quantity, validate

FILE = "laws"
_Number = Annotated[Constant, quantity("1", minimum=0)]
WIDTH_B = 32  # of an access where nobody says; usual of scratchpads
Steps = tuple[str | int, ...]
Lengths = NDArray[np.float64]
P = TypeVar("P", bound=BaseModel)


class AdcLaw(FileModel):
    """Converters: energy and area of N bits go as bit * N + level * 2^N, and with the rate above `corner`."""

    energy_bit: _Number = Field(description="Energy of a decision and its logic, relative")
    energy_level: _Number = Field(description="Energy of a level, relative")
    area_bit: _Number = Field(description="Area of a decision and its logic, relative")
    area_level: _Number = Field(description="Area of a level, relative")
    least_bits: Bits = Field(description="Fewest bits of the points to which the law was fitted")
    most_bits: Bits = Field(description="Most bits of these points")
    corner: Annotated[Constant, quantity("1/s", above=0)] = Field(
        description="Rate above which energy and area go with the rate"
    )

    def energy(self, bits: int, kind: str) -> float:
        """Energy of a conversion, relative; of a flash converter it goes with its 2^N - 1 comparators."""
        return 2.0**bits - 1 if kind == "flash" else self.energy_bit.value * bits + self.energy_level.value * 2.0**bits

    def area(self, bits: int, kind: str) -> float:
        """Area of a converter, relative."""
        return 2.0**bits - 1 if kind == "flash" else self.area_bit.value * bits + self.area_level.value * 2.0**bits

    def speed(self, rate: float) -> float:
        """What a rate adds to energy and area, as a factor."""
        return max(1.0, rate / self.corner.value)


class DacLaw(FileModel):
    """Drivers of N bits have 2^N - 1 unit elements."""

    most_bits: Bits = Field(description="Bits above which nobody builds them so")
    note: str = Field(description="What it is")


class RegisterLaw(FileModel):
    """Registers at an array hold what enters its rows and what leaves its columns."""

    rows: _Number = Field(description="Share that goes with the rows; the rest goes with the columns")


class WireLaw(FileModel):
    """Wires over the cells of an array, by cell."""

    resistance: Annotated[Constant, quantity("ohm", minimum=0)] = Field(description="Resistance of a wire over a cell")
    capacitance: Annotated[Constant, quantity("F", minimum=0)] = Field(description="Its capacitance")

    def settling_s(self, cells: int, bits: int) -> float:
        """Time in which a wire over so many cells settles to half a level of so many bits."""
        return log(2.0) * (bits + 1) * 0.5 * self.resistance.value * self.capacitance.value * cells**2


class VoltageLaw(FileModel):
    """Clock against supply (alpha-power law), within a range."""

    supply: Annotated[Constant, quantity("V", above=0)] = Field(description="Supply at which a file's constants hold")
    threshold: Annotated[Constant, quantity("V", above=0)] = Field(description="Threshold of a transistor")
    exponent: _Number = Field(description="Of the overdrive")
    lowest: _Number = Field(description="Lowest supply over the given one")
    highest: _Number = Field(description="Highest supply over the given one")

    def clock(self, supply: float) -> float:
        """The clock at so many times the given supply, over that at the given one."""
        nominal, threshold = self.supply.value, self.threshold.value
        volts = supply * nominal
        here = (volts - threshold) ** self.exponent.value / volts
        return float(here / ((nominal - threshold) ** self.exponent.value / nominal))

    def supply_for(self, clock: float) -> float:
        """The supply, over the given one, that so many times the given clock needs; held within the range."""
        low, high = self.lowest.value, self.highest.value
        if clock == 1.0:
            return 1.0
        if clock <= self.clock(low) or clock >= self.clock(high):
            return low if clock < 1 else high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.clock(middle) < clock else (low, middle)
        return (low + high) / 2


class SramLaw(FileModel):
    """Arrays of SRAM: energy of a byte and area, fitted to runs of CACTI; sizes in KiB, an access in bytes."""

    byte: _Number = Field(description="Energy of a byte whatever the size, pJ")
    byte_root: _Number = Field(description="Energy of a byte with the square root of a bank's size, pJ")
    root: _Number = Field(description="Energy of an access with the square root of a bank's size, pJ")
    banks_root: _Number = Field(description="Energy of a byte with the square root of all banks, where several, pJ")
    kib: _Number = Field(description="Area of a KiB, mm2")
    port: _Number = Field(description="Area of a byte of width of a bank, mm2")
    route: _Number = Field(description="Area of a byte of width with the square root of all banks, where several, mm2")
    least: Annotated[Constant, quantity("B", above=0)] = Field(description="Smallest array of the fit")
    most: Annotated[Constant, quantity("B", above=0)] = Field(description="Largest array of the fit")

    def energy(self, size_B: float, banks: int = 1, width_B: int = WIDTH_B) -> float:
        """Energy of a byte in pJ at 32 nm."""
        whole = (size_B / 1024) ** 0.5
        each = (size_B / 1024 / banks) ** 0.5
        far = self.banks_root.value * whole if banks > 1 else 0.0
        return float(self.byte.value + self.byte_root.value * each + self.root.value * each / width_B + far)

    def size(self, size_B: float, banks: int = 1, width_B: int = WIDTH_B) -> float:
        """Area in mm2 at 32 nm."""
        far = self.route.value * width_B * (size_B / 1024) ** 0.5 if banks > 1 else 0.0
        return self.kib.value * size_B / 1024 + self.port.value * banks * width_B + far

    def beyond(self, size_B: float) -> str:
        """What to say of a size outside the fit."""
        if self.least.value <= size_B <= self.most.value:
            return ""
        return ", outside the fitted 8 KiB to 8 MiB"


Range = tuple[int, int]


class RouterLaw(FileModel):
    """Routers by width, ports and flits of buffer behind a port, fitted to runs of CACTI."""

    energy_bit: _Number = Field(description="Energy of a bit whatever the size, pJ")
    energy_flit: _Number = Field(description="Energy of a bit for each flit of its buffer, pJ")
    energy_line: _Number = Field(description="Energy of a bit for each bit of all ports, whose wires it crosses, pJ")
    leakage_cell: _Number = Field(description="Static power of a cell of the buffers, mW")
    leakage_line: _Number = Field(description="Static power of a crossing of the crossbar, mW")
    leakage_port: _Number = Field(description="Static power of an allocator's pair of ports, mW")
    area_bit: _Number = Field(description="Area of a bit of a port, mm2")
    area_cell: _Number = Field(description="Area of a cell of the buffers, mm2")
    area_line: _Number = Field(description="Area of a crossing of the crossbar, mm2")
    width: Range = Field(description="Narrowest and widest router of the fit, bits")
    ports: Range = Field(description="Fewest and most ports of the fit")
    flits: Range = Field(description="Smallest and largest buffer of the fit")

    def energy_per_bit(self, width: float, ports: float, flits: float) -> float:
        """Energy of a bit in pJ at 32 nm."""
        return self.energy_bit.value + self.energy_flit.value * flits + self.energy_line.value * width * ports

    def leakage(self, width: float, ports: float, flits: float) -> float:
        """Static power in mW at 32 nm."""
        lines = width * ports
        cells, crossings = self.leakage_cell.value * lines * flits, self.leakage_line.value * lines**2
        return cells + crossings + self.leakage_port.value * ports**2

    def size(self, width: float, ports: float, flits: float) -> float:
        """Area in mm2 at 32 nm."""
        lines = width * ports
        return lines * (self.area_bit.value + self.area_cell.value * flits + self.area_line.value * lines)

    def beyond(self, width: float, ports: float, flits: float) -> str:
        """What to say of a router outside the fit."""
        told = ((width, self.width, "bits"), (ports, self.ports, "ports"), (flits, self.flits, "flits"))
        out = [f"{low} to {high} {what}" for value, (low, high), what in told if not low <= value <= high]
        return f", outside the fitted {' and '.join(out)}" if out else ""


class GpuPowerLaw(FileModel):
    """Power of GPU boards by multiprocessors, clock and bandwidth: limit, idling, and at work before operations."""

    board_core: _Number = Field(description="Power limit for each multiprocessor and GHz, W")
    board_memory: _Number = Field(description="Power limit for each TB/s of memory, W")
    idle_core: _Number = Field(description="Idle power for each multiprocessor and GHz, W")
    idle_memory: _Number = Field(description="Idle power for each TB/s, W")
    floor_core: _Number = Field(description="Power of a board at work before operations and bytes, as above, W")
    floor_memory: _Number = Field(description="The same for each TB/s, W")

    def board(self, core: float, bandwidth_B_per_s: float) -> float:
        """Power limit of a board in W; `core` is multiprocessors times GHz times the supply's square."""
        return self.board_core.value * core + self.board_memory.value * bandwidth_B_per_s / 1e12

    def idle(self, core: float, bandwidth_B_per_s: float) -> float:
        """Idle power in W."""
        return self.idle_core.value * core + self.idle_memory.value * bandwidth_B_per_s / 1e12

    def floor(self, core: float, bandwidth_B_per_s: float) -> float:
        """Power at work before operations and bytes, idling included, in W."""
        return self.floor_core.value * core + self.floor_memory.value * bandwidth_B_per_s / 1e12


_PerSecond = Annotated[Constant, quantity("bit/s", above=0)]
_Micrometres = Annotated[Constant, quantity("m", above=0)]


class Via(FileModel):
    """A via for which the library has constants."""

    diameter: _Micrometres = Field(description="Of the copper")
    length: _Micrometres = Field(description="Through the silicon")
    liner: _Micrometres = Field(description="Thickness of the oxide around it")
    pitch: _Micrometres = Field(description="From via to via")


class TsvLaw(FileModel):
    """A through-silicon via as a coaxial capacitor."""

    permittivity: _Number = Field(description="Relative permittivity of the liner")
    given: dict[str, Via] = Field(description="The vias of the library's constants, by name")

    def capacitance_F(self, diameter_m: float, length_m: float, liner_m: float) -> float:
        """Capacitance of copper of a diameter in a liner of a thickness, through silicon of a length."""
        radius = diameter_m / 2
        return 2 * pi * 8.8541878128e-12 * self.permittivity.value * length_m / log((radius + liner_m) / radius)


class InterposerLaw(FileModel):
    """Links over an interposer by the rate and the length of a wire and the pitch of its bumps."""

    wire: Annotated[Constant, quantity("J/(bit*m)", minimum=0)] = Field(description="Energy of a bit by length")
    rate: _PerSecond = Field(description="Rate of a wire where nobody says, up to which a bit takes the same energy")
    exponent: _Number = Field(description="Of the rate above that, for the energy of drivers and receivers")
    pitch: Annotated[Constant, quantity("m", above=0)] = Field(description="Pitch of bumps where nobody says")
    bumps: _Number = Field(description="Bumps for each wire, supply, clock and spare ones counted")
    latency: Annotated[Constant, quantity("s", minimum=0)] = Field(description="From die to die, both ends")
    flight: Annotated[Constant, quantity("s/m", minimum=0)] = Field(description="Of a wire within the reach")
    repeated: Annotated[Constant, quantity("s/m", minimum=0)] = Field(description="Of what is longer than the reach")
    rates: tuple[_PerSecond, _PerSecond] = Field(description="Slowest and fastest wire of the sources")
    pitches: tuple[_Micrometres, _Micrometres] = Field(description="Finest and coarsest bumps of the sources")

    def speed(self, rate: float) -> float:
        """Energy of drivers and receivers at a rate over that up to the knee."""
        return float(max(1.0, rate / self.rate.value) ** self.exponent.value)

    def area_m2(self, bits_per_s: float, rate: float, pitch_m: float) -> float:
        """Area of both ends of a link that carries so many bits a second one way."""
        return 2 * bits_per_s / rate * self.bumps.value * pitch_m**2

    def latency_s(self, length_m: Lengths, reach_m: float) -> Lengths:
        """Time from die to die over links of such lengths."""
        near = np.minimum(length_m, reach_m)
        found: Lengths = self.latency.value + self.flight.value * near + self.repeated.value * (length_m - near)
        return found

    def beyond(self, rate: float, pitch_m: float) -> str:
        """What to say of a driver outside the sources."""
        (slow, fast), (fine, coarse) = self.rates, self.pitches
        out = [] if slow.value <= rate <= fast.value else [f"{slow.value / 1e9:g} to {fast.value / 1e9:g} Gb/s"]
        out += [] if fine.value <= pitch_m <= coarse.value else [f"{fine.value * 1e6:g} to {coarse.value * 1e6:g} um"]
        return f", outside {' and '.join(out)} of the sources" if out else ""


class LawsFile(FileModel):
    """All laws."""

    adc: AdcLaw = Field(description="Converters by bits and rate")
    dac: DacLaw = Field(description="Drivers by bits")
    registers: RegisterLaw = Field(description="Registers at an array by rows and columns")
    wire: WireLaw = Field(description="Wires of an array by cells")
    voltage: VoltageLaw = Field(description="Clock against supply")
    adder_bit: Annotated[Constant, quantity("J", minimum=0)] = Field(description="Energy of a bit of an adder at 45 nm")
    lane_area: Annotated[Constant, quantity("m^2", above=0)] = Field(description="Area of a vector lane at 45 nm")
    multiprocessor_area: _Number = Field(description="Share of a GPU's die that goes with its multiprocessors")
    gpu_power: GpuPowerLaw = Field(description="GPU boards by multiprocessors, clock and bandwidth")
    router: RouterLaw = Field(description="Routers by width, ports and buffers")
    tsv: TsvLaw = Field(description="Through-silicon vias by their geometry")
    interposer: InterposerLaw = Field(description="Links over an interposer by rate, length and pitch of bumps")
    sram: SramLaw = Field(description="SRAM by capacity and banks")


@lru_cache(maxsize=1)
def laws() -> LawsFile:
    """The library's scaling laws."""
    return validate(LawsFile, read_yaml(library.find("processes", FILE)))


@runtime_checkable
class Scalable(Protocol):
    """A component's class whose constants hold for the sizes that its data file gives, and scale to others."""

    schema: ClassVar[type[BaseModel]]

    @classmethod
    def scaled(cls, parameters: BaseModel, given: BaseModel, own: AbstractSet[Steps]) -> Scaled:
        """`parameters` with the constants of `given`, the data file, scaled to their sizes.

        Keys of `own` were given for the new sizes and stay.
        """


@dataclass(frozen=True)
class Scaled:
    """Scaled parameters, and a sentence for each law that was used."""

    parameters: BaseModel
    remarks: tuple[str, ...] = ()


@dataclass
class Scaling:
    """Collects what is scaled: constants by their steps, and why."""

    own: AbstractSet[Steps]
    changes: dict[Steps, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def constant(self, at: Steps, constant: Constant | None, factor: float, why: str) -> bool:
        """Scale a constant unless it was given for the new size; whether it was."""
        if constant is None or factor == 1.0 or self.is_own(at):
            return False
        self.changes[at] = times(constant, factor, why)
        return True

    def number(self, at: Steps, value: float, factor: float) -> None:
        """Scale a plain number unless it was given."""
        if factor != 1.0 and not self.is_own(at):
            self.changes[at] = value * factor

    def is_own(self, at: Steps) -> bool:
        """Whether the changes give this key themselves."""
        return at in self.own

    def say(self, text: str) -> Self:
        """A remark for the result."""
        self.remarks.append(text)
        return self

    def supply(self, clock: Constant, given: Constant) -> float:
        """The supply that a clock needs, over that of the given clock; a remark says so and where the law ends."""
        law = laws().voltage
        supply = law.supply_for(clock.value / given.value)
        if supply != 1.0:
            ends = supply in (law.lowest.value, law.highest.value)
            end = ", where the law ends" if ends else ""
            told = f"given at {given.value / 1e9:.3g} GHz; {clock.value / 1e9:.3g} GHz takes {supply:.3g} of the supply"
            self.say(told + end)
        return supply

    def on(self, parameters: BaseModel) -> Scaled:
        """The parameters with everything scaled."""
        return Scaled(_with(parameters, self.changes) if self.changes else parameters, tuple(self.remarks))


def times(constant: Constant, factor: float, why: str) -> Constant:
    """A scaled constant: no better than fitted, with what it was."""
    kind: Literal["assumed", "fitted"] = "assumed" if constant.kind == "assumed" else "fitted"
    note = "; ".join(part for part in (constant.note, f"times {factor:.4g}: {why}") if part)
    return Constant(constant.value * factor, constant.unit, kind, constant.source, note)


def _with(model: P, changes: dict[Steps, object]) -> P:
    """The model with values at steps exchanged."""
    nested: dict[str, dict[Steps, object]] = {}
    for (first, *rest), value in changes.items():
        nested.setdefault(str(first), {})[tuple(rest)] = value
    update: dict[str, object] = {}
    for key, inner in nested.items():
        old = getattr(model, key)
        if () in inner:
            update[key] = inner[()]
        elif isinstance(old, BaseModel):
            update[key] = _with(old, inner)
        else:
            update[key] = _in_table(old, inner)
    return model.model_copy(update=update)


def _in_table(table: dict[str, object], changes: dict[Steps, object]) -> dict[str, object]:
    found = dict(table)
    nested: dict[str, dict[Steps, object]] = {}
    for (first, *rest), value in changes.items():
        nested.setdefault(str(first), {})[tuple(rest)] = value
    for key, inner in nested.items():
        old = found[key]
        found[key] = inner[()] if () in inner else _with(old, inner) if isinstance(old, BaseModel) else old
    return found
