"""What do full training and LoRA fine-tuning cost on one GPU: every operator, stage and kept byte, derived by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from backward import ATTENTION_BACKWARD, BACKWARD, FFN_BACKWARD, HEAD_BACKWARD, UPDATE, update
from test_what_does_inference_cost_on_one_gpu import PREFILL
from toy import LORA, TRAINING, Row, Table, check, run, seconds, total

# The forward pass is prefill's, with logits of every token and the loss: 5 operations for each of 60 logits, 120 bytes
# and six targets of 4 read, log-probabilities in fp32 written.
HEAD: Table = {
    "head/head.norm": PREFILL["head/head.norm"],
    "head/head.logits": Row(1, 2 * 6 * 10 * 8, 96 + 160, 120, True),
    "head/loss": Row(1, 5 * 60, 120 + 24, 240),
}
FORWARD: Table = {**PREFILL, **HEAD}
# An adapter of rank 2: six rows of 2 values are 24 bytes, A and B 32 each.
_A, _B = Row(1, 2 * 6 * 2 * 8, 96 + 32, 24, True), Row(1, 2 * 6 * 2 * 8, 24 + 32, 96, True)
_A_WEIGHT, _B_WEIGHT = Row(1, 2 * 6 * 2 * 8, 24 + 96, 32, True), Row(1, 2 * 6 * 2 * 8, 96 + 24, 32, True)
_SUM = Row(1, 48, 96 + 96, 96)
_SCALED_SUM = Row(1, 2 * 48, 96 + 96, 96)  # the adapter's result times alpha / rank, added


def _in_both(table: Table) -> Table:
    """The rows of two equal layers as those of layer 0 and of layer 1, which learn differently."""
    return {
        name.replace("layer/", f"layer[{number}]/"): row._replace(times=1)
        for name, row in table.items()
        for number in (0, 1)
    }


def _lora(number: int) -> Table:
    """What adapters beside q and v add to a layer's forward pass."""
    found = {}
    for name in "qv":
        at = f"layer[{number}]/attention.{name}"
        found |= {f"{at}.lora_a": _A, f"{at}.lora_b": _B, f"{at}.lora_add": _SCALED_SUM}
    return found


LORA_FORWARD: Table = {
    **{name: row for name, row in FORWARD.items() if not name.startswith("layer/")},
    **_in_both({name: row for name, row in FORWARD.items() if name.startswith("layer/")}),
    **_lora(0),
    **_lora(1),
}
_SQUARE_INPUT = Row(1, 768, 96 + 128, 96, True)
# The input gradient of B is a product like A's, that of A one like B's.
LORA_BACKWARD: Table = {
    **HEAD_BACKWARD,
    **_in_both({**FFN_BACKWARD, **ATTENTION_BACKWARD, "layer/attention.o.grad_input": _SQUARE_INPUT}),
    **{f"layer[{n}]/attention.{w}.lora_b.grad_input": _A for n in (0, 1) for w in "qv"},
    **{f"layer[{n}]/attention.{w}.lora_b.grad_weight": _B_WEIGHT for n in (0, 1) for w in "qv"},
    **{f"layer[{n}]/attention.{w}.lora_a.grad_weight": _A_WEIGHT for n in (0, 1) for w in "qv"},
    # Below layer 1 something learns: its input needs a gradient, through q, k, v and both adapters (four sums).
    **{f"layer[1]/attention.{w}.grad_input": _SQUARE_INPUT for w in "qkv"},
    **{f"layer[1]/attention.{w}.lora_a.grad_input": _B for w in "qv"},
    **{f"layer[1]/attention_norm.out.gradient_add{n}": _SUM for n in ("", ".2", ".3", ".4")},
    "layer[1]/attention_norm.grad_input": Row(1, 11 * 48, 96 + 96 + 16, 96),
    "layer[1]/x.gradient_add": _SUM,
}
# Below layer 0 nothing learns, and its keys come from what does not learn.
del LORA_BACKWARD["layer[0]/attention.scores.grad_right"]
LORA_UPDATE: Table = {
    f"layer[{n}]/attention.{w}.lora_{side}.update": update(1, 16) for n in (0, 1) for w in "qv" for side in "ab"
}


