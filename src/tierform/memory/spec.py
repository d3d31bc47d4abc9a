"""What a DRAM is: organization, named timings, constraints, currents, as one frozen record.

The engines know nothing of a standard by name: they read this record.  It comes from a file of the library
(:mod:`tierform.memory.standard`), or from another tool's configuration.
Energies follow the IDD method: each event costs the supply voltage times the current above standby times its
duration, in every device of the rank (Micron TN-40-07, "Calculating memory power for DDR4 SDRAM").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tierform.errors import Problem, TierformError
from tierform.memory.addressing import AddressMap, address_map
from tierform.provenance import Assumption

# Every engine needs these, in clock cycles.
REQUIRED = (
    "nBL",
    "nCL",
    "nCWL",
    "nRCDRD",
    "nRCDWR",
    "nRP",
    "nRAS",
    "nRC",
    "nRTP",
    "nWR",
    "nCCDS",
    "nCCDL",
    "nRRDS",
    "nRRDL",
    "nWTRS",
    "nWTRL",
    "nRTW",
    "nFAW",
    "nRFC",
    "nREFI",
)
# Used when the standard has the feature.
OPTIONAL = (
    "nCCDSWR",
    "nCCDLWR",
    "nPPD",
    "nCS",
    "nRFCb",
    "nREFIb",
    "nRREFD",
    "n32AW",
    "nCKE",
    "nXP",
    "nCKESR",
    "nXS",
    "nRFM",
    "nABOACT",
)
REFRESH = ("none", "all-bank", "all-bank-simultaneous", "per-bank", "same-bank")


@dataclass(frozen=True, slots=True)
class Controller:
    """The memory controller in front of one channel.

    `row_policy` open or closed page; `refresh` one of :data:`REFRESH`; `queue_per` bank or rank; `command_queue`
    entries in each of those queues; `transaction_queue` entries for reads and as many for writes; `row_hit_limit`
    row hits after which a waiting conflict may close the row; `write_drain_low` waiting writes above which an idle
    channel drains them; `dual_command` lets a row and a column command go in one cycle (HBM); `power_down_after`
    and `self_refresh_after` idle cycles (None: never).  Against row hammer (None: off): `rfm_threshold` activations
    of a bank are answered by a refresh management of the rank, and each refresh takes as many off the count (RAAIMT);
    `prac_threshold` activations of one row raise an alert, which `prac_recovery` refresh managements answer, and
    `prac_delay` activations must pass before the next.
    """

    row_policy: str = "open"
    refresh: str = "all-bank"
    queue_per: str = "bank"
    command_queue: int = 8
    transaction_queue: int = 32
    unified_queue: bool = False
    row_hit_limit: int = 4
    write_drain_low: int = 8
    dual_command: bool = False
    power_down_after: int | None = None
    self_refresh_after: int | None = None
    rfm_threshold: int | None = None
    prac_threshold: int | None = None
    prac_recovery: int = 4
    prac_delay: int = 4


@dataclass(frozen=True, slots=True)
class Currents:
    """Supply voltages (V) and currents (A) of one device, by their data-sheet names; absent ones are None."""

    VDD: float
    IDD0: float
    IDD2N: float
    IDD3N: float
    IDD4R: float
    IDD4W: float
    IDD5B: float
    IDD2P: float | None = None
    IDD3P: float | None = None
    IDD5PB: float | None = None
    IDD6: float | None = None
    VPP: float | None = None
    IPP0: float = 0.0
    IPP3N: float = 0.0
    IPP5B: float = 0.0


@dataclass(frozen=True, slots=True)
class EventEnergy:
    """Energy of each event in all devices of one rank, J, and standby powers of one rank, W."""

    activate_J: float
    read_J: float
    write_J: float
    refresh_J: float
    refresh_bank_J: float
    io_read_J: float
    io_write_J: float
    active_W: float
    precharged_W: float
    active_power_down_W: float
    precharged_power_down_W: float
    self_refresh_W: float


@dataclass(frozen=True, slots=True)
class DramSpec:
    """One memory device or module: `channels` equal channels, each of `ranks` ranks of `devices_per_rank` devices."""

    name: str
    standard: str
    title: str
    channels: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    rows: int
    columns: int
    device_width_bit: int
    bus_width_bit: int
    burst_length: int
    clock_s: float
    timings: dict[str, int]
    currents: Currents
    mapping: str
    controller: Controller = field(default_factory=Controller)
    additive_latency: int = 0
    constraint_text: str = ""
    constraint_line: int = 1
    file: str = ""
    io_read_J_per_bit: float = 0.0
    io_write_J_per_bit: float = 0.0
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def banks(self) -> int:
        """Banks in one rank."""
        return self.bank_groups * self.banks_per_group

    @property
    def devices_per_rank(self) -> int:
        """Devices side by side on the bus."""
        return max(1, self.bus_width_bit // self.device_width_bit)

    @property
    def burst_bytes(self) -> int:
        """Bytes that one read or write command moves."""
        return self.bus_width_bit * self.burst_length // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of one open row in all devices of a rank."""
        return self.columns * self.bus_width_bit // 8

    @property
    def bursts_per_row(self) -> int:
        """Read or write commands that one open row can serve without repeating a column."""
        return self.row_bytes // self.burst_bytes

    @property
    def channel_capacity_B(self) -> int:
        """Bytes of one channel."""
        return self.ranks * self.banks * self.rows * self.row_bytes

    @property
    def capacity_B(self) -> int:
        """Bytes of the whole device."""
        return self.channels * self.channel_capacity_B

    @property
    def channel_peak_B_per_s(self) -> float:
        """The data bus of one channel, always busy."""
        return self.burst_bytes / (self.timings["nBL"] * self.clock_s)

    @property
    def energy(self) -> EventEnergy:
        """Energy of each event by the IDD method (see the module's text)."""
        c, t = self.currents, self.timings
        devices = self.devices_per_rank
        cycle = self.clock_s * devices
        vpp = c.VPP or 0.0

        def joules(current: float, cycles: int) -> float:
            return c.VDD * current * cycles * cycle

        activate = joules(c.IDD0, t["nRC"]) - joules(c.IDD3N, t["nRAS"]) - joules(c.IDD2N, t["nRC"] - t["nRAS"])
        activate += vpp * (c.IPP0 - c.IPP3N) * t["nRC"] * cycle
        refresh = joules(c.IDD5B - c.IDD3N, t["nRFC"]) + vpp * (c.IPP5B - c.IPP3N) * t["nRFC"] * cycle
        per_bank = 0.0
        if "nRFCb" in t:
            # Without a per-bank current, the all-bank refresh's energy is shared among the banks.
            per_bank = joules(c.IDD5PB - c.IDD3N, t["nRFCb"]) if c.IDD5PB is not None else refresh / self.banks
        bits = self.burst_bytes * 8
        standby = vpp * c.IPP3N * devices
        watt = c.VDD * devices
        return EventEnergy(
            activate_J=activate,
            read_J=joules(c.IDD4R - c.IDD3N, t["nBL"]),
            write_J=joules(c.IDD4W - c.IDD3N, t["nBL"]),
            refresh_J=refresh,
            refresh_bank_J=per_bank,
            io_read_J=self.io_read_J_per_bit * bits,
            io_write_J=self.io_write_J_per_bit * bits,
            active_W=watt * c.IDD3N + standby,
            precharged_W=watt * c.IDD2N + standby,
            active_power_down_W=watt * (c.IDD3P if c.IDD3P is not None else c.IDD3N) + standby,
            precharged_power_down_W=watt * (c.IDD2P if c.IDD2P is not None else c.IDD2N) + standby,
            self_refresh_W=watt * (c.IDD6 if c.IDD6 is not None else c.IDD2N) + standby,
        )

    def address_map(self) -> AddressMap:
        """The address mapping over all channels."""
        counts = {
            "ch": self.channels,
            "ra": self.ranks,
            "bg": self.bank_groups,
            "ba": self.banks_per_group,
            "ro": self.rows,
            "co": self.bursts_per_row,
        }
        return address_map(self.mapping, self.burst_bytes, counts, self.file or None)

    def with_channels(self, channels: int) -> DramSpec:
        """The same channel, `channels` times."""
        return replace(self, channels=channels)


