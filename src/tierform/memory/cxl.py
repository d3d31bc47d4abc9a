"""A memory expander behind a CXL link: the link, the device's own DRAM channels, and work inside its controller.

Three stages work at the same time: the DRAM channels (the analytic model of their standard), the controller's engine
(gathering bit planes, compressing, decompressing) and the link.  The slowest sets the pace; their latencies add.

The link's useful bandwidth is its raw rate times what framing leaves.  CXL 1.1 and 2.0: 128 of 130 encoded bits, 64 of
the 68 bytes of a flit, and of the 16-byte slots four in 4 1/3 carry data (three response headers share one slot).
CXL 3.x: 240 of the 256 bytes of a flit are slots, with the same share of headers.  Reads and writes use opposite
directions.  Queueing follows the closed form of a server with deterministic service (M/D/1) at the slowest stage.
Coherence traffic and a switch between host and device are not modelled: raise the latency for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from tierform.errors import fail, nearest
from tierform.files import Document
from tierform.memory.device import MemoryDevice, TransferCost
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity, validate
from tierform.units import format_quantity, parse_quantity

PUBLISHED_LATENCY_S = (140e-9, 410e-9)
WEIGHTS_PER_PLANE_BURST = 512
LINE_B = 64
_LANE_RATE_B_PER_S = {"1.1": 32e9 / 8, "2.0": 32e9 / 8, "3.0": 64e9 / 8, "3.1": 64e9 / 8}
_SLOTS_PER_LINE = 4 + 1 / 3
LAYOUTS = ("adjacent", "plane-major")


class CxlLinkFile(FileModel):
    """The link of an expander."""

    generation: Literal["1.1", "2.0", "3.0", "3.1"] = Field(
        description="CXL generation; changes the rate of a lane and the share of it that framing leaves."
    )
    lanes: Literal[1, 2, 4, 8, 16] = Field(description="Lanes of the link; bandwidth is in proportion.")
    latency: Annotated[Constant, quantity("s", above=0)] = Field(
        description="Load-to-use latency of the idle device, its DRAM access included."
    )
    energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of a byte over the link, both ends."
    )


class CxlControllerFile(FileModel):
    """Work inside the device."""

    queue_depth: Annotated[Constant, quantity("1", above=0)] = Field(
        description="Requests that may wait in the device; they bound the queueing time."
    )
    latency: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of a request in the controller, part of the link's latency."
    )
    plane_throughput: Annotated[Constant, quantity("B/s", above=0)] = Field(
        description="Rate at which bit planes are gathered."
    )
    plane_latency: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of gathering the first block of planes."
    )
    codec_throughput: Annotated[Constant, quantity("B/s", above=0)] = Field(
        description="Uncompressed bytes that are compressed or decompressed a second."
    )
    codec_latency: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time until the first byte of a compressed block."
    )
    energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of gathering planes and of compression, for a byte that leaves the controller."
    )


class CxlFile(FileModel):
    """The layout of a CXL device's file."""

    device: Literal["cxl"] = Field(description="The kind of file; DRAM files have no such key.")
    title: str = Field(description="One line for people; changes no figure.")
    memory: str = Field(description="DRAM behind the controller: a memory of the library with its grade.")
    memory_stacks: int = Field(1, description="DRAM devices of one expander; capacity and bandwidth grow with them.")
    link: CxlLinkFile = Field(description="The link between chip and expander.")
    controller: CxlControllerFile = Field(description="The controller inside the expander.")


@dataclass(frozen=True, slots=True)
class CxlLink:
    """One link: `latency_s` is the idle load-to-use latency with the DRAM access, `energy_J_per_B` covers both ends."""

    generation: str
    lanes: int
    latency_s: float
    energy_J_per_B: float

    @property
    def raw_B_per_s(self) -> float:
        """One direction, before encoding and framing."""
        return _LANE_RATE_B_PER_S[self.generation] * self.lanes

    @property
    def efficiency(self) -> float:
        """Useful bytes of cache lines per raw byte, in the direction of the data."""
        framing = 128 / 130 * 64 / 68 if self.generation in ("1.1", "2.0") else 240 / 256
        return framing * 4 / _SLOTS_PER_LINE

    @property
    def useful_B_per_s(self) -> float:
        """One direction, data only."""
        return self.raw_B_per_s * self.efficiency


