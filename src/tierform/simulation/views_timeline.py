"""The timeline of a finished run: bars of whole steps, and slots in which each single resource works."""

from __future__ import annotations

from collections import Counter

from tierform.simulation.records import Bar, Slot
from tierform.simulation.run import Run
from tierform.simulation.schedule_timeline import TRANSFER, Piece
from tierform.simulation.stages import Timed
from tierform.workload.graph import StageKind

NETWORK = "network"


def bars(run: Run) -> tuple[Bar, ...]:
    """The timeline, where it was recorded."""
    found, clock_s = [], 0.0
    for made, entry in zip(run.timed, run.ledger.stages, strict=True):
        found += [
            Bar(
                stage=made.stage.name,
                resource=item.resource,
                name=item.name,
                layer=item.layer,
                micro_batch=item.micro_batch,
                start_s=clock_s + item.start_s,
                end_s=clock_s + item.end_s,
                repeats=1,
            )
            for item in made.schedule.slices()
        ]
        clock_s += entry.seconds
    return tuple(found)


def slots(run: Run) -> tuple[Slot, ...]:
    """What every resource does in the first pass of each stage, where a timeline was recorded."""
    found: list[Slot] = []
    clock_s = 0.0
    for made, entry in zip(run.timed, run.ledger.stages, strict=True):
        layers, shift = _layers(made), len(found)
        found += [_slot(made, piece, layers[piece.layer], clock_s, shift) for piece in made.schedule.pieces()]
        clock_s += entry.seconds
    return tuple(found)


def _slot(made: Timed, piece: Piece, layer: str, clock_s: float, shift: int) -> Slot:
    transfer = piece.kind == TRANSFER
    return Slot(
        stage=made.stage.name,
        owner=NETWORK if transfer else piece.resource.partition(": ")[0],
        lane=f"{piece.resource}, {layer}" if piece.own else piece.resource,
        kind=piece.kind,
        name=piece.name or piece.kind,
        layer=layer,
        micro_batch=piece.micro_batch,
        start_s=clock_s + piece.start_s,
        end_s=clock_s + piece.end_s,
        after=tuple(number + shift for number in piece.after),
    )


def _layers(made: Timed) -> list[str]:
    """Block and number of each layer as the stage meets them; the backward pass begins with the last one."""
    names = [segment.block.name for segment in made.waves[0] for _ in range(segment.count)] if made.waves else []
    back = made.stage.kind is StageKind.BACKWARD
    count, met = Counter(names), dict[str, int]()
    found = []
    for name in reversed(names) if back else names:
        number = met[name] = met.get(name, 0) + 1
        found.append(f"{name}, {number} of {count[name]}" if count[name] > 1 else name)
    return found[::-1] if back else found
