"""Which bytes cross between a chip of four tiles and its memory, and which joules do its tiles spend, derived by hand?

Each tile has a systolic array (0.25 pJ for a multiply-add in bf16) and a vector unit (0.3 pJ an operation).  What one
operator hands to the next stays in the buffers; weights, keys and values, kept tensors, gradients and the update cross.
"""

from __future__ import annotations

from math import fsum

import pytest
from toy import HERE, INFERENCE, MODEL, TRAINING, run

import tierform
from tierform.memory import load_memory
from tierform.workload.parallel import Parallelism

# Bytes of a layer: two norms of 32, q, k, v, o 128 + 16 each, up 256 + 32, down 256 + 16; of the head its norm
# and the table of ten words.
LAYER_B = 2 * 32 + 4 * 144 + 288 + 272
HEAD_B = 32 + 160


def test_which_bytes_does_inference_move() -> None:
    result = run(INFERENCE, "toy-tiles")
    # Prefill: six rows of words and three of positions; weights once; keys and values of six tokens, read by attention.
    prefill = 96 + 48 + 2 * (LAYER_B + 2 * 96) + HEAD_B
    # A step: two rows of words, one of positions; keys and values of 2 sequences x 4 or 5 tokens x 16 bytes.
    four = 32 + 16 + 2 * (LAYER_B + 2 * 32 * 4) + HEAD_B
    five = 32 + 16 + 2 * (LAYER_B + 2 * 32 * 5) + HEAD_B
    assert (prefill, four, five) == (3120, 3152, 3280)
    assert result.memory_read_B == 3120 + 3152 + 3280
    # Written: keys and values of 2 sequences x (3 + 1 + 1) tokens, which is what waits in the end.
    assert result.memory_write_B == 2 * 2 * (96 + 32 + 32) == result.memory_footprint_B["kv_cache"]


def test_which_bytes_does_training_move() -> None:
    result = run(TRAINING, "toy-tiles")
    kept = 2 * 1032 + 432
    forward = 96 + 48 + 2 * LAYER_B + HEAD_B
    # Backward: matrices and gains again (no biases), what was kept, and the table's gradient that the head has begun.
    backward = 2 * (4 * 128 + 2 * 256 + 2 * 16) + 160 + 16 + kept + 160
    assert result.memory_read_B == forward + backward + 14 * 1424 == 27616
    # Written: what is kept, 1,424 gradients, the table's once more, and weight, master and moments (14 bytes each).
    assert result.memory_write_B == kept + 2 * 1424 + 160 + 14 * 1424 == 25440


def test_which_joules_do_the_tiles_spend() -> None:
    result = run(INFERENCE, "toy-tiles")
    parts = {name: energy * 1e12 for name, energy in result.energy_J_by_part.items()}
    # Multiply-adds: half of the operations of products, see the ledger of one GPU.
    assert parts["systolic: mac"] == pytest.approx(0.25 * (13760 + 4928 + 5056) / 2)
    assert parts["vector: operations"] == pytest.approx(0.3 * (2856 + 1008 + 1064))
    own = ("systolic: mac", "systolic: sram", "vector: operations", "vector: buffer")
    assert fsum(result.energy_J_by_tile) * 1e12 == pytest.approx(fsum(parts[name] for name in own))
    assert result.energy_J_by_tile == pytest.approx([result.energy_J_by_tile[0]] * 4)
    assert result.network_B == 0  # all four tiles do everything together, and each has a port of the memory


def test_what_do_the_memories_of_two_groups_draw() -> None:
    """Each chip's memory stands by all the time, and is busy for half of the traffic."""
    links = {
        "bandwidth": {"value": "10 GB/s", "kind": "assumed", "note": "toy"},
        "latency": {"value": "1 us", "kind": "assumed", "note": "toy"},
        "energy": {"value": "100 pJ/B", "kind": "assumed", "note": "toy"},
    }
    chip = tierform.load_chip(HERE / "toy-tiles.yaml").vary({"cluster": links})
    result = tierform.simulate(
        MODEL, INFERENCE, chip, thermal="none", mapping="plain", micro_batches=2, parallelism=Parallelism(pipeline=2)
    )
    device = load_memory("hbm2", stacks=1)
    traffic = [(stage.memory_B, stage.latency_s) for stage in result.stages]
    assert sum(size for size, _ in traffic) == result.memory_read_B + result.memory_write_B
    busy_s = result.busy_s_by_resource["memory"]
    assert 0 < busy_s < result.latency_s / 2
    expected = 2 * device.background_energy_J(result.latency_s, busy_s)
    assert result.energy_J_by_part["memory: background"] == pytest.approx(expected)
    assert device.background_energy_J(result.latency_s, 0.0) != pytest.approx(expected / 2)