@dataclass(frozen=True, slots=True)
class CxlController:
    """Work inside the device: gathering bit planes and (de)compression, with their rates and first-byte latencies."""

    queue_depth: int
    latency_s: float
    plane_B_per_s: float
    plane_latency_s: float
    codec_B_per_s: float
    codec_latency_s: float
    energy_J_per_B: float


@dataclass(frozen=True)
class CxlDevice:
    """`stacks` equal expanders, each with its own link.  Offers what :class:`MemoryDevice` offers, and bit planes."""

    name: str
    title: str
    link: CxlLink
    controller: CxlController
    dram: MemoryDevice
    stacks: int = 1
    own_assumptions: tuple[Assumption, ...] = ()

    @property
    def channels(self) -> int:
        """DRAM channels of all expanders."""
        return self.dram.channels * self.stacks

    @property
    def capacity_B(self) -> int:
        """Bytes of all expanders."""
        return self.dram.capacity_B * self.stacks

    @property
    def peak_bandwidth_B_per_s(self) -> float:
        """The slower of the links' raw rate in one direction and the DRAM's data buses."""
        return min(self.link.raw_B_per_s, self.dram.peak_bandwidth_B_per_s) * self.stacks

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What the figures rest on, the DRAM's included."""
        return self.own_assumptions + self.dram.assumptions

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of the library's sources that the figures come from."""
        return tuple(dict.fromkeys(entry.source for entry in self.assumptions if entry.source))

    @property
    def read_latency_s(self) -> float:
        """Load-to-use latency of an idle device."""
        return self.link.latency_s

    @property
    def write_latency_s(self) -> float:
        """A write until it is in DRAM: as long as a read."""
        return self.link.latency_s

    def effective_bandwidth_B_per_s(
        self,
        pattern: str = "stream",
        read_fraction: float = 1.0,
        *,
        channels: int | None = None,
        stacks: int | None = None,
        stride_B: int | None = None,
    ) -> float:
        """Useful bytes per second of `stacks` expanders: the slower of link and DRAM."""
        used = self._used(stacks)
        dram = self.dram.effective_bandwidth_B_per_s(pattern, read_fraction, channels=channels, stride_B=stride_B)
        busiest = max(read_fraction, 1 - read_fraction)
        return min(dram, self.link.useful_B_per_s / busiest) * used

    def transfer(
        self,
        size_B: float,
        pattern: str = "stream",
        read_fraction: float = 1.0,
        *,
        channels: int | None = None,
        stacks: int | None = None,
        stride_B: int | None = None,
    ) -> TransferCost:
        """Time and energy of moving `size_B` bytes over the links."""
        used = self._used(stacks)
        each = self.dram.transfer(size_B / used, pattern, read_fraction, channels=channels, stride_B=stride_B)
        busiest = size_B / used * max(read_fraction, 1 - read_fraction)
        busy_s = max(each.busy_s, busiest / self.link.useful_B_per_s)
        return self._cost(each, busy_s, size_B, 0.0, used, self.link.latency_s if size_B else 0.0)

    def read_planes(
        self,
        weights: int,
        planes_read: int,
        planes_stored: int,
        layout: str = "adjacent",
        compressed_B: float | None = None,
    ) -> TransferCost:
        """Fetch the top `planes_read` of `planes_stored` bit planes of `weights` weights, packed by the controller.

        A 64-byte burst holds one plane of a block of 512 weights.  With the layout ``adjacent`` the planes of a block
        lie side by side in one DRAM row, so rows are opened as for all planes; with ``plane-major`` each plane is a
        region of its own, so rows are opened only for the planes that are read.  `compressed_B` is what these planes
        occupy in DRAM when they are stored compressed; the controller then decompresses them before the link.
        """
        for key, value in (("weights", weights), ("planes_stored", planes_stored)):
            if value < 1:
                fail("must be at least 1", key=key, value=value)
        if not 0 <= planes_read <= planes_stored:
            fail(f"between 0 and {planes_stored} planes can be read", key="planes_read", value=planes_read)
        if layout not in LAYOUTS:
            fail("unknown layout of the planes", key="layout", value=layout, choices=LAYOUTS)
        blocks = math.ceil(weights / WEIGHTS_PER_PLANE_BURST)
        plane_B = blocks * LINE_B
        link_B = weights * planes_read / 8
        if compressed_B is not None and compressed_B < 0:
            fail("must be at least 0", key="compressed_B", value=compressed_B)
        dram_B = float(plane_B * planes_read) if compressed_B is None else float(compressed_B)
        if planes_read == 0:
            return TransferCost(0.0, 0.0, {})
        used, row_B = self.stacks, self.dram.spec.row_bytes
        stored_B = plane_B * planes_stored * (dram_B / (plane_B * planes_read))
        opened = stored_B if layout == "adjacent" and planes_stored * LINE_B <= row_B else dram_B
        each = self.dram.transfer(dram_B / used)
        parts = dict(each.energy_by_part_J)
        # A stream opens one row per row of bytes moved; skipping planes opens the same rows for fewer bytes.
        parts["activate"] *= max(1.0, opened / dram_B) if dram_B else 0.0
        rows_per_channel = opened / row_B / (used * self.dram.channels)
        t = self.dram.spec.timings
        open_s = rows_per_channel * max(t["nFAW"] / 4, t["nRRDS"]) / self.dram.spec.ranks * self.dram.spec.clock_s
        engine_B = plane_B * planes_read / used
        engine_s = engine_B / self.controller.plane_B_per_s
        latency = self.link.latency_s + self.controller.plane_latency_s
        if compressed_B is not None:
            engine_s = max(engine_s, engine_B / self.controller.codec_B_per_s)
            latency += self.controller.codec_latency_s
        busy_s = max(each.busy_s, open_s, engine_s, link_B / used / self.link.useful_B_per_s)
        array = TransferCost(each.latency_s, each.busy_s, parts, each.moved_B)
        return self._cost(array, busy_s, link_B, link_B, used, latency)

    def loaded_latency_s(self, bandwidth_B_per_s: float, read_fraction: float = 1.0) -> float:
        """Mean load-to-use latency at an offered load, by M/D/1 at the slowest stage, bounded by the queue's depth."""
        limit = self.effective_bandwidth_B_per_s("random", read_fraction)
        load = bandwidth_B_per_s / limit
        service_s = LINE_B * self.stacks / limit
        bound_s = self.controller.queue_depth * service_s
        waiting = bound_s if load >= 1 else min(bound_s, service_s * load / (2 * (1 - load)))
        return self.link.latency_s + waiting

    @property
    def background_W(self) -> float:
        """The DRAM of all expanders idle; controller and link idle power are not included (no sourced figure)."""
        return self.dram.background_W * self.stacks

    @property
    def active_background_W(self) -> float:
        """The DRAM of all expanders with rows open."""
        return self.dram.active_background_W * self.stacks

    def background_energy_J(self, total_s: float, busy_s: float = 0.0) -> float:
        """Standby and refresh of the DRAM over `total_s`, of which `busy_s` with rows open."""
        return self.dram.background_energy_J(total_s, busy_s) * self.stacks

    def _cost(
        self, each: TransferCost, busy_s: float, link_B: float, engine_B: float, used: int, latency_s: float
    ) -> TransferCost:
        parts = {part: joules * used for part, joules in each.energy_by_part_J.items()}
        stretch = busy_s / each.busy_s if each.busy_s else 1.0
        for part in ("background", "refresh"):
            parts[part] *= stretch
        parts["link"] = link_B * self.link.energy_J_per_B
        parts["controller"] = engine_B * self.controller.energy_J_per_B
        return TransferCost(latency_s, busy_s, parts, each.moved_B * used)

    def _used(self, stacks: int | None) -> int:
        if stacks is not None and not 1 <= stacks <= self.stacks:
            fail(f"the memory has {self.stacks} expanders", key="stacks", value=stacks)
        return stacks if stacks is not None else self.stacks


