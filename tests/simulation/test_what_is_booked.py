"""What does the Ledger hold after a few executions, transfers and stages, with every sum done by hand?"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tierform.chip.component import Cost
from tierform.mapping.plan import INTERCONNECT
from tierform.simulation.booking import GAPS, SAMPLING, _book_gaps, _book_refreshes, _book_rewriting, _book_sampling
from tierform.simulation.ledger import ACTIVE, LINKS, Ledger
from tierform.simulation.runtime import IDEAL
from tierform.simulation.traffic import Traffic
from tierform.workload.operator import Kind
from tierform.workload.task import FineTuning, Inference

LEFT, BOTH = np.array([1.0, 0.0, 0.0]), np.array([0.25, 0.75, 0.0])
STAGE, BLOCK = SimpleNamespace(name="forward"), SimpleNamespace(name="layer")


def execution(name: str, kind: Kind, cost: Cost, where: Any = None, **given: Any) -> Any:
    made = {"placement": None, "programming": None, "moves": [], "floor_W": 0.0, "floor_J": 0.0, **given}
    return SimpleNamespace(component=name, operator=SimpleNamespace(kind=kind), cost=cost, where=where, **made)


def route(joules: float, share: list[float], where: Any) -> Any:
    return SimpleNamespace(energy_J_per_B=joules, link_share=np.array(share), where=where)


def test_what_does_an_execution_add() -> None:
    """Three times 7 s, 2 + 5 J, 11 operations; 13 bytes read and 17 written; 19 cells."""
    ledger = Ledger(3, 2)
    cost = Cost(9.0, 7.0, {"mac": 2.0, "sram": 5.0}, 11.0, 13.0, 17.0, 19)
    ledger.book(STAGE, BLOCK, execution("array", Kind.MATMUL, cost, BOTH), 3.0)  # type: ignore[arg-type]
    assert dict(ledger.energy) == {("array", "matmul", "mac"): 6.0, ("array", "matmul", "sram"): 15.0}
    assert dict(ledger.operations) == {("array", "matmul"): 33.0} and dict(ledger.busy_s) == {"array": 21.0}
    assert ledger.memory == Traffic(39.0, 51.0) and dict(ledger.cell_writes) == {"array": 57}
    assert dict(ledger.crossbar_s) == {} and ledger.network_B == 0.0
    # Once more as a light operator: sums by component, by class, and by component and part.
    ledger.book(STAGE, BLOCK, execution("array", Kind.SOFTMAX, cost, LEFT), 1.0)  # type: ignore[arg-type]
    assert ledger.energy_by(0) == {"array": 28.0} and ledger.energy_by(1) == {"matmul": 21.0, "softmax": 7.0}
    assert ledger.energy_by(2) == {"array: mac": 8.0, "array: sram": 20.0} and ledger.energy_J == 28.0
    assert ledger.operations_by(0) == {"array": 44.0} and ledger.operations_by(1) == {"matmul": 33.0, "softmax": 11.0}
    assert [booked.times for booked in ledger.booked] == [3.0, 1.0]
    # Tiles: 21 J over two of them, 7 J in the first.
    ledger.end_stage(STAGE, 5.0)  # type: ignore[arg-type]
    (entry,) = ledger.stages
    assert entry.tile_J.tolist() == [0.25 * 21 + 7, 0.75 * 21, 0.0]
    assert (entry.seconds, entry.energy_J, entry.memory_B, entry.network_B) == (5.0, 28.0, 39 + 51 + 13 + 17, 0.0)


def test_what_does_a_board_draw_beside_its_operators() -> None:
    """A floor of 3 J an execution; during a collective it is that of the links' boards."""
    ledger = Ledger(3, 0)
    kernel = execution("gpu", Kind.MATMUL, Cost(1.0, 1.0, {"memory": 2.0}), LEFT, floor_W=3.0, floor_J=3.0)
    ledger.book(STAGE, BLOCK, kernel, 2.0)  # type: ignore[arg-type]
    sent = execution(INTERCONNECT, Kind.COLLECTIVE, Cost(4.0, 4.0, {"links": 5.0}), None, floor_W=3.0, floor_J=12.0)
    ledger.book(STAGE, BLOCK, sent, 2.0)  # type: ignore[arg-type]
    assert dict(ledger.energy) == {
        ("gpu", "matmul", "memory"): 4.0,
        ("gpu", "matmul", ACTIVE): 6.0,
        (INTERCONNECT, "collective", "links"): 10.0,
        (LINKS, "collective", ACTIVE): 24.0,
    }
    ledger.end_stage(STAGE, 1.0)  # type: ignore[arg-type]
    assert ledger.stages[0].tile_J.tolist() == [10.0, 0.0, 0.0]  # what is between chips is in no tile


