"""What each resource does over time in a few bytes, for a page: shares of equal pieces of the run's time.

A row is a resource; a piece has the share of its time in which anything of the row works, and the operator that works
most in it.  So a row that is rarely busy never looks full, however many its steps are.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.simulation.records import Bar
from tierform.simulation.run import Run
from tierform.simulation.views_timeline import bars

PIECES = 2000
FULL = 255  # the share of a piece that is busy all the time
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]


def timeline_view(run: Run) -> dict[str, Any] | None:
    """The rows of a recorded run; None where no timeline was recorded."""
    found = bars(run)
    if not found:
        return None
    stages, clock_s = [], 0.0
    for made, entry in zip(run.timed, run.ledger.stages, strict=True):
        once_s = entry.seconds / max(1, made.stage.repeat)
        stages.append(
            {"name": made.stage.name, "start_s": clock_s, "end_s": clock_s + once_s, "repeat": made.stage.repeat}
        )
        clock_s += entry.seconds
    rows = dict.fromkeys(bar.resource for bar in sorted(found, key=lambda bar: bar.resource))
    names = list(dict.fromkeys(bar.name for bar in found))
    return {
        "end_s": clock_s,
        "pieces": PIECES,
        "names": names,
        "stages": stages,
        "rows": [_row(name, [bar for bar in found if bar.resource == name], names, clock_s) for name in rows],
    }


def _row(resource: str, bars: Sequence[Bar], names: list[str], end_s: float) -> dict[str, Any]:
    number = {name: index for index, name in enumerate(names)}
    start = np.array([bar.start_s for bar in bars])
    end = np.array([bar.end_s for bar in bars])
    what = np.array([number[bar.name] for bar in bars])
    share = covered(*_union(start, end), end_s)
    most = np.full(PIECES, -1)
    largest = np.zeros(PIECES)
    for one in np.unique(what):
        mine = covered(*_union(start[what == one], end[what == one]), end_s)
        more = mine > largest
        most[more], largest[more] = one, mine[more]
    coded = np.where(share > 0, np.maximum(1, np.rint(share * FULL)), 0).astype(np.uint8)
    starts, ends = _union(start, end)
    return {
        "resource": resource,
        "bars": len(bars),
        "busy_s": float((ends - starts).sum()),
        "share": base64.b64encode(coded.tobytes()).decode("ascii"),
        "operator": _runs(most),
    }


def _union(start: Floats, end: Floats) -> tuple[Floats, Floats]:
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
    inside = np.where(place > 0, np.minimum(edges, end[np.maximum(place - 1, 0)]) - start[np.maximum(place - 1, 0)], 0.0)
    share: Floats = np.diff(before + np.maximum(inside, 0.0)) * pieces / end_s
    return np.clip(share, 0.0, 1.0)


def _runs(values: NDArray[np.int64]) -> list[int]:
    """The values as pairs of a value and how often it follows itself."""
    cut = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    lengths = np.diff(np.r_[cut, len(values)])
    return [int(one) for pair in zip(values[cut], lengths, strict=True) for one in pair]
