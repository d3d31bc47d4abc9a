"""Which ways to do a task are tried, what does each need, and how many sequences fit, by hand?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy import HERE, INFERENCE, MODEL, TRAINING

import tierform
from tierform import FineTuning, Full, Inference, LoRA, Parallelism, QLoRA, TierformError
from tierform.simulation.fit_ways import FitWay, micro_batches_of, offloads_of, recomputations_of, splits_of, tasks_of
from tierform.simulation.job import Job
from tierform.simulation.ways import MOST_BATCH, fits, largest_batch
from tierform.workload.precision import PrecisionPlan


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 8, 9, 100, 1365, 1366, 4095, 4096, 5000])
def test_is_the_largest_batch_the_last_that_fits(most: int, copies: int) -> None:
    """Multiples of the copies up to 4096, from one that fits on."""
    asked: list[int] = []

    def fit(batch: int) -> bool:
        asked.append(batch)
        return batch <= most * copies

    expected = max(batch for batch in range(copies, MOST_BATCH + copies, copies) if batch <= min(most * copies, 4096))
    assert largest_batch(fit, copies, copies) == expected
    assert largest_batch(fit, copies, expected) == expected
    assert max(asked) <= MOST_BATCH and all(batch % copies == 0 for batch in asked)


def ways(task: Inference | FineTuning, capacity: str, split: Parallelism | None = None) -> list[dict[str, object]]:
    chip = tierform.load_chip(HERE / "toy-gpu.yaml").vary({"components.gpu.memory_capacity": capacity})
    job = Job(MODEL, task, chip, parallelism=split or Parallelism(), thermal="none").loaded()
    found = list(fits(job))
    ways = [event for event in found if event["event"] == "fit"]
    told = [event for event in found if event["event"] == "progress"]
    assert [(event["done"], event["total"], event["text"]) for event in told] == [
        (number, len(ways), way["name"]) for number, way in enumerate(ways)
    ]
    return ways


def test_how_many_sequences_of_the_toy_model_fit() -> None:
    """2,848 bytes of weights; a sequence keeps 320 of keys and values, 240 at the widest moment: 12 of them in 10 kB.

    In int8 the weights of layers and the table take half.
    """
    bf16, int8, int4 = ways(INFERENCE, "10 kB")
    assert [way["name"] for way in (bf16, int8, int4)] == ["weights bf16", "weights int8", "weights int4"]
    assert bf16["capacity_B"] == 10_000 and bf16["most_batch"] == (10_000 - 2848) // 560 == 12
    parts = bf16["parts_B"]
    assert isinstance(parts, dict) and (parts["weights"], parts["kv_cache"], parts["activations"]) == (2848, 640, 480)
    result = tierform.simulate(MODEL, INFERENCE, HERE / "toy-gpu.yaml", thermal="none")
    assert (bf16["latency_s"], bf16["energy_J"]) == pytest.approx((result.latency_s, result.energy_J))
    assert bf16["chips"] == 1
    narrow = int8["parts_B"]
    assert isinstance(narrow, dict) and int8["most_batch"] == (10_000 - narrow["weights"]) // 560
    # Two copies: whole numbers for each.
    two = ways(INFERENCE, "10 kB", Parallelism(data=2))[0]
    assert two["most_batch"] == 24 and two["chips"] == 2


def test_is_it_told_what_is_missing_where_a_way_does_not_fit() -> None:
    """3,600 bytes hold the weights and one sequence, not two; 3,000 not even one."""
    way = ways(INFERENCE, "3600 B")[0]
    assert way["most_batch"] == 1 and "does not fit" in str(way["problem"]) and "latency_s" not in way
    parts = way["parts_B"]
    assert isinstance(parts, dict) and sum(parts.values()) == 2848 + 2 * 560
    assert ways(INFERENCE, "3000 B")[0]["most_batch"] == 0


def test_which_methods_of_training_are_ways() -> None:
    names = [way["name"] for way in ways(replace(TRAINING, method=LoRA(2, ("q",))), "1 GB")]
    assert names == ["full", "LoRA, rank 2", "QLoRA, rank 2"]
    assert [way["name"] for way in ways(TRAINING, "1 GB")] == ["full", "LoRA, rank 8", "QLoRA, rank 8"]


def test_which_tasks_are_tried() -> None:
    plan = PrecisionPlan(weights="int8")
    full = FineTuning(Full())
    assert [name for name, _ in tasks_of(full, None, plan)] == ["full", "lora", "qlora"]
    assert [name for name, _ in tasks_of(tierform.Training(), None, plan)] == ["full"]
    named = tasks_of(full, [QLoRA(4)], plan)
    assert [(name, task.method) for name, task in named] == [("qlora", QLoRA(4))]  # type: ignore[union-attr]
    assert [name for name, _ in tasks_of(INFERENCE, None, plan)] == ["int8", "bf16", "int4"]
    fixed = replace(INFERENCE, precision=PrecisionPlan(weights="int4"))
    assert tasks_of(fixed, None, plan) == [("int4", fixed)]
    with pytest.raises(TierformError, match="only inference"):
        tasks_of(tierform.Step((tierform.SequenceGroup(1, 1),)), None, plan)
    assert recomputations_of(INFERENCE) == ("none",) and recomputations_of(full)[0] == "none"


def test_which_parts_may_be_away() -> None:
    sets = offloads_of(INFERENCE)
    assert len(sets) == 4 and sets[0] == () and [len(one) for one in sets] == [0, 1, 1, 2]
    sets = offloads_of(TRAINING)
    assert len(sets) == len(set(sets)) == 16 and [len(one) for one in sets] == [0, *[1] * 4, *[2] * 6, *[3] * 4, 4]
    assert sets[1] == ("paged-optimizer",)


def said(task: Inference | FineTuning, chips: int, model: str = "gpt2") -> list[str]:
    found = splits_of(tierform.load_model(model), task, chips)
    return [FitWay("full", task, split, None).split for split in found]


def test_which_splits_are_tried() -> None:
    assert said(INFERENCE, 1) == [""]
    assert said(INFERENCE, 4) == [
        "data=4",
        "pipeline=2,data=2",
        "pipeline=4",
        "tensor=2,data=2",
        "tensor=2,data=2,sequence",
        "tensor=2,pipeline=2",
        "tensor=2,pipeline=2,sequence",
        "tensor=4",
        "tensor=4,sequence",
    ]
    # Of training copies may share states, in stages 0 to 3, and reduce gradients beside the backward pass below 2.
    assert said(TRAINING, 2) == [
        "data=2",
        "data=2,overlap",
        "data=2,zero=1",
        "data=2,zero=1,overlap",
        "data=2,zero=2",
        "data=2,zero=3",
        "pipeline=2",
        "tensor=2",
        "tensor=2,sequence",
    ]
    # A mixture's experts may be spread over a tensor group or the copies.
    assert len(said(INFERENCE, 2, "mixtral-8x7b")) == 2 + 1 + 2 * 2


def test_how_many_micro_batches_are_tried() -> None:
    task = Inference(batch=12, sequence=8)
    assert micro_batches_of(task, Parallelism(tensor=4)) == (None,)
    assert micro_batches_of(task, Parallelism(pipeline=3)) == (1, 2, 3, 4, 6, 8, 12)
    assert micro_batches_of(task, Parallelism(pipeline=3, data=4)) == (1, 2, 3)
    assert micro_batches_of(Inference(batch=64, sequence=8), Parallelism(pipeline=5)) == (
        1,
        2,
        4,
        5,
        8,
        10,
        16,
        20,
        32,
        40,
        64,
    )


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_do_all_splits_have_all_chips(batch: int) -> None:
    """Eight chips: every product of tensor, pipeline, context and data; a sequence is shared where copies cannot."""
    task = FineTuning(Full(), batch=batch, sequence=64)
    found = {(s.tensor, s.pipeline, s.context, s.data) for s in splits_of(MODEL, task, 8)}
    assert all(t * p * c * d == 8 for t, p, c, d in found)
    powers = (1, 2, 4, 8)
    plain = {(t, p, 1, 8 // (t * p)) for t in powers for p in powers if t * p <= 8}
    assert plain <= found
    assert all(c == 1 or batch % (c * d) for _, _, c, d in found)
    assert ((1, 1, 8, 1) in found) == (batch < 8)