def check_timings(timings: dict[str, int], file: str, line_of: Callable[[str], int | None]) -> None:
    """Refuse timings that are missing, negative or contradict each other, all at once."""
    problems = [
        Problem("this timing is missing", file, line_of(name), name) for name in REQUIRED if name not in timings
    ]
    known = set(REQUIRED) | set(OPTIONAL)
    for name, value in timings.items():
        if value < 1 and name in known and name not in ("nCS", "nPPD", "nRTW"):
            problems.append(Problem("must be at least 1 clock cycle", file, line_of(name), name, value))
    for name, rule, limit in _RULES:
        bound = _bound(limit, timings)
        if name in timings and bound is not None and timings[name] < bound:
            shown = " + ".join(f"{part} ({timings[part]})" for part in limit)
            problems.append(Problem(f"must be at least {shown}: {rule}", file, line_of(name), name, timings[name]))
    if problems:
        raise TierformError(problems)


_RULES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("nRC", "a row must be opened and closed within its cycle", ("nRAS", "nRP")),
    ("nRAS", "a row stays open until it can be read", ("nRCDRD",)),
    ("nCCDL", "within a bank group, commands are at least as far apart as between groups", ("nCCDS",)),
    ("nRRDL", "within a bank group, activations are at least as far apart as between groups", ("nRRDS",)),
    ("nWTRL", "within a bank group, the turnaround is at least as long as between groups", ("nWTRS",)),
    ("nFAW", "four activations take at least as long as two", ("nRRDS",)),
    ("nREFI", "a refresh ends before the next is due", ("nRFC",)),
)


def _bound(parts: tuple[str, ...], timings: dict[str, int]) -> int | None:
    values = [timings.get(part) for part in parts]
    return sum(value for value in values if value is not None) if None not in values else None