def test_what_does_every_operator_of_a_training_step_take() -> None:
    result = run(TRAINING)
    check(result, "forward", FORWARD)
    check(result, "backward", BACKWARD)
    check(result, "update", UPDATE)


def test_what_does_every_operator_of_a_lora_step_take() -> None:
    result = run(LORA)
    check(result, "forward", LORA_FORWARD)
    check(result, "backward", LORA_BACKWARD)
    check(result, "update", LORA_UPDATE)


def test_how_long_does_a_training_step_take() -> None:
    result = run(TRAINING)
    # Forward: embedding 5,280; two layers of 49,880 (see prefill); head 3,840, logits 3,760, loss 3,840.
    assert seconds(result, "forward") == pytest.approx(5280 + 2 * 49880 + 3840 + 3760 + 3840)
    # Backward, head: loss 3,840, logits 2 x 3,760, norm 5,280 + 2,080 + 1,120.  A layer: down and up 4 x 5,440, their
    # biases 1,120 + 2,240, ReLU 5,760, norms 2 x (5,280 + 2,080 + 1,120), sums 4 x 2,880, q, k, v, o 4 x (2 x 3,200 +
    # 1,120), attention 4 x 2,640 + 2,160.
    head = 3840 + 2 * 3760 + 5280 + 2080 + 1120
    layer = 4 * 5440 + 1120 + 2240 + 5760 + 2 * 8480 + 4 * 2880 + 4 * 7520 + 4 * 2640 + 2160
    embedding = 10 * (96 + 48) + 10 * (48 + 256) + 10 * (96 + 160 + 160)
    assert seconds(result, "backward") == pytest.approx(head + 2 * layer + embedding)
    # Update: 28 bytes, 280 ps, for each of 1,424 weights.
    assert seconds(result, "update") == pytest.approx(280 * 1424)
    assert result.latency_s * 1e12 == pytest.approx(116480 + head + 2 * layer + embedding + 398720)
    assert result.throughput["training_tokens_per_s"] == pytest.approx(6 / result.latency_s)
    assert result.throughput["steps_per_s"] == pytest.approx(1 / result.latency_s)


def test_how_long_does_a_lora_step_take() -> None:
    result = run(LORA)
    # Beside a layer's 49,880: twice A 1,520, B 1,520 and the sum 2,880.
    layer = 49880 + 2 * (1520 + 1520 + 2880)
    assert seconds(result, "forward") == pytest.approx(5280 + 2 * layer + 11440)
    # Both layers: down, up 2 x 5,440, ReLU 5,760, norm 5,280, sum 2,880, o 3,200, context 2 x 2,640, softmax 2,160,
    # scores 2,640, adapters 6 x 1,520.  Layer 1 alone: scores 2,640, q, k, v 3 x 3,200, A 2 x 1,520, sums 5 x 2,880,
    # norm 5,280.  Head: 3,840 + 3,760 + 5,280.
    both = 2 * 5440 + 5760 + 5280 + 2880 + 3200 + 2 * 2640 + 2160 + 2640 + 6 * 1520
    upper = 2640 + 3 * 3200 + 2 * 1520 + 5 * 2880 + 5280
    assert seconds(result, "backward") == pytest.approx(2 * both + upper + 12880)
    # Two layers of two adapters of 2 x 16 values.
    assert seconds(result, "update") == pytest.approx(280 * 128)


