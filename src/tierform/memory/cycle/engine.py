"""The cycle-level memory: run a trace of requests through controllers and devices and read what it took.

:class:`CycleMemory` takes any :class:`DramSpec`, the library's or one read from another tool's configuration.  The
kernel is in :mod:`tierform.memory.cycle.kernel`.  A request accepted in cycle t finds its first command in t + 1 at the
earliest: this one cycle of the controller is part of its latency.  Latency ends with the last beat of its burst.
"""

from __future__ import annotations

import time
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tierform.errors import fail
from tierform.memory.addressing import FIELDS
from tierform.memory.constraints import COMMANDS, constraint_table
from tierform.memory.cycle import kernel
from tierform.memory.cycle import state as ks
from tierform.memory.cycle.result import CommandLog, CycleResult
from tierform.memory.cycle.state import Setup, allocate, view
from tierform.memory.cycle.trace import Trace
from tierform.memory.spec import REFRESH, Controller, DramSpec

CONTROLLER_CYCLES = 1
Int64 = npt.NDArray[np.int64]


_STATES = ("active", "precharged", "active power-down", "precharged power-down", "self-refresh")


def _refresh_interval(spec: DramSpec) -> int:
    t, policy = spec.timings, spec.controller.refresh
    if policy == "all-bank-simultaneous":
        return t["nREFI"]
    return (t["nREFIb"] if policy in ("per-bank", "same-bank") else t["nREFI"]) // spec.ranks


def _used_commands(control: Controller) -> frozenset[str]:
    """The commands that this controller ever issues; constraints on others need not be kept up."""
    used = {"ACT", "PRE", *(("RDA", "WRA") if control.row_policy == "closed" else ("RD", "WR"))}
    if control.refresh != "none":
        used.add("REFB" if control.refresh in ("per-bank", "same-bank") else "REF")
    if control.power_down_after:
        used |= {"PDE", "PDX"}
    if control.self_refresh_after:
        used |= {"SRE", "SRX"}
    return frozenset(used)


def _rules(spacing: Int64, used: frozenset[str]) -> list[list[tuple[int, int, int]]]:
    """The constraints by earlier command as (scope, later command, cycles), of the commands that are used."""
    rows: list[list[tuple[int, int, int]]] = [[] for _ in COMMANDS]
    for scope, earlier, later in zip(*np.nonzero(spacing), strict=True):
        if COMMANDS[earlier] in used and COMMANDS[later] in used:
            rows[earlier].append((int(scope), int(later), int(spacing[scope, earlier, later])))
    return rows


@lru_cache(maxsize=1)
def _load_kernels() -> None:
    """Compile or load the kernels once, so that `cpu_s` is the simulation's own time."""
    setup = Setup(*([1] * 21))
    m = allocate(
        setup,
        [[] for _ in COMMANDS],
        np.zeros((0, 2), np.int64),
        np.zeros(1, np.int32),
        1,
        np.zeros(1, np.bool_),
        np.zeros((6, 2), np.int64),
        0,
    )
    kernel.unique_ids(np.zeros(1, np.int64), 4)
    kernel.run(m, np.zeros(1, np.int64), np.zeros(1, np.int64), 1)


