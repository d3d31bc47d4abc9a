"""What do two GPUs add: shares of every operator, collectives, sends between groups, idle boards, derived by hand.

Links: 10 GB/s (a byte takes 100 ps), 1 us for a step of a collective or a send, 100 pJ a byte.
"""

from __future__ import annotations

import pytest
from test_what_does_inference_cost_on_one_gpu import PREFILL
from toy import INFERENCE, TRAINING, Row, Table, check, run, seconds, total

from tierform.workload.parallel import Parallelism

US = 1_000_000  # picoseconds

# -- tensor: each GPU has one of two heads, half of the features, half of the words --
_HALF = Row(2, 2 * 6 * 4 * 8, 96 + 64 + 8, 48, True)  # four of eight outputs: half of the matrix, half of the bias
TENSOR_PREFILL: Table = {
    **PREFILL,
    # Each has half of the words: three of six rows are read, zeros are written for the others.  Positions, sums, norms,
    # residuals are repeated.
    "embedding/embedding.word.lookup": Row(1, 0, 48, 96),
    "layer/attention.q": _HALF,
    "layer/attention.k": _HALF,
    "layer/attention.v": _HALF,
    "layer/attention.scores": Row(2, 2 * 2 * 9 * 4, 48 + 48, 36, True),
    "layer/attention.softmax": Row(2, 7 * 18, 36, 36),
    "layer/attention.context": Row(2, 2 * 2 * 9 * 4, 36 + 48, 48, True),
    # o and down: all outputs from half of the inputs; the bias is added on both.
    "layer/attention.o": Row(2, 2 * 6 * 8 * 4, 48 + 64 + 16, 96, True),
    "layer/ffn.up": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    "layer/ffn.activation": Row(2, 48, 96, 96),
    "layer/ffn.down": Row(2, 2 * 6 * 8 * 8, 96 + 128 + 16, 96, True),
    "head/head.logits": Row(1, 2 * 2 * 5 * 8, 32 + 80, 20, True),
}
# An all-reduce of 96 bytes between two: 2 steps of half of them, 96 bytes in all.  An all-gather of 2 rows of ten
# logits (40 bytes): one step of 20.
ALL_REDUCE_PS, ALL_REDUCE_PJ = 2 * US + 96 * 100, 96 * 100
ALL_GATHER_PS, ALL_GATHER_PJ = 1 * US + 20 * 100, 20 * 100


def test_what_does_tensor_parallelism_share_and_add() -> None:
    result = run(INFERENCE, split=Parallelism(tensor=2))
    rows = [row for row in result.operators if row.stage == "prefill" and row.kind == "collective"]
    taken = {row.name: (row.times, round(row.busy_s * 1e12), round(row.energy_J * 1e12)) for row in rows}
    assert taken == {
        "embedding.word.all_reduce": (2, 2 * ALL_REDUCE_PS, 2 * ALL_REDUCE_PJ),
        "attention.o.all_reduce": (4, 4 * ALL_REDUCE_PS, 4 * ALL_REDUCE_PJ),
        "ffn.down.all_reduce": (4, 4 * ALL_REDUCE_PS, 4 * ALL_REDUCE_PJ),
        "head.logits.all_gather": (2, 2 * ALL_GATHER_PS, 2 * ALL_GATHER_PJ),
    }
    check(result, "prefill", TENSOR_PREFILL, chips=2, besides=frozenset(row.block + "/" + row.name for row in rows))


def test_how_long_does_a_prefill_take_on_two_gpus_that_share_each_layer() -> None:
    result = run(INFERENCE, split=Parallelism(tensor=2))
    # Kernels: embedding 1,440 + 960 + 2,400; a layer (x 2): norms 2 x 3,840, q, k, v 3 x 2,160, scores and context 2 x
    # 1,320, softmax 1,260, o 2,240, residuals 2 x 2,880, up 3,360, ReLU 1,920, down 3,360; head 3,840 + 1,320.
    # Five all-reduces and an all-gather wait between them; positions are looked up beside the first (960).
    layer = 2 * 3840 + 3 * 2160 + 2 * 1320 + 1260 + 2240 + 2 * 2880 + 3360 + 1920 + 3360
    kernels = 4800 + 2 * layer + 5160
    assert kernels == total(TENSOR_PREFILL, "ps")
    expected = kernels - 960 + 5 * ALL_REDUCE_PS + ALL_GATHER_PS
    assert seconds(result, "prefill") == pytest.approx(expected)
    stage = result.stages[0]
    sent = 2 * (5 * ALL_REDUCE_PJ + ALL_GATHER_PJ)
    assert stage.energy_J * 1e12 == pytest.approx(2 * total(TENSOR_PREFILL, "pJ") + sent + 2 * expected)


def test_what_waits_in_each_of_two_gpus_that_share_each_layer() -> None:
    footprint = run(INFERENCE, split=Parallelism(tensor=2)).memory_footprint_B
    # Words halved, positions whole; a layer: norms whole, q, k, v half with bias, o and down half with a whole bias.
    layer = 2 * 16 + 3 * (32 + 4) + (32 + 8) + (64 + 8) + (64 + 8)
    assert footprint["weights"] == 2 * (40 + 128 + 2 * layer + 16) == 1664
    assert footprint["kv_cache"] == 640 / 2