def test_how_long_do_crossbars_of_a_weight_work() -> None:
    """7 s of 5 crossbars with 2 replicas each, three times; a weight that is streamed keeps the component busy."""
    ledger = Ledger(3, 0)
    cost = Cost(7.0, 7.0, {"adc": 1.0})
    written = Cost(3.0, 3.0, {"programming": 4.0}, cell_writes=6)
    held = SimpleNamespace(resident=True, crossbars=5, replicas=2)
    away = SimpleNamespace(resident=False, crossbars=5, replicas=2)
    ledger.book(STAGE, BLOCK, execution("cells", Kind.MATMUL, cost, LEFT, placement=held), 3.0)  # type: ignore[arg-type]
    assert dict(ledger.crossbar_s) == {"cells": 210.0} and dict(ledger.busy_s) == {}
    streamed = execution("cells", Kind.MATMUL, cost, BOTH, placement=away, programming=written)
    ledger.book(STAGE, BLOCK, streamed, 3.0)  # type: ignore[arg-type]
    assert dict(ledger.crossbar_s) == {"cells": 210.0} and dict(ledger.busy_s) == {"cells": 21.0}
    assert ledger.energy["cells", "programming", "programming"] == 12.0 and ledger.cell_writes["cells"] == 18
    ledger.end_stage(STAGE, 1.0)  # type: ignore[arg-type]
    assert ledger.stages[0].tile_J.tolist() == [3.0 + 0.25 * 15, 0.75 * 15, 0.0]


def test_what_does_a_transfer_add_to_each_link() -> None:
    """11 bytes of three executions, 2 J each, 0.5 of them over the first link, 1.5 crossings of the second."""
    ledger = Ledger(3, 2)
    move = SimpleNamespace(size_B=11.0, route=route(2.0, [0.5, 1.5], BOTH))
    ledger.book(STAGE, BLOCK, execution("a", Kind.ROTARY, Cost(1.0, 1.0), LEFT, moves=[move]), 3.0)  # type: ignore[arg-type]
    assert ledger.network_B == 33.0 and ledger.link_B.tolist() == [16.5, 49.5]
    assert dict(ledger.energy) == {("network", "network", "routers and links"): 66.0}
    ledger.end_stage(STAGE, 1.0)  # type: ignore[arg-type]
    ledger.move(4.0, 3.0, np.array([1.0, 0.0]), LEFT)
    ledger.book_memory(Traffic(20.0, 30.0), 0.25, 7.0)
    ledger.book_memory(Traffic(1.0, 2.0), 0.5, 8.0)
    ledger.end_stage(STAGE, 2.0)  # type: ignore[arg-type]
    first, second = ledger.stages
    # What a stage has is what was booked since the last one.
    assert first.link_B.tolist() == [16.5, 49.5] and second.link_B.tolist() == [4.0, 0.0]
    assert (first.network_B, second.network_B) == (33.0, 4.0)
    assert (first.energy_J, second.energy_J) == (66.0, 12.0 + 15.0)
    assert (first.memory_B, second.memory_B) == (0.0, 53.0)
    assert first.tile_J.tolist() == [16.5, 49.5, 0.0] and second.tile_J.tolist() == [12.0, 0.0, 0.0]
    assert ledger.memory == Traffic(21.0, 32.0) and ledger.memory_busy_s == 0.75 and ledger.seconds == 3.0
    assert ledger.energy["memory", "memory", "transfers"] == 15.0


def test_is_nothing_told_of_what_takes_nothing() -> None:
    ledger = Ledger(1, 0)
    ledger.add("a", "b", "c", 0.0)
    ledger.add("a", "b", "d", 2.0)
    assert ledger.energy_by(2) == {"a: d": 2.0}


