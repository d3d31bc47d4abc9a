"""What a CXL memory device gains by reading k of 16 planes, and what SmartQuant's published maxima imply about the mix.

Energy and load time of one pass over a model's matrices come from the device model of `memory`; each number of planes
is held against 1 - k/16.  Limits: DRAM energy leaves out the DDR interface (no sourced figure), link and controller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tierform.studies.study import Table

PLANES = 16
ENERGY_SAVED, LOAD_SAVED = 0.403, 0.421  # published maxima of SmartQuant
MODEL_WEIGHTS = 6_400_000_000  # a model load of the OPT-6.7B class: its decoder layers' matrices
DRAM_PARTS = ("activate", "read", "write", "io", "refresh", "background")


class PlaneMemory(Protocol):
    """What the study needs of a memory: the cost of reading some of the planes of some weights."""

    def read_planes(
        self, weights: int, planes_read: int, planes_stored: int, layout: str = ..., compressed_B: float | None = ...
    ) -> Any:
        """A cost with latency_s, busy_s, energy_J and energy_by_part_J."""


@dataclass(frozen=True, slots=True)
class LoadCost:
    """One pass over a model's matrices: DRAM energy, energy with link and controller, time to load."""

    dram_J: float
    total_J: float
    load_s: float


def load_cost(device: PlaneMemory, weights_by_bits: dict[int, float], layout: str) -> LoadCost:
    """Reading so many weights at each precision, one after the other as a stream; 0 bits costs nothing."""
    dram = total = busy = latency = 0.0
    for bits, weights in sorted(weights_by_bits.items()):
        if bits == 0 or weights < 1:
            continue
        cost = device.read_planes(max(1, round(weights)), bits, PLANES, layout)
        dram += sum(cost.energy_by_part_J.get(part, 0.0) for part in DRAM_PARTS)
        total += cost.energy_J
        busy += cost.duration_s - cost.latency_s
        latency = max(latency, cost.latency_s)
    return LoadCost(dram, total, busy + latency)


def proportionality(device: PlaneMemory, layout: str) -> tuple[Table, float]:
    """Energy and load time saved by reading k of 16 planes, beside 1 - k/16; the largest deviation in points."""
    whole = load_cost(device, {PLANES: MODEL_WEIGHTS}, layout)
    rows, worst = [], 0.0
    for bits in range(1, PLANES + 1):
        cost = load_cost(device, {bits: MODEL_WEIGHTS}, layout)
        ideal = 100 * (1 - bits / PLANES)
        saved = [100 * (1 - part / of) for part, of in zip(parts_of(cost), parts_of(whole), strict=True)]
        worst = max([worst, *(abs(one - ideal) for one in saved)])
        rows.append((bits, ideal, *saved, cost.dram_J, cost.load_s))
    head = ("planes", "1 - k/16 (%)", "DRAM energy saved (%)", "all energy saved (%)", "load time saved (%)")
    note = f"One load of {MODEL_WEIGHTS / 1e9:g} billion fp16 weights.  DRAM energy leaves out link and controller."
    return Table("Reading k of 16 planes", (*head, "DRAM energy (J)", "load (s)"), tuple(rows), note), worst


def parts_of(cost: LoadCost) -> tuple[float, float, float]:
    """DRAM energy, all energy and load time."""
    return cost.dram_J, cost.total_J, cost.load_s


def implied_mix(device: PlaneMemory, layout: str) -> Table:
    """Mean planes that each published maximum implies, and shares of two precisions that give it."""
    whole = load_cost(device, {PLANES: MODEL_WEIGHTS}, layout)
    rows = []
    for what, saved, part in (("DRAM energy", ENERGY_SAVED, 0), ("load time", LOAD_SAVED, 2)):
        mean = _invert(device, layout, saved, part, parts_of(whole)[part])
        shares = {low: 100 * (PLANES - mean) / (PLANES - low) for low in (4, 6, 8)}
        rows += [(what, 100 * saved, mean, f"{low} and 16 bits", share) for low, share in shares.items()]
    head = ("published maximum of", "saved (%)", "implied mean planes", "if made of", "share at the fewer bits (%)")
    note = (
        "Derived, not published: planes are fetched in proportion to bits.  The two maxima need not come from one mix."
    )
    return Table("What the headline implies", head, tuple(rows), note)


def _invert(device: PlaneMemory, layout: str, saved: float, part: int, whole: float) -> float:
    """The mean number of planes at which the device saves `saved`, between the whole numbers by their mix."""
    for bits in range(PLANES - 1, 0, -1):
        below = 1 - parts_of(load_cost(device, {bits: MODEL_WEIGHTS}, layout))[part] / whole
        if below >= saved:
            above = 1 - parts_of(load_cost(device, {bits + 1: MODEL_WEIGHTS}, layout))[part] / whole
            return bits + (below - saved) / (below - above)
    return 1.0
