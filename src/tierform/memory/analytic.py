"""How fast a memory is under a kind of traffic, from its timings alone.

The data bus, the activation rate, the banks' row cycles and refresh each bound the rate of bursts on one channel.  The
tests hold the result against the cycle engine, standard by standard.

- **stream**: consecutive bursts, reads and writes in regions of their own.  The data bus is the bound, plus one turn of
  the bus to writes and back per full write buffer.
- **strided**: one burst every `stride_B` bytes.  The mapping decides which channels, groups, banks and rows are used;
  a window of addresses is decoded and the busiest channel, group, bank and the activations are counted.
- **random**: each burst in a row of its own in any bank.  Bounds that are close to each other slow each other down:
  they are joined by a norm.  When reads and writes mix, banks wait for the bus to turn.

Three numbers are fitted to the cycle engine, for all standards together: the norms' powers and the wait of a bank for
the bus in turnarounds (:data:`NORM`, :data:`STRIDED_NORM`, :data:`TURN_WAIT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np

from tierform.errors import fail
from tierform.memory.spec import DramSpec

PATTERNS: tuple[str, ...] = ("stream", "strided", "random")
NORM = 7.0
STRIDED_NORM = 9.0
TURN_WAIT = 1.1
_WINDOW = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    """The steady state of one busy channel.

    `cycles_per_burst` on average, `activations_per_burst`, `channels_used` of one device, and the bound's name.
    """

    cycles_per_burst: float
    activations_per_burst: float
    channels_used: float
    bound: str


def refresh_loss(spec: DramSpec, pattern: str = "stream", read_fraction: float = 1.0) -> float:
    """Fraction of the time that refresh takes.

    A refresh of all banks closes the rows, refreshes and opens them again.  Bank by bank, the other banks go on: what
    remains is closing and opening one bank's row, or for random traffic the pause of activations after each refresh.
    Strides and mixed streams lack the room to overtake, and lose the share of time that a bank is refreshed.
    """
    t = spec.timings
    if spec.controller.refresh == "none":
        return 0.0
    if spec.controller.refresh == "per-bank":
        reopening = (t["nRTP"] + t["nRP"] + t["nRCDRD"]) / spec.banks
        if pattern == "strided" or 0 < read_fraction < 1:
            reopening += t["nRFCb"] / spec.banks
        return spec.ranks * (t.get("nRREFD", t["nRRDS"]) if pattern == "random" else reopening) / t["nREFIb"]
    return min(0.95, spec.ranks * (t["nRTP"] + t["nRP"] + t["nRFC"] + t["nRCDRD"]) / t["nREFI"])


def rate(spec: DramSpec, pattern: str, read_fraction: float = 1.0, stride_B: int | None = None) -> Rate:
    """The steady state under `pattern` with `read_fraction` of the bursts reads."""
    if pattern == "random":
        cycles, bound = _random(spec, read_fraction)
        activations, channels = 1.0, float(spec.channels)
    elif pattern == "strided":
        cycles, activations, channels, bound = _strided(spec, stride_B)
        cycles += _turnaround(spec) / _pair(spec, read_fraction)
    else:
        t = spec.timings
        cycles = max(t["nBL"], t["nCCDS"]) + _turnaround(spec) / _pair(spec, read_fraction)
        activations, channels, bound = 1.0 / spec.bursts_per_row, float(spec.channels), "data bus"
    return Rate(cycles / (1 - refresh_loss(spec, pattern, read_fraction)), activations, channels, bound)


def _turnaround(spec: DramSpec) -> float:
    """Cycles that the bus loses by turning from reads to writes and back."""
    t = spec.timings
    return t["nRTW"] + t["nCWL"] + t["nBL"] + t["nWTRS"] - 2 * t["nBL"]


def _pair(spec: DramSpec, read_fraction: float) -> float:
    """Bursts between two turns to writing: as many writes as the buffer holds, with their share of reads."""
    writes = 1 - read_fraction
    if writes <= 0 or read_fraction <= 0:
        return float("inf")
    # From half writes on, the buffer fills again while it is drained, and the bus stays turned.
    batch = spec.controller.transaction_queue * (1 if writes < 0.5 else 2)
    return batch / writes


def _random(spec: DramSpec, read_fraction: float) -> tuple[float, str]:
    t, writes = spec.timings, 1 - read_fraction
    write_cycle = max(t["nRC"], t["nRCDWR"] + t["nCWL"] + t["nBL"] + t["nWR"] + t["nRP"])
    # The shorter share decides how often the bus turns; the wait grows slowly with it.
    mixing = (4 * writes * read_fraction) ** 0.15
    row_cycle = read_fraction * t["nRC"] + writes * write_cycle + TURN_WAIT * mixing * _turnaround(spec)
    bounds = {
        "activations": max(t["nFAW"] / 4, t["nRRDS"]) / spec.ranks,
        "row cycle of the banks": row_cycle / (spec.banks * spec.ranks),
        "data bus": float(max(t["nBL"], t["nCCDS"])),
    }
    joined = fsum(value**NORM for value in bounds.values()) ** (1 / NORM)
    return joined, max(bounds, key=lambda name: bounds[name])


def _strided(spec: DramSpec, stride_B: int | None) -> tuple[float, float, float, str]:
    t = spec.timings
    stride = spec.row_bytes if stride_B is None else stride_B
    if stride < 1:
        fail("a stride of at least one byte is needed", key="stride_B", value=stride)
    mapping = spec.address_map()
    address = np.arange(_WINDOW, dtype=np.int64) * stride % mapping.capacity_B
    if stride < spec.burst_bytes:
        address = np.unique(address // spec.burst_bytes) * spec.burst_bytes
    field = mapping.decode(address)
    n = address.size
    share = np.bincount(field["ch"], minlength=spec.channels) / n
    busiest = int(np.argmax(share))
    here = field["ch"] == busiest
    used = 1.0 / float(share[busiest])
    rank, group, bank, row = (field[name][here] for name in ("ra", "bg", "ba", "ro"))
    count = int(here.sum())
    flat_group = rank * spec.bank_groups + group
    flat_bank = flat_group * spec.banks_per_group + bank
    order = np.argsort(flat_bank, kind="stable")
    changed = np.ones(count, np.bool_)
    changed[1:] = (np.diff(flat_bank[order]) != 0) | (np.diff(row[order]) != 0)
    opened = np.bincount(flat_bank[order][changed], minlength=1)
    openings = int(changed.sum())
    activation = max(t["nFAW"] / 4, t["nRRDS"]) / spec.ranks
    bounds = {
        "data bus": float(max(t["nBL"], t["nCCDS"])),
        "one bank group": float(np.bincount(flat_group).max()) * t["nCCDL"] / count,
        "activations": openings * activation / count,
        "row cycle of the busiest bank": float(opened.max()) * t["nRC"] / count if openings * 64 > count else 0.0,
    }
    joined = fsum(value**STRIDED_NORM for value in bounds.values()) ** (1 / STRIDED_NORM)
    return joined, openings / count, used, max(bounds, key=lambda name: bounds[name])
