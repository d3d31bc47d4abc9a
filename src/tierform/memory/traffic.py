"""Traffic to measure a memory with: tensor streams, strides and random accesses, and every spacing of a standard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tierform.errors import fail
from tierform.memory.analytic import PATTERNS
from tierform.memory.constraints import COMMANDS, SCOPES, Constraint, constraint_table
from tierform.memory.cycle.trace import Trace
from tierform.memory.spec import DramSpec


def requests(
    spec: DramSpec, pattern: str, count: int, read_fraction: float = 1.0, *, stride_B: int | None = None, seed: int = 0
) -> Trace:
    """`count` requests of one burst, all offered at once: as fast as the memory takes them.

    ``stream``: reads consecutive from address 0, writes consecutive in the other half of the memory, mixed at random;
    ``strided``: one burst every `stride_B` bytes (default: one row); ``random``: anywhere.
    """
    if pattern not in PATTERNS:
        fail("unknown traffic pattern", key="pattern", value=pattern, choices=PATTERNS)
    rng = np.random.default_rng(seed)
    write = rng.random(count) >= read_fraction
    capacity = spec.capacity_B // spec.burst_bytes
    if pattern == "random":
        burst = rng.integers(0, capacity, count)
    elif pattern == "strided":
        step = spec.row_bytes if stride_B is None else stride_B
        burst = np.arange(count) * step // spec.burst_bytes
    else:
        # Half a row index further, so that reads and writes meet in different banks.
        region = capacity // 2 + capacity // spec.rows // 2
        burst = np.where(write, np.cumsum(write) - 1 + region, np.cumsum(~write) - 1)
    return Trace(np.zeros(count, np.int64), burst % capacity * spec.burst_bytes, write)


class Timing(Protocol):
    """What :class:`tierform.memory.cycle.DeviceTiming` offers."""

    def issue(self, command: str, cycle: int, bank: int = 0) -> None:
        """Issue a command."""
        ...

    def ready_at(self, command: str, bank: int = 0) -> int:
        """First cycle in which it may come."""
        ...


def spacing_violations(spec: DramSpec, device: Callable[[DramSpec], Timing]) -> tuple[int, int]:
    """Try every constraint of `spec` on a fresh `device`: (spacings checked, spacings that are not exact).

    The expected spacing is the largest of all constraints that hold between the two places, read from the list.
    """
    table = constraint_table(spec)
    checked = wrong = 0
    for constraint in table.constraints:
        for bank in _later_banks(spec, constraint):
            if constraint.window > 1:
                expected, ready = _window(spec, constraint, device)
            else:
                expected = max(
                    item.cycles
                    for item in table.constraints
                    if (item.earlier, item.later, item.window) == (constraint.earlier, constraint.later, 1)
                    and _holds(spec, item.scope, bank)
                )
                timing = device(spec)
                timing.issue(constraint.earlier, 1_000, 0)
                ready = timing.ready_at(constraint.later, bank) - 1_000
            checked += 1
            wrong += int(ready != expected or expected < constraint.cycles)
    return checked, wrong


def _holds(spec: DramSpec, scope: str, bank: int) -> bool:
    """Whether a constraint of `scope` holds between bank 0 and `bank`."""
    same_rank = bank < spec.banks
    return {
        "bank": bank == 0,
        "group": bank < spec.banks_per_group,
        "rank": same_rank,
        "others": not same_rank,
        "channel": True,
    }[scope]


def _later_banks(spec: DramSpec, constraint: Constraint) -> list[int]:
    """The places where the later command is tried: in the scope, next to it where that is wider than a bank."""
    places = {"bank": 0, "group": 1, "rank": spec.banks_per_group, "others": spec.banks, "channel": spec.banks}
    first = 0 if constraint.scope != "others" else spec.banks
    reach = SCOPES.index(constraint.scope)
    banks = [places[scope] for scope in SCOPES[: reach + 1] if scope not in ("others", "channel")]
    if constraint.scope in ("others", "channel"):
        banks = [first, spec.banks]
    return sorted({bank for bank in banks if bank < spec.banks * spec.ranks and _holds(spec, constraint.scope, bank)})


def _window(spec: DramSpec, constraint: Constraint, device: Callable[[DramSpec], Timing]) -> tuple[int, int]:
    """The last of `window` activations came at once; the next waits for the first, or for its neighbour."""
    timing = device(spec)
    step = max(1, constraint.cycles // (4 * constraint.window))
    for number in range(constraint.window):
        timing.issue("ACT", 1_000 + number * step, 0)
    own = max(
        item.cycles
        for item in constraint_table(spec).constraints
        if item.scope == "rank" and (item.earlier, item.later, item.window) == ("ACT", "ACT", 1)
    )
    last = (constraint.window - 1) * step
    return max(constraint.cycles, last + own), timing.ready_at("ACT", spec.banks - 1) - 1_000


__all__ = ["COMMANDS", "Timing", "requests", "spacing_violations"]
