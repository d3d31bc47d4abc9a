"""Which cells wear out first, where is what held, and which sources are cited, by hand?"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from tierform import library
from tierform.provenance import Assumption
from tierform.simulation.records import Wear
from tierform.simulation.views_evidence import assumptions, citations, crossbars, placed, wear


@dataclass
class Cells:
    """So many crossbars of ten cells."""

    crossbars: int = 8
    endurance_writes: float = 1000.0
    cells_per_crossbar: int = 10


def placement(component: str, each: int, *, copies: int = 1, layers: int = 1, replicas: int = 1, **given: bool) -> Any:
    learns, resident = given.get("learns", False), given.get("resident", True)
    return SimpleNamespace(
        component=component,
        crossbars=each,
        copies=copies,
        layers=layers,
        replicas=replicas,
        trainable=learns,
        resident=resident,
        total_crossbars=each * copies * layers * replicas if resident else 0,
    )


def run(placements: tuple[Any, ...], writes: dict[str, int], steps: int = 1, **parts: Cells) -> Any:
    """Two seconds a step, on six chips."""
    holders = parts or {"cells": Cells()}
    return SimpleNamespace(
        chip=SimpleNamespace(can=SimpleNamespace(wearing=holders, holders=holders)),
        mapping=SimpleNamespace(placements=placements),
        ledger=SimpleNamespace(cell_writes=writes),
        steps=steps,
        scale=6 * steps,
        pass_s=2.0,
    )


def test_how_long_do_cells_last_that_are_streamed_into() -> None:
    """Three of eight crossbars hold weights; 12 programmings take turns in the other five: three of some cell.

    1000 writes last for 333 tasks of 2 s; six chips write 120 cells each.
    """
    found = wear(run((placement("cells", 3), placement("cells", 4, resident=False)), {"cells": 120}))
    assert found == Wear(120 * 6, 3.0, 1000.0, pytest.approx(1000 / 3), pytest.approx(2000 / 3))  # type: ignore[arg-type]
    # Three steps write three times as much and take three times as long.
    found = wear(run((placement("cells", 3),), {"cells": 120}, steps=3))
    assert found == Wear(120 * 18, 9.0, 1000.0, pytest.approx(1000 / 9), pytest.approx(2000 / 3))  # type: ignore[arg-type]


def test_how_long_do_cells_last_that_learn() -> None:
    """Two of eight crossbars learn and are written once a step: 20 cells, and nothing else is."""
    learns = (placement("cells", 2, learns=True), placement("cells", 1), placement("others", 5, learns=True))
    found = wear(run(learns, {"cells": 20}))
    assert (found.writes_per_cell, found.lifetime_tasks, found.lifetime_s) == (1.0, 1000.0, 2000.0)
    # Beside them 11 programmings in the other five, three of one; ten and a half: two and a half of one.
    assert wear(run(learns, {"cells": 20 + 110})).writes_per_cell == 3.0
    assert wear(run(learns, {"cells": 20 + 105})).writes_per_cell == 2.5
    # Where weights fill everything, what is written for each product takes turns in all of them.
    full = (placement("cells", 8),)
    assert wear(run(full, {"cells": 160})).writes_per_cell == 2.0


def test_which_component_wears_out_first() -> None:
    kinds = {"strong": Cells(endurance_writes=1e6), "weak": Cells(endurance_writes=10.0), "idle": Cells()}
    found = wear(run((), {"strong": 80, "weak": 80}, **kinds))
    assert (found.endurance_writes, found.lifetime_tasks) == (10.0, 10.0)
    # What is never written lasts for ever, and stands behind what is.
    assert wear(run((), {"strong": 80}, **kinds)).endurance_writes == 1e6
    assert wear(run((), {}, weak=Cells(endurance_writes=7.0))) == Wear(0, 0.0, 7.0, None, None)
    bare = run((), {})
    bare.chip.can.wearing = {}
    assert wear(bare) == Wear(0, 0.0, 0.0, None, None)


def test_how_many_crossbars_are_there_and_used() -> None:
    held = (
        placement("a", 3, copies=2, layers=4, replicas=5),
        placement("b", 7, layers=2),
        placement("a", 2, copies=2, layers=3, resident=False),
    )
    found = crossbars(run(held, {}, a=Cells(100), b=Cells(50)))
    assert found == {"available": 150, "used": 120 + 14, "streamed": 12, "first_copies": 24 + 14}
    without = run((), {})
    without.chip.can.holders = {}
    assert crossbars(without) == {}


def test_where_is_each_part_held() -> None:
    def share(name: str, size_B: int) -> Any:
        return SimpleNamespace(tier_name=name, size_B=size_B)

    shares = {
        "weights": [share("hbm", 30), share("ddr", 4)],
        "kv": [share("hbm", 0)],
        "states": [share("hbm", 0), share("ddr", 9)],
    }
    made: Any = SimpleNamespace(placement=SimpleNamespace(shares=shares))
    assert placed(made) == {"weights": {"hbm": 30, "ddr": 4}, "states": {"ddr": 9}}
    assert placed(SimpleNamespace(placement=None)) == {}  # type: ignore[arg-type]


def test_is_weak_evidence_told_first_and_every_source_once() -> None:
    def line(subject: str, kind: Any, source: str) -> Assumption:
        return Assumption(subject, "1", kind, source, "")

    chip, network = line("adc", "published", "isaac-2016"), line("wire", "assumed", "")
    memory, runtime = line("hbm", "datasheet", "jedec-hbm2"), line("launch", "fitted", "isaac-2016")
    made: Any = SimpleNamespace(
        chip=SimpleNamespace(assumptions=lambda: [chip]),
        fabric=SimpleNamespace(assumptions=lambda: [network]),
        memory=SimpleNamespace(assumptions=lambda: [memory]),
        runtime=SimpleNamespace(evidence=(runtime,)),
        heat=None,
        workload=SimpleNamespace(model=SimpleNamespace(source="somebody's own")),
    )
    found = assumptions(made)
    assert {one.subject for one in found} == {"adc", "wire", "hbm", "launch", "static power"}
    assert [one.kind for one in found][:2] == ["assumed", "assumed"]
    (static,) = [one for one in found if one.subject == "static power"]
    assert (static.value, static.kind) == ("at 330 K", "assumed")
    made.heat = SimpleNamespace()
    assert "static power" not in {one.subject for one in assumptions(made)}
    told = citations(made, found)
    assert [one.key for one in told] == ["isaac-2016", "jedec-hbm2", "somebody's own"]
    assert told[0] == library.citation("isaac-2016") and told[2].text == "somebody's own"