# -- pipeline: embedding and layer 0 on one GPU, layer 1 and head on the other; a sequence is a micro-batch --
# One sequence, three rows of 16 bytes.  A layer: norms 2 x 1,920 (1,920 operations of 10 ps beat 128 bytes), q, k, v, o
# 4 x 2,400 (48 + 144 + 48 bytes), scores and context 2 x 1,320, softmax 1,260, residuals 2 x 1,440, up 4,320, ReLU
# 1,920, down 4,160.
LAYER_PS = 2 * 1920 + 4 * 2400 + 2 * 1320 + 1260 + 2 * 1440 + 4320 + 1920 + 4160
FIRST_PS = 960 + 960 + 1440 + LAYER_PS  # three words, three positions, their sums
SEND_PS = 48 * 100  # three rows hold the link


def in_line(first: int, second: int) -> int:
    """Two sequences through two groups: the second waits for its own arrival and for the first to leave."""
    arrivals = [first + SEND_PS + US, 2 * first + SEND_PS + US]
    done = arrivals[0] + second
    return max(arrivals[1], done) + second


def test_how_long_do_two_groups_of_a_pipeline_take() -> None:
    assert (LAYER_PS, FIRST_PS) == (30620, 33980)
    inference = run(INFERENCE, split=Parallelism(pipeline=2), micro_batches=2)
    # Head of a sequence: norm 1,920, one row of logits 16 + 160 + 20 bytes.
    assert seconds(inference, "prefill") == pytest.approx(in_line(FIRST_PS, LAYER_PS + 1920 + 1960))
    training = run(TRAINING, split=Parallelism(pipeline=2), micro_batches=2)
    # Head: norm 1,920, three rows of logits 48 + 160 + 60 bytes, loss 60 + 12 + 120 bytes.
    forward = in_line(FIRST_PS, LAYER_PS + 1920 + 2680 + 1920)
    assert forward == 1_113_060
    assert seconds(training, "forward") == pytest.approx(forward)
    # The head is tied to the words: both groups have these 80 numbers, and add up gradients of 160 bytes before the
    # update.  The first group has words, positions and a layer, 808 weights of 280 ps; the second 696 beside it.
    assert seconds(training, "update") == pytest.approx(2 * US + 160 * 100 + 280 * 808)


def test_what_do_sends_cost() -> None:
    inference = run(INFERENCE, split=Parallelism(pipeline=2), micro_batches=2)
    # Prefill twice 48 bytes; two steps twice 16.
    assert inference.energy_J_by_component["links"] * 1e12 == pytest.approx(100 * (2 * 48 + 2 * 2 * 16))
    training = run(TRAINING, split=Parallelism(pipeline=2), micro_batches=2)
    # Forward twice 48 bytes, backward as many.
    assert training.energy_J_by_component["links"] * 1e12 == pytest.approx(100 * (2 * 48 + 2 * 48))
    # Gradients of the words: both groups send 160 bytes in the two steps of their all-reduce.
    assert training.energy_J_by_component["interconnect"] * 1e12 == pytest.approx(100 * 2 * 160)
    assert training.memory_footprint_B["weights"] == 2 * 808
    # The second copy of 80 words' numbers is updated, too: 14 operations each.
    assert training.operations == run(TRAINING, micro_batches=2).operations + 14 * 80
    # Both boards idle all the time.
    idle = training.energy_J_by_part["gpu: idle and leakage"]
    assert idle == pytest.approx(2 * training.latency_s)


def test_does_the_pipeline_keep_its_keys_where_its_layers_are() -> None:
    assert run(INFERENCE, split=Parallelism(pipeline=2), micro_batches=2).memory_footprint_B["kv_cache"] == 640 / 2


# -- data: a sequence on each GPU, gradients added before the update --
def test_what_do_two_copies_add() -> None:
    result = run(TRAINING, split=Parallelism(data=2))
    # Forward of one sequence: embedding and two layers, head norm 1,920, logits 2,680, loss 1,920.
    assert seconds(result, "forward") == pytest.approx(FIRST_PS + LAYER_PS + 1920 + 2680 + 1920)
    # 1,424 gradients of 2 bytes: an all-reduce of 2,848 bytes, then the update.
    reduced = 2 * US + 2848 * 100
    assert seconds(result, "update") == pytest.approx(reduced + 280 * 1424)
    assert result.energy_J_by_component["interconnect"] * 1e12 == pytest.approx(2 * 2848 * 100)
    assert result.energy_J_by_operator["collective"] * 1e12 == pytest.approx(2 * 2848 * 100)
    assert result.stages[0].tokens == 6
    assert result.throughput["training_tokens_per_s"] == pytest.approx(6 / result.latency_s)
    assert result.memory_footprint_B["optimizer_states"] == 2 * 4 * 1424
    assert result.energy_J_by_part["gpu: idle and leakage"] == pytest.approx(2 * result.latency_s)
    assert result.chips == 2
    assert result.area_m2 == pytest.approx(2 * 100e-6)
