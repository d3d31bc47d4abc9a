"""Is the largest batch that is told the largest that `simulate` accepts, and do ways cost what `simulate` says?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import tierform
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.fit_splits import fits_on
from tierform.simulation.ways import fits, timed, with_most_batch
from tierform.studio.fitted import fit_asked
from tierform.workload.recomputation import RECOMPUTATIONS

CHOICES = (*RECOMPUTATIONS, "least")


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


def test_are_splits_those_of_simulate_and_the_cheapest_that_of_fit() -> None:
    job = tierform.Job("gpt2", tierform.FineTuning(tierform.LoRA(8), batch=8), "rtx-4090", thermal="none").loaded()
    told = list(fits_on(job, 4))
    splits = [one for one in told if one["event"] == "split"]
    # 4 = 4x1x1, 2x1x2, 1x1x4, 2x2x1, 1x2x2, 1x4x1, and ZeRO 3 where there are copies: 9 of each of three ways.
    assert len(splits) == 27 and all(one["data"] * one["tensor"] * one["pipeline"] == 4 for one in splits)
    lora = {(s["data"], s["tensor"], s["pipeline"], s["zero"]): s for s in splits if s["name"] == "LoRA, rank 8"}
    one = lora[2, 1, 2, 0]
    split = tierform.Parallelism(data=2, pipeline=2)
    mine = replace(job, parallelism=split, micro_batches=one["micro_batches"]).simulate()
    assert (one["latency_s"], one["energy_J"]) == (mine.latency_s, mine.energy_J)
    best = next(way for way in told if way["event"] == "fit" and way["name"] == "LoRA, rank 8")
    assert best["latency_s"] == min(s["latency_s"] for s in lora.values() if "latency_s" in s)
    assert all(one["most_batch"] >= 8 for one in told if one["event"] == "fit")
    found = tierform.fit("gpt2", job.task, "rtx-4090", gpus=4, methods=[tierform.LoRA(8)])
    assert found.best is not None and 0.97 * best["latency_s"] <= found.best.latency_s <= best["latency_s"]


def test_has_a_pipeline_of_many_micro_batches_a_largest_batch() -> None:
    """Less than one sequence for each micro-batch is no batch that does not fit."""
    job = tierform.Job("gpt2", tierform.FineTuning(tierform.Full(), batch=32, sequence=64), "rtx-4090").loaded()
    split = replace(job, parallelism=tierform.Parallelism(data=2, pipeline=2), micro_batches=16)
    told = with_most_batch(split, timed(split), 24_000_000_000)
    most = told["most_batch"]
    assert most >= 32 and most % 2 == 0
    replace(split, task=replace(job.task, batch=most)).simulate()  # type: ignore[type-var]


def test_do_splits_that_lack_bytes_say_how_many() -> None:
    job = tierform.Job(
        "llama-3.1-8b", tierform.FineTuning(tierform.Full(), batch=4), "rtx-4090", thermal="none"
    ).loaded()
    told = [one for one in fits_on(job, 4) if one["event"] == "split" and one["name"] == "full"]
    whole = next(one for one in told if one["data"] == 4 and one["zero"] == 0)
    spread = next(one for one in told if one["data"] == 4 and one["zero"] == 3)
    assert "latency_s" not in whole and sum(whole["parts_B"].values()) > 24e9
    assert sum(spread["parts_B"].values()) < sum(whole["parts_B"].values()) / 2


def asked(job: tierform.Job, **choices: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    fit_asked(job.loaded(), choices, told.append)
    return [one for one in told if one["event"] in ("fit", "split")]


def test_is_what_is_recomputed_the_least_that_fits() -> None:
    job = tierform.Job("bert-large", tierform.FineTuning(tierform.LoRA(8), batch=256), "rtx-4090", thermal="none")
    found = {choice: {one["name"]: one for one in asked(job, recomputation=choice)} for choice in ("", *CHOICES)}
    full = {choice: ways["full"] for choice, ways in found.items()}
    assert "latency_s" not in full["none"] and full["none"]["parts_B"] == full[""]["parts_B"]
    assert "latency_s" not in full["selective"] and "latency_s" in full["full"]
    # The first of none, selective and full that fits; what is kept, and the largest batch, are those of it.
    assert full["least"] == {**full["full"], "recomputation": "full"}
    assert full["least"]["most_batch"] > 256 > full["none"]["most_batch"]
    for name, way in found["least"].items():
        first = next(one for one in RECOMPUTATIONS if "latency_s" in found[one][name])
        assert way["recomputation"] == first and way["latency_s"] == found[first][name]["latency_s"]
    task = replace(job.task, method=tierform.Full(), recomputation="full")  # type: ignore[type-var]
    assert full["full"]["latency_s"] == replace(job, task=task).simulate().latency_s


def test_are_formats_asked_for_those_that_wait_in_memory() -> None:
    task = tierform.FineTuning(tierform.LoRA(8), batch=4, sequence=128)
    job = tierform.Job("gpt2", task, "h100", thermal="none")
    plain, wide = ({one["name"]: one for one in asked(job, **given)} for given in ({}, {"weights": "fp32"}))
    assert wide["full"]["parts_B"]["weights"] == 2 * plain["full"]["parts_B"]["weights"]
    assert "master_weights" in plain["full"]["parts_B"] and not wide["full"]["parts_B"].get("master_weights")
    narrow = asked(replace(job, task=tierform.Inference(batch=4, sequence=128, decode=8)), kv_cache="fp8")[0]
    usual = asked(replace(job, task=tierform.Inference(batch=4, sequence=128, decode=8)))[0]
    assert 2 * narrow["parts_B"]["kv_cache"] == usual["parts_B"]["kv_cache"]


def test_are_the_stages_of_zero_those_asked_for() -> None:
    job = tierform.Job("gpt2", tierform.FineTuning(tierform.LoRA(8), batch=4, sequence=64), "rtx-4090", thermal="none")
    for zero, stages in (("", {0, 3}), ("2", {2}), ("all", {0, 1, 2, 3})):
        told = [one for one in asked(job, chips=2, zero=zero) if one["event"] == "split"]
        assert {one["zero"] for one in told if one["data"] == 2} == stages
        assert {one["zero"] for one in told if one["data"] == 1} == {0}


def test_is_everything_that_is_wrong_told_at_once() -> None:
    job = tierform.Job("gpt2", tierform.Inference(batch=1, sequence=64, decode=4), "h100", thermal="none")
    with pytest.raises(tierform.TierformError) as error:
        asked(job, chips=65, weights="bf61", kv_cache=8, recomputation="full", zero="4")
    assert [one.key for one in error.value.problems] == ["chips", "recomputation", "zero", "weights", "kv_cache"]
    assert error.value.problems[3].nearest == "bf16"
    tuned = replace(job, task=tierform.FineTuning(tierform.LoRA(8)))
    with pytest.raises(tierform.TierformError) as error:
        asked(tuned, recomputation="ful", zero="3")
    assert [(one.key, one.nearest) for one in error.value.problems] == [("recomputation", "full"), ("zero", None)]


def test_is_a_chip_that_nothing_joins_refused() -> None:
    job = tierform.Job("bert-base", tierform.FineTuning(tierform.LoRA(8), batch=8), "retransformer").loaded()
    with pytest.raises(tierform.TierformError, match="what joins them"):
        list(fits_on(job, 2))
