"""A memory as the rest of the chip sees it: capacity, bandwidth, and the time and energy of moving a tensor.

:func:`load_memory` gives a device of the library.  Its figures are those of the analytic model
(:mod:`tierform.memory.analytic`); :class:`tierform.memory.CycleMemory` simulates the same device cycle by cycle.

Energy by part: ``activate``, ``read``, ``write``, ``io`` belong to the transfer; ``background`` and ``refresh`` are
those of the channels used while they are busy.  For a whole task take :attr:`TransferCost.dynamic_energy_J` of each
transfer and :meth:`MemoryDevice.background_energy_J` once.  The controller on the chip's side is not included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum
from typing import TYPE_CHECKING

from tierform.errors import fail
from tierform.memory.analytic import PATTERNS, Rate, rate
from tierform.memory.spec import DramSpec
from tierform.provenance import Assumption

if TYPE_CHECKING:
    from tierform.memory.cxl import CxlDevice

PARTS = ("activate", "read", "write", "io", "refresh", "background")
DYNAMIC_PARTS = ("activate", "read", "write", "io", "link", "controller")


@dataclass(frozen=True, slots=True)
class TransferCost:
    """What one transfer takes.

    `latency_s` until the first byte on an idle device, `busy_s` for which the device's channels are occupied,
    `duration_s` until the last byte (their sum), `energy_J` the sum of `energy_by_part_J`.
    """

    latency_s: float
    busy_s: float
    energy_by_part_J: Mapping[str, float]
    moved_B: int = 0

    @property
    def duration_s(self) -> float:
        """Until the last byte is there, on an idle device."""
        return self.latency_s + self.busy_s

    @property
    def energy_J(self) -> float:
        """All parts together."""
        return fsum(self.energy_by_part_J.values())

    @property
    def dynamic_energy_J(self) -> float:
        """Without background and refresh, which run whether or not anything is moved."""
        return fsum(value for part, value in self.energy_by_part_J.items() if part in DYNAMIC_PARTS)


@dataclass(frozen=True)
class MemoryDevice:
    """`stacks` equal devices (DIMMs, stacks, packages) of one DRAM standard, side by side."""

    spec: DramSpec
    stacks: int = 1

    @property
    def name(self) -> str:
        """The library name."""
        return self.spec.name

    @property
    def channels(self) -> int:
        """Channels of all stacks."""
        return self.spec.channels * self.stacks

    @property
    def capacity_B(self) -> int:
        """Bytes of all stacks."""
        return self.spec.capacity_B * self.stacks

    @property
    def peak_bandwidth_B_per_s(self) -> float:
        """All data buses always busy."""
        return self.spec.channel_peak_B_per_s * self.channels

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What the figures rest on, with sources and kinds."""
        return self.spec.assumptions

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of the library's sources that the figures come from."""
        return tuple(dict.fromkeys(entry.source for entry in self.assumptions if entry.source))

    @cached_property
    def _rates(self) -> dict[tuple[str, float, int | None], Rate]:
        return {}

    def rate(self, pattern: str = "stream", read_fraction: float = 1.0, stride_B: int | None = None) -> Rate:
        """The analytic steady state of one channel."""
        key = (pattern, read_fraction, stride_B)
        if key not in self._rates:
            if pattern not in PATTERNS:
                fail("unknown traffic pattern", key="pattern", value=pattern, choices=PATTERNS)
            if not 0 <= read_fraction <= 1:
                fail("must lie between 0 and 1", key="read_fraction", value=read_fraction)
            self._rates[key] = rate(self.spec, pattern, read_fraction, stride_B)
        return self._rates[key]

    def effective_bandwidth_B_per_s(
        self,
        pattern: str = "stream",
        read_fraction: float = 1.0,
        *,
        channels: int | None = None,
        stacks: int | None = None,
        stride_B: int | None = None,
    ) -> float:
        """Useful bytes per second under `pattern` on `channels` (default all; `stacks` selects whole stacks)."""
        steady = self.rate(pattern, read_fraction, stride_B)
        per_channel = self.spec.burst_bytes / (steady.cycles_per_burst * self.spec.clock_s)
        return per_channel * self._busy(steady, channels, stacks)

    @property
    def read_latency_s(self) -> float:
        """First byte of a read from an idle, precharged bank: nRCD + nCL + burst."""
        t = self.spec.timings
        return (t["nRCDRD"] + t["nCL"] + t["nBL"]) * self.spec.clock_s

    @property
    def write_latency_s(self) -> float:
        """A write to an idle, precharged bank until its burst is in: nRCD + nCWL + burst."""
        t = self.spec.timings
        return (t["nRCDWR"] + t["nCWL"] + t["nBL"]) * self.spec.clock_s

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
        """Time and energy of moving `size_B` useful bytes, of which `read_fraction` are read and the rest written."""
        if not size_B >= 0:
            fail("must be at least 0", key="size_B", value=size_B)
        steady = self.rate(pattern, read_fraction, stride_B)
        used = self._busy(steady, channels, stacks)
        if size_B == 0:
            return TransferCost(0.0, 0.0, dict.fromkeys(PARTS, 0.0))
        spec, energy = self.spec, self.spec.energy
        bursts = size_B / spec.burst_bytes
        # Fewer bursts than channels leave some idle; a burst is never split.
        busy_s = max(bursts / used, min(bursts, 1.0)) * steady.cycles_per_burst * spec.clock_s
        reads, writes = bursts * read_fraction, bursts * (1 - read_fraction)
        parts = {
            "activate": bursts * steady.activations_per_burst * energy.activate_J,
            "read": reads * energy.read_J,
            "write": writes * energy.write_J,
            "io": reads * energy.io_read_J + writes * energy.io_write_J,
            "refresh": busy_s * used * self._refresh_W(energy.refresh_J),
            "background": busy_s * used * energy.active_W * spec.ranks,
        }
        latency = self.read_latency_s if read_fraction > 0 else self.write_latency_s
        return TransferCost(latency, busy_s, parts, round(bursts * spec.burst_bytes))

    @property
    def background_W(self) -> float:
        """The whole device idle with all banks closed, refresh included."""
        energy = self.spec.energy
        return self.channels * (energy.precharged_W * self.spec.ranks + self._refresh_W(energy.refresh_J))

    @property
    def active_background_W(self) -> float:
        """The whole device with rows open on every channel, refresh included, nothing moving."""
        energy = self.spec.energy
        return self.channels * (energy.active_W * self.spec.ranks + self._refresh_W(energy.refresh_J))

    def background_energy_J(self, total_s: float, busy_s: float = 0.0) -> float:
        """Standby and refresh over `total_s`, of which `busy_s` with rows open."""
        return self.background_W * max(0.0, total_s - busy_s) + self.active_background_W * busy_s

    def with_overrides(self, *, stacks: int) -> MemoryDevice:
        """The same memory with another number of stacks."""
        return replace(self, stacks=stacks)

    def _refresh_W(self, refresh_J: float) -> float:
        if self.spec.controller.refresh == "none":
            return 0.0
        return refresh_J * self.spec.ranks / (self.spec.timings["nREFI"] * self.spec.clock_s)

    def _busy(self, steady: Rate, channels: int | None, stacks: int | None) -> float:
        """Channels that carry the traffic: those asked for, fewer where a stride skips some."""
        asked = self._used(channels, stacks)
        return asked * steady.channels_used / self.spec.channels

    def _used(self, channels: int | None, stacks: int | None) -> int:
        if stacks is not None and not 1 <= stacks <= self.stacks:
            fail(f"the memory has {self.stacks} stacks", key="stacks", value=stacks)
        available = self.spec.channels * (stacks if stacks is not None else self.stacks)
        if channels is not None and not 1 <= channels <= available:
            fail(f"the memory has {available} channels", key="channels", value=channels)
        return channels if channels is not None else available


def load_memory(name: str, *, stacks: int = 1, **overrides: object) -> MemoryDevice | CxlDevice:
    """A memory of the library: ``hbm2``, ``ddr5-4800``, ``cxl-ddr5-x8``, ...

    `stacks` equal devices side by side; `overrides` as :func:`tierform.memory.standard.load_dram` takes them, and for a
    CXL device also the keys of its file.  TierformError with the nearest name when there is none.
    """
    from tierform import library
    from tierform.memory.standard import SHELF, library_document, load_dram

    if isinstance(stacks, bool) or not isinstance(stacks, int) or stacks < 1:
        fail("a whole number of at least 1 is needed", key="stacks", value=stacks)
    if name in library.names(SHELF):
        document = library_document(name)
        if isinstance(document.content, dict) and document.content.get("device") == "cxl":
            from tierform.memory.cxl import read_cxl

            return read_cxl(name, document, stacks, overrides)
    return MemoryDevice(load_dram(name, **overrides), stacks)
