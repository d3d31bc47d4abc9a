"""Are weights that crossbars cannot hold read by other components where that is faster, as the best of a few mappings?

The chip of CONTRIBUTING.md: 6,144 crossbars, of which a layer of BERT-base takes 1,728, over four systolic arrays.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import tierform
from tierform import FineTuning, Inference, LoRA, simulate
from tierform.chip.description import Chip
from tierform.simulation.result import Result

TASK = Inference(batch=1, sequence=64)


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Chip:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    start = text.index("schema: tierform.chip/1")
    path = tmp_path_factory.mktemp("chips") / "two-tier.yaml"
    path.write_text(text[start : text.index("```", start)])
    return tierform.load_chip(path)


def written(result: Result) -> set[str]:
    assert result.mapping is not None
    return {p.weight for p in result.mapping.placements if not p.resident}


def test_are_layers_that_do_not_fit_read_from_memory_where_that_is_faster(chip: Chip) -> None:
    plain = simulate("bert-base", TASK, chip, mapping="plain")
    best = simulate("bert-base", TASK, chip)
    # Six weights a layer, eleven layers of twelve: nearly all of the time was writing and waiting for it.  What arrays
    # of 64 rows compute instead comes in parts of 32 tokens, so that they are half empty.
    assert len(written(plain)) == 6 and not written(best)
    assert best.latency_s < plain.latency_s / 7
    assert best.energy_J < plain.energy_J / 5
    assert any("beside the crossbars, read from memory: the best of those tried" in note for note in best.notes)
    assert not any("beside the crossbars, read" in note for note in plain.notes)


def test_do_some_stay_in_cells_where_the_work_is_larger_than_the_weights(chip: Chip) -> None:
    best = simulate("bert-base", Inference(batch=8, sequence=512), chip)
    assert best.mapping is not None and not written(best)
    layers = [p for p in best.mapping.placements if p.layers == 12]
    # Twelve layers of 1,728 crossbars are 20,736; without the halves of the feed-forward network and one more of the
    # attention's weights (576, 576 and 144) 12 * 432 = 5,184 stay.
    assert sum(p.total_crossbars for p in layers) == 5184 and len(layers) == 3
    assert sum(p.total_crossbars for p in best.mapping.placements) <= 6144


def test_do_notes_say_all_that_was_chosen(chip: Chip) -> None:
    """Micro-batches, weights beside the crossbars and parts of tokens are chosen one after the other; none is lost."""
    notes = " ".join(simulate("bert-base", Inference(batch=4, sequence=64), chip, thermal="none").notes)
    assert notes.count("micro-batches of prefill") == 1
    assert notes.count("beside the crossbars, read from memory") == 1 and notes.count("tokens in 4 parts") == 1


def test_is_the_choice_of_the_chip_kept(chip: Chip) -> None:
    told = chip.vary({"place": {"static": "reram"}})
    result = simulate("bert-base", TASK, told)
    assert len(written(result)) == 6
    assert not any("beside the crossbars, read" in note for note in result.notes)


@pytest.mark.parametrize(
    "task",
    [Inference(batch=1, sequence=16, decode=2), FineTuning(method=LoRA(rank=8), batch=2, sequence=32)],
    ids=["decode", "lora"],
)
def test_is_the_best_never_slower_than_the_plain_mapping(chip: Chip, task: Inference | FineTuning) -> None:
    plain = simulate("gpt2", task, chip, mapping="plain", thermal="none")
    assert simulate("gpt2", task, chip, thermal="none").latency_s <= plain.latency_s * (1 + 1e-9)


def test_does_its_mapping_file_come_back(chip: Chip, tmp_path: Path) -> None:
    best = simulate("bert-base", TASK, chip)
    assert best.mapping is not None
    best.mapping.save(tmp_path / "map.yaml")
    again = simulate("bert-base", TASK, chip, mapping=str(tmp_path / "map.yaml"))
    assert again.latency_s == best.latency_s
