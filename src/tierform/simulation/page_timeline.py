"""What each resource does over time in a few bytes, for a page: shares of equal pieces of the run's time.

A row is a resource; a piece has the share of its time in which the resource works, and the operator that works most in
it, its layer and its micro-batch.  So a row that is rarely busy never looks full, however many its steps are.  The
crossbars of a weight are one resource of each layer; their row is the mean over the layers.  All transfers are one
row, in which any of them counts.  The critical path is told by piece, too: the row on which most of the piece's time
was spent.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.run import Run
from tierform.simulation.schedule_critical import Span
from tierform.simulation.schedule_timeline import TRANSFER
from tierform.simulation.stages import Timed
from tierform.workload.graph import StageKind
from tierform.workload.memory import BlockKind

NETWORK = "network"
PIECES = 2000
FULL = 255  # the share of a piece that is busy all the time
Floats = NDArray[np.float64]
Place = int | str  # the number of a layer, or the name of a part of the model that is none


def timeline_view(run: Run) -> dict[str, Any] | None:
    """The rows of a recorded run; None where no timeline was recorded."""
    stages: list[dict[str, Any]] = []
    works: dict[str, _Work] = {}
    path: list[Span] = []
    clock_s = 0.0
    first = _first_numbers(run)
    for made, entry in zip(run.timed, run.ledger.stages, strict=True):
        layers = _layers(made, first)
        path += [span.later(clock_s) for span in made.schedule.path()]
        for piece in made.schedule.pieces():
            resource = NETWORK if piece.kind == TRANSFER else piece.resource
            work = works.setdefault(resource, _Work())
            work.start.append(clock_s + piece.start_s)
            work.end.append(clock_s + piece.end_s)
            work.lane.append(piece.layer if piece.own else 0)
            work.name.append(piece.name or piece.kind)
            work.layer.append(layers[piece.layer])
            work.micro.append(piece.micro_batch)
        once_s = entry.seconds / max(1, made.stage.repeat)
        stages.append(
            {"name": made.stage.name, "start_s": clock_s, "end_s": clock_s + once_s, "repeat": made.stage.repeat}
        )
        clock_s += entry.seconds
    if not works:
        return None
    names = list(dict.fromkeys(name for work in works.values() for name in work.name))
    layers = _in_order(layer for work in works.values() for layer in work.layer)
    rows = sorted(works)
    return {
        "end_s": clock_s,
        "pieces": PIECES,
        "names": names,
        "layers": layers,
        "stages": stages,
        "rows": [_row(resource, works[resource], names, layers, clock_s) for resource in rows],
        "any": _coded(_any(list(works.values()), clock_s)),
        "critical": _critical(path, rows, clock_s),
    }


@dataclass(slots=True)
class _Work:
    """The times in which a resource works, each with its lane (a layer, of crossbars), operator and layer."""

    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    lane: list[int] = field(default_factory=list)
    name: list[str] = field(default_factory=list)
    layer: list[Place] = field(default_factory=list)
    micro: list[int] = field(default_factory=list)


def _first_numbers(run: Run) -> dict[str, int]:
    """The number of the first layer of each block of layers, counted through the model."""
    found, next_ = {}, 0
    for block in run.workload.stages[0].blocks if run.workload.stages else ():
        if block.kind is BlockKind.LAYER:
            found[block.name] = next_
            next_ += block.count
    return found


def _layers(made: Timed, first: Mapping[str, int]) -> list[Place]:
    """Where each layer of a stage stands in the model: a layer's number, or the name of what is none."""
    blocks = [segment.block for segment in made.waves[0] for _ in range(segment.count)] if made.waves else []
    back = made.stage.kind is StageKind.BACKWARD
    met: dict[str, int] = {}
    found: list[Place] = []
    for block in reversed(blocks) if back else blocks:
        begin = first.get(block.name) if block.kind is BlockKind.LAYER else None
        found.append(block.name if begin is None else begin + met.get(block.name, 0))
        met[block.name] = met.get(block.name, 0) + 1
    return found[::-1] if back else found


