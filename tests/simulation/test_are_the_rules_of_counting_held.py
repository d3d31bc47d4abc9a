"""Do single figures of the rules hold: copies, chunks, updates, leakage, heat of the network, the ratio of chips?

Each was once changed without a test that noticed.
"""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest

import tierform
from tierform import FineTuning, Full, Inference, LoRA, load_chip
from tierform.chip.component import cmos_leakage_W
from tierform.report.tables import comparison
from tierform.simulation.traffic import MemoryBehind, Traffic
from tierform.workload import expand, load_model, model_from_config
from tierform.workload.graph import StageKind


def test_does_leakage_double_every_30_kelvin() -> None:
    assert cmos_leakage_W(2.0, 330.0) == pytest.approx(4.0)
    assert cmos_leakage_W(2.0, 360.0) == pytest.approx(8.0)
    assert cmos_leakage_W(np.array([2.0]), np.array([270.0])) == pytest.approx([1.0])


def test_does_an_update_read_and_write_what_it_keeps() -> None:
    """AdamW: gradient (2 bytes), master weight and two moments (4 each) are read; weight, master, moments written."""
    workload = expand(load_model("gpt2"), FineTuning(Full(), batch=1, sequence=8))
    update = next(stage for stage in workload.stages if stage.kind is StageKind.UPDATE)
    memory = MemoryBehind(load_chip("tpu-3d"))
    for block in update.blocks:
        for operator in block.operators:
            values = operator.inputs[0].elements * operator.count
            assert memory.of_operator(operator, held=False, on_chip=False) == Traffic(14 * values, 14 * values)
            # In crossbars the working weight is programmed, not written to memory.
            assert memory.of_operator(operator, held=True, on_chip=False) == Traffic(14 * values, 12 * values)


def test_are_weights_copied_at_most_64_times_and_tokens_cut_in_eight() -> None:
    chip = load_chip("isaac")
    result = tierform.simulate("bert-base", Inference(batch=4, sequence=64), chip, thermal="none")
    assert result.mapping is not None
    assert result.mapping.chunks == 8
    # A model of one narrow layer leaves nearly all crossbars to copies.
    config = {"model_type": "gpt2", "n_embd": 128, "n_head": 2, "n_layer": 1, "n_positions": 512, "vocab_size": 100}
    tiny = model_from_config(config, "tiny")
    small = tierform.simulate(tiny, Inference(batch=1, sequence=512), "atleus", thermal="none", mapping="plain")
    assert small.mapping is not None
    assert max(p.replicas for p in small.mapping.placements) == 64
    learning = tierform.simulate("bert-base", FineTuning(Full(), batch=1, sequence=64), "atleus", thermal="none")
    assert learning.mapping is not None
    assert {p.replicas for p in learning.mapping.placements if p.trainable} == {1}


def test_is_all_power_of_the_chip_heat_on_its_tiles() -> None:
    """Energy of everything but memory behind the chip, over the time, is what the tiles dissipate; routers too."""
    result = tierform.simulate("bert-base", FineTuning(LoRA(8), batch=1, sequence=64), "atleus")
    assert result.thermal is not None
    behind = result.energy_J_by_component["memory"]
    expected = (result.energy_J - behind) / result.latency_s
    # The fixed point of leakage and temperature is found to 1 mK.
    assert fsum(result.thermal["tile_power_W"]) == pytest.approx(expected, rel=1e-4)


def test_is_a_faster_chip_more_than_once_as_fast() -> None:
    task = Inference(batch=1, sequence=64)
    slow, fast = (tierform.simulate("gpt2", task, chip, thermal="none") for chip in ("l40s", "h100"))
    assert fast.latency_s < slow.latency_s
    rows = {row[0]: row[1:] for row in comparison([fast, slow]).rows}
    # The last column is the baseline: once as fast as itself, and the other more than once.
    assert rows["speed-up over l40s"] == (f"{slow.latency_s / fast.latency_s:.3g}x", "1x")
    assert float(rows["speed-up over l40s"][0].removesuffix("x")) > 1
    assert rows["energy saving over l40s"][0] == f"{slow.energy_J / fast.energy_J:.3g}x"
