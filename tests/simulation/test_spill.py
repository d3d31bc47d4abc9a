"""Does what does not fit spill to the next memory, and does the result show it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from tierform import FineTuning, Inference, TierformError, library, simulate


def chip_with(folder: Path, memory: str) -> Path:
    text = (library.ROOT / "chips" / "l40s.yaml").read_text() + f"memory:\n{memory}"
    path = folder / "l40s-and-more.yaml"
    path.write_text(text)
    return path


def test_does_a_model_larger_than_the_gpu_spill_to_cxl(tmp_path: Path) -> None:
    task = FineTuning(batch=1, sequence=256)  # 16 bytes a parameter: about 128 GB
    with pytest.raises(TierformError, match="does not fit"):
        simulate("llama-3.1-8b", task, "l40s")
    chip = chip_with(tmp_path, "  - {device: cxl-ddr5-x8, count: 8}\n")
    spilled = simulate("llama-3.1-8b", task, chip)
    moved = spilled.memory_spill_B["cxl-ddr5-x8"]
    away = sum(places.get("cxl-ddr5-x8", 0) for places in spilled.memory_placement_B.values())
    assert away == pytest.approx(sum(spilled.memory_footprint_B.values()) - 48e9, rel=1e-6)
    assert moved > away  # states are read and written back
    assert spilled.energy_J_by_component["cxl-ddr5-x8"] > 0
    assert sum(spilled.energy_J_by_component.values()) == pytest.approx(spilled.energy_J, rel=1e-9)
    update = next(stage for stage in spilled.stages if stage.name == "update")
    states = spilled.memory_placement_B["optimizer_states"]["cxl-ddr5-x8"]
    assert update.latency_s > 2 * states / (8 * 64e9)  # both ways, at no more than the links carry


def test_does_nothing_spill_when_everything_fits(tmp_path: Path) -> None:
    task = Inference(batch=1, sequence=64)
    more = simulate("gpt2", task, chip_with(tmp_path, "  - {device: ddr5-4800}\n"))
    assert more.memory_spill_B == {}
    assert more.latency_s == simulate("gpt2", task, "l40s").latency_s
