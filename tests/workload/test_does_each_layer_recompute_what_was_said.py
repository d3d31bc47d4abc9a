"""Does each layer recompute what was said, and is an update in the backward pass as small as it should be?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, LoRA, Parallelism, TierformError, Training
from tierform.workload import MicroBatches, expand, load_model, model_from_config
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


def backward_of(recomputation: str, *, sequence: bool) -> dict[str, tuple[int, tuple[str, ...]]]:
    """(place, what is waited for) of each operator of a layer's backward pass; attention in products."""
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 128, "n_positions": 64}
    workload = expand(
        model_from_config(config, "gpt"),
        Training(batch=2, sequence=64, recomputation=recomputation),
        parallelism=Parallelism(tensor=2, sequence=sequence),
        attention="eager",
    )
    stage = next(stage for stage in workload.stages if stage.name == "backward")
    layer = next(block for block in stage.waves[0].blocks if block.name == "layer")
    return {operator.name: (place, operator.after) for place, operator in enumerate(layer.operators)}


@pytest.mark.parametrize("sequence", [False, True])
def test_attention_is_recomputed_when_its_gradient_has_come(sequence: bool) -> None:
    found = backward_of("selective", sequence=sequence)
    first, needs = found["attention.scores.recompute"], found["attention.context.grad_right"]
    assert found["attention.o.grad_input"][0] < first[0] < needs[0]
    assert first[1] == ("attention.o.grad_input",) and set(first[1]) <= set(needs[1])


@pytest.mark.parametrize("recomputation", ["none", "selective"])
def test_an_input_is_gathered_again_beside_its_gradient(recomputation: str) -> None:
    found = backward_of(recomputation, sequence=True)
    for gathered, beside, reader in (
        ("ffn.all_gather.recompute", "ffn.up.grad_input", "ffn.up.grad_weight"),
        ("attention.all_gather.recompute", "attention.v.grad_input", "attention.v.grad_weight"),
    ):
        assert found[gathered][0] == found[beside][0] - 1 == found[reader][0] - 2
        assert found[gathered][1] == found[beside][1] and gathered in found[reader][1]


def test_a_whole_layer_is_recomputed_from_its_start() -> None:
    found = backward_of("full", sequence=True)
    again = [name for name in found if name.endswith(".recompute")]
    assert [found[name][0] for name in again] == list(range(len(again))) and found[again[0]][1] == ()
