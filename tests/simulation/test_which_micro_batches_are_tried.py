"""Which numbers of micro-batches are tried, and which is taken?"""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import tierform
from tierform import FineTuning, Full, Inference, Job
from tierform.simulation.choose import _Choice
from tierform.units import format_quantity
from tierform.workload.parallel import MicroBatches, Parallelism


def numbers(chip: str, task: Any, **split: int) -> list[int]:
    return _Choice(Job("gpt2", task, chip, parallelism=Parallelism(**split)).loaded())._numbers()


def test_which_numbers_are_tried() -> None:
    task = Inference(batch=17, sequence=8)
    # A chip that is a pipeline itself: powers of two up to 64, and the batch.
    assert numbers("atleus", task) == [1, 2, 4, 8, 16, 17]
    assert numbers("atleus", Inference(batch=200, sequence=8)) == [1, 2, 4, 8, 16, 32, 64]
    assert numbers("atleus", Inference(batch=1, sequence=8)) == [1]
    # A GPU runs one after the other; a line of three of them tries 3, 6, 12 and 24 parts as well.
    assert numbers("a100", task) == [1]
    assert numbers("a100", task, pipeline=3) == [1, 2, 3, 4, 6, 8, 12, 16, 17]
    assert numbers("a100", Inference(batch=64, sequence=8), pipeline=3) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64]
    # Four of eight copies' sequences each.
    assert numbers("a100", Inference(batch=32, sequence=8), pipeline=2, data=8) == [1, 2, 4]


def test_which_numbers_do_interleaved_groups_allow() -> None:
    def training(batch: int, times: int = 1) -> FineTuning:
        return FineTuning(Full(), batch=batch, sequence=8, gradient_accumulation=times)

    # Of all passes' micro-batches a whole number of rounds over the groups.
    assert numbers("a100", training(6), pipeline=2, interleave=2) == [2, 4, 6]
    assert numbers("a100", training(6, 2), pipeline=2, interleave=2) == [1, 2, 4, 6]
    assert numbers("a100", training(6), pipeline=4, interleave=2) == [4]
    assert numbers("a100", training(3), pipeline=4, interleave=2) == [3]  # none fits: the largest is refused later
    assert numbers("a100", training(6), pipeline=2) == [1, 2, 4, 6]


def tried(note: str) -> tuple[int, dict[int, str]]:
    chosen = re.search(r": (\d+), the best of those tried [(](.*)[)]$", note)
    assert chosen
    return int(chosen.group(1)), {int(n): text for n, text in re.findall(r"(\d+): ([^,]+)", chosen.group(2))}


def test_is_the_best_of_those_tried_taken() -> None:
    task = Inference(batch=6, sequence=64, decode=2)
    result = tierform.simulate("gpt2", task, "atleus", thermal="none")
    assert result.mapping is not None
    for note in result.notes:
        if not note.startswith("micro-batches of"):
            continue
        phase = note.split()[2].rstrip(":")
        number, seconds = tried(note)
        assert getattr(result.mapping.micro_batches, phase) == number
        # Each of them by itself, weights where they are: none is faster by more than the tenth of a per cent.
        for other in seconds:
            parts = MicroBatches(**{**dict.fromkeys(("prefill", "decode", "training"), 1), phase: other})
            run = tierform.simulate(
                "gpt2",
                task,
                "atleus",
                thermal="none",
                micro_batches=parts,
                mapping=replace(result.mapping, micro_batches=parts),
            )
            own = sum(stage.latency_s for stage in run.stages if stage.name.startswith(phase))
            best = sum(stage.latency_s for stage in result.stages if stage.name.startswith(phase))
            assert best <= own * (1 + 1e-3)


def test_is_the_time_that_is_told_that_of_all_passes() -> None:
    task = FineTuning(tierform.LoRA(4), batch=4, sequence=32, gradient_accumulation=3)
    result = tierform.simulate("bert-base", task, "atleus", thermal="none", mapping="plain")
    (note,) = [note for note in result.notes if note.startswith("micro-batches of training")]
    number, seconds = tried(note)
    # Three forward and backward passes, one update.
    assert [stage.repeat for stage in result.stages] == [3, 3, 1]
    assert seconds[number] == format_quantity(result.latency_s, "s")
    assert sorted(seconds)[-1] == 4


def test_is_a_given_number_obeyed() -> None:
    task = Inference(batch=8, sequence=64)
    result = tierform.simulate("bert-base", task, "atleus", thermal="none", micro_batches=3)
    assert result.mapping is not None and result.mapping.micro_batches == MicroBatches(3, 3, 3)
    assert not any("best of those tried" in note for note in result.notes)


@pytest.mark.parametrize(("seconds", "taken"), [(0.9, True), (0.998, True), (0.9995, False), (1.2, False)])
def test_is_a_mapping_without_copies_taken_where_it_gains(
    seconds: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial with copies takes 1 s; a thousandth less is not worth another mapping."""
    choice = _Choice(Job("gpt2", Inference(batch=1, sequence=8), "atleus").loaded())
    parts, notes = MicroBatches(1, 1, 1), list[str]()
    with_copies: Any = SimpleNamespace(
        workload=choice.workload(parts), mapping=SimpleNamespace(micro_batches=parts), total_s=1.0
    )
    monkeypatch.setattr(choice, "_trial", lambda _, mapping: SimpleNamespace(mapping=mapping, total_s=seconds))
    found = choice._without_replicas(with_copies, notes)
    assert (found is not with_copies) == taken == bool(notes)
    if taken:
        assert {item.replicas for item in found.mapping.placements} == {1}


def test_is_a_number_that_does_not_fit_no_reason_to_refuse_one_that_does() -> None:
    """Eight parts of one sequence need 1.62 GB on each of two GPUs, four parts of two 1.81 GB: of 1.7 GB, eight."""
    small = tierform.load_chip("a100").vary({"components.gpu.memory_capacity": "1.7 GB"})
    task, split = FineTuning(Full(), batch=8, sequence=512), Parallelism(pipeline=2)
    ask: dict[str, Any] = {"parallelism": split, "thermal": "none"}
    with pytest.raises(tierform.TierformError, match=r"memory|fit"):
        tierform.simulate("gpt2", task, small, micro_batches=4, **ask)
    found = tierform.simulate("gpt2", task, small, **ask)
    eight = tierform.simulate("gpt2", task, small, micro_batches=8, **ask)
    assert found.latency_s == eight.latency_s


def test_has_a_trial_the_time_of_all_its_passes() -> None:
    task = FineTuning(tierform.LoRA(4), batch=4, sequence=32, gradient_accumulation=3)
    trial = _Choice(Job("bert-base", task, "atleus", thermal="none").loaded()).best(False)
    passes = [made.seconds for made in trial.timed]
    assert trial.total_s == pytest.approx(3 * passes[0] + 3 * passes[1] + passes[2])
