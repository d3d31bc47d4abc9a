"""From timed stages to the Ledger: every execution, transfer and byte booked once."""

from __future__ import annotations

from tierform.simulation.communication import beside_exposed_s
from tierform.simulation.costing import Costing
from tierform.simulation.ledger import ACTIVE, LINKS, Ledger
from tierform.simulation.stages import Stages, Timed, learning_crossbars
from tierform.workload.graph import StageKind
from tierform.workload.task import FineTuning

SAMPLING = "sampling"
GAPS = "gaps between kernels"


def book(costing: Costing, stages: Stages, timed: list[Timed]) -> Ledger:
    """The Ledger of the whole task."""
    ledger = Ledger(len(costing.chip.tiles), len(costing.fabric.link_B_per_s))
    for made in timed:
        _book_stage(ledger, costing, stages, made)
    _book_refreshes(ledger, costing, stages)
    return ledger


def _book_refreshes(ledger: Ledger, costing: Costing, stages: Stages) -> None:
    """Weights in cells that forget are written anew when their retention ends, beside the work: it takes no time."""
    task = stages.workload.task
    steps = task.steps if isinstance(task, FineTuning) else 1
    for name, part in costing.chip.can.wearing.items():
        held = sum(p.total_crossbars for p in stages.mapping.placements if p.component == name)
        times = part.refreshes(ledger.seconds * steps)
        if not held or not times:
            continue
        cost = costing.chip.can.holders[name].programming_cost(held)
        for kind, energy in cost.energy_J.items():
            place = costing.fabric.place((costing.chip.tiles_of(name),), units=costing.chip.units_at(name))
            ledger.add(name, "programming", f"refresh: {kind}", energy * times / steps, place.where)
        ledger.cell_writes[name] += round(cost.cell_writes * times / steps)


def _book_stage(ledger: Ledger, costing: Costing, stages: Stages, made: Timed) -> None:
    stage, memory = made.stage, costing.memory
    for wave, segments in zip(stage.waves, made.waves, strict=True):
        for segment in segments:
            times = stage.repeat * segment.count * wave.micro_batches * stages.groups_with(segment.block)
            for execution in segment.executions:
                ledger.book(stage, segment.block, execution, times)
    ledger.book_memory(
        made.moved.times(stage.repeat), made.busy_s * stage.repeat, memory.energy_J(made.moved) * stage.repeat
    )
    for tier, moved in made.spilled.items():
        name, _, energy = memory.spill_cost(tier, moved)
        ledger.spill_B[name] += moved.total_B * stage.repeat
        ledger.add(name, "memory", "transfers", energy * stage.repeat)
    if made.sends:
        split = stages.workload.parallelism
        energy = costing.interconnect.send(made.send_B, split.tensor * split.copies)[2]
        ledger.add(LINKS, "collective", "sends between groups", energy * made.sends * stage.repeat)
    beside_s = beside_exposed_s(stages, made) * stages.groups * stage.repeat
    if beside_s and costing.floor_W:
        ledger.add(LINKS, "collective", ACTIVE, costing.floor_W * beside_s)
    if made.sampling_s:
        _book_sampling(ledger, costing, made.sampling_s * stage.repeat, stages.workload.parallelism.tensor)
    if made.gaps_s:
        _book_gaps(ledger, costing, made.gaps_s * stage.repeat)
    if stage.kind is StageKind.UPDATE:
        _book_rewriting(ledger, costing, stages)
    ledger.end_stage(stage, made.seconds * stage.repeat)


def _book_sampling(ledger: Ledger, costing: Costing, seconds: float, tensor: int) -> None:
    """What the boards of a tensor group draw while tokens are chosen; all are at work."""
    for name, board in costing.chip.can.boards.items():
        where = costing.fabric.place((costing.chip.tiles_of(name),), units=costing.chip.units_at(name)).where
        power_W = float(board.headroom_W) * costing.runtime.sampling_power_of(tensor)
        ledger.busy_s[name] += seconds
        ledger.add(name, SAMPLING, ACTIVE, float(board.active_W) * seconds, where)
        ledger.add(name, SAMPLING, SAMPLING, power_W * seconds, where)


def _book_gaps(ledger: Ledger, costing: Costing, seconds: float) -> None:
    """Boards keep clocks and caches awake in gaps of microseconds between kernels, and draw what they do at work."""
    for name, board in costing.chip.can.boards.items():
        where = costing.fabric.place((costing.chip.tiles_of(name),)).where
        ledger.add(name, GAPS, ACTIVE, float(board.active_W) * seconds, where)


def _book_rewriting(ledger: Ledger, costing: Costing, stages: Stages) -> None:
    """Weights that learn and sit in crossbars are written anew by the update."""
    for name, part in costing.chip.can.holders.items():
        crossbars = learning_crossbars(stages.mapping, name)
        if not crossbars:
            continue
        cost = part.programming_cost(crossbars)
        where = costing.fabric.place((costing.chip.tiles_of(name),), units=costing.chip.units_at(name)).where
        for kind, energy in cost.energy_J.items():
            ledger.add(name, "programming", kind, energy, where)
        ledger.cell_writes[name] += cost.cell_writes
