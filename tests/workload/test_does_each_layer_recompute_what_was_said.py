"""Does each layer recompute what was said, and is an update in the backward pass as small as it should be?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, LoRA, Parallelism, TierformError, Training
from tierform.workload import MicroBatches, expand, load_model
from tierform.workload.recomputation import recomputation_of

MODEL = load_model("llama-3.2-1b")  # 16 layers
EVERYTHING = Training(batch=1, sequence=256)


def saved_B(recomputation: str) -> int:
    workload = expand(MODEL, Training(batch=1, sequence=256, recomputation=recomputation))
    layers = [memory for memory in workload.memory if memory.kind == "layer"]
    return sum(memory.layers * memory.saved_B[0] for memory in layers)


def test_some_layers_keep_and_others_do_not() -> None:
    none, full = saved_B("none"), saved_B("full")
    assert saved_B("full:4") == pytest.approx(none + (full - none) * 4 / 16)
    assert saved_B("full:0,4-7") == pytest.approx(none + (full - none) * 5 / 16)
    assert saved_B("full:16") == full and saved_B("full:0-0") == pytest.approx(none + (full - none) / 16)


def test_as_many_operations_are_done_again() -> None:
    def operations(recomputation: str) -> float:
        return expand(MODEL, Training(batch=1, sequence=256, recomputation=recomputation)).operations

    none, full = operations("none"), operations("full")
    assert operations("full:4") == pytest.approx(none + (full - none) / 4, rel=1e-3)


def test_layers_are_named_by_number_and_range() -> None:
    assert [recomputation_of("full:1,3-4", layer) for layer in range(6)] == [
        "none",
        "full",
        "none",
        "full",
        "full",
        "none",
    ]
    assert recomputation_of("selective:2", 1) == "selective" and recomputation_of("full", "head") == "none"


@pytest.mark.parametrize("text", ["ful", "full:", "full:a", "none:3", "full:4-2", "full:1,,2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(TierformError, match="recomputation"):
        FineTuning(recomputation=text)


def test_a_layer_that_is_not_there_is_told() -> None:
    with pytest.raises(TierformError, match="only 16 layers"):
        expand(MODEL, FineTuning(LoRA(4), recomputation="full:12-16"))


def test_gradients_of_two_blocks_are_whole_at_once() -> None:
    """Of 1,235,814,400 bf16 gradients the table's 128,256 x 2048 and a layer's 60,821,504 remain."""
    kept = expand(MODEL, EVERYTHING).footprint
    dropped = expand(MODEL, Training(batch=1, sequence=256, fused_update=True)).footprint
    assert kept.gradients == 2 * 1_235_814_400 and dropped.gradients == 0
    assert dropped.activations - kept.activations == 2 * (128_256 * 2048 + 60_821_504)


@pytest.mark.parametrize(
    ("task", "split", "parts"),
    [
        (Training(batch=4, sequence=8, fused_update=True, gradient_accumulation=2), Parallelism(), 1),
        (Training(batch=4, sequence=8, fused_update=True), Parallelism(data=2), 1),
        (Training(batch=4, sequence=8, fused_update=True), Parallelism(pipeline=2), 1),
        (Training(batch=4, sequence=8, fused_update=True), Parallelism(), 2),
    ],
)
def test_parts_of_a_gradient_cannot_be_used_at_once(task: Training, split: Parallelism, parts: int) -> None:
    with pytest.raises(TierformError, match="whole batch at once"):
        expand(MODEL, task, MicroBatches(training=parts), parallelism=split)
