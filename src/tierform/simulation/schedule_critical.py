"""The critical path of a played schedule: from the last end back to the start, what each moment was spent on.

An event began when the last of what it waited for was there, or when its resource was free.  Followed back from the
event that ends last, these reasons are one unbroken chain from 0 to the makespan.  Of equal reasons the data's comes
first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.schedule_kernel import Events, play_out
from tierform.simulation.schedule_timeline import TRANSFER, Laid, kind_of

NETWORK = "network"
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """A time of the path and the resource that it was spent on, transfers as ``network``."""

    start_s: float
    end_s: float
    resource: str

    @property
    def spent_on(self) -> str:
        """The component, ``network``, or what was fetched."""
        return self.resource.partition(": ")[0]

    def later(self, by_s: float) -> Span:
        """The same span after that time."""
        return Span(self.start_s + by_s, self.end_s + by_s, self.resource)


def critical_path(flat: Laid, events: Events) -> list[Span]:
    """The path in order of time; its spans follow each other from 0 to the makespan."""
    begin, end = play_out(events, flat.time, flat.tail, flat.resources)
    if not len(begin):
        return []
    done = end + flat.tail[events.step]
    before = _before(events, end > begin)
    layers, most = len(flat.kinds), max(len(table.once) for table in flat.tables)
    found: list[Span] = []
    event, whole = int(np.argmax(done)), True
    while event >= 0:
        # Its tail counts only where the next one waited for the result, and not for the resource.
        until = done[event] if whole else end[event]
        above, step = divmod(int(events.place[event]) // flat.chunks, most)
        table = flat.tables[flat.kinds[above % layers]]
        moved = kind_of(table, step) == TRANSFER
        found.append(Span(float(begin[event]), float(until), NETWORK if moved else table.names[step][0]))
        waits = events.waits[events.wait_at[event] : events.wait_at[event + 1]]
        giver = int(waits[np.argmax(done[waits])]) if len(waits) else -1
        held = int(before[event])
        if held >= 0 and end[held] > (done[giver] if giver >= 0 else 0.0):
            event, whole = held, False
        elif begin[event] > 0.0:
            event, whole = giver, True
        else:
            break
    return found[::-1]


def seconds_by_resource(path: Iterable[Span]) -> dict[str, float]:
    """Seconds of a path by what they were spent on, from its end on; they sum to the makespan."""
    found: dict[str, float] = {}
    for span in reversed(list(path)):
        found[span.spent_on] = found.get(span.spent_on, 0.0) + (span.end_s - span.start_s)
    return found


def _before(events: Events, works: NDArray[np.bool_]) -> Numbers:
    """For each event that works the one before it on its resource, or -1."""
    before = np.full(len(events.step), -1, dtype=np.int64)
    at = np.flatnonzero(works)
    order = at[np.argsort(events.resource[at], kind="stable")]
    same = events.resource[order][1:] == events.resource[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    return before
