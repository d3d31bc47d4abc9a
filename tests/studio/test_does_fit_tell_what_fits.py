"""Is the largest batch that is told the largest that `simulate` accepts, and do ways cost what `simulate` says?"""

from __future__ import annotations

from dataclasses import replace

import pytest

import tierform
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.ways import fits


@pytest.mark.parametrize("chip", ["atleus", "rtx-4090"])
def test_is_the_largest_batch_the_largest_that_runs(chip: str) -> None:
    job = tierform.Job("bert-large", tierform.FineTuning(tierform.LoRA(8), batch=8), chip, thermal="none").loaded()
    ways = [one for one in fits(job) if one["event"] == "fit"]
    assert [one["name"] for one in ways] == ["full", "LoRA, rank 8", "QLoRA, rank 8"]
    lora = ways[1]
    result = job.simulate()
    assert lora["latency_s"] == result.latency_s and lora["energy_J"] == result.energy_J
    assert sum(lora["parts_B"].values()) <= lora["capacity_B"]
    most = lora["most_batch"]
    assert most >= 8

    def run(batch: int) -> None:
        replace(job, task=replace(job.task, batch=batch), micro_batches=1).simulate()  # type: ignore[type-var]

    run(most)
    with pytest.raises(DoesNotFit):
        run(most + 1)


def test_is_what_does_not_fit_told_by_its_bytes() -> None:
    job = tierform.Job(
        "llama-3.1-8b", tierform.FineTuning(tierform.Full(), batch=8), "rtx-4090", thermal="none"
    ).loaded()
    full = next(one for one in fits(job) if one["event"] == "fit")
    assert "latency_s" not in full and full["most_batch"] == 0
    with pytest.raises(DoesNotFit) as error:
        job.simulate()
    assert sum(full["parts_B"].values()) == error.value.needed_B > full["capacity_B"] == error.value.available_B


def test_are_formats_the_ways_of_inference() -> None:
    job = tierform.Job("gpt2", tierform.Inference(batch=1, sequence=64, decode=4), "h100", thermal="none").loaded()
    ways = [one for one in fits(job) if one["event"] == "fit"]
    assert {"weights bf16", "weights int8", "weights int4"} <= {one["name"] for one in ways}
    assert all(one["J_per_token"] > 0 for one in ways)
