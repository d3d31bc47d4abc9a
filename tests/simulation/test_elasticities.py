"""Do elasticities say what brute force says, and what must hold by the physics of a chip?"""

from __future__ import annotations

import math
from typing import Literal

import pytest

from tierform import Inference, TierformError, load_chip, simulate
from tierform.simulation.elasticity import elasticities
from tierform.simulation.job import Job

TASK = Inference(batch=1, sequence=64)


def job(chip: str, thermal: Literal["none", "steady"] = "none") -> Job:
    return Job(model="bert-base", task=TASK, chip=chip, thermal=thermal)


def test_do_elasticities_equal_brute_force_runs() -> None:
    paths = ["components.systolic.clock", "components.reram.parts.adc.energy", "network.width"]
    found = {one.path: one for one in elasticities(job("atleus", "steady"), paths)}
    chip = load_chip("atleus")
    for path, text, grown in (
        ("components.systolic.clock", "707 MHz", 1.01),
        ("components.reram.parts.adc.energy", None, 1.01),
        ("network.width", "259 bit", 259 / 256),
    ):
        was = chip.components["systolic"].parameters.clock  # type: ignore[attr-defined]
        if path.endswith("clock"):
            text = f"{was.value * 1.01!r} Hz"
        elif text is None:
            text = f"{chip.components['reram'].parameters.parts['adc'].energy.value * 1.01!r} J"  # type: ignore[attr-defined]
        first = simulate("bert-base", TASK, chip)
        other = simulate("bert-base", TASK, chip.vary({path: text}), mapping=first.mapping)
        assert first.thermal is not None and other.thermal is not None
        hotter_K = (other.thermal["peak_K"] - first.thermal["peak_K"]) * math.log(1.01) / math.log(grown)
        assert found[path].heat_K == pytest.approx(hotter_K, rel=0.01, abs=1e-6)
        for name, figure in (("latency", "latency_s"), ("energy", "energy_J"), ("area", "area_m2")):
            change = math.log(getattr(other, figure) / getattr(first, figure)) / math.log(grown)
            assert getattr(found[path], name) == pytest.approx(change, rel=0.01, abs=1e-9)


def test_does_an_energy_move_no_time_and_its_share_of_the_energy() -> None:
    path = "components.reram.parts.adc.energy"
    (found,) = elasticities(job("atleus"), [path])
    result = simulate("bert-base", TASK, "atleus", thermal="none")
    share = result.energy_J_by_part["reram: adc"] / result.energy_J
    assert found.latency == 0
    # Energy is linear in the constant: the elasticity is the part's share, but for the curvature of 1 %.
    assert found.energy == pytest.approx(share, rel=0.01)


def test_do_areas_together_make_the_silicon() -> None:
    # Silicon is linear in the areas of its parts: their elasticities are their shares, and sum to 1 at most (routers).
    found = elasticities(job("atleus"))
    areas = [one for one in found if one.path.endswith(".area") or one.path.endswith("_area")]
    assert len(areas) >= 5 and all(one.area >= 0 and one.latency == 0 for one in areas)
    assert 0.8 < math.fsum(one.area for one in areas) <= 1 + 1e-6
    assert all(one.heat_K is None for one in found) and not any(one.path.startswith("cooling") for one in found)


def test_is_a_sink_of_more_resistance_hotter_by_its_share() -> None:
    """The sink adds its resistance times the power to each tile, and leakage follows: 1 % of both at least."""
    asked = job("atleus", "steady")
    (found,) = elasticities(asked, ["cooling.sink_resistance"])
    result = asked.simulate()
    added_K = 0.01 * found.constant.value * result.average_power_W
    assert found.area == found.latency == 0 and found.heat_K is not None
    assert added_K <= found.heat_K < 1.5 * added_K
    assert found.energy > 0  # hotter silicon leaks more


def test_do_all_clocks_together_take_the_time() -> None:
    # Every constant alone never makes it slower than in proportion, and the largest stand first.
    found = elasticities(job("atleus"))
    sizes = [max(abs(one.latency), abs(one.energy)) for one in found]
    assert sizes == sorted(sizes, reverse=True)
    assert all(-1 - 1e-6 <= one.latency <= 1 + 1e-6 for one in found)
    assert {"network.clock", "components.systolic.clock", "components.reram.cycle"} <= {one.path for one in found}


def test_is_an_unknown_path_refused_with_the_nearest() -> None:
    with pytest.raises(TierformError) as caught:
        elasticities(job("atleus"), ["components.systolic.clok"])
    assert caught.value.problems[0].nearest == "components.systolic.clock"


def test_does_a_run_that_waits_for_memory_follow_its_speed() -> None:
    # A token of GPT-2 on systolic arrays streams all weights: the whole time goes with the bandwidth.
    task = Inference(batch=1, sequence=32, decode=8)
    asked = Job(model="gpt2", task=task, chip="tpu-3d", thermal="none")
    (found,) = elasticities(asked, ["memory.0.speed"])
    assert -1 <= found.latency < -0.95
    chip = load_chip("tpu-3d")
    first = simulate("gpt2", task, chip, thermal="none")
    other = simulate("gpt2", task, chip.vary({"memory.0.speed": 1.01}), thermal="none", mapping=first.mapping)
    assert found.latency == pytest.approx(math.log(other.latency_s / first.latency_s) / math.log(1.01), rel=0.01)
    # A byte takes the same energy; what falls is standby and leakage over a shorter time.
    assert other.energy_J < first.energy_J


def test_is_a_speed_of_what_is_no_dram_refused() -> None:
    chip = load_chip("tpu-3d").vary({"memory.0.device": "cxl-ddr5-x8", "memory.0.speed": 2})
    with pytest.raises(TierformError, match="only DRAM"):
        simulate("gpt2", TASK, chip, thermal="none")