def _in_order(places: Iterable[Place]) -> list[Place]:
    """Each once: what is no layer as it is met, then layers by number."""
    known = dict.fromkeys(places)
    names, numbers = ([one for one in known if isinstance(one, kind)] for kind in (str, int))
    return [*names, *sorted(numbers)]


def _row(resource: str, work: _Work, names: list[str], layers: list[Place], end_s: float) -> dict[str, Any]:
    start, end, lane = np.array(work.start), np.array(work.end), np.array(work.lane)
    lanes = np.unique(lane)
    share = np.zeros(PIECES)
    busy_s = 0.0
    for one in lanes:
        starts, ends = union(start[lane == one], end[lane == one])
        share += covered(starts, ends, end_s) / len(lanes)
        busy_s += float((ends - starts).sum()) / len(lanes)
    return {
        "resource": resource,
        "lanes": len(lanes),
        "busy_s": busy_s,
        "share": _coded(share),
        "operator": _runs(_most(start, end, work.name, names, end_s)),
        "layer": _runs(_most(start, end, work.layer, layers, end_s)),
        "micro_batch": _runs(_most(start, end, work.micro, range(1 + max(work.micro)), end_s)),
    }


def _most(start: Floats, end: Floats, what: Sequence[Place], known: Sequence[Place], end_s: float) -> NDArray[np.int64]:
    """Which of `known` works longest in each piece, by its place in them; -1 where none does."""
    number = {one: index for index, one in enumerate(known)}
    mine = np.array([number[one] for one in what])
    return _longest({int(k): covered(*union(start[mine == k], end[mine == k]), end_s) for k in np.unique(mine)})


def _any(works: Sequence[_Work], end_s: float) -> Floats:
    """The share of each piece in which anything works: any resource of any layer."""
    start = np.array([time for work in works for time in work.start])
    return covered(*union(start, np.array([time for work in works for time in work.end])), end_s)


def _coded(share: Floats) -> str:
    """A byte for each piece: 255 for all of it, and 0 only for none."""
    coded = np.where(share > 0, np.maximum(1, np.rint(share * FULL)), 0).astype(np.uint8)
    return base64.b64encode(coded.tobytes()).decode("ascii")


def _critical(path: list[Span], rows: list[str], end_s: float) -> list[int]:
    """The row on which most of each piece is spent, as pairs of a row and how many pieces it leads; -1 for none."""
    spent = {}
    for number, row in enumerate(rows):
        mine = [(span.start_s, span.end_s) for span in path if span.resource == row]
        if mine:
            start, end = (np.array(side) for side in zip(*mine, strict=True))
            spent[number] = covered(start, end, end_s)
    return _runs(_longest(spent))


def _longest(shares: Mapping[int, Floats]) -> NDArray[np.int64]:
    """Whose share is largest in each piece, the first of equal ones; -1 where all are zero."""
    most, largest = np.full(PIECES, -1), np.zeros(PIECES)
    for number, share in shares.items():
        more = share > largest
        most[more], largest[more] = number, share[more]
    return most


def union(start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """The times in which any of the intervals runs, as intervals that do not meet."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(end[order])
    first = np.r_[True, start[1:] > reach[:-1]]
    return start[first], reach[np.r_[first[1:], True]]


def covered(start: Floats, end: Floats, end_s: float, pieces: int = PIECES) -> Floats:
    """The share of each piece of the time up to `end_s` that intervals that do not meet cover."""
    edges = np.linspace(0.0, end_s, pieces + 1)
    lengths = np.r_[0.0, np.cumsum(end - start)]
    place = np.searchsorted(start, edges, side="right")
    before = lengths[np.maximum(place - 1, 0)]
    inside = np.where(
        place > 0, np.minimum(edges, end[np.maximum(place - 1, 0)]) - start[np.maximum(place - 1, 0)], 0.0
    )
    share: Floats = np.diff(before + np.maximum(inside, 0.0)) * pieces / end_s
    return np.clip(share, 0.0, 1.0)


def _runs(values: NDArray[np.int64]) -> list[int]:
    """The values as pairs of a value and how often it follows itself."""
    cut = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[cut, len(values)])
    return [int(one) for pair in zip(values[cut], lengths, strict=True) for one in pair]
