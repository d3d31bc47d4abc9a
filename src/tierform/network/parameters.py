"""What a router and its links are like: pipeline, virtual channels, buffers; energy and area with their sources.

:class:`RouterParameters` describes an input-queued virtual-channel router with credit flow control (Dally and Towles,
Principles and Practices of Interconnection Networks, chapters 16 and 17).  :class:`EnergyParameters` holds energy per
bit for a router traversal, for wires by length, for vertical and interposer links, and leakage and area per router;
named sets are read from the library (``library/processes/interconnect.yaml``), every one with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tierform.errors import Problem, TierformError, fail
from tierform.provenance import Assumption, Constant

ALLOCATORS = ("islip", "separable_input_first", "separable_output_first")


@dataclass(frozen=True, slots=True)
class RouterParameters:
    """An input-queued virtual-channel router.  Delays are in cycles; `buffer_flits` is per virtual channel.

    `routing_delay` 0 means look-ahead routing.  `switch_speedup` runs the allocators and the crossbar that many times
    per link cycle (may be fractional); `input_speedup` and `output_speedup` add crossbar ports.
    """

    virtual_channels: int = 4
    buffer_flits: int = 8
    flit_bits: int = 256
    routing_delay: int = 1
    vc_alloc_delay: int = 1
    switch_alloc_delay: int = 1
    crossbar_delay: int = 1
    credit_delay: int = 1
    input_speedup: int = 1
    output_speedup: int = 1
    switch_speedup: float = 1.0
    vc_allocator: str = "islip"
    switch_allocator: str = "islip"
    alloc_iterations: int = 1
    wait_for_tail_credit: bool = False
    vc_busy_when_full: bool = False

    def __post_init__(self) -> None:
        problems = []
        for name, least in (
            ("virtual_channels", 1),
            ("buffer_flits", 1),
            ("flit_bits", 1),
            ("routing_delay", 0),
            ("vc_alloc_delay", 1),
            ("switch_alloc_delay", 1),
            ("crossbar_delay", 0),
            ("credit_delay", 0),
            ("input_speedup", 1),
            ("output_speedup", 1),
            ("switch_speedup", 1.0),
            ("alloc_iterations", 1),
        ):
            if getattr(self, name) < least:
                problems.append(Problem(f"must be at least {least}", key=name, value=getattr(self, name)))
        problems += [
            Problem(f"unknown; one of {', '.join(ALLOCATORS)}", key=name, value=getattr(self, name))
            for name in ("vc_allocator", "switch_allocator")
            if getattr(self, name) not in ALLOCATORS
        ]
        if problems:
            raise TierformError(problems)

    @property
    def pipeline_cycles(self) -> float:
        """Cycles of an unhindered head flit from a router's input to its output channel, link excluded."""
        inner = self.routing_delay + self.vc_alloc_delay + self.switch_alloc_delay
        return inner / self.switch_speedup + self.crossbar_delay


@dataclass(frozen=True, slots=True)
class EnergyParameters:
    """Energy, leakage and area of the network's parts, SI.

    A flit of b bits costs b * `router_J_per_bit` at each router, b * (`wire_J_per_bit_m` * length) on a planar link,
    b * `vertical_J_per_bit` on a vertical one and b * (`interposer_J_per_bit` + `interposer_wire_J_per_bit_m` *
    length) on an interposer one.  Data are taken as random: the source figures say what activity they hold for.
    """

    router_J_per_bit: float = 0.0
    wire_J_per_bit_m: float = 0.0
    vertical_J_per_bit: float = 0.0
    interposer_J_per_bit: float = 0.0
    interposer_wire_J_per_bit_m: float = 0.0
    router_leakage_W: float = 0.0
    router_area_m2: float = 0.0
    vertical_area_m2_per_bit: float = 0.0
    assumptions: tuple[Assumption, ...] = ()


def energy_parameters(
    router: str = "isaac-32nm",
    wire: str = "global-wire-40nm",
    vertical: str = "tsv-coarse-aggressive",
    interposer: str = "ucie-advanced",
) -> EnergyParameters:
    """The library's constants for one choice of router, wire, vertical link and interposer link."""
    table = _table()
    chosen = {"router": router, "wire": wire, "vertical": vertical, "interposer": interposer}
    values: dict[str, Any] = {}
    notes = []
    for shelf, name in chosen.items():
        if name not in table[shelf]:
            fail(
                f"no {shelf} of this name in the library",
                key=shelf,
                value=name,
                choices=table[shelf],
                fix=f"Known: {', '.join(table[shelf])}.",
            )
        for key, constant in table[shelf][name].items():
            values[key] = constant.value
            notes.append(
                Assumption(
                    f"network {shelf} {name}: {key}",
                    f"{constant.value:.4g} {constant.unit}",
                    constant.kind,
                    constant.source,
                    constant.note,
                )
            )
    return EnergyParameters(**values, assumptions=tuple(notes))


def energy_choices() -> dict[str, list[str]]:
    """The names that :func:`energy_parameters` knows, per kind of part."""
    return {shelf: list(entries) for shelf, entries in _table().items()}


_UNITS = {
    "router_J_per_bit": "J/bit",
    "wire_J_per_bit_m": "J/(bit*m)",
    "vertical_J_per_bit": "J/bit",
    "interposer_J_per_bit": "J/bit",
    "interposer_wire_J_per_bit_m": "J/(bit*m)",
    "router_leakage_W": "W",
    "router_area_m2": "m^2",
    "vertical_area_m2_per_bit": "m^2/bit",
}


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, dict[str, Constant]]]:
    from tierform.files import read_yaml
    from tierform.library import find
    from tierform.units import parse_quantity

    content = read_yaml(find("processes", "interconnect")).content
    result: dict[str, dict[str, dict[str, Constant]]] = {}
    for shelf in ("router", "wire", "vertical", "interposer"):
        result[shelf] = {}
        for name, entry in content[shelf].items():
            result[shelf][name] = {
                key: Constant(
                    parse_quantity(item["value"], _UNITS[key], key=key),
                    _UNITS[key],
                    item["kind"],
                    item.get("source", ""),
                    item.get("note", ""),
                )
                for key, item in entry.items()
            }
    return result
