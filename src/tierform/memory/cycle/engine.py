"""The cycle-level memory: run a trace of requests through controllers and devices and read what it took.

:class:`CycleMemory` takes any :class:`DramSpec`, the library's or one read from another tool's configuration.  The
kernel is in :mod:`tierform.memory.cycle.kernel`.  A request accepted in cycle t finds its first command in t + 1 at the
earliest: this one cycle of the controller is part of its latency.  Latency ends with the last beat of its burst.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tierform.errors import fail
from tierform.machine_code import pointer
from tierform.memory.addressing import FIELDS
from tierform.memory.constraints import COMMANDS, constraint_table
from tierform.memory.cycle import state as ks
from tierform.memory.cycle.loops import loop
from tierform.memory.cycle.result import CommandLog, MemoryCycleResult, Offer
from tierform.memory.cycle.state import Rows, Setup, allocate, view
from tierform.memory.cycle.trace import Trace
from tierform.memory.spec import REFRESH, Controller, DramSpec

CONTROLLER_CYCLES = 1
_OTHER_RANKS = 3  # the scope, in the table of spacings
MOST_CYCLES = 10**12  # of a trace: 17 minutes at 1 GHz.  Idle cycles are skipped, refreshes are not: 15 s of work
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
    if control.rfm_threshold or control.prac_threshold:
        used.add("RFM")
    return frozenset(used)


def _rules(spacing: Int64, used: frozenset[str], ranks: int) -> list[list[tuple[int, int, int]]]:
    """The constraints by earlier command as (scope, later command, cycles), of the commands that are used.

    Without those that one of a wider scope implies.
    """
    rows: list[list[tuple[int, int, int]]] = [[] for _ in COMMANDS]
    for scope, earlier, later in zip(*np.nonzero(spacing), strict=True):
        cycles = spacing[:, earlier, later]
        implied = scope != _OTHER_RANKS and any(
            cycles[wider] >= cycles[scope] for wider in range(scope + 1, len(cycles)) if wider != _OTHER_RANKS
        )
        alone = scope == _OTHER_RANKS and ranks == 1
        if COMMANDS[earlier] in used and COMMANDS[later] in used and not implied and not alone:
            rows[earlier].append((int(scope), int(later), int(cycles[scope])))
    return rows


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
        if spec.channels * spec.ranks * spec.banks > 2**16:
            fail("at most 65536 banks are simulated", key="banks", value=spec.channels * spec.ranks * spec.banks)
        if spec.banks > 64:
            fail("at most 64 banks in a rank are simulated", key="banks", value=spec.banks)
        self._check_management()
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
            write_delay=t["nCWL"] + t["nBL"] + spec.additive_latency,
            issue=1,
            rfm_threshold=control.rfm_threshold or 0,
            prac_threshold=control.prac_threshold or 0,
            prac_recovery=control.prac_recovery,
            prac_delay=control.prac_delay,
            alert_cycles=t.get("nABOACT", 0),
        )
        self._all_rules = _rules(self.table.spacing, frozenset(COMMANDS), spec.ranks)
        self._rules = _rules(self.table.spacing, _used_commands(control), spec.ranks)
        self._bits = np.array([[self.map.position[name], self.map.width[name]] for name in FIELDS], np.int64)

    def run(
        self,
        trace: Trace | Sequence[Trace],
        cycles: int | None = None,
        *,
        wrap: bool = False,
        log_commands: int = 0,
        issue: int = 1,
        per_channel: bool = False,
    ) -> MemoryCycleResult:
        """Run `trace` for `cycles` cycles (None: until everything is done).

        A trace hands over its requests in order, at most `issue` in a cycle, and waits while the queue of the next one
        is full.  Several traces do so independently and take turns; with `per_channel` the k-th one belongs to channel
        k and its addresses count within that channel.  Results are by request, trace after trace.  Addresses beyond
        the capacity are refused, or with `wrap` taken modulo it.  `log_commands` keeps that many commands.
        TierformError for a trace that goes back in time or an address out of range.
        """
        traces = [trace] if isinstance(trace, Trace) else list(trace)
        if per_channel and len(traces) != self.spec.channels:
            fail(f"{len(traces)} traces for {self.spec.channels} channels", fix="Give one trace for each channel.")
        for number, part in enumerate(traces):
            name = f"trace {number + 1}" if len(traces) > 1 else None
            self.check_addresses(part, wrap, name, per_channel=per_channel)
        if cycles is not None and not 1 <= cycles < 2**62:
            fail("at least one cycle must be simulated", key="cycles", value=cycles)
        if not 1 <= issue <= 4096:
            fail("between 1 and 4096 requests a cycle are handed over", key="issue", value=issue)
        burst_bytes = self.spec.burst_bytes
        parts = [
            self._in_channel(part.address, number) if per_channel else part.address % self.map.capacity_B
            for number, part in enumerate(traces)
        ]
        address = np.ascontiguousarray(np.concatenate(parts), np.int64)
        arrival = np.ascontiguousarray(np.concatenate([part.cycle for part in traces]), np.int64)
        is_write = np.ascontiguousarray(np.concatenate([part.is_write for part in traces]), np.bool_)
        ends = np.cumsum([len(part) for part in traces])
        fronts = np.stack([ends - [len(part) for part in traces], ends], axis=1)
        loop("run")  # `cpu_s` is the simulation's own time
        started = time.process_time()
        setup = replace(self._setup, issue=issue)
        rows = self._rows(address) if setup.prac_threshold else None
        m = allocate(setup, self._rules, self.table.windows, address.size, fronts, self._bits, log_commands, rows)
        power = burst_bytes.bit_length() - 1
        bursts = address >> power if burst_bytes == 1 << power else address // burst_bytes
        given = [pointer(array) for array in (m, arrival, address, bursts, is_write)]
        end = int(loop("run")(*given, -1 if cycles is None else cycles))
        cpu_s = time.process_time() - started
        if end < 0:
            fail(
                "the memory cannot finish the trace: requests wait for a command that its timings never allow",
                file=self.spec.file or None,
            )
        return self._result(m, end, arrival, is_write, log_commands, cpu_s)

    def _result(
        self, m: Int64, end: int, arrival: Int64, is_write: npt.NDArray[np.bool_], log_commands: int, cpu_s: float
    ) -> MemoryCycleResult:
        """Everything that a run has left in the array."""
        accepted, completed = (view(m, area, (1, arrival.size))[0] for area in (ks.ACCEPTED_AREA, ks.COMPLETED_AREA))
        done = (completed > 0) & (completed < end)
        latency = np.where(done, completed - accepted, -1)
        reads = done & ~is_write
        n_reads = int(np.count_nonzero(reads))
        total = view(m, ks.CHANNEL_AREA, (self.spec.channels, ks.CHANNEL_RECORD)).sum(axis=0)
        ranks = self.spec.channels * self.spec.ranks
        by_state = view(m, ks.RANK_AREA, (ranks, ks.RANK_RECORD)).sum(axis=0)[ks.ACTIVE : ks.SELF_REFRESH + 1]
        log = view(m, ks.LOG_AREA, (log_commands, ks.LOG_ENTRY))[: int(m[ks.LOGGED])]
        fronts = view(m, ks.FRONT_AREA, (int(m[ks.FRONTS]), ks.FRONT_RECORD))
        waited = fronts[:, ks.WAITED] + np.where(
            (fronts[:, ks.FRONT_AT] == ks.NEVER) & (fronts[:, ks.FRONT_NEXT] < fronts[:, ks.FRONT_END]),
            end - fronts[:, ks.WAITS_SINCE],
            0,
        )
        return MemoryCycleResult(
            spec=self.spec,
            cycles=end,
            reads=n_reads,
            writes=int(np.count_nonzero(done)) - n_reads,
            activations=int(total[ks.N_ACT]),
            precharges=int(total[ks.N_PRE]),
            read_commands=int(total[ks.N_READ]),
            write_commands=int(total[ks.N_WRITE]),
            bursts_moved=int(total[ks.N_MOVED]),
            refreshes=int(total[ks.N_REF]),
            bank_refreshes=int(total[ks.N_REFB]),
            refresh_managements=int(total[ks.N_RFM]),
            alerts=int(total[ks.N_ALERT]),
            read_row_hits=int(total[ks.READ_HITS]),
            write_row_hits=int(total[ks.WRITE_HITS]),
            self_refreshes=int(total[ks.N_SRE]),
            power_downs=int(total[ks.N_PDE]),
            state_cycles={name: int(value) for name, value in zip(_STATES, by_state, strict=True)},
            accepted_cycles=accepted - 1,
            latency_cycles=latency,
            average_read_latency_cycles=int((latency * reads).sum()) / n_reads if n_reads else 0.0,
            offer=Offer(
                traces=fronts.shape[0],
                issue=int(m[ks.ISSUE]),
                requests=arrival.size,
                left=int(m[ks.UNREAD]),
                span_cycles=int(arrival.max()) + 1,
                waited_cycles=int(waited.sum()),
            ),
            cpu_s=cpu_s,
            log=CommandLog(*(log[:, column].copy() for column in range(6))) if log_commands else None,
        )

    def _rows(self, address: Int64) -> Rows:
        """The different rows of a trace, numbered bank by bank over all channels."""
        place = self.map.decode(address)
        group = place["ra"] * self.spec.bank_groups + place["bg"]
        bank = (place["ch"] * self.spec.ranks * self.spec.bank_groups + group) * self.spec.banks_per_group + place["ba"]
        different, number = np.unique(bank * self.spec.rows + place["ro"], return_inverse=True)
        banks = self.spec.channels * self.spec.ranks * self.spec.banks
        ends = np.searchsorted(different // self.spec.rows, np.arange(banks), side="right")
        return Rows(number.astype(np.int64), ends.astype(np.int64))

    def _check_management(self) -> None:
        """Refuse refresh management and row counting where the memory has no such command."""
        control = self.spec.controller
        for key in ("rfm_threshold", "prac_threshold"):
            value = getattr(control, key)
            if value is None:
                continue
            if not 1 <= value <= 10**6:
                fail("must be between 1 and 10^6 activations", key=key, value=value)
            if not np.any(self.table.spacing[:, COMMANDS.index("RFM")]):
                fail("the memory has no refresh management (RFM)", key=key, value=value, fix="DDR5 has it.")
            if key == "prac_threshold" and "nABOACT" not in self.spec.timings:
                fail("row counting needs the timing nABOACT", key=key, value=value)
        if not (1 <= control.prac_recovery <= 16 and 1 <= control.prac_delay <= 1024):
            fail("a recovery takes 1 to 16 refresh managements and at most 1024 activations after it")

    def _in_channel(self, address: Int64, channel: int) -> Int64:
        """Addresses of the whole memory for addresses that count within one channel."""
        burst, offset = np.divmod(address % (self.map.capacity_B // self.spec.channels), self.spec.burst_bytes)
        position, width = self.map.position["ch"], self.map.width["ch"]
        low = burst & ((1 << position) - 1)
        whole = ((burst >> position) << (position + width)) | (channel << position) | low
        placed: Int64 = whole * self.spec.burst_bytes + offset
        return placed

    def check_addresses(
        self, trace: Trace, wrap: bool = False, file: str | None = None, *, per_channel: bool = False
    ) -> None:
        """Refuse an empty trace, one that goes back in time, and addresses out of range (unless they wrap)."""
        if len(trace) == 0:
            fail("the trace holds no request", file=file)
        if np.any(np.diff(trace.cycle) < 0):
            at = int(np.argmax(np.diff(trace.cycle) < 0)) + 1
            fail(f"the trace goes back in time at request {at + 1}", file=file, value=int(trace.cycle[at]))
        if trace.cycle[0] < 0 or trace.cycle[-1] >= MOST_CYCLES:
            fail(f"cycles must lie between 0 and {MOST_CYCLES:.0e}", file=file, value=int(trace.cycle[-1]))
        capacity = self.map.capacity_B // (self.spec.channels if per_channel else 1)
        outside = (trace.address < 0) | ((trace.address >= capacity) & (not wrap))
        if np.any(outside):
            at = int(np.argmax(outside))
            where = " of one channel" if per_channel else ""
            fail(
                f"the address of request {at + 1} is beyond the capacity{where} of {capacity} bytes",
                file=file,
                value=hex(int(trace.address[at])),
                fix="Ask for wrapping to take addresses modulo the capacity.",
            )


class DeviceTiming:
    """One channel's devices alone, for checking spacings: issue commands by hand and ask when the next may come."""

    def __init__(self, spec: DramSpec) -> None:
        memory = CycleMemory(spec.with_channels(1))
        self.spec = spec
        fronts = np.zeros((0, 2), np.int64)
        self._m = allocate(memory._setup, memory._all_rules, memory.table.windows, 0, fronts, memory._bits, 0)

    def issue(self, command: str, cycle: int, bank: int = 0) -> None:
        """Issue a command in `cycle` to `bank` (numbered in the channel); the bank's state is not checked."""
        loop("forbid_alone")(pointer(self._m), COMMANDS.index(command), cycle, bank)

    def ready_at(self, command: str, bank: int = 0) -> int:
        """The first cycle in which `command` may come."""
        return int(loop("ready_alone")(pointer(self._m), COMMANDS.index(command), bank))
