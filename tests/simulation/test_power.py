"""Does a board draw what it must: its floor while it works, energies on top, and never more than its limit?"""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform import Full, Inference, Result, Training, load_chip, simulate
from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.provenance import Constant
from tierform.simulation.power_cap import ARITHMETIC, LOWEST_CLOCK, at_clock, clock_of, held_to_limit, slowed
from tierform.workload.graph import StageKind
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
    # At four fifths: 0.64 of the energy; 0.4 s take 0.5 s.
    slow = at_clock(cost, 0.4, 0.8)
    assert slow.energy_J == pytest.approx({ARITHMETIC: 1.28, "memory": 3.0})
    assert (slow.occupancy_s, slow.latency_s) == pytest.approx((1.1, 1.6))


class Board:
    """10 GB/s of memory, 10 W above idling."""

    active_W, headroom_W = 0.0, 10.0

    def memory_s(self, size_B: float) -> float:
        return size_B / 10e9


def test_is_a_pass_of_many_kernels_held_to_the_limit() -> None:
    """Twice a kernel of 0.7 s with 2 GB (0.2 s), 4 J and 1 J; three times one of 0.3 s with 6 GB, hidden behind them.

    Of 2.6 s 2 x 0.5 s follow the clock.  Operations take 8 + 3 J and bytes 2 + 6 J: 19 J in 2.6 s are within 26 J.
    Within 7 W they are not: at 4/5 of the clock it takes 2.85 s and 0.64 x 11 + 8 = 15.04 J, 5.277 W.
    """

    def made(component: str, seconds: float, joules: float, bytes_J: float, size_B: float) -> Any:
        energy = {ARITHMETIC: joules, "memory": bytes_J}
        cost = Cost(seconds, seconds, energy, memory_read_B=0.75 * size_B, memory_write_B=0.25 * size_B)
        return SimpleNamespace(component=component, cost=cost)

    def run_of(limit_W: float, groups: int = 1) -> tuple[float, float, list[Any]]:
        board: Any = Board()
        board.headroom_W = limit_W
        items = [
            (made("gpu", 0.7, 4.0, 1.0, 2e9), 2.0),
            (made("gpu", 0.3, 1.0, 2.0, 6e9), 3.0),
            (made("links", 9.0, 99.0, 0.0, 0.0), 1.0),  # another component's
        ]
        return *held_to_limit("gpu", board, items, 2.6, groups), [item for item, _ in items]

    assert run_of(7.4)[:2] == (1.0, 2.6)
    clock, seconds, items = run_of(15.04 / 2.85)
    assert (clock, seconds) == pytest.approx((0.8, 2.85))
    assert [item.cost.occupancy_s for item in items] == pytest.approx([0.2 + 0.5 / 0.8, 0.3, 9.0])
    assert [item.cost.energy_J[ARITHMETIC] for item in items] == pytest.approx([4 * 0.64, 0.64, 99.0])
    # Two boards that share the work spend half of it each in their 2.6 s: half of the watts do.
    clock, seconds, _ = run_of(0.5 * (0.64 * 11 + 8) / (2.6 + 0.5 * 0.25), groups=2)
    assert (clock, seconds) == pytest.approx((0.8, 2.6 + 0.125))
    # Where the lowest clock does not suffice, the pass is as long as its joules need.
    clock, seconds, _ = run_of(1.0)
    assert (clock, seconds) == pytest.approx((LOWEST_CLOCK, 0.04 * 11 + 8))


def test_which_stages_are_said_to_be_slow() -> None:
    def stage(kind: StageKind, clock: float) -> Any:
        return SimpleNamespace(stage=SimpleNamespace(kind=kind), clock=clock)

    told = slowed([stage(StageKind.PREFILL, 0.876), stage(StageKind.DECODE, 1.0), stage(StageKind.PREFILL, 0.912)])
    assert told == ("prefill: the board's power limit holds the clock at 88%",)


def test_what_a_lower_clock_and_software_add_are_limits_of_their_own() -> None:
    """Freed, the power limit takes the pass to what it takes without one; no memory or network is credited with it."""
    chip, task = load_chip("h100"), Inference(batch=8, sequence=2048, decode=1)
    held = simulate("llama-3.1-8b", task, chip, thermal="none")
    free_chip = chip.vary({"components.gpu.board_power": "70 kW"})
    free = simulate("llama-3.1-8b", task, free_chip, thermal="none")
    prompt, unheld = held.limits[0], free.limits[0]
    assert set(prompt.gains_s) == {"gpu", "power limit"} and set(unheld.gains_s) == {"gpu"}
    assert prompt.gains_s["power limit"] == pytest.approx(prompt.seconds - unheld.seconds, rel=1e-9)
    assert prompt.gains_s["gpu"] == pytest.approx(unheld.gains_s["gpu"], rel=1e-9)
    served = simulate("llama-3.1-8b", task, free_chip, thermal="none", runtime="vllm").limits[-1]
    assert set(served.gains_s) == {"gpu", "software"}
