"""Where do weights go on two tiles with crossbars when room is short or spare, derived by hand?

Each of the six matrices of a toy layer takes one crossbar, the table of ten words as the head one more: 13 in all.
Tiles 2 and 3 hold the crossbars; arrays stand on tiles 0 and 1.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toy import HERE, INFERENCE, LORA, MODEL, TRAINING

import tierform
from tierform import TierformError
from tierform.chip.description import Chip
from tierform.mapping import Mapping, default_mapping, load_mapping
from tierform.workload import Workload, expand, model_from_config

NAMES = ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down")


def toy(each: int, layers: int, task: tierform.Inference | tierform.FineTuning = INFERENCE) -> tuple[Chip, Workload]:
    """Tiles of so many crossbars, and a task of a toy of so many layers."""
    config = {
        **{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": layers, "n_inner": 16, "n_positions": 16},
        **{"vocab_size": 10, "activation_function": "relu", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    }
    sizes = {"components.reram.crossbars": each, "components.reram.crossbars_per_macro": 1}
    chip = tierform.load_chip(HERE / "toy-stack.yaml").vary(sizes)
    return chip, expand(model_from_config(config, "toy"), task)


def mapped(each: int, layers: int = 2, task: tierform.Inference | tierform.FineTuning = INFERENCE) -> Mapping:
    """The mapping on tiles of so many crossbars."""
    return default_mapping(*toy(each, layers, task))


def placed(mapping: Mapping, resident: bool = True) -> dict[str, tuple[int, int, tuple[tuple[int, ...], ...]]]:
    """Layers, replicas and tiles of each weight."""
    return {
        item.weight: (item.layers, item.replicas, item.tiles)
        for item in mapping.placements
        if item.resident == resident
    }


def test_do_spare_crossbars_go_to_the_slowest_weights() -> None:
    """40 crossbars, 27 to spare.  A copy of a matrix takes one in both layers; six rows pass it, two pass the head.

    Second copies of all six matrices (12), third copies (24): now two rows pass each copy, as many as the head.  Three
    are left: a fourth copy of the first (2), and one more of the head.
    """
    # Layer 0 takes 4 + 5 x 3 = 19 crossbars of tile 2; the query of layer 1 begins there and ends in tile 3.
    expected = dict.fromkeys(NAMES[1:], (2, 3, ((2,), (3,))))
    assert placed(mapped(20)) == {
        "attention.q": (2, 4, ((2,), (2, 3))),
        **expected,
        "embedding.word": (1, 2, ((3,),)),
    }
    assert mapped(20).crossbars_used("reram") == 4 * 2 + 5 * 3 * 2 + 2


def test_does_the_head_leave_where_layers_need_all() -> None:
    full = mapped(6)
    assert placed(full) == dict.fromkeys(NAMES, (2, 1, ((2,), (3,))))
    assert full.assignments["prefill/head/head.logits"] == full.assignments["decode/head/head.logits"] == "systolic"
    assert any("head/embedding.word does not fit beside the layers and runs on systolic" in n for n in full.notes)
    # With one crossbar more it stays.
    roomy = mapped(7)
    assert placed(roomy)["embedding.word"] == (1, 2, ((3,),))
    assert roomy.assignments["prefill/head/head.logits"] == "reram"


def test_which_layers_are_streamed() -> None:
    """Four layers of six crossbars on 20: twelve are kept free for two layers, eight hold one layer."""
    found = mapped(10, layers=4)
    assert placed(found) == dict.fromkeys(NAMES, (1, 1, ((2,),)))
    # The region begins in tile 2, behind the six crossbars of layer 0.
    assert placed(found, resident=False) == dict.fromkeys(NAMES, (3, 1, ((2, 3),)))
    assert found.assignments["prefill/head/head.logits"] == "systolic"
    assert any("3 of 4 'layer' layers do not fit" in note and "takes 6 of 20" in note for note in found.notes)
    # Five layers on 24: twelve hold two layers and fill tile 2; the region is tile 3.
    fuller = mapped(12, layers=5)
    assert placed(fuller) == dict.fromkeys(NAMES, (2, 1, ((2,), (2,))))
    assert placed(fuller, resident=False) == dict.fromkeys(NAMES, (3, 1, ((3,),)))


def test_is_a_layer_streamed_where_not_even_two_fit() -> None:
    # Ten crossbars: the region of two layers takes all of them.
    found = mapped(5)
    assert placed(found) == {}
    assert placed(found, resident=False) == dict.fromkeys(NAMES, (2, 1, ((2, 3),)))


def test_have_weights_that_learn_one_copy() -> None:
    found = mapped(20, task=TRAINING)
    assert {replicas for _, replicas, _ in placed(found).values()} == {1}
    assert all(item.trainable for item in found.placements)
    assert any("weights that learn have one copy each" in note for note in found.notes)
    assert not any("one copy each" in note for note in mapped(20).notes)


def test_is_too_little_refused_where_streaming_is() -> None:
    chip = tierform.load_chip(HERE / "toy-stack.yaml").vary({"components.reram.crossbars": 5})
    with pytest.raises(TierformError, match="the model needs 12 crossbars and 'toy-stack' has 10"):
        default_mapping(chip, expand(MODEL, INFERENCE), overflow="refuse")


def test_may_a_weight_fill_its_tiles_and_no_more(tmp_path: Path) -> None:
    """One layer on two tiles of ten: ten copies of the query fill tile 2, the rest is in tile 3."""
    chip, workload = toy(10, 1)
    plan = default_mapping(chip, workload, replicate=False)

    def read(copies: int) -> Mapping:
        items = [
            replace(item, tiles=((2,),), replicas=copies)
            if item.weight == "attention.q"
            else replace(item, tiles=((3,),))
            for item in plan.placements
        ]
        replace(plan, placements=tuple(items)).save(tmp_path / "map.yaml")
        return load_mapping(tmp_path / "map.yaml", chip, workload)

    assert placed(read(10))["attention.q"] == (1, 10, ((2,),))
    with pytest.raises(TierformError, match="need 2 tiles"):
        read(11)


def test_is_a_second_copy_kept_where_something_is_read_backward() -> None:
    chip = tierform.load_chip(HERE / "toy-stack.yaml").vary(
        {"components.reram.crossbars": 20, "components.reram.crossbars_per_macro": 1, "backward_weights": "second-copy"}
    )
    for task, copies in ((INFERENCE, 1), (LORA, 2)):
        found = default_mapping(chip, expand(MODEL, task), replicate=False)
        assert {item.copies for item in found.placements} == {copies}
        assert found.crossbars_used("reram") == 13 * copies


def copied(each: int, layers: int = 2, *, rows: int = 4, replicate: bool = True) -> Mapping:
    """LoRA on tiles of so many crossbars of four rows, with a transposed copy of each weight.

    q, k, v and o need two crossbars, up two, down four: 14 a layer, and the table of ten words two; twice as many with
    the copies.
    """
    task = replace(LORA, precision=tierform.load_chip(HERE / "toy-stack.yaml").precision)
    chip, workload = toy(each, layers, task)
    chip = chip.vary({"components.reram.rows": rows, "backward_weights": "second-copy"})
    return default_mapping(chip, workload, replicate=replicate)


def test_how_much_room_do_weights_with_a_second_copy_need() -> None:
    fits = copied(30, replicate=False)  # 2 x (2 x 14 + 2)
    assert fits.crossbars_used("reram") == 60 and {item.copies for item in fits.placements} == {2}
    assert fits.assignments["forward/head/head.logits"] == "reram"
    # One crossbar less for the head: the layers stay, and the head leaves.
    less = copied(29, replicate=False)
    assert less.crossbars_used("reram") == 56 and less.assignments["forward/head/head.logits"] != "reram"
    # Two tiles of 28 hold the layers alone; 27 do not: a region of two layers takes all.
    assert copied(28, replicate=False).crossbars_used("reram") == 56
    streamed = copied(27)
    assert streamed.crossbars_used("reram") == 0
    told = [note for note in streamed.notes if "do not fit" in note]
    assert len(told) == 2 and all("1 of 1 'layer[" in note and "takes 28 of 54" in note for note in told)


def test_do_spare_crossbars_hold_whole_pairs_of_copies() -> None:
    """64 crossbars, four to spare: one more pair of copies of the slowest weight, of two crossbars each."""
    spare = copied(32, replicate=True)
    assert {item.replicas for item in spare.placements} == {1, 2}
    assert sum(item.total_crossbars for item in spare.placements) == 64
    (twice,) = [item for item in spare.placements if item.replicas == 2]
    assert twice.crossbars == 2 and twice.total_crossbars == 8


def test_is_a_weight_that_is_larger_than_all_tiles_refused() -> None:
    with pytest.raises(TierformError, match="one weight needs 8 crossbars and 'toy-stack' has 6"):
        copied(3)
    copied(4)
