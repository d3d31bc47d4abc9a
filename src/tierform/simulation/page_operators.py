"""The operators of a run for a page: where each runs, what it takes, and what bounds it."""

from __future__ import annotations

from math import fsum
from typing import Any

from tierform.mapping.plan import INTERCONNECT
from tierform.simulation.costing import MEMORY
from tierform.simulation.execution import Execution
from tierform.simulation.fabric import Place
from tierform.simulation.limits import NETWORK, WRITING
from tierform.simulation.run import Run
from tierform.workload.operator import Kind

COMPUTE, NEITHER = "compute", "neither"


def operators_view(run: Run) -> list[dict[str, Any]]:
    """Every distinct operator: where it runs, how long it works there, what it takes in all, and what bounds it."""
    share = run.steps / run.pipeline
    found = []
    for number, booked in enumerate(run.ledger.booked):
        item = booked.execution
        found.append(
            {
                "id": number,
                "stage": booked.stage.name,
                "block": booked.block.name,
                "name": item.operator.name,
                "kind": item.operator.kind.value,
                "component": item.component,
                "tiles": _tiles_of(item.place),
                "times": booked.times * share,
                "busy_s": item.cost.occupancy_s * booked.times * share,
                "energy_J": (item.cost.total_energy_J + item.floor_J) * booked.times * share,
                "operations": item.cost.operations * booked.times * share,
                "memory_B": (item.traffic.total_B + item.cost.memory_read_B + item.cost.memory_write_B)
                * booked.times
                * share,
                "network_B": fsum(move.size_B for move in item.moves) * booked.times * share,
                "bound_by": bound_by(run, item),
                "kernel": item.kernel,
            }
        )
    return found


def bound_by(run: Run, item: Execution) -> str:
    """What takes an execution the longest by itself, whatever else runs beside it: it cannot be faster than that.

    Compared are its unit's own time, its bytes over the memory behind the chip, its bytes over the network, and the
    writing of its weights.  Where the unit has a memory of its own its time is both: the roofline tells which.  Where
    arithmetic and bytes at their peaks each take less than half of the time it is ``neither`` (launches, idle units).
    """
    if item.component == INTERCONNECT:
        return NETWORK
    written = item.programming
    spans = {
        COMPUTE: item.cost.occupancy_s,
        MEMORY: run.memory.busy_s(item.traffic) if item.traffic.total_B > 0 else 0.0,
        NETWORK: max((move.size_B * move.route.seconds_per_B for move in item.moves), default=0.0),
        WRITING: written.occupancy_s if written is not None else 0.0,
    }
    most = max(spans, key=lambda name: spans[name])
    return _under_its_roof(run, item) if most == COMPUTE else most


def _under_its_roof(run: Run, item: Execution) -> str:
    part, cost = run.chip.can.roofed.get(item.component), item.cost
    if part is None:
        return COMPUTE
    roof = part.roof()
    product = item.operator.kind is Kind.MATMUL or roof.vector_per_s is None
    peak = roof.peak_of(item.operator.widest) if product else roof.vector_per_s
    compute_s = cost.operations / peak if peak else 0.0
    memory_s = (cost.memory_read_B + cost.memory_write_B) / roof.bandwidth_B_per_s
    if 2.0 * max(compute_s, memory_s) < cost.occupancy_s:
        return NEITHER
    return COMPUTE if compute_s > memory_s else MEMORY


def _tiles_of(place: Place) -> list[int]:
    return sorted({tile for sample in place.samples for tile in sample})
