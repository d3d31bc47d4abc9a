"""Does writing cost what it should, and does the ledger of wear add up?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.chip.component import Wearing
from tierform.chip.crossbar.wear import WearLedger
from tierform.chip.description import load_component
from tierform.errors import TierformError
from tierform.simulation import simulate
from tierform.workload import FineTuning, Full


def test_writing_goes_row_by_row_in_rounds_of_tiles() -> None:
    two = load_component("reram", 2, "isaac-tile-32nm")
    row_s = 50.88e-9 * 4
    assert two.programming_cost(1).latency_s == pytest.approx(128 * row_s)  # type: ignore[attr-defined]
    assert two.programming_cost(5).latency_s == pytest.approx(3 * 128 * row_s)  # type: ignore[attr-defined]
    cost = two.programming_cost(5, 2.0)  # type: ignore[attr-defined]
    assert cost.cell_writes == 2 * 5 * 128 * 128
    assert cost.total_energy_J == pytest.approx(cost.cell_writes * 44e-12)


def test_verifying_is_paid_for_each_pulse() -> None:
    verified = {"value": "1 pJ", "kind": "assumed", "note": "a read for each pulse"}
    tile = load_component("reram", 1, "isaac-tile-32nm", {"verify_energy": verified})
    assert tile.programming_cost(1).total_energy_J == pytest.approx(128 * 128 * 48e-12)  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.floats(0.5, 4)), min_size=1, max_size=30))
def test_every_write_is_booked_once(passes: list[tuple[int, int, float]]) -> None:
    ledger = WearLedger(16, 1e6, 64)
    plain = [0.0] * 16
    for first, count, each in passes:
        ledger.write(first, count, each)
        for index in range(first, first + count):
            plain[index] += each
    assert ledger.cell_writes == pytest.approx(64 * sum(plain))
    assert ledger.most == pytest.approx(max(plain))
    if max(plain):
        assert ledger.runs_left() == pytest.approx(1e6 / max(plain))
        assert ledger.lifetime_s(10.0, levelled=True) >= ledger.lifetime_s(10.0) * (1 - 1e-12)


def test_without_writes_cells_last_for_ever() -> None:
    ledger = WearLedger.of(load_component("reram", 1, "isaac-tile-32nm"))
    assert ledger.crossbars == 96
    assert ledger.lifetime_s(1.0) == float("inf") == ledger.runs_left()
    assert ledger.used_share == 0


@given(first=st.integers(0, 7), count=st.integers(1, 8), passes=st.floats(0, 100))
def test_taking_turns_writes_everything_and_wears_evenly(first: int, count: int, passes: float) -> None:
    ledger = WearLedger(16, 1e6, 10)
    ledger.rotate(first, count, passes)
    assert ledger.cell_writes == pytest.approx(10 * passes)
    region = ledger.writes[first : first + count]
    assert region.max() - region.min() <= 1 + 1e-9
    assert ledger.writes.sum() == pytest.approx(region.sum())


def test_a_full_fine_tuning_step_reports_the_lifetime_of_its_cells() -> None:
    result = simulate("bert-base", FineTuning(method=Full(), batch=1, sequence=128, steps=10), "atleus")
    assert result.wear.writes_per_cell == pytest.approx(10)
    assert result.wear.lifetime_tasks == pytest.approx(1e7)
    assert result.wear.lifetime_s == pytest.approx(1e7 * result.latency_s)


def test_crossbars_that_are_not_there_are_refused() -> None:
    ledger = WearLedger(4, 10.0, 1)
    for first, count in ((3, 2), (-1, 1), (0, 5)):
        with pytest.raises(TierformError):
            ledger.write(first, count)


def test_weights_are_refreshed_before_they_are_lost() -> None:
    lasting, day = load_component("reram", 1, "isaac-tile-32nm"), load_component("pcm", 1, "hermes-pcm-14nm")
    assert isinstance(lasting, Wearing) and isinstance(day, Wearing)
    assert lasting.refreshes(1e9) == 0
    assert [day.refreshes(hours * 3600.0) for hours in (0, 23.9, 24, 240)] == [0, 0, 1, 10]