@pytest.mark.parametrize(
    ("task", "tables"),
    [(TRAINING, (FORWARD, BACKWARD, UPDATE)), (LORA, (LORA_FORWARD, LORA_BACKWARD, LORA_UPDATE))],
    ids=["full", "lora"],
)
def test_do_the_totals_follow_from_the_rows(task: object, tables: tuple[Table, ...]) -> None:
    result = run(task)  # type: ignore[arg-type]
    assert result.memory_read_B == sum(total(table, "read_B") for table in tables)
    assert result.memory_write_B == sum(total(table, "write_B") for table in tables)
    assert result.operations == sum(total(table, "operations") for table in tables)
    spent = sum(total(table, "pJ") for table in tables)
    idle = sum(total(table, "ps") for table in tables)  # 1 W: a picojoule each picosecond
    assert result.energy_J * 1e12 == pytest.approx(spent + idle)
    assert result.energy_J_by_tile == pytest.approx([spent * 1e-12])
    assert result.energy_J_by_part["gpu: idle and leakage"] * 1e12 == pytest.approx(idle)
    for entry, table in zip(result.stages, tables, strict=True):
        assert entry.energy_J * 1e12 == pytest.approx(total(table, "pJ") + total(table, "ps"))


def test_what_waits_in_memory_while_everything_learns() -> None:
    footprint = run(TRAINING).memory_footprint_B
    assert footprint["weights"] == 2 * 1424
    assert footprint["gradients"] == 2 * 1424
    assert footprint["optimizer_states"] == 2 * 4 * 1424
    assert footprint["master_weights"] == 4 * 1424
    # Kept in a layer: both norms' inputs and results (4 x 96), q, k, v and the mixed values (4 x 96), the probabilities
    # (72; this GPU has no fused attention), ReLU's result (192), which tells its gradient, too; in the head its norm's
    # input and result and the log-probabilities in fp32.
    layer, head = 4 * 96 + 4 * 96 + 72 + 192, 96 + 96 + 240
    # Beside them at the widest moment, where gradients of the attention's input are added: the gradient around the
    # branch, those of q and k, the two that are added and their sum.
    assert footprint["activations"] == 2 * layer + head + 6 * 96 == 3072


def test_what_waits_in_memory_while_adapters_learn() -> None:
    footprint = run(LORA).memory_footprint_B
    assert footprint["weights"] == 2 * 1424
    assert footprint["adapters"] == footprint["gradients"] == 2 * 128
    assert footprint["optimizer_states"] == 2 * 4 * 128
    assert footprint["master_weights"] == 4 * 128
    # Layer 0 keeps the attention norm's result, k, v, the residual sum (4 x 96), what is between A and B (2 x 24), the
    # probabilities and ReLU's result; layer 1 its input and q, too; the head its norm's input and log-probabilities.
    kept = (4 * 96 + 48 + 72 + 192) + (6 * 96 + 48 + 72 + 192) + 96 + 240
    assert kept == 1920
    assert kept + 6 * 96 <= footprint["activations"] < run(TRAINING).memory_footprint_B["activations"]


def test_do_two_steps_cost_twice_one_and_tokens_a_second_stay() -> None:
    one, two = run(TRAINING), run(replace(TRAINING, steps=2))
    assert two.latency_s == pytest.approx(2 * one.latency_s)
    assert two.memory_write_B == 2 * one.memory_write_B
    assert two.throughput == pytest.approx(one.throughput)


def test_does_accumulation_repeat_the_passes_and_not_the_update() -> None:
    """Two passes a step: 12 tokens; each gradient is read once more, to be added to, in the second pass."""
    one, two = run(TRAINING), run(replace(TRAINING, gradient_accumulation=2))
    assert seconds(two, "forward") == pytest.approx(2 * seconds(one, "forward"))
    assert seconds(two, "update") == pytest.approx(seconds(one, "update"))
    assert two.throughput["training_tokens_per_s"] == pytest.approx(12 / two.latency_s)
    # 1,424 gradients of 2 bytes in both passes; the look-up of words reads its table's in any case.
    passes = 2 * (total(BACKWARD, "read_B") + total(FORWARD, "read_B"))
    assert two.memory_read_B - passes - total(UPDATE, "read_B") == 2 * 2 * 1424
