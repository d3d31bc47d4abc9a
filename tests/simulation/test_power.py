"""Does a board draw what it must: its floor while it works, energies on top, and never more than its limit?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform import Full, Inference, Result, Training, load_chip, simulate
from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.provenance import Constant
from tierform.simulation.power_cap import ARITHMETIC, LOWEST_CLOCK, at_clock, clock_of
from tierform.workload.parallel import Parallelism


def board(name: str = "h100", **watts: float) -> Chip:
    """A chip of one GPU with other powers."""
    chip = load_chip(name)
    part: Any = chip.components["gpu"]
    changed = part.at(**{key: Constant(value, "W", "assumed", "", "test") for key, value in watts.items()})
    return replace(chip, components={**chip.components, "gpu": changed}, fingerprint=f"{name} {watts}")


def run(chip: Chip, batch: int = 8, tensor: int = 1) -> Result:
    task = Inference(batch=batch, sequence=64, decode=4)
    return simulate("llama-3.2-1b", task, chip, thermal="none", parallelism=Parallelism(tensor=tensor))


def test_the_floor_is_drawn_for_as_long_as_the_board_works() -> None:
    """100 W more of active power, nothing else changed: 100 W times the time of the run, since nothing waits."""
    low, high = run(board(active_power=0.0)), run(board(active_power=100.0))
    assert high.latency_s == low.latency_s
    assert high.energy_J - low.energy_J == pytest.approx(100.0 * low.latency_s, rel=0.01)
    assert high.average_power_W - low.average_power_W == pytest.approx(100.0, rel=0.01)


def test_boards_are_at_work_during_a_collective() -> None:
    """On two boards the same holds for both of them, all-reduces included."""
    low, high = run(board(active_power=0.0), tensor=2), run(board(active_power=100.0), tensor=2)
    assert high.energy_J - low.energy_J == pytest.approx(200.0 * low.latency_s, rel=0.01)
    assert sum(high.energy_J_by_operator.values()) == pytest.approx(high.energy_J, rel=1e-12)


def test_energies_of_operators_hold_the_floor() -> None:
    found = run(board(active_power=100.0, idle_power=0.0))
    assert math.fsum(row.energy_J for row in found.operators) == pytest.approx(found.energy_J, rel=1e-9)


def test_the_clock_follows_from_the_limit_as_derived_by_hand() -> None:
    """1 s, all of it clocked, 800 J of operations and no bytes, 100 W: c^2 800 = 100 / c, so c = (1/8)^(1/3) = 1/2.

    Half of the second clocked, 300 J and 100 J of bytes: at c = 1/2 it takes 1.5 s and 75 + 100 = 175 J, 116.67 W.
    """
    assert clock_of(1.0, 1.0, 800.0, 0.0, 100.0) == pytest.approx(0.5, abs=1e-9)
    assert clock_of(1.0, 0.5, 300.0, 100.0, 175.0 / 1.5) == pytest.approx(0.5, abs=1e-9)
    assert clock_of(1.0, 0.5, 300.0, 100.0, 400.0) == 1.0
    assert clock_of(1.0, 0.0, 300.0, 100.0, 1.0) == LOWEST_CLOCK


@settings(max_examples=15, deadline=None)
@given(limit=st.floats(250.0, 900.0), batch=st.sampled_from([1, 64, 512]))
def test_no_run_exceeds_its_limit_and_a_higher_limit_is_never_slower(limit: float, batch: int) -> None:
    now, more = run(board(board_power=limit), batch), run(board(board_power=limit * 1.1), batch)
    assert now.average_power_W <= limit * (1 + 1e-6)
    assert more.latency_s <= now.latency_s * (1 + 1e-9)


def test_training_slows_under_its_cap_and_the_result_says_so() -> None:
    task = Training(method=Full(), batch=8, sequence=2048)
    free = simulate("llama-3.2-1b", task, board(board_power=2000.0), thermal="none")
    held = simulate("llama-3.2-1b", task, board(board_power=400.0), thermal="none")
    assert held.latency_s > 1.1 * free.latency_s
    assert held.energy_J < free.energy_J  # the voltage falls with the clock
    assert any("power limit holds the clock" in note for note in held.notes)
    assert not any("power limit" in note for note in free.notes)
    assert all(row.utilization <= 1 for row in held.operators)


def test_an_operation_takes_the_square_of_the_clock_of_its_energy_and_a_byte_as_much_as_ever() -> None:
    """2 J of operations and 3 J of bytes at half the clock: 0.5 J and 3 J; 1 s of which 0.4 s are clocked: 1.4 s."""
    cost = Cost(latency_s=1.5, occupancy_s=1.0, energy_J={ARITHMETIC: 2.0, "memory": 3.0}, utilization=0.7)
    slow = at_clock(cost, 0.4, 0.5)
    assert slow.energy_J == {ARITHMETIC: 0.5, "memory": 3.0}
    assert (slow.occupancy_s, slow.latency_s) == pytest.approx((1.4, 1.9))
    assert slow.utilization == pytest.approx(0.5)  # the same work in 1.4 times the time
