"""What a run of the cycle-level memory took: counts, latencies, energy, and the log of commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tierform.memory.constraints import COMMANDS
from tierform.memory.spec import DramSpec

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CommandLog:
    """Every command in order: `cycle`, `channel`, `command` (index into COMMANDS), `bank`, `row`, `request`.

    Banks are numbered within their channel; row and request are -1 where there is none.
    """

    cycle: Int64
    channel: Int64
    command: Int64
    bank: Int64
    row: Int64
    request: Int64

    def __len__(self) -> int:
        return int(self.cycle.size)

    def lines(self) -> list[str]:
        """The log as text, one command a line."""
        columns = (self.cycle, self.channel, self.command, self.bank, self.row)
        return [
            f"{cycle} ch{channel} {COMMANDS[command]} bank {bank}" + (f" row {row}" if row >= 0 else "")
            for cycle, channel, command, bank, row in zip(*(column.tolist() for column in columns), strict=True)
        ]


@dataclass(frozen=True)
class Offer:
    """How the requests were offered: `traces` hand over at most `issue` requests a cycle each.

    `requests` stand in them, `left` of which were never taken; their cycles span `span_cycles`; `waited_cycles` are
    those that a trace stood before a full queue (summed over the traces).
    """

    traces: int
    issue: int
    requests: int
    left: int
    span_cycles: int
    waited_cycles: int


@dataclass(frozen=True)
class MemoryCycleResult:
    """What one run took.  Counts are over all channels.

    By request (-1: not in this run): `accepted_cycles`, the cycle in which it was taken, and `latency_cycles` from the
    next cycle on.  `bursts_moved` are those whose last beat left the pins before the end.
    """

    spec: DramSpec
    cycles: int
    reads: int
    writes: int
    activations: int
    precharges: int
    read_commands: int
    write_commands: int
    bursts_moved: int
    refreshes: int
    bank_refreshes: int
    refresh_managements: int
    alerts: int
    read_row_hits: int
    write_row_hits: int
    self_refreshes: int
    power_downs: int
    state_cycles: Mapping[str, int]
    accepted_cycles: Int64
    latency_cycles: Int64
    average_read_latency_cycles: float
    offer: Offer
    cpu_s: float
    log: CommandLog | None = None

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return self.cycles * self.spec.clock_s

    @property
    def bandwidth_B_per_s(self) -> float:
        """Bytes that went over the pins, over the simulated time: never above the peak."""
        return self.bursts_moved * self.spec.burst_bytes / self.time_s if self.cycles else 0.0

    @property
    def request_bandwidth_B_per_s(self) -> float:
        """Finished requests times the bytes of a burst over the simulated time, as DRAMsim3 has it.

        It differs where requests share a burst, where a read is answered by the write buffer, and by the writes that
        wait in the buffer at the end (they count as done).
        """
        return (self.reads + self.writes) * self.spec.burst_bytes / self.time_s if self.cycles else 0.0

    @property
    def peak_B_per_s(self) -> float:
        """All data buses always busy."""
        return self.spec.channel_peak_B_per_s * self.spec.channels

    @property
    def limit(self) -> str:
        """What holds the bandwidth down, as far as the trace tells, in a sentence."""
        spec, offer = self.spec, self.offer
        waiting = offer.waited_cycles / (max(1, self.cycles) * offer.traces)
        if waiting > 0.05:
            return f"the memory: the trace waited before full queues in {waiting * 100:.0f} % of the cycles"
        port = offer.traces * offer.issue * spec.burst_bytes / spec.clock_s
        offered = offer.requests / max(1, offer.span_cycles)
        share = min(1.0, port / self.peak_B_per_s) * 100
        if offered >= 0.9 * offer.traces * offer.issue and port < self.peak_B_per_s:
            what = f"{offer.traces} traces" if offer.traces > 1 else "one trace"
            how = f"{offer.issue} requests" if offer.issue > 1 else "one request"
            return (
                f"the trace: {what} of at most {how} a cycle can fill {share:.1f} % of the pins of {spec.channels} "
                f"channels; more requests a cycle or one trace for each channel can fill more"
            )
        return (
            f"the trace: its requests come in their cycles, {offered:.3g} a cycle, "
            f"{min(1.0, offered * spec.burst_bytes / spec.clock_s / self.peak_B_per_s) * 100:.1f} % of the pins"
        )

    @property
    def energy_by_part_J(self) -> dict[str, float]:
        """Energy of the devices by part."""
        energy, clock = self.spec.energy, self.spec.clock_s
        watts = {
            "active": energy.active_W,
            "precharged": energy.precharged_W,
            "active power-down": energy.active_power_down_W,
            "precharged power-down": energy.precharged_power_down_W,
            "self-refresh": energy.self_refresh_W,
        }
        return {
            "activate": self.activations * energy.activate_J,
            "read": self.read_commands * energy.read_J,
            "write": self.write_commands * energy.write_J,
            "io": self.read_commands * energy.io_read_J + self.write_commands * energy.io_write_J,
            # A refresh management works as long as a refresh does; no current of its own is published.
            "refresh": (self.refreshes + self.refresh_managements) * energy.refresh_J
            + self.bank_refreshes * energy.refresh_bank_J,
            "background": sum(self.state_cycles[state] * clock * watt for state, watt in watts.items()),
        }

    @property
    def energy_J(self) -> float:
        """All parts together."""
        return sum(self.energy_by_part_J.values())

    def to_dict(self) -> dict[str, object]:
        """Every figure, for JSON.  `row_hits` counts reads."""
        parts = self.energy_by_part_J
        return {
            "schema": "tierform.memory/1",
            "memory": self.spec.name,
            "channels": self.spec.channels,
            "clock_s": self.spec.clock_s,
            "cycles": self.cycles,
            "time_s": self.time_s,
            "reads": self.reads,
            "writes": self.writes,
            "bandwidth_B_per_s": self.bandwidth_B_per_s,
            "request_bandwidth_B_per_s": self.request_bandwidth_B_per_s,
            "peak_B_per_s": self.peak_B_per_s,
            "limit": self.limit,
            "average_read_latency_cycles": self.average_read_latency_cycles,
            "average_read_latency_s": self.average_read_latency_cycles * self.spec.clock_s,
            "energy_J": self.energy_J,
            "energy_by_part_J": parts,
            **{f"{part}_energy_J": value for part, value in parts.items()},
            "row_hits": self.read_row_hits,
            "write_row_hits": self.write_row_hits,
            "activations": self.activations,
            "precharges": self.precharges,
            "read_commands": self.read_commands,
            "write_commands": self.write_commands,
            "refreshes": self.refreshes,
            "bank_refreshes": self.bank_refreshes,
            "refresh_managements": self.refresh_managements,
            "alerts": self.alerts,
            "self_refreshes": self.self_refreshes,
            "power_downs": self.power_downs,
            "state_cycles": dict(self.state_cycles),
            "notes": list(self.spec.notes),
            "cpu_s": self.cpu_s,
        }
