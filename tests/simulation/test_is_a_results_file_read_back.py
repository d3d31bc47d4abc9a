"""Is a result's file read back figure by figure, and are all that is missing or wrong told?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tierform.errors import TierformError
from tierform.simulation.result_file import figures_of, read_figures

SCHEMA = "tierform.result/9"


@dataclass(frozen=True)
class Row:
    """A record of a table."""

    name: str
    energy_J: float


TYPES: dict[str, Any] = {
    "latency_s": float,
    "chips": int,
    "wear": Row,
    "operators": tuple[Row, ...],
    "notes": tuple[str, ...],
    "energy_J_by_tile": list[float],
    "throughput": dict[str, float],
    "thermal": dict[str, float] | None,
    "memory_footprint_B": dict[str, int],
    "limits": tuple[Row, ...] | None,
    "view": dict[str, Any] | None,
    "mapping": Any,
    "timeline": tuple[Row, ...],
    "slots": tuple[Row, ...],
}
CONTENT: dict[str, Any] = {
    "schema": SCHEMA,
    "latency_s": 1,
    "chips": 2,
    "wear": {"name": "cells", "energy_J": 3},
    "operators": [{"name": "q", "energy_J": 0.5}, {"name": "k", "energy_J": 0.25}],
    "notes": ["a", "b"],
    "energy_J_by_tile": [1, 2.5],
    "throughput": {"tokens_per_s": 3},
    "thermal": None,
    "memory_footprint_B": {"weights": 5, "kv_cache": 7, "total": 12},
    "limits": [{"name": "gpu", "energy_J": 1.0}],
    "view": {"schema": "view"},
}


def told(content: dict[str, Any]) -> list[tuple[str, Any]]:
    with pytest.raises(TierformError) as caught:
        figures_of(content, TYPES, "run.json")
    assert all(problem.file == "run.json" and "simulate again" in str(problem.fix) for problem in caught.value.problems)
    return [(str(problem.key), problem.value) for problem in caught.value.problems]


def test_is_every_figure_as_it_was_written() -> None:
    found = figures_of(CONTENT, TYPES)
    assert found["wear"] == Row("cells", 3.0)
    assert found["operators"] == (Row("q", 0.5), Row("k", 0.25)) and found["notes"] == ("a", "b")
    assert found["limits"] == (Row("gpu", 1.0),) and found["view"] == {"schema": "view"} and found["thermal"] is None
    # Plain figures stay as the file has them: 1, not 1.0.
    assert [repr(found[key]) for key in ("latency_s", "energy_J_by_tile", "throughput")] == [
        "1",
        "[1, 2.5]",
        "{'tokens_per_s': 3}",
    ]
    # The total is a sum for people; mapping and timeline stay where the run was.
    assert found["memory_footprint_B"] == {"weights": 5, "kv_cache": 7}
    assert found["mapping"] is None and found["timeline"] == found["slots"] == ()
    assert set(found) == set(TYPES)


def test_are_lists_of_records_records() -> None:
    """A list whose first entry is no plain value is no plain value; an empty one is."""
    types = {**TYPES, "energy_J_by_tile": list[Row]}
    content = {**CONTENT, "energy_J_by_tile": [{"name": "a", "energy_J": 1.0}]}
    assert figures_of(content, types)["energy_J_by_tile"] == [Row("a", 1.0)]
    assert figures_of({**content, "energy_J_by_tile": []}, types)["energy_J_by_tile"] == []


def test_are_files_of_before_limits_and_views_read() -> None:
    older = {key: value for key, value in CONTENT.items() if key not in ("limits", "view")}
    found = figures_of(older, TYPES)
    assert found["limits"] is None and found["view"] is None and found["chips"] == 2


def test_is_all_that_is_missing_or_wrong_told() -> None:
    broken = {key: value for key, value in CONTENT.items() if key not in ("chips", "notes")}
    broken |= {"latency_s": "long", "operators": [{"name": "q", "energy_J": 0.5}, {"name": "k", "energy_J": "much"}]}
    assert told(broken) == [
        ("latency_s", "long"),
        ("chips", None),
        ("operators.1.energy_J", "much"),
        ("notes", None),
    ]


def test_are_eight_mistakes_enough() -> None:
    rows = [{"name": "q", "energy_J": f"much {number}"} for number in range(12)]
    assert told({**CONTENT, "operators": rows}) == [(f"operators.{n}.energy_J", f"much {n}") for n in range(8)]
    assert len(told({"memory_footprint_B": {}, "operators": rows})) == 8


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "this is no result"),
        ({"latency_s": 1.0}, "this is no result"),
        ({"schema": "tierform.comparison/1"}, "It holds several results"),
        ({"schema": "tierform.view/1"}, "key `view` of a result's file"),
        ({"schema": "tierform.job/1"}, "simulate --job FILE"),
        ({"schema": "tierform.result/8"}, "This version reads tierform.result/9"),
    ],
)
def test_are_other_files_refused_by_what_they_are(content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content))
    with pytest.raises(TierformError, match=r"run\.json") as caught:
        read_figures(path, SCHEMA, TYPES)
    assert words in str(caught.value)


def test_does_a_file_of_this_schema_give_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(CONTENT))
    assert read_figures(path, SCHEMA, TYPES) == figures_of(CONTENT, TYPES)
