"""Does the main job show what the published systems show, and are energy, bytes and time conserved?"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import tierform
from tierform import Full, Inference, LoRA, PrecisionPlan, TierformError
from tierform.simulation import Result


def fine_tune(model: str = "bert-large", chip: str = "atleus", **given: object) -> Result:
    options: dict[str, object] = {"method": LoRA(rank=32), "batch": 8, "sequence": 512} | given
    return tierform.simulate(model, tierform.FineTuning(**options), chip)  # type: ignore[arg-type]


def with_weights(text: str) -> PrecisionPlan:
    chip = tierform.load_chip("atleus")
    assert chip.precision is not None
    return chip.precision.with_weights(text)


def test_is_the_published_share_of_operations_on_reram() -> None:
    result = fine_tune("gpt2-medium", sequence=1024, batch=1)
    assert result.operation_share["reram"] == pytest.approx(0.919, abs=0.001)
    assert result.operation_share["reram"] == pytest.approx(12 / (12 + 1 + 2 * 32 / 1024), rel=1e-12)


def test_do_24_layers_of_width_1024_fit_exactly_at_8_bits() -> None:
    result = fine_tune()
    assert result.crossbars["available"] == 3 * 24576
    assert result.crossbars["used"] == 3 * 24576


def test_are_16_bit_weights_streamed_or_refused_in_clear_words() -> None:
    task = tierform.FineTuning(LoRA(32), batch=1, sequence=128, precision=with_weights("16"))
    streamed = tierform.simulate("bert-large", task, "atleus", mapping="plain")
    assert streamed.crossbars["streamed"] > 0
    assert streamed.wear.cell_writes > 0
    assert any("do not fit" in note for note in streamed.notes)
    with pytest.raises(TierformError, match="147,456 crossbars") as caught:
        tierform.simulate("bert-large", task, "atleus", overflow="refuse")
    assert "73,728" in str(caught.value)


def test_does_lora_fine_tuning_write_no_crossbar() -> None:
    assert fine_tune().crossbar_writes == 0


def test_does_full_fine_tuning_report_writes_energy_and_lifetime() -> None:
    result = fine_tune(method=Full(), batch=4)
    assert result.crossbar_writes == 73728 * 128 * 128
    assert result.energy_J_by_operator["programming"] > 0
    assert result.wear.lifetime_tasks == pytest.approx(result.wear.endurance_writes)
    assert result.wear.lifetime_s == pytest.approx(result.wear.endurance_writes * result.latency_s)


def test_does_energy_fall_with_weight_bits_near_linearly() -> None:
    energies = {}
    for bits in ("16", "8", "6", "4", "2"):
        task = Inference(batch=1, sequence=128, precision=replace(with_weights(bits), master_weights=None))
        result = tierform.simulate("bert-base", task, "atleus")
        assert result.crossbars["streamed"] == 0 or bits == "16"
        energies[int(bits)] = result.energy_J_by_component["reram"] - _idle(result, "reram")
    assert all(energies[a] > energies[b] for a, b in pairwise((16, 8, 6, 4, 2)))
    slope = (energies[8] - energies[2]) / 6
    for bits in (4, 6):
        assert energies[bits] == pytest.approx(energies[2] + slope * (bits - 2), rel=0.05)


def _idle(result: Result, component: str) -> float:
    programming = result.energy_J_by_part.get(f"{component}: programming", 0.0)
    return result.energy_J_by_part.get(f"{component}: idle and leakage", 0.0) + programming


def test_does_m8f4_take_less_energy_than_m4f8() -> None:
    plans = {name: with_weights(name) for name in ("M8F4", "M4F8")}
    spent = {name: fine_tune(precision=plan).energy_J for name, plan in plans.items()}
    assert spent["M8F4"] < spent["M4F8"] < fine_tune().energy_J


def test_do_2_5d_and_3d_differ_by_links_alone() -> None:
    stack, side = fine_tune(), fine_tune(chip="atleus-2.5d")
    assert stack.operations == side.operations
    assert stack.crossbars == side.crossbars
    for part in ("reram: adc", "systolic: mac", "vector: operations"):
        assert stack.energy_J_by_part[part] == side.energy_J_by_part[part]
    assert side.energy_J_by_part["network: routers and links"] > stack.energy_J_by_part["network: routers and links"]
    assert side.latency_s > stack.latency_s


@pytest.mark.parametrize(
    ("model", "task", "chip"),
    [
        ("bert-large", tierform.FineTuning(LoRA(32), batch=4, sequence=256), "atleus"),
        ("bert-large", tierform.FineTuning(Full(), batch=2, sequence=128), "atleus-2.5d"),
        ("gpt2", tierform.Training(batch=2, sequence=128, steps=10), "a100"),
        ("llama-3.1-8b", Inference(batch=4, sequence=512, decode=64), "a100"),
        ("gpt2", Inference(batch=1, sequence=128, decode=8), "atleus"),
    ],
)
def test_do_the_views_of_energy_operations_and_time_agree(model: str, task: tierform.FineTuning, chip: str) -> None:
    result = tierform.simulate(model, task, chip)
    for view in (result.energy_J_by_component, result.energy_J_by_operator, result.energy_J_by_part):
        assert sum(view.values()) == pytest.approx(result.energy_J, rel=1e-9)
        assert min(view.values()) >= 0
    assert sum(stage.energy_J for stage in result.stages) == pytest.approx(result.energy_J, rel=1e-9)
    assert sum(stage.latency_s for stage in result.stages) == pytest.approx(result.latency_s, rel=1e-9)
    for view in (result.operations_by_component, result.operations_by_operator):
        assert sum(view.values()) == pytest.approx(result.operations, rel=1e-9)
    assert all(0 <= value <= 1 + 1e-9 for value in result.utilization.values())
    assert all(seconds <= result.latency_s * (1 + 1e-9) for seconds in result.busy_s_by_resource.values())
    placed = sum(sum(parts.values()) for parts in result.memory_placement_B.values())
    assert placed <= sum(result.memory_footprint_B.values())
    if result.link_bytes and max(result.link_bytes) > 0:
        assert sum(result.link_bytes) >= result.network_B * (1 - 1e-9) * 0.5
        assert max(result.link_bytes) / result.latency_s <= 256 / 8 * 1e9 * (1 + 1e-9)


def test_do_ten_steps_cost_ten_times_one() -> None:
    one, ten = fine_tune(batch=1, sequence=128), fine_tune(batch=1, sequence=128, steps=10)
    assert ten.latency_s == pytest.approx(10 * one.latency_s)
    assert ten.energy_J == pytest.approx(10 * one.energy_J)
    assert ten.operations == pytest.approx(10 * one.operations)


def test_is_a_repeated_simulation_bit_identical(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        fine_tune(batch=2, sequence=128).save(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_does_json_hold_the_documented_keys(tmp_path: Path) -> None:
    result = fine_tune(batch=1, sequence=128)
    result.save(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["schema"] == "tierform.result/1"
    documented = (Path(__file__).parents[2] / "docs" / "result.md").read_text()
    for key in content:
        assert f"`{key}`" in documented, f"docs/result.md does not tell what {key} is"


def test_does_the_stack_heat_up_and_leak_more() -> None:
    task = tierform.FineTuning(LoRA(32), batch=2, sequence=128)
    warm = tierform.simulate("bert-large", task, "atleus")
    assert warm.thermal is not None
    assert warm.thermal["peak_K"] > 318.15
    dies = {die["name"]: die for die in warm.thermal["dies"]}
    assert dies["systolic"]["mean_K"] > dies["reram-3"]["mean_K"], "the sink is above the uppermost tier"
    assert sum(die["power_W"] for die in dies.values()) <= warm.average_power_W * (1 + 1e-6)
    cold = tierform.simulate("bert-large", task, "atleus", thermal="none")
    assert cold.latency_s == warm.latency_s
    assert cold.thermal is None


def test_does_a_model_that_fits_nowhere_say_so() -> None:
    with pytest.raises(TierformError, match="does not fit"):
        tierform.simulate("gpt3-175b", Inference(batch=1, sequence=128), "a100")
