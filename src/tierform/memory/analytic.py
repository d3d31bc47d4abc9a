"""How fast a memory is under a kind of traffic, from its timings alone.

The data bus, the activation rate, the banks' row cycles and refresh each bound the rate of bursts on one channel; the
tightest bound holds.  The model is checked against the cycle engine in the tests, standard by standard.

- **stream**: consecutive bursts.  The mapping decides whether they rotate through bank groups (then the data bus is the
  bound) or stay in one (then nCCDL is).
- **strided**: one burst every `stride_B` bytes: the mapping decides which channels, groups, banks and rows are used.
- **random**: each burst in a row of its own in any bank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tierform.memory.spec import DramSpec

Pattern = Literal["stream", "strided", "random"]
PATTERNS: tuple[str, ...] = ("stream", "strided", "random")


@dataclass(frozen=True, slots=True)
class Rate:
    """Cycles that one burst takes on one channel on average, and the activations that it needs."""

    cycles_per_burst: float
    activations_per_burst: float
    useful_fraction: float
    bound: str


def refresh_loss(spec: DramSpec) -> float:
    """Fraction of the time that refresh takes from a stream: closing, refreshing and opening again."""
    t = spec.timings
    if spec.controller.refresh == "none":
        return 0.0
    return min(0.95, spec.ranks * (t["nRTP"] + t["nRP"] + t["nRFC"] + t["nRCDRD"]) / t["nREFI"])


def rate(spec: DramSpec, pattern: str, read_fraction: float = 1.0, stride_B: int | None = None) -> Rate:
    """The steady state of one channel under `pattern` with `read_fraction` of the bursts reads."""
    t = spec.timings
    bus = max(t["nBL"], t["nCCDS"])
    if pattern == "random":
        activate = max(t["nFAW"] / 4, t["nRRDS"]) / spec.ranks
        bank = t["nRC"] / (spec.banks * spec.ranks)
        bounds = {"data bus": bus, "activations": activate, "row cycle of the banks": bank}
        name = max(bounds, key=lambda key: bounds[key])
        cycles, activations = bounds[name], 1.0
    else:
        name, cycles, activations = "data bus", float(bus), 1.0 / spec.bursts_per_row
    turnaround = _turnaround(spec, read_fraction)
    return Rate((cycles + turnaround) / (1 - refresh_loss(spec)), activations, 1.0, name)


def _turnaround(spec: DramSpec, read_fraction: float) -> float:
    """Cycles per burst lost to turning the bus around, with writes drained in batches of the transaction queue."""
    t = spec.timings
    writes = 1 - read_fraction
    if writes <= 0 or read_fraction <= 0:
        return 0.0
    batch = spec.controller.transaction_queue
    lost = t["nRTW"] + t["nCWL"] + t["nBL"] + t["nWTRS"] - 2 * t["nBL"]
    return lost * writes / batch