_OVERRIDES = {
    "latency": ("link", "latency", "s"),
    "link_energy": ("link", "energy", "J/B"),
    "plane_throughput": ("controller", "plane_throughput", "B/s"),
    "plane_latency": ("controller", "plane_latency", "s"),
    "codec_throughput": ("controller", "codec_throughput", "B/s"),
    "codec_latency": ("controller", "codec_latency", "s"),
    "engine_energy": ("controller", "energy", "J/B"),
}


def read_cxl(name: str, document: Document, stacks: int, overrides: dict[str, Any]) -> CxlDevice:
    """A CXL device from its file.

    `overrides`: ``generation``, ``lanes``, ``memory``, ``memory_stacks`` and the keys of :data:`_OVERRIDES` (link and
    controller figures); anything else goes to the DRAM behind the controller.
    """
    from tierform.memory.standard import load_dram

    read = validate(CxlFile, document)
    values: dict[str, Constant] = {
        **{f"link.{key}": getattr(read.link, key) for key in ("latency", "energy")},
        **{f"controller.{key}": getattr(read.controller, key) for key in CxlControllerFile.model_fields},
    }
    generation, lanes = read.link.generation, int(read.link.lanes)
    memory, memory_stacks = read.memory, read.memory_stacks
    rest: dict[str, Any] = {}
    for key, value in overrides.items():
        if key in _OVERRIDES:
            part, field, unit = _OVERRIDES[key]
            number = parse_quantity(value, unit, key=key)
            if number < 0:
                fail("must be at least 0", key=key, value=value)
            values[f"{part}.{field}"] = Constant(number, unit, "assumed", note="given by the user")
        elif key == "generation":
            if value not in _LANE_RATE_B_PER_S:
                fail("unknown CXL generation", key=key, value=value, choices=_LANE_RATE_B_PER_S)
            generation = value
        elif key == "lanes":
            if value not in (1, 2, 4, 8, 16):
                fail("a link has 1, 2, 4, 8 or 16 lanes", key=key, value=value)
            lanes = value
        elif key == "memory":
            memory = value
        elif key == "memory_stacks":
            memory_stacks = value
        else:
            rest[key] = value
    from tierform.errors import Problem, TierformError

    try:
        spec = load_dram(memory, **rest)
    except TierformError as error:
        known = [*_OVERRIDES, "generation", "lanes", "memory", "memory_stacks"]
        raise TierformError(
            Problem(
                what=p.what,
                file=p.file,
                line=p.line,
                key=p.key,
                value=p.value,
                nearest=p.nearest or nearest(p.key or "", known),
                fix=p.fix,
            )
            for p in error.problems
        ) from None
    link = CxlLink(generation, lanes, values["link.latency"].value, values["link.energy"].value)
    controller = CxlController(
        queue_depth=int(values["controller.queue_depth"].value),
        latency_s=values["controller.latency"].value,
        plane_B_per_s=values["controller.plane_throughput"].value,
        plane_latency_s=values["controller.plane_latency"].value,
        codec_B_per_s=values["controller.codec_throughput"].value,
        codec_latency_s=values["controller.codec_latency"].value,
        energy_J_per_B=values["controller.energy"].value,
    )
    own = tuple(
        Assumption(
            f"{name}: {key.replace('.', ' ').replace('_', ' ')}",
            format_quantity(constant.value, constant.unit),
            constant.kind,
            constant.source,
            constant.note,
        )
        for key, constant in values.items()
    )
    return CxlDevice(
        name=name,
        title=read.title,
        link=link,
        controller=controller,
        dram=MemoryDevice(spec, memory_stacks),
        stacks=stacks,
        own_assumptions=own,
    )
