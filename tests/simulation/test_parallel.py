"""Do several chips share a task as the published formulas say, and cost no operation more?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, Inference, LoRA, TierformError, load_chip, simulate
from tierform.workload.parallel import Parallelism


def test_do_two_copies_take_half_of_the_batch_each() -> None:
    task = FineTuning(batch=8, sequence=128)
    one = simulate("gpt2", task, "a100")
    two = simulate("gpt2", task, "a100", parallelism=Parallelism(data=2))
    assert two.operations == pytest.approx(one.operations, rel=0.02)
    assert 0.4 * one.latency_s < two.latency_s < one.latency_s
    assert two.energy_J_by_component["interconnect"] > 0
    gradients = two.memory_footprint_B["gradients"]
    link = load_chip("a100").cluster
    assert link is not None
    expected = (2 * (2 - 1) / 2) * gradients * link.energy.value * 2
    assert two.energy_J_by_component["interconnect"] == pytest.approx(expected, rel=1e-6)


def test_is_the_pipeline_bubble_the_published_one() -> None:
    task = FineTuning(batch=8, sequence=128)
    one = simulate("gpt2-medium", task, "a100", micro_batches=8)
    four = simulate("gpt2-medium", task, "a100", micro_batches=8, parallelism=Parallelism(pipeline=4))
    forward = {result.chips: next(s.latency_s for s in result.stages if s.name == "forward") for result in (one, four)}
    # GPipe: (m + p - 1) / m of the ideal p-th; embedding and head make the groups uneven.
    assert forward[4] == pytest.approx(forward[1] / 4 * (8 + 3) / 8, rel=0.15)
    assert four.energy_J_by_component["gpu"] > one.energy_J_by_component["gpu"]


def test_are_impossible_splits_refused() -> None:
    task = Inference(batch=3, sequence=64)
    with pytest.raises(TierformError, match="does not divide among 2 copies"):
        simulate("gpt2", task, "a100", parallelism=Parallelism(data=2))
    with pytest.raises(TierformError, match="does not divide among 5 chips"):
        simulate("gpt2", task, "a100", parallelism=Parallelism(tensor=5))
    with pytest.raises(TierformError, match="pipeline groups"):
        simulate("gpt2", task, "a100", parallelism=Parallelism(pipeline=99))
    with pytest.raises(TierformError, match="what joins them"):
        simulate("gpt2", FineTuning(LoRA(8)), "atleus", parallelism=Parallelism(data=2))
    with pytest.raises(TierformError, match="at least 1"):
        Parallelism(tensor=0)


def test_does_a_405b_model_fit_on_256_chips() -> None:
    split = Parallelism(tensor=8, pipeline=16, data=2)
    task = FineTuning(batch=64, sequence=2048, recomputation="full")
    result = simulate("llama-3.1-405b", task, "h100", parallelism=split)
    assert result.chips == 256
    assert sum(result.memory_footprint_B.values()) < 80e9
    assert result.stages[0].tokens == 64 * 2048
