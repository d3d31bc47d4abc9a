"""Are targets named as in Hugging Face's models the matrices that they are there, with as many parameters?"""

from __future__ import annotations

import pytest

from tierform import FineTuning, LoRA, QLoRA, TierformError, load_model, simulate
from tierform.workload import expand
from tierform.workload.operator import Phase

RANK = 8


def learning(model: str, *targets: str) -> int:
    return expand(load_model(model), FineTuning(LoRA(RANK, targets), batch=2, sequence=64)).trainable_parameters


@pytest.mark.parametrize(
    ("names", "own"),
    [
        (("q_proj", "v_proj"), ("q", "v")),
        (("query", "value"), ("q", "v")),
        (("q", "query", "q_proj"), ("q",)),
        (("c_attn", "c_proj", "c_fc"), ("qkv", "o", "down", "up")),
        (("query_key_value",), ("qkv",)),
        (("gate_up_proj", "down_proj"), ("gate-up", "down")),
        (("attention.output.dense", "intermediate.dense"), ("o", "up")),
        (("all-linear",), ("q", "k", "v", "o", "up", "gate", "down")),
    ],
)
def test_is_a_module_the_matrix_that_it_holds(names: tuple[str, ...], own: tuple[str, ...]) -> None:
    assert LoRA(targets=names).targets == own
    assert LoRA(targets=names) == LoRA(targets=own)
    assert QLoRA(targets=names).targets == own


def test_has_an_adapter_of_a_fused_matrix_one_a() -> None:
    """GPT-2's c_attn is (3 d, d): rank x (d + 3 d) in each of 12 layers, 294,912 for rank 8 and d = 768."""
    before = learning("gpt2", "o")  # what learns beside adapters, if anything, and o's r (d + d)
    assert learning("gpt2", "c_attn") - (before - 12 * RANK * 2 * 768) == 294_912
    assert learning("gpt2", "q", "k", "v") - (before - 12 * RANK * 2 * 768) == 12 * 3 * RANK * 2 * 768
    work = expand(load_model("gpt2"), FineTuning(LoRA(RANK, ("c_attn",)), batch=2, sequence=64))
    layer = work.stages[0].blocks[1]
    forward = [one for one in layer.operators if one.part == "adapter" and one.macs and one.phase is Phase.FORWARD]
    rows, d = 2 * 64, 768
    # one product with A, three with the parts of B
    assert sorted(one.macs for one in forward) == [rows * d * RANK] * 4


def test_does_the_fused_adapter_learn_from_all_of_its_products() -> None:
    """A's gradient needs the sum of what comes back from q, k and v: one product for A's gradient, not three."""
    work = expand(load_model("gpt2"), FineTuning(LoRA(RANK, ("c_attn",)), batch=2, sequence=64))
    middle = max(work.stages[1].blocks, key=lambda block: block.count)  # the first layer's input needs no gradient
    update = [w for w in work.weights if w.adapter and w.block == middle.name]
    assert sorted(w.shape for w in update) == [(8, 768), (768, 8), (768, 8), (768, 8)]
    gradients = [one for one in middle.operators if one.part == "adapter" and one.macs]
    # dB of three, the way back through three B, dA of one, the way back through one A
    assert len(gradients) == 8


def test_are_all_linear_matrices_adapted() -> None:
    """BERT-base has no gate: four of (d, d), up (4 d, d) and down (d, 4 d), 12 layers."""
    d, others = 768, learning("bert-base", "q") - 12 * RANK * 2 * 768
    assert learning("bert-base", "all-linear") - others == 12 * RANK * (4 * 2 * d + 2 * 5 * d)


def test_does_a_chip_run_the_fused_adapter() -> None:
    task = FineTuning(LoRA(RANK, ("c_attn",)), batch=2, sequence=64)
    apart = simulate("gpt2", FineTuning(LoRA(RANK, ("q", "k", "v")), batch=2, sequence=64), "atleus")
    fused = simulate("gpt2", task, "atleus")
    assert 0 < fused.operations < apart.operations


def test_is_a_name_that_is_none_refused_with_what_is_near() -> None:
    with pytest.raises(TierformError, match="did you mean 'q_proj'"):
        LoRA(targets=("q_porj",))
    with pytest.raises(TierformError, match=r"stands for several matrices(.|\n)*attention\.output\.dense"):
        LoRA(targets=("dense",))
    with pytest.raises(TierformError, match="at least one target"):
        LoRA(targets=())
