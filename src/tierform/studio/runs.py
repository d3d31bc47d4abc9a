"""One run as the pages take it: a result's content with its view, and the tables that pages show."""

from __future__ import annotations

from typing import Any

from tierform.report import tables
from tierform.simulation.result import Result

OPERATORS = 40
Content = dict[str, Any]


def run_content(result: Result, number: int, *, file: str = "", live: bool = False) -> Content:
    """A run as the pages take it."""
    content = result.content()
    shown = [*tables.all_tables(result), tables.operators(result, OPERATORS)]
    return {
        "id": str(number),
        "name": f"{result.model} on {result.chip}",
        "file": file,
        "live": live,
        "result": {key: value for key, value in content.items() if key not in _UNUSED},
        "tables": [{"title": one.title, "head": one.head, "rows": one.rows} for one in shown],
    }


def quick_content(result: Result) -> Content:
    """A run as a what-if shows it, without what takes longest: limits, operators and tables."""
    return {
        "id": "now",
        "name": f"{result.model} on {result.chip}",
        "file": "",
        "live": True,
        "result": {
            **{key: value for key, value in result.to_dict().items() if key not in _UNUSED},
            "view": result.quick_view(),
        },
        "tables": [],
    }


# Figures of a result that no page reads: the view has them by tile and by link, and by operator.
_UNUSED = ("operators", "link_bytes", "energy_J_by_tile", "limits")
