"""One run as the pages take it: a result's content with its view, and the tables that pages show."""

from __future__ import annotations

from typing import Any

from tierform.report import tables
from tierform.simulation.result import Result

OPERATORS = 40
LATER = "later"
Content = dict[str, Any]


def run_content(result: Result, number: int, *, file: str = "", live: bool = False) -> Content:
    """A run as the pages take it."""
    content = result.content()
    if content["thermal"] is not None:
        content["thermal"] = {key: value for key, value in content["thermal"].items() if key not in _IN_THE_VIEW}
    shown = [*tables.all_tables(result), tables.operators(result, OPERATORS)]
    return {
        "id": str(number),
        "name": f"{result.model} on {result.chip}",
        "file": file,
        "live": live,
        "result": {key: value for key, value in content.items() if key not in _UNUSED},
        "tables": [{"title": one.title, "head": one.head, "rows": one.rows} for one in shown],
    }


def timeline_of(run: Content) -> Content | None:
    """The timeline of a run, where it was recorded."""
    view = run["result"]["view"]
    found: Content | None = view and view.get("timeline")
    return found


def without_timeline(run: Content) -> Content:
    """The run with the word that its timeline comes later: it is larger than all that the first page shows."""
    if timeline_of(run) is None:
        return run
    result = run["result"]
    return {**run, "result": {**result, "view": {**result["view"], "timeline": LATER}}}


def moved_content(result: Result) -> Content:
    """What a moved value changes on the What-if page: its figures, and what each die takes and reaches."""
    return {
        "model": result.model,
        "chip": result.chip,
        "chips": result.chips,
        "task": result.task,
        "latency_s": result.latency_s,
        "energy_J": result.energy_J,
        "average_power_W": result.average_power_W,
        "area_m2": result.area_m2,
        "thermal": None if result.thermal is None else {"peak_K": result.thermal["peak_K"]},
        "notes": list(result.notes),
        "dies": result.quick_view()["dies"],
    }


# Figures of a result that no page reads: the view has them by tile and by link, and by operator.
_UNUSED = ("operators", "link_bytes", "energy_J_by_tile", "limits")
# What a view says of every tile and die, too.
_IN_THE_VIEW = ("tile_temperature_K", "tile_power_W", "dies")