# -- what is booked beside the operators ----------------------------------------------------------------------------
class Holder:
    """Ten cells a crossbar: 2 J and 3 J a crossbar; forgets after 100 s."""

    def programming_cost(self, crossbars: int) -> Cost:
        return Cost(1.0, 1.0, {"programming": 2.0 * crossbars, "verify": 3.0 * crossbars}, cell_writes=10 * crossbars)

    def refreshes(self, seconds: float) -> int:
        return int(seconds // 100)


def chip(**boards: Any) -> Any:
    """A costing whose components all sit in one place."""
    holder = Holder()
    return SimpleNamespace(
        chip=SimpleNamespace(
            tiles_of=lambda name: (0,),
            units_at=lambda name: (1,),
            can=SimpleNamespace(boards=boards, holders={"cells": holder}, wearing={"cells": holder}),
        ),
        fabric=SimpleNamespace(place=lambda tiles, units=None: SimpleNamespace(where=LEFT)),
        runtime=replace(IDEAL, sampling_power=0.5, sampling_power_others=0.25),
    )


def stages(task: Any = None) -> Any:
    def placed(crossbars: int, component: str = "cells", *, learns: bool = True, resident: bool = True) -> Any:
        return SimpleNamespace(
            component=component, trainable=learns, resident=resident, total_crossbars=crossbars if resident else 0
        )

    placements = (placed(3), placed(4), placed(5, learns=False), placed(9, resident=False), placed(8, "others"))
    return SimpleNamespace(mapping=SimpleNamespace(placements=placements), workload=SimpleNamespace(task=task))


def test_what_does_an_update_write_to_cells() -> None:
    """Seven crossbars learn: 14 and 21 J, 70 cells."""
    ledger = Ledger(3, 0)
    _book_rewriting(ledger, chip(), stages())
    assert dict(ledger.energy) == {
        ("cells", "programming", "programming"): 14.0,
        ("cells", "programming", "verify"): 21.0,
    }
    assert dict(ledger.cell_writes) == {"cells": 70}
    ledger.end_stage(STAGE, 1.0)  # type: ignore[arg-type]
    assert ledger.stages[0].tile_J.tolist() == [35.0, 0.0, 0.0]


@pytest.mark.parametrize(("task", "steps", "times"), [(Inference(), 1, 2), (FineTuning(steps=3), 3, 7)])
def test_what_do_cells_that_forget_take(task: Any, steps: int, times: int) -> None:
    """250 s a step: two refreshes of 12 crossbars; in three steps, 750 s, seven of them, a third of each a step."""
    ledger = Ledger(3, 0)
    ledger.end_stage(STAGE, 250.0)  # type: ignore[arg-type]
    _book_refreshes(ledger, chip(), stages(task))
    assert dict(ledger.energy) == pytest.approx(
        {
            ("cells", "programming", "refresh: programming"): 24 * times / steps,
            ("cells", "programming", "refresh: verify"): 36 * times / steps,
        }
    )
    assert ledger.cell_writes == {"cells": 120 * times // steps}
    rested = Ledger(3, 0)
    rested.end_stage(STAGE, 30.0)  # type: ignore[arg-type]
    _book_refreshes(rested, chip(), stages(Inference()))
    assert dict(rested.energy) == {} and dict(rested.cell_writes) == {}


def test_what_do_boards_draw_while_tokens_are_chosen_and_while_they_wait() -> None:
    """4 s: 3 W of being at work; of a headroom of 20 W one chip of the tensor group takes half, the other a quarter."""
    board = SimpleNamespace(headroom_W=20.0, active_W=3.0)
    ledger = Ledger(3, 0)
    _book_sampling(ledger, chip(gpu=board), 4.0, 2)
    assert dict(ledger.energy) == {("gpu", SAMPLING, ACTIVE): 12.0, ("gpu", SAMPLING, SAMPLING): 30.0}
    assert dict(ledger.busy_s) == {"gpu": 4.0}
    _book_gaps(ledger, chip(gpu=board), 5.0)
    assert ledger.energy["gpu", GAPS, ACTIVE] == 15.0 and dict(ledger.busy_s) == {"gpu": 4.0}
    ledger.end_stage(STAGE, 1.0)  # type: ignore[arg-type]
    assert ledger.stages[0].tile_J.tolist() == [57.0, 0.0, 0.0]
