"""Do the methods learn, keep and compute what their papers say?

Llama 3.2 1B by hand: 16 layers, width 2048, keys and values 512 wide, feed-forward 8192; adapters beside q and v.
"""

from __future__ import annotations

from dataclasses import fields

import pytest

from tierform import (
    IA3,
    AdapterBatch,
    DoRA,
    FineTuning,
    Full,
    GaLore,
    Inference,
    LoRA,
    LoRAFA,
    Parallelism,
    PromptTuning,
    TierformError,
    VeRA,
)
from tierform.workload import Workload, expand, load_model
from tierform.workload.task import METHODS, RANKED, Method

MODEL = load_model("llama-3.2-1b")
LAYERS, WIDTH, KEYS, HIDDEN = 16, 2048, 512, 8192


def tuned(method: Method, **split: int) -> Workload:
    return expand(MODEL, FineTuning(method, batch=2, sequence=128), parallelism=Parallelism(**split))  # type: ignore[arg-type]


@pytest.mark.parametrize("tensor", [1, 4])
@pytest.mark.parametrize(
    ("method", "numbers"),
    [
        (LoRA(8), LAYERS * 8 * (WIDTH + WIDTH + WIDTH + KEYS)),
        (DoRA(8), LAYERS * (8 * (WIDTH + WIDTH + WIDTH + KEYS) + WIDTH + KEYS)),
        (LoRAFA(8), LAYERS * 8 * (WIDTH + KEYS)),
        (VeRA(256), LAYERS * (2 * 256 + WIDTH + KEYS)),
        (IA3(), LAYERS * (KEYS + KEYS + HIDDEN)),
        (PromptTuning(20), 20 * WIDTH),
    ],
)
def test_as_many_numbers_learn(method: Method, numbers: int, tensor: int) -> None:
    assert tuned(method, tensor=tensor).trainable_parameters == numbers


def test_galore_learns_everything_and_keeps_its_moments_in_a_subspace() -> None:
    """A layer's q, o: (2 * 2048 + 2048) r; k, v: (2 * 2048 + 512) r; three of 8192: (2 * 8192 + 2048) r; fp32."""
    full, galore = tuned(Full()), tuned(GaLore(128))
    assert galore.trainable_parameters == full.trainable_parameters
    rank = 128
    low = rank * (2 * 3 * WIDTH + 2 * (2 * WIDTH + KEYS) + 3 * (2 * HIDDEN + WIDTH))
    matrices = 2 * WIDTH * WIDTH + 2 * WIDTH * KEYS + 3 * WIDTH * HIDDEN
    saved = LAYERS * 4 * (2 * matrices - low)
    assert full.footprint.optimizer_states - galore.footprint.optimizer_states == saved


def test_galore_projects_and_comes_back() -> None:
    """R = P' G and P N are 2 * short * long * rank operations each: for q of 2048 x 2048 and rank 128 1,073,741,824."""
    update = next(stage for stage in tuned(GaLore(128)).stages if stage.kind == "update")
    found = {o.name: o for block in update.blocks for o in block.operators}
    assert found["attention.q.project"].operations == found["attention.q.unproject"].operations == 2 * 2048**2 * 128
    assert "embedding.word.project" not in found  # left to AdamW
    decompose = found["attention.q.decompose"].operations
    assert decompose == pytest.approx(12 * 2048**3 / 200, rel=0.05)  # 4 + 8 cubes at a two-hundredth


def test_lora_fa_keeps_no_input_for_its_first_matrix() -> None:
    """The input of q and v, one tensor of 256 x 2048 in bf16, is kept in no layer."""
    saved = tuned(LoRA(8)).footprint.activations - tuned(LoRAFA(8)).footprint.activations
    assert saved == LAYERS * 256 * WIDTH * 2


def test_dora_makes_the_adapted_weight_for_its_norm() -> None:
    """B A of q: 2 * 2048 * 2048 * 8 operations; the norm reads 2048 x 2048 of it and of the weight."""
    forward = next(stage for stage in tuned(DoRA(8)).stages if stage.kind == "forward")
    found = {o.name: o for block in forward.blocks for o in block.operators}
    assert found["attention.q.dora.product"].operations == 2 * WIDTH * WIDTH * 8
    assert found["attention.q.dora.norm"].input_B == 2 * WIDTH * WIDTH * 2


def test_a_learned_prompt_lengthens_every_sequence() -> None:
    """148 tokens go through the layers, 128 are looked up."""
    forward = next(stage for stage in tuned(PromptTuning(20)).stages if stage.kind == "forward")
    found = {o.name: o for block in forward.blocks for o in block.operators}
    assert found["attention.q"].m == 2 * 148
    assert found["embedding.word.lookup"].outputs[0].elements == 2 * 128 * WIDTH


def test_adapters_of_a_batch_are_grouped_products() -> None:
    """32 sequences, 8 different adapters of rank 16: 8 products of 4 rows; 100 adapters of q and v wait in memory."""
    batch = Inference(batch=32, sequence=128, decode=1, adapters=AdapterBatch(16, ("q", "v"), used=8, loaded=100))
    workload = expand(MODEL, batch)
    decode = next(stage for stage in workload.stages if stage.kind == "decode")
    a = next(o for block in decode.blocks for o in block.operators if o.name == "attention.q.lora_a")
    assert (a.m, a.n, a.k, a.count) == (4, 16, WIDTH, 8)
    assert workload.footprint.adapters == 100 * LAYERS * 16 * (WIDTH + WIDTH + WIDTH + KEYS) * 2
    assert workload.trainable_parameters == 0


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        ("bert-base", FineTuning(PromptTuning(4)), "stands in front of a decoder"),
        ("llama-3.2-1b", FineTuning(GaLore(4), optimizer="sgd"), "AdamW in a subspace"),
    ],
)
def test_what_a_method_cannot_is_told(model: str, task: FineTuning, words: str) -> None:
    with pytest.raises(TierformError, match=words):
        expand(load_model(model), task)


def test_galore_needs_whole_gradients() -> None:
    with pytest.raises(TierformError, match="whole gradients"):
        tuned(GaLore(4), tensor=2)


def test_fewer_loaded_than_used_is_refused() -> None:
    with pytest.raises(TierformError, match="fewer are loaded"):
        AdapterBatch(used=4, loaded=2)


def test_does_every_method_say_whether_it_has_a_rank() -> None:
    assert {name for name, kind in METHODS.items() if any(item.name == "rank" for item in fields(kind))} == RANKED


def test_galore_scales_its_step_by_a_number() -> None:
    assert GaLore().scale == 0.25 and GaLore(scale=1000).scale == 1000
    for wrong in (0, -1, True, "half", float("nan")):
        with pytest.raises(TierformError, match="above 0"):
            GaLore(scale=wrong)  # type: ignore[arg-type]


def test_how_many_operations_has_a_loss_of_squares() -> None:
    """Difference, square, sum: three for each value of the forecast."""
    workload = expand(
        load_model("hpt-wind"), FineTuning(Full(), batch=2, sequence=load_model("hpt-wind").fixed_tokens or 8)
    )
    losses = [o for _, _, o, _ in workload.occurrences() if o.kind == "loss" and o.phase == "forward"]
    values = max(operand.elements for operand in losses[0].inputs)
    assert len(losses) == 1 and losses[0].operations == 3 * values