class CycleMemory:
    """A memory simulated cycle by cycle: `spec`'s channels, each with its controller."""

    def __init__(self, spec: DramSpec) -> None:
        self.spec = spec
        self.map = spec.address_map()
        self.table = constraint_table(spec)
        t, control = spec.timings, spec.controller
        if control.refresh in ("per-bank", "same-bank") and ("nRFCb" not in t or "nREFIb" not in t):
            fail("refresh bank by bank needs the timings nRFCb and nREFIb", key="refresh", value=control.refresh)
        for key, value in (
            ("command_queue", control.command_queue),
            ("transaction_queue", control.transaction_queue),
        ):
            if not 1 <= value <= 4096:
                fail("must be between 1 and 4096 entries", key=key, value=value)
        if spec.banks > 64:
            fail("at most 64 banks in a rank are simulated", key="banks", value=spec.banks)
        by_bank = control.queue_per == "bank"
        closed = control.row_policy == "closed"
        units = {"per-bank": spec.ranks * spec.banks, "same-bank": spec.ranks * spec.banks_per_group}
        self._setup = Setup(
            channels=spec.channels,
            ranks=spec.ranks,
            groups=spec.bank_groups,
            per_group=spec.banks_per_group,
            banks=spec.banks,
            queues=spec.ranks * (spec.banks if by_bank else 1),
            per_bank=int(by_bank),
            command_queue=control.command_queue,
            transaction_queue=control.transaction_queue,
            unified=int(control.unified_queue),
            read_command=COMMANDS.index("RDA" if closed else "RD"),
            write_command=COMMANDS.index("WRA" if closed else "WR"),
            hit_limit=control.row_hit_limit,
            drain_low=control.write_drain_low,
            dual=int(control.dual_command),
            refresh=REFRESH.index(control.refresh),
            refresh_every=max(1, _refresh_interval(spec)),
            refresh_units=units.get(control.refresh, spec.ranks),
            power_down_after=control.power_down_after or 0,
            self_refresh_after=control.self_refresh_after or 0,
            read_delay=t["nCL"] + t["nBL"] + spec.additive_latency,
        )
        self._all_rules = _rules(self.table.spacing, frozenset(COMMANDS))
        self._rules = _rules(self.table.spacing, _used_commands(control))
        self._bits = np.array([[self.map.position[name], self.map.width[name]] for name in FIELDS], np.int64)

    def run(self, trace: Trace, cycles: int | None = None, *, wrap: bool = False, log_commands: int = 0) -> CycleResult:
        """Run `trace` for `cycles` cycles (None: until everything is done).

        Addresses beyond the capacity are refused, or with `wrap` taken modulo it.  `log_commands` keeps that many
        commands.  TierformError for a trace that goes back in time or an address out of range.
        """
        self.check_addresses(trace, wrap)
        if cycles is not None and cycles < 1:
            fail("at least one cycle must be simulated", key="cycles", value=cycles)
        address = trace.address % self.map.capacity_B if wrap else trace.address
        _load_kernels()
        started = time.process_time()
        burst = address // self.spec.burst_bytes
        shift = max(4, int(np.ceil(np.log2(len(trace) * 2))))
        ids, count = kernel.unique_ids(burst, shift)
        m = allocate(self._setup, self._rules, self.table.windows, ids, count, trace.is_write, self._bits, log_commands)
        end, stalled = kernel.run(m, trace.cycle, burst, -1 if cycles is None else cycles)
        cpu_s = time.process_time() - started
        if stalled:
            fail(
                "the memory cannot finish the trace: requests wait for a command that its timings never allow",
                file=self.spec.file or None,
            )
        requests = view(m, ks.REQUEST_AREA, (len(trace), ks.REQUEST))
        completed = requests[:, ks.COMPLETED]
        done = (completed >= 0) & (completed < end)
        latency = np.where(done, completed - requests[:, ks.ACCEPTED], -1)
        reads = done & ~trace.is_write
        total = view(m, ks.CHANNEL_AREA, (self.spec.channels, ks.CHANNEL_RECORD)).sum(axis=0)
        ranks = self.spec.channels * self.spec.ranks
        by_state = view(m, ks.RANK_AREA, (ranks, ks.RANK_RECORD)).sum(axis=0)[ks.ACTIVE : ks.SELF_REFRESH + 1]
        log = view(m, ks.LOG_AREA, (log_commands, ks.LOG_ENTRY))[: int(m[ks.LOGGED])]
        return CycleResult(
            spec=self.spec,
            cycles=int(end),
            reads=int(reads.sum()),
            writes=int((done & trace.is_write).sum()),
            activations=int(total[ks.N_ACT]),
            precharges=int(total[ks.N_PRE]),
            read_commands=int(total[ks.N_READ]),
            write_commands=int(total[ks.N_WRITE]),
            refreshes=int(total[ks.N_REF]),
            bank_refreshes=int(total[ks.N_REFB]),
            read_row_hits=int(total[ks.READ_HITS]),
            write_row_hits=int(total[ks.WRITE_HITS]),
            self_refreshes=int(total[ks.N_SRE]),
            power_downs=int(total[ks.N_PDE]),
            state_cycles={name: int(value) for name, value in zip(_STATES, by_state, strict=True)},
            latency_cycles=latency,
            average_read_latency_cycles=float(latency[reads].mean()) if reads.any() else 0.0,
            cpu_s=cpu_s,
            log=CommandLog(*(log[:, column].copy() for column in range(6))) if log_commands else None,
        )

    def check_addresses(self, trace: Trace, wrap: bool = False, file: str | None = None) -> None:
        """Refuse an empty trace, one that goes back in time, and addresses out of range (unless they wrap)."""
        if len(trace) == 0:
            fail("the trace holds no request", file=file)
        if np.any(np.diff(trace.cycle) < 0):
            at = int(np.argmax(np.diff(trace.cycle) < 0)) + 1
            fail(f"the trace goes back in time at request {at + 1}", file=file, value=int(trace.cycle[at]))
        capacity = self.map.capacity_B
        outside = (trace.address < 0) | ((trace.address >= capacity) & (not wrap))
        if np.any(outside):
            at = int(np.argmax(outside))
            fail(
                f"the address of request {at + 1} is beyond the capacity of {capacity} bytes",
                file=file,
                value=hex(int(trace.address[at])),
                fix="Ask for wrapping to take addresses modulo the capacity.",
            )


class DeviceTiming:
    """One channel's devices alone, for checking spacings: issue commands by hand and ask when the next may come."""

    def __init__(self, spec: DramSpec) -> None:
        memory = CycleMemory(spec.with_channels(1))
        self.spec = spec
        none = np.zeros(0, np.int64)
        self._m = allocate(
            memory._setup, memory._all_rules, memory.table.windows, none, 0, none.astype(np.bool_), memory._bits, 0
        )

    def issue(self, command: str, cycle: int, bank: int = 0) -> None:
        """Issue a command in `cycle` to `bank` (numbered in the channel); the bank's state is not checked."""
        kernel.forbid_alone(self._m, COMMANDS.index(command), cycle, bank)

    def ready_at(self, command: str, bank: int = 0) -> int:
        """The first cycle in which `command` may come."""
        return int(kernel.ready_alone(self._m, COMMANDS.index(command), bank))


def simulate_trace(
    spec: DramSpec, trace: Trace, cycles: int | None = None, *, wrap: bool = False, log_commands: int = 0
) -> CycleResult:
    """Run `trace` through a memory of `spec`; see :meth:`CycleMemory.run`."""
    return CycleMemory(spec).run(trace, cycles, wrap=wrap, log_commands=log_commands)
