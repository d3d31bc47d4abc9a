"""Which bytes cross to the memory behind a toy GPU that is too small, derived by hand?

Parts of the footprint fill the GPU's own memory in their order: weights, adapters, gradients, optimizer states, master
weights, activations, keys and values.  Inference keeps 2,848 + 480 + 640 bytes; training 2,848 of weights, 2,848 of
gradients, 11,392 of states, 5,696 of master weights and 3,072 of activations, of which 2,496 are kept tensors.
"""

from __future__ import annotations

from typing import Any

import pytest
from toy import HERE, INFERENCE, MODEL, TRAINING, run

import tierform
from tierform.memory import load_memory
from tierform.simulation import Result
from tierform.simulation.traffic import MemoryBehind, Traffic

BEHIND = "ddr5-4800"


def small(capacity_B: int, task: Any) -> Result:
    text = {"value": f"{capacity_B} B", "kind": "assumed", "note": "toy"}
    chip = tierform.load_chip(HERE / "toy-gpu.yaml").vary(
        {"components.gpu.memory_capacity": text, "memory": [{"device": BEHIND}]}
    )
    return tierform.simulate(MODEL, task, chip, thermal="none", mapping="plain", micro_batches=1)


def test_which_keys_and_values_spill() -> None:
    # 160 of 640 bytes of the cache have no room: a quarter of what attention reads and projections append.
    result = small(2848 + 480 + 480, INFERENCE)
    assert result.memory_placement_B["kv_cache"] == {"gpu": 480, BEHIND: 160}
    # Prefill: two layers read and write keys and values of 96 bytes each; steps read 32 bytes a key, of 4 and of 5
    # keys, twice, and write 32 twice.
    read = 2 * 2 * (96 + 32 * 4 + 32 * 5) / 4
    write = 2 * 2 * (96 + 32 + 32) / 4
    assert result.memory_spill_B == {BEHIND: pytest.approx(read + write)}
    device: Any = load_memory(BEHIND, stacks=1)
    moved = [(96 + 96, 0.5), (128 + 32, 0.8), (160 + 32, 0.83)]  # of each pass, and the share of reads
    expected = sum(device.transfer(float(size_B), "stream", reads).dynamic_energy_J for size_B, reads in moved)
    assert result.energy_J_by_component[BEHIND] == pytest.approx(expected)
    # The rest stays as it was.
    assert result.latency_s == pytest.approx(run(INFERENCE).latency_s)
    assert result.memory_read_B == run(INFERENCE).memory_read_B


def test_which_kept_tensors_spill() -> None:
    result = small(2848 + 2848 + 11392 + 5696 + 1536, TRAINING)
    assert result.memory_placement_B["activations"] == {"gpu": 1536, BEHIND: 1536}
    # Half of what is kept: written by the forward pass, read by the backward pass.
    assert result.memory_spill_B == {BEHIND: pytest.approx(2496 / 2 + 2496 / 2)}


def test_which_states_spill() -> None:
    result = small(2848 + 2848 + 11392 + 2848, TRAINING)
    assert result.memory_placement_B["master_weights"] == {"gpu": 2848, BEHIND: 2848}
    assert result.memory_placement_B["activations"] == {BEHIND: 3072}
    # All kept tensors both ways; the update reads and writes half of the master weights.
    assert result.memory_spill_B == {BEHIND: pytest.approx(2 * 2496 + 2 * 2848)}


def test_how_long_does_a_stage_take_whose_spilled_bytes_are_slow() -> None:
    task = tierform.FineTuning(batch=2, sequence=3, steps=2)
    slow = small(2848, task)
    update = next(stage for stage in slow.stages if stage.name == "update")
    device: Any = load_memory(BEHIND, stacks=1)
    # All states and gradients lie behind; an update reads 14 bytes a weight and writes 12 (its weight is at hand).
    read, write = 14 * 1424, 12 * 1424
    seconds = (read + write) / device.effective_bandwidth_B_per_s("stream", round(read / (read + write), 2))
    assert update.latency_s == pytest.approx(2 * max(seconds, 398720e-12))
    assert seconds > 398720e-12


def test_does_nothing_take_no_time_and_no_energy() -> None:
    chip = tierform.load_chip(HERE / "toy-gpu.yaml").vary({"memory": [{"device": BEHIND}]})
    memory = MemoryBehind(chip)
    # The GPU's own memory is the first tier, the device behind it the second; what the GPU moves is in its costs.
    assert memory.spill_cost(1, Traffic()) == (BEHIND, 0.0, 0.0)
    assert (memory.nearest, memory.busy_s(Traffic(8.0)), memory.energy_J(Traffic(8.0))) == (None, 0.0, 0.0)
    behind_tiles = MemoryBehind(tierform.load_chip(HERE / "toy-tiles.yaml"))
    assert behind_tiles.nearest is not None
    assert (behind_tiles.busy_s(Traffic()), behind_tiles.energy_J(Traffic())) == (0.0, 0.0)
    assert behind_tiles.busy_s(Traffic(8.0)) > 0 and behind_tiles.energy_J(Traffic(8.0)) > 0


def test_which_weights_spill() -> None:
    # Half of the weights, and the whole cache of keys and values, lie behind.
    result = small(2848 // 2, INFERENCE)
    assert result.memory_placement_B["weights"] == {"gpu": 1424, BEHIND: 1424}
    # Of the tables of words and positions the rows that are looked up: 96 + 48 bytes, then 32 + 16.  Two layers have
    # 1,200 bytes each, the head its norm (32) and the table of words (160).
    weights = ((96 + 48) + 2 * (32 + 16) + 3 * (2 * 1200 + 32 + 160)) / 2
    cache = 2 * 2 * (96 + 32 * 4 + 32 * 5) + 2 * 2 * (96 + 32 + 32)
    assert result.memory_spill_B == {BEHIND: pytest.approx(weights + cache)}
