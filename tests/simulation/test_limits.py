"""Does what limits a stage agree with chips on which the resource really takes no time?"""

from __future__ import annotations

import pytest

from tierform import Inference, load_chip, simulate
from tierform.simulation.limits import DEPENDENCIES

TASK = Inference(batch=1, sequence=64)


def test_does_a_gain_agree_with_a_chip_whose_arrays_take_no_time() -> None:
    chip = load_chip("atleus")
    first = simulate("bert-base", TASK, chip, thermal="none")
    (stage,) = first.limits
    assert stage.seconds == pytest.approx(first.latency_s)
    assert list(stage.gains_s.values()) == sorted(stage.gains_s.values(), reverse=True)
    assert stage.bound_by == next(iter(stage.gains_s))
    fast = chip.vary({"components.systolic.clock": "9e12 Hz"})
    other = simulate("bert-base", TASK, fast, thermal="none", mapping=first.mapping)
    gain = first.latency_s - other.latency_s
    assert stage.gains_s.get("systolic", 0.0) == pytest.approx(gain, rel=0.01, abs=1e-3 * first.latency_s)


def test_is_the_gain_of_free_writing_that_of_cells_written_in_no_time() -> None:
    small = load_chip("atleus").vary({"components.reram.crossbars": 16})
    first = simulate("bert-base", TASK, small, thermal="none", mapping="plain")
    assert any("written to crossbars again" in note for note in first.notes)
    (stage,) = first.limits
    quick = small.vary({"components.reram.write_pulse": "1e-18 s"})
    other = simulate("bert-base", TASK, quick, thermal="none", mapping=first.mapping)
    gain = first.latency_s - other.latency_s
    assert gain > 0.1 * first.latency_s
    # Free writing takes the reads along that hide behind it; where cells are quick these stand by themselves.
    reads = other.limits[0].gains_s.get("memory", 0.0)
    # Operands that come from memory come in pieces, so their steps are served in another order: 1 % of the time.
    assert stage.gains_s["writing weights"] == pytest.approx(gain + reads, abs=0.01 * first.latency_s)


def test_is_a_chip_with_slow_links_limited_by_its_network() -> None:
    slow = load_chip("atleus").vary({"network.width": "8 bit", "network.vertical.width": "8 bit"})
    (stage,) = simulate("bert-base", TASK, slow, thermal="none").limits
    assert stage.bound_by == "network"
    assert stage.gains_s["network"] > 0.5 * stage.seconds


def test_does_a_gpu_of_one_kernel_after_the_other_hide_nothing() -> None:
    result = simulate("bert-base", TASK, "a100", thermal="none")
    (stage,) = result.limits
    assert stage.bound_by == "gpu"
    assert stage.gains_s["gpu"] == pytest.approx(stage.seconds)
    assert DEPENDENCIES not in stage.gains_s
