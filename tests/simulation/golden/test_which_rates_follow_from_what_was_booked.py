"""Which shares and rates follow from the rows of the toy model: rooflines, model FLOPs, busy time of each group."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backward import BACKWARD
from test_what_do_two_gpus_add import FIRST_PS, LAYER_PS, SEND_PS, US
from test_what_does_inference_cost_on_one_gpu import PREFILL, decoding
from test_what_does_training_cost_on_one_gpu import FORWARD
from toy import INFERENCE, LORA, TRAINING, Table, run, seconds, total

from tierform.workload.parallel import Parallelism


def product_operations(table: Table) -> float:
    return sum(row.times * row.operations for row in table.values() if row.product)


def test_where_does_each_operator_stand_under_the_roof() -> None:
    roofline = run(INFERENCE).roofline
    points = roofline["operations_per_B_and_per_s"]
    assert isinstance(points, dict)
    # The last of equal names counts: the second token, with five keys.  q: 256 operations, 32 + 128 + 16 bytes read and
    # 32 written, a byte in 10 ps.  Softmax: 140 operations and 80 bytes, an operation in 10 ps.
    assert points["gpu: attention.q"] == pytest.approx([256 / 208, 256 / 2080e-12])
    assert points["gpu: attention.softmax"] == pytest.approx([140 / 80, 140 / 1400e-12])
    # Every operator but the two lookups, which compute nothing.
    names = {f"gpu: {name.split('/')[1]}" for table in (PREFILL, decoding(5)) for name in table}
    assert set(points) == names - {"gpu: embedding.word.lookup", "gpu: embedding.position.lookup"}
    assert roofline["peak_per_s"] == {"bf16": 1e12} and roofline["bandwidth_B_per_s"] == 100e9


def test_which_share_of_the_peak_do_products_reach() -> None:
    # An operation of a product takes 1 ps at the peak.
    result = run(TRAINING)
    model = product_operations(FORWARD) + product_operations(BACKWARD)
    # A layer: q, k, v, o 4 x 768, up and down 2 x 1,536, scores and context 2 x 288; a head of 960; three times.
    assert model == 3 * (2 * (4 * 768 + 2 * 1536 + 2 * 288) + 960)
    share = model / (result.latency_s * 1e12)
    assert result.flops_utilization == pytest.approx({"model": share, "hardware": share})
    # The layers run once more, but for down, whose result no backward rule reads.
    again = run(replace(TRAINING, recomputation="full"))
    layers = 2 * (4 * 768 + 1536 + 2 * 288)
    ps = again.latency_s * 1e12
    assert again.flops_utilization == pytest.approx({"model": model / ps, "hardware": (model + layers) / ps})
    # Two groups have twice the peak.
    two = run(TRAINING, split=Parallelism(pipeline=2), micro_batches=2)
    assert two.flops_utilization["model"] == pytest.approx(model / (2 * two.latency_s * 1e12))


def test_how_long_do_two_groups_work_and_send() -> None:
    two = run(INFERENCE, split=Parallelism(pipeline=2), micro_batches=2)
    # Prefill: two sequences, two layers and the head (1,920 + 1,960) of each; decoding a layer of one row at a time.
    prefill = 2 * (FIRST_PS + LAYER_PS + 1920 + 1960)
    rows = [row for row in two.operators if row.stage == "prefill"]
    assert sum(row.busy_s for row in rows) * 1e12 == pytest.approx(prefill)
    worked = sum(row.busy_s for row in two.operators)
    assert two.busy_s_by_resource == pytest.approx({"gpu": worked / 2})
    assert two.utilization == pytest.approx({"gpu": worked / 2 / two.latency_s})
    # Each chip's share of the energy of its operators.
    spent = sum(row.energy_J for row in two.operators)
    assert two.energy_J_by_tile == pytest.approx([spent / 2])
    # Sends of prefill 4,800 ps, of two tokens 1,600 ps, twice each, on one of two chips.
    sends = 2 * (SEND_PS + 2 * 1600)
    assert two.communication["busy_s"] * 1e12 == pytest.approx(sends / 2)


def test_do_steps_multiply_everything_but_shares() -> None:
    one, three = run(TRAINING), run(replace(TRAINING, steps=3))
    for name in ("latency_s", "energy_J", "operations", "memory_read_B", "memory_write_B"):
        assert getattr(three, name) == pytest.approx(3 * getattr(one, name)), name
    assert three.busy_s_by_resource == pytest.approx({"gpu": 3 * one.latency_s})
    assert three.energy_J_by_tile == pytest.approx([3 * one.energy_J_by_tile[0]])
    assert three.utilization == one.utilization == pytest.approx({"gpu": 1.0})
    assert three.flops_utilization == pytest.approx(one.flops_utilization)
    for once, thrice in zip(one.stages, three.stages, strict=True):
        assert (thrice.tokens, thrice.memory_B) == (3 * once.tokens, 3 * once.memory_B)
        assert thrice.energy_J == pytest.approx(3 * once.energy_J)
    # A stage's bytes are those of its rows; 6 tokens in the forward pass.
    assert one.stages[0].memory_B == total(FORWARD, "read_B") + total(FORWARD, "write_B")
    assert one.stages[0].tokens == 6
    assert seconds(three, "forward") == pytest.approx(3 * seconds(one, "forward"))


def test_does_communication_of_three_steps_take_three_times_as_long() -> None:
    # An all-reduce of 2,848 bytes before each update, see the ledger of two GPUs; nothing hides it.
    task = replace(TRAINING, steps=3)
    found = run(task, split=Parallelism(data=2)).communication
    reduced = 3 * (2 * US + 2848 * 100)
    assert {name: value * 1e12 for name, value in found.items()} == pytest.approx(
        {"busy_s": reduced, "exposed_s": reduced}
    )
    # Three passes of two sends each, in both directions, on one of two chips; gradients of tied words (160 B) are
    # added up once.
    split = Parallelism(pipeline=2)
    sends = run(replace(TRAINING, gradient_accumulation=3), split=split, micro_batches=2).communication
    assert sends["busy_s"] * 1e12 == pytest.approx(3 * 2 * 2 * SEND_PS / 2 + 2 * US + 160 * 100)
    twice = run(replace(TRAINING, steps=2), split=split, micro_batches=2).communication
    once = run(TRAINING, split=split, micro_batches=2).communication
    assert twice == pytest.approx({name: 2 * value for name, value in once.items()})


def test_are_shares_of_operations_counted_as_published() -> None:
    # Forward products of two layers: 6 rows through 4 x 64 and 2 x 128 weights in cells; on the arrays scores and
    # context, 2 x 144 multiply-adds, and two adapters of 2 x 96, all of them by half.  The head is left out.
    weights, arrays = 2 * 6 * (4 * 64 + 2 * 128), 2 * (2 * 144 + 2 * 2 * 96) / 2
    found = run(LORA, chip="toy-stack").operation_share
    assert found == pytest.approx({"reram": weights / (weights + arrays), "systolic": arrays / (weights + arrays)})
