"""What a played schedule looks like: one bar for each step, and the pieces of time in which each resource works.

A step's bar goes from its first chunk to its last.  Its pieces are the times in which it holds its resource; chunks
that follow each other at once are one piece.  A resource serves one event at a time, so its pieces never overlap.
Steps without time have a bar and no piece; what waits for one waits for what that one waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.schedule_kernel import Events, play_out

Times = NDArray[np.float64]
OPERATOR, TRANSFER, FETCH = "operator", "transfer", "fetch"
_AT_ONCE = 1e-12


class StepTable(Protocol):
    """One kind of layer as the schedule has it: its steps with their transfers and fetches."""

    once: list[bool]
    own: list[bool]
    names: list[tuple[str, str]]
    shown: list[int]


class Laid(Protocol):
    """The layers of a stage as flat arrays."""

    @property
    def kinds(self) -> tuple[int, ...]:
        """The kind of each layer."""

    @property
    def tables(self) -> Sequence[StepTable]:
        """The steps of each kind."""

    chunks: int
    resources: int
    time: Times
    tail: Times


@dataclass(frozen=True, slots=True)
class Slice:
    """One bar of the timeline: a step of a layer and micro-batch, from its first chunk to the end of its last one."""

    resource: str
    name: str
    layer: int
    micro_batch: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """A time in which a resource works on a step of a layer and micro-batch without a break.

    `own`: each layer has a resource of this name for itself.  `kind` is operator, transfer or fetch; `after` are the
    pieces (by number, of the same stage) for which the step waited, told at its first piece.
    """

    resource: str
    own: bool
    kind: str
    name: str
    layer: int
    micro_batch: int
    start_s: float
    end_s: float
    after: tuple[int, ...] = ()


def slices(flat: Laid, events: Events, micro_batches: Sequence[int]) -> list[Slice]:
    """The bars of the events, in order of micro-batch, layer and step."""
    begin, end = play_out(events, flat.time, flat.tail, flat.resources)
    layers, most = len(flat.kinds), max(len(table.once) for table in flat.tables)
    size = sum(micro_batches) * layers * most
    first, last = np.full(size, np.inf), np.zeros(size)
    row = events.place // flat.chunks
    np.minimum.at(first, row, begin)
    np.maximum.at(last, row, end)
    found = []
    for micro in range(sum(micro_batches)):
        for layer, kind in enumerate(flat.kinds):
            table = flat.tables[kind]
            at = (micro * layers + layer) * most
            for step in table.shown:
                resource, name = table.names[step]
                found.append(Slice(resource, name, layer, micro, float(first[at + step]), float(last[at + step])))
    return found


def pieces(flat: Laid, events: Events) -> list[Piece]:
    """The pieces of the events, in order of micro-batch, layer, step and time."""
    begin, end = play_out(events, flat.time, flat.tail, flat.resources)
    layers, most = len(flat.kinds), max(len(table.once) for table in flat.tables)
    row = events.place // flat.chunks
    working = np.flatnonzero(end > begin)
    working = working[np.lexsort((begin[working], row[working]))]
    where, start, stop = row[working], begin[working], end[working]
    new = np.ones(len(working), dtype=np.bool_)
    new[1:] = (where[1:] != where[:-1]) | (start[1:] > stop[:-1] * (1 + _AT_ONCE))
    firsts = np.flatnonzero(new)
    lasts = np.append(firsts[1:], len(working)) - 1
    waits = _waits(events, row)
    at: dict[int, list[int]] = {}
    for number, place in enumerate(where[firsts].tolist()):
        at.setdefault(place, []).append(number)
    starts = start[firsts].tolist()
    sources = _sources(waits, at)
    found = []
    for number, (place, begun, ended) in enumerate(
        zip(where[firsts].tolist(), starts, stop[lasts].tolist(), strict=True)
    ):
        above, step = divmod(place, most)
        micro, layer = divmod(above, layers)
        table = flat.tables[flat.kinds[layer]]
        resource, name = table.names[step]
        kind = kind_of(table, step)
        given = sources.get(place, ()) if at[place][0] == number else ()
        before = [[one for one in at[source] if starts[one] * (1 + _AT_ONCE) < begun] for source in given]
        found.append(
            Piece(
                resource=resource,
                own=table.own[step],
                kind=kind,
                name=name,
                layer=layer,
                micro_batch=micro,
                start_s=begun,
                end_s=ended,
                after=tuple(pieces[-1] for pieces in before if pieces),
            )
        )
    return found


def kind_of(table: StepTable, step: int) -> str:
    """Operator, transfer or fetch."""
    return OPERATOR if step in table.shown else FETCH if table.once[step] else TRANSFER


def _waits(events: Events, row: NDArray[np.int32]) -> dict[int, set[int]]:
    """For each step of a layer and micro-batch those that it waits for."""
    count = np.diff(events.wait_at)
    pairs = np.stack([np.repeat(row, count), row[events.waits[: int(events.wait_at[-1])]]], axis=1)
    found: dict[int, set[int]] = {}
    for taker, giver in np.unique(pairs, axis=0).tolist():
        found.setdefault(taker, set()).add(giver)
    return found


def _sources(waits: dict[int, set[int]], working: dict[int, list[int]]) -> dict[int, tuple[int, ...]]:
    """The same with steps that take no time left out: what they wait for stands in their place."""
    known: dict[int, frozenset[int]] = {}
    for root in list(waits):
        stack = [root]
        while stack:
            here = stack[-1]
            if here in known:
                stack.pop()
                continue
            idle = [giver for giver in waits.get(here, ()) if giver not in working and giver not in known]
            if idle:
                stack += idle
                continue
            through: set[int] = set()
            for giver in waits.get(here, ()):
                through |= {giver} if giver in working else known[giver]
            known[here] = frozenset(through)
            stack.pop()
    return {place: tuple(sorted(givers)) for place, givers in known.items() if place in working}
