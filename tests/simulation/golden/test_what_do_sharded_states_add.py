"""What do sharded states add and save on two GPUs (ZeRO 1 to 3), and a pipeline whose parts take turns, by hand?

Links: 10 GB/s (a byte takes 100 ps), 1 us for a step of a collective or a send, 100 pJ a byte.  Of S bytes among two
chips an all-gather or a reduce-scatter moves S / 2 in one step.  The toy model has 1,424 weights of 2 bytes: 208 in
the embedding (words, which are the head's too, and positions), 600 in each of two layers, 16 in the head's norm.
"""

from __future__ import annotations

import pytest
from test_what_do_two_gpus_add import FIRST_PS, LAYER_PS, SEND_PS, US
from toy import HERE, TRAINING, run, seconds

import tierform
from tierform.simulation import Result
from tierform.workload import model_from_config
from tierform.workload.parallel import Parallelism

HEAD_PS = 1920 + 2680 + 1920  # norm, logits and loss of three rows
FORWARD_PS = FIRST_PS + LAYER_PS + HEAD_PS
# Backward of the head: loss 60 + 12 + 120 bytes; its input's gradient 60 + 160 + 48, the norm's 11 operations for each
# of 24 values; the words' gradient 60 + 48 + 160 bytes, the gain's 112 and the shift's 64.
HEAD_BACKWARD_PS = 1920 + 2680 + 2640 + 2680 + 1120 + 640


def moved(weights: int) -> int:
    """Picoseconds of one gather or scatter of so many weights or gradients."""
    return US + weights * 100


EVERY = moved(208) + 2 * moved(600) + moved(16)


def sharded(zero: int) -> Result:
    return run(TRAINING, split=Parallelism(data=2, zero=zero))


def kept(result: Result) -> tuple[int, int, int, int]:
    memory = result.memory_footprint_B
    return memory["weights"], memory["gradients"], memory["optimizer_states"], memory["master_weights"]


def test_what_does_each_copy_keep() -> None:
    # 2 + 2 + 8 + 4 bytes for each weight; halved from the right.
    assert kept(sharded(0)) == (2 * 1424, 2 * 1424, 8 * 1424, 4 * 1424)
    assert kept(sharded(1)) == (2 * 1424, 2 * 1424, 4 * 1424, 2 * 1424)
    assert kept(sharded(2)) == (2 * 1424, 1424, 4 * 1424, 2 * 1424)
    assert kept(sharded(3)) == (1424, 1424, 4 * 1424, 2 * 1424)
    # Whole for a while: the gradients of two layers; the weights of two layers, and those of embedding and head.
    least = sharded(0).memory_footprint_B["activations"]
    assert sharded(1).memory_footprint_B["activations"] == least
    assert sharded(2).memory_footprint_B["activations"] == least + 2 * 1200
    assert sharded(3).memory_footprint_B["activations"] == least + 2 * (1200 + 1200) + 416 + 32


def test_how_long_do_states_take_that_one_of_two_copies_updates() -> None:
    result = sharded(1)
    assert seconds(result, "forward") == pytest.approx(FORWARD_PS)
    # Gradients are scattered, half of the weights updated (28 bytes each), all weights gathered.
    assert seconds(result, "update") == pytest.approx(moved(1424) + 280 * 712 + moved(1424))


def test_how_long_does_a_backward_pass_take_whose_gradients_are_scattered() -> None:
    result = sharded(2)
    assert seconds(result, "forward") == pytest.approx(FORWARD_PS)
    # The links are busy from the head's gradients on: what follows is computed beside the first scatter.
    assert seconds(result, "backward") == pytest.approx(HEAD_BACKWARD_PS + EVERY)
    assert seconds(result, "update") == pytest.approx(280 * 712 + moved(1424))


def test_how_long_do_passes_take_whose_weights_are_gathered() -> None:
    result = sharded(3)
    # Gathers follow each other without a gap; the head's norm waits for the last one.
    assert seconds(result, "forward") == pytest.approx(EVERY + HEAD_PS)
    # Backward: each layer's weights once more, beside the scatters.
    assert seconds(result, "backward") == pytest.approx(EVERY + 2 * moved(600))
    assert seconds(result, "update") == pytest.approx(280 * 712)


def test_which_bytes_and_joules_do_they_move() -> None:
    for zero, weights in ((0, 2 * 1424), (1, 2 * 1424), (2, 2 * 1424), (3, 2 * 1424 + 1200)):
        # Half of the bytes of 1,424 weights is a byte for each.
        energy = sharded(zero).energy_J_by_component["interconnect"] * 1e12
        assert energy == pytest.approx(2 * 100 * weights), zero


