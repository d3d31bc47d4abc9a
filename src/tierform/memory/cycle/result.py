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
class CycleResult:
    """What one run took.  Counts are over all channels; `latency_cycles` by request (-1: not done in the run)."""

    spec: DramSpec
    cycles: int
    reads: int
    writes: int
    activations: int
    precharges: int
    read_commands: int
    write_commands: int
    refreshes: int
    bank_refreshes: int
    read_row_hits: int
    write_row_hits: int
    self_refreshes: int
    power_downs: int
    state_cycles: Mapping[str, int]
    latency_cycles: Int64
    average_read_latency_cycles: float
    cpu_s: float
    log: CommandLog | None = None

    @property
    def time_s(self) -> float:
        """Simulated time."""
        return self.cycles * self.spec.clock_s

    @property
    def bandwidth_B_per_s(self) -> float:
        """Bytes of finished requests over the simulated time."""
        return (self.reads + self.writes) * self.spec.burst_bytes / self.time_s if self.cycles else 0.0

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
            "refresh": self.refreshes * energy.refresh_J + self.bank_refreshes * energy.refresh_bank_J,
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
            "self_refreshes": self.self_refreshes,
            "power_downs": self.power_downs,
            "state_cycles": dict(self.state_cycles),
            "cpu_s": self.cpu_s,
        }
