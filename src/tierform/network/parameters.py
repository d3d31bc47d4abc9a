"""What a router and its links are like: pipeline, virtual channels, buffers; energy and area with their sources.

:class:`RouterParameters` describes an input-queued virtual-channel router with credit flow control (Dally and Towles,
Principles and Practices of Interconnection Networks, chapters 16 and 17).  :class:`EnergyParameters` holds energy per
bit for a router traversal, for wires by length, for vertical and interposer links, and leakage and area per router;
named sets are read from the library (``library/processes/interconnect.yaml``), every one with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tierform.errors import Problem, TierformError, fail
from tierform.network.cycle.modes import ALLOCATOR_NAMES, PRIORITY_NAMES
from tierform.provenance import Assumption, Constant
from tierform.units import format_quantity, parse_quantity


@dataclass(frozen=True, slots=True)
class RouterParameters:
    """An input-queued virtual-channel router.  Delays are in cycles; `buffer_flits` is per virtual channel.

    `routing_delay` 0 means look-ahead routing.  `switch_speedup` runs the allocators and the crossbar that many times
    per link cycle (may be fractional); `input_speedup` and `output_speedup` add crossbar ports.

    `priority` comes before round robin where an allocator looks at it: a packet's class, its age since it was made
    (``age``) or since it entered the network (``network_age``), or the length of its queue.

    `speculative`: a packet asks for the switch while it asks for a virtual channel, if it may get one that is free (and
    has room).  The switch allocator serves such requests last (``prio``), or one of their own does; what it gives holds
    where the other leaves the output (`speculate_on_unasked_only`: where no other request asks for it).
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
    priority: str = "none"
    speculative: bool = False
    speculative_allocator: str = "prio"
    speculate_on_free_only: bool = True
    speculate_on_room_only: bool = True
    speculate_on_unasked_only: bool = False

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
        for name, known in (
            ("vc_allocator", ALLOCATOR_NAMES),
            ("switch_allocator", ALLOCATOR_NAMES),
            ("speculative_allocator", ("prio", *ALLOCATOR_NAMES)),
            ("priority", PRIORITY_NAMES),
        ):
            if getattr(self, name) not in known:
                problems.append(Problem(f"unknown; one of {', '.join(known)}", key=name, value=getattr(self, name)))
        if self.speculative and (self.vc_alloc_delay, self.switch_alloc_delay) != (1, 1):
            problems.append(Problem("speculation is for allocators of one cycle", key="speculative", value=True))
        if problems:
            raise TierformError(problems)

    @property
    def pipeline_cycles(self) -> float:
        """Cycles of an unhindered head flit from a router's input to its output channel, link excluded."""
        allocation = self.vc_alloc_delay + (0 if self.speculative else self.switch_alloc_delay)
        inner = self.routing_delay + allocation
        return inner / self.switch_speedup + self.crossbar_delay


@dataclass(frozen=True, slots=True)
class EnergyParameters:
    """Energy, leakage and area of the network's parts, SI.

    A flit of b bits costs b * `router_J_per_bit` at each router, b * (`wire_J_per_bit_m` * length) on a planar link,
    b * `vertical_J_per_bit` on a vertical one and b * (`interposer_J_per_bit` + `interposer_wire_J_per_bit_m` *
    length) on an interposer one; what is longer than `interposer_reach_m` is a planar wire to the edge of the die.
    Vertical and interposer links take area by their width; the latter's is that of drivers and bumps at both ends.
    Data are taken as random: the source figures say what activity they hold for.
    """

    router_J_per_bit: float = 0.0
    wire_J_per_bit_m: float = 0.0
    vertical_J_per_bit: float = 0.0
    interposer_J_per_bit: float = 0.0
    interposer_wire_J_per_bit_m: float = 0.0
    interposer_reach_m: float = 0.0
    router_leakage_W: float = 0.0
    router_area_m2: float = 0.0
    vertical_area_m2_per_bit: float = 0.0
    interposer_area_m2_per_bit: float = 0.0
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
    values: dict[str, float] = {}
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
                    format_quantity(constant.value, constant.unit),
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
    "interposer_reach_m": "m",
    "router_leakage_W": "W",
    "router_area_m2": "m^2",
    "vertical_area_m2_per_bit": "m^2/bit",
}


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, dict[str, Constant]]]:
    from tierform.files import read_yaml
    from tierform.library import find

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