def test_how_much_of_it_is_exposed() -> None:
    plain, result = sharded(0), sharded(3)
    computed = seconds(plain, "forward") + seconds(plain, "backward")
    busy = EVERY + EVERY + 2 * moved(600)
    assert result.communication["busy_s"] * 1e12 == pytest.approx(busy)
    assert result.communication["exposed_s"] * 1e12 == pytest.approx(busy + HEAD_PS - computed)
    # Nothing runs beside the all-reduce before the update.
    reduced = 2 * US + 2848 * 100
    assert plain.communication == {
        "busy_s": pytest.approx(reduced * 1e-12),
        "exposed_s": pytest.approx(reduced * 1e-12),
    }
    assert run(TRAINING).communication == {}


@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_what_do_gradients_take_that_are_reduced_beside_the_backward_pass(zero: int, accumulation: int) -> None:
    task = tierform.FineTuning(batch=2, sequence=3, gradient_accumulation=accumulation)
    plain = run(task, split=Parallelism(data=2, zero=zero))
    result = run(task, split=Parallelism(data=2, zero=zero, overlap=True))
    # The links are busy from the head's gradients on; an all-reduce is two steps of half of the bytes.  Where gradients
    # are added up, the head reads 160 + 16 + 16 bytes of sums more.
    head = HEAD_BACKWARD_PS + (10 * (160 + 16 + 16) if accumulation > 1 else 0)
    assert seconds(result, "backward[last]") == pytest.approx(head + (2 - zero) * EVERY)
    if accumulation > 1:
        once = seconds(plain, "backward") / accumulation
        assert seconds(result, "backward") == pytest.approx((accumulation - 1) * once)
    update = 280 * 1424 if zero == 0 else 280 * 712 + moved(1424)
    assert seconds(result, "update") == pytest.approx(update)
    links = result.energy_J_by_component["interconnect"]
    assert links == pytest.approx(plain.energy_J_by_component["interconnect"])
    assert result.memory_footprint_B == plain.memory_footprint_B
    assert result.operations == plain.operations
    assert result.throughput["training_tokens_per_s"] * result.latency_s == pytest.approx(6 * accumulation)


def test_what_does_accumulation_add_to_sharded_gradients() -> None:
    task = tierform.FineTuning(batch=2, sequence=3, gradient_accumulation=3)
    once, thrice = (run(given, split=Parallelism(data=2, zero=2)) for given in (TRAINING, task))

    def scattered_J(result: Result) -> float:
        rows = [r for r in result.operators if r.kind == "collective" and r.stage == "backward"]
        return sum(row.energy_J for row in rows)

    assert scattered_J(thrice) == pytest.approx(3 * scattered_J(once))
    # Shards are added up: 712 values and sums are read (2 bytes each), sums written, in each of three passes.
    sums = [r for r in thrice.operators if r.stage == "backward" and r.name == "gradients.sum"]
    assert sum(row.memory_B for row in sums) == 2 * 3 * 712 * 6


def test_how_long_does_a_pipeline_take_whose_parts_take_turns() -> None:
    config = {
        **{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 4, "n_inner": 16, "n_positions": 16},
        **{"vocab_size": 10, "activation_function": "relu", "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    }
    model = model_from_config(config, "toy of four layers")
    result = tierform.simulate(
        model,
        TRAINING,
        HERE / "toy-gpu.yaml",
        parallelism=Parallelism(pipeline=2, interleave=2),
        micro_batches=2,
        thermal="none",
        mapping="plain",
    )
    # Group 0 has embedding with layer 0, and layer 2; group 1 has layer 1, and layer 3 with the head.  Two sequences,
    # a and b; a result holds a link and arrives a microsecond later.
    on = SEND_PS + US
    first_a, first_b = FIRST_PS, 2 * FIRST_PS
    second_a = first_a + on + LAYER_PS
    second_b = max(first_b + on, second_a) + LAYER_PS
    third_a = second_a + on + LAYER_PS
    third_b = max(second_b + on, third_a) + LAYER_PS
    fourth_a = third_a + on + LAYER_PS + HEAD_PS
    fourth_b = max(third_b + on, fourth_a) + LAYER_PS + HEAD_PS
    assert seconds(result, "forward") == pytest.approx(fourth_b)
    assert fourth_b == 3_183_900
    # Three sends of 48 bytes for each sequence and direction.
    assert result.energy_J_by_component["links"] * 1e12 == pytest.approx(100 * 2 * 2 * 3 * 48)
    # Update: gradients of the 80 numbers that head and words share are added up; embedding, two layers on the first
    # group.
    assert seconds(result, "update") == pytest.approx(2 * US + 160 * 100 + 280 * (208 + 1200))
    assert result.memory_footprint_B["weights"] == 2 * (208 + 1200)
