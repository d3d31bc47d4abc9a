"""What does the toy model cost on two tiles with crossbars above two with arrays, derived by hand?

Everything has 8 bits.  Tiles 0 and 1 hold the systolic arrays and vector units, tiles 2 and 3 seven crossbars each of
ISAAC's: 128 x 128 cells of 2 bits, four cells a weight, one bit of the input in a cycle of 100 ns, six more cycles
until a result.  Each of the six matrices of a layer (8 x 8, 8 x 16, 16 x 8) takes one crossbar, and so does the table
of ten words as the head.  Crossbars are filled in the order of the layers: layer 0 and the query of layer 1 are in tile
2, the rest of layer 1 and the head in tile 3, and the one crossbar that is left holds a second copy of the head.

Six rows of 8 values are 48 bytes, the two new tokens of a step 16.
"""

from __future__ import annotations

from math import fsum

import pytest
from toy import HERE, INFERENCE, LORA, run, seconds

from tierform import load_chip
from tierform.network import energy_parameters
from tierform.simulation import Result

CYCLE_NS, BITS, TAIL_NS = 100, 8, 600
# Rows of the inputs of prefill and of the two steps; those of which the head makes logits.
ROWS, LOGITS = (6, 2, 2), (2, 2, 2)


def parts(result: Result) -> dict[str, float]:
    """Picojoules by component and part."""
    return {name: energy * 1e12 for name, energy in result.energy_J_by_part.items()}


def at(result: Result, stage: str, name: str) -> list[float]:
    """Nanoseconds that all executions of an operator of a stage take, by block."""
    return [row.busy_s * 1e9 for row in result.operators if row.stage == stage and row.name == name]


def test_where_do_the_weights_sit() -> None:
    result = run(INFERENCE, "toy-stack")
    assert result.mapping is not None
    placed = {item.weight: (item.tiles, item.replicas) for item in result.mapping.placements}
    rest = dict.fromkeys(
        ("attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down"),
        (((2,), (3,)), 1),
    )
    assert placed == {"attention.q": (((2,), (2,)), 1), **rest, "embedding.word": (((3,),), 2)}
    assert result.crossbars == {"available": 14, "used": 14, "streamed": 0, "first_copies": 13}


def test_which_joules_do_crossbars_spend_in_inference() -> None:
    result = run(INFERENCE, "toy-stack")
    found = parts(result)
    layers, head = 2 * sum(ROWS), sum(LOGITS)  # vectors that go through each matrix
    # A reading of an array and of its registers for each of six matrices and each bit.
    readings = (6 * layers + head) * BITS
    assert readings == 1008
    assert found["reram: crossbar"] == pytest.approx(readings * 30)
    # Columns converted: four a weight, 4 x 8 weights of q, k, v, o each, 16 of up, 8 of down; ten words.
    columns = (4 * (4 * 8 + 16 + 8) * layers + 4 * 10 * head) * BITS
    assert columns == 37_760
    assert found["reram: adc"] == pytest.approx(columns * 1.5625)
    assert found["reram: sample-hold"] == pytest.approx(columns * 0.977e-3)
    # Rows driven: 8 of each matrix, 16 of down.
    driven = ((5 * 8 + 16) * layers + 8 * head) * BITS
    assert found["reram: dac"] == pytest.approx(driven * 0.390625)
    # Bytes through the tile's buffer: 8 in and 8 out of four matrices, 8 and 16 of up and of down; the head's 8 and 10.
    through = (4 * 16 + 24 + 24) * layers + 18 * head
    # The activation makes 16 values of 16 in the tile, where up's result is.
    assert found["reram: edram"] == pytest.approx(through * 0.639)
    assert found["reram: bus"] == pytest.approx(through * 0.432)
    # Multiply-adds of scores and of their product with values: 2 sequences x 2 heads x 4 for each pair of tokens.
    pairs = 3 * 3 + 4 + 5
    assert found["systolic: mac"] == pytest.approx(2 * 2 * 16 * pairs * 0.038)


def test_how_long_do_matrices_and_prefill_take() -> None:
    result = run(INFERENCE, "toy-stack")
    for name in ("attention.q", "attention.k", "attention.v", "attention.o", "ffn.up", "ffn.down"):
        assert at(result, "prefill", name) == pytest.approx([2 * 6 * BITS * CYCLE_NS])
        assert at(result, "decode[4]", name) == pytest.approx([2 * 2 * BITS * CYCLE_NS])
    assert at(result, "prefill", "head.logits") == pytest.approx([1 * BITS * CYCLE_NS])  # a row on each copy
    # One after the other: word and position looked up and added, a cycle each (24 or 48 operations on 256 lanes).
    # A layer: norm (8 x 48 operations, 1.5 cycles); q; scores and context, 272 cycles each; softmax; o; sum; norm; up;
    # 96 activations at 4.8 a nanosecond; down; sum.
    matrix = 6 * BITS * CYCLE_NS + TAIL_NS
    layer = 1.5 + matrix + 272 + 1 + 272 + matrix + 1 + 1.5 + matrix + 20 + matrix + 1
    assert layer == 22_170
    head = 1.5 + BITS * CYCLE_NS + TAIL_NS
    # A way from tier to tier: one vertical link, and one planar one in half of the pairs of tiles: 2.5 routers of three
    # cycles, 1.5 links, three cycles for the ports.  A tile sends and takes 32 bytes in a cycle; at one end of each way
    # is a single tile.  Six ways a layer, one to the head.
    way = 2.5 * 3 + 1.5 + 3
    ways = 2 * 6 * (way + 48 / 32) + way + 16 / 32
    # Nothing hides the first 48 bytes from memory (HBM2 streams 236.8 GB/s).
    assert seconds(result, "prefill") / 1e3 == pytest.approx(3 + 2 * layer + head + ways + 48 / 236.8, abs=2e-3)


def test_which_bytes_cross_the_network_and_at_what_price() -> None:
    result = run(INFERENCE, "toy-stack")
    # A layer: its norm to q and to k and v (one multicast to two places); q, k, v and what o takes and gives; what up
    # takes and down gives; keys and values to memory below.  The head takes two rows.
    multicast, others = 2 * 2 * (48 + 16 + 16), 2 * 9 * (48 + 16 + 16) + 3 * 16
    assert (multicast, others) == (320, 1488)
    assert result.network_B == multicast + others
    energy, chip = energy_parameters(), load_chip(HERE / "toy-stack.yaml")
    router, vertical = 8e12 * energy.router_J_per_bit, 8e12 * energy.vertical_J_per_bit
    planar = 8e12 * energy.wire_J_per_bit_m * max(chip.die_size_m(0), chip.die_size_m(1))[0] / 2
    one = 2.5 * router + vertical + 0.5 * planar
    # To q in tile 2 and k and v in tile 3 (layer 1): a tree of two vertical links and a planar one, over four routers;
    # in layer 0 both are in tile 2.  Each of the two takes half of the price.
    tree = 4 * router + 2 * vertical + planar
    expected = others * one + multicast * (one + tree) / 4
    assert parts(result)["network: routers and links"] == pytest.approx(expected)


def test_which_bytes_does_memory_move_and_which_tiles_are_heated() -> None:
    result = run(INFERENCE, "toy-stack")
    # Rows of words and positions; gains and biases of two norms a layer and of the head's; keys and values.
    prefill = 48 + 24 + 2 * 32 + 16 + 2 * 2 * 48
    four, five = (16 + 8 + 2 * 32 + 16 + 2 * 2 * 2 * tokens * 8 for tokens in (4, 5))
    assert (prefill, four, five) == (344, 360, 424)
    assert result.memory_read_B == prefill + four + five
    assert result.memory_write_B == 2 * 2 * (48 + 16 + 16)
    found = parts(result)
    chip = ("reram: ", "systolic: mac", "systolic: sram", "vector: operations", "vector: buffer", "network: routers")
    own = fsum(energy for name, energy in found.items() if name.startswith(chip) and "idle" not in name)
    assert fsum(result.energy_J_by_tile) * 1e12 == pytest.approx(own)
    zero, one, two, three = result.energy_J_by_tile
    assert two > three > 10 * one, "seven matrices in tile 2, five and the head in tile 3"
    assert one == pytest.approx(zero, rel=0.02)


def test_what_does_a_lora_step_read_through_the_cells() -> None:
    result = run(LORA, "toy-stack")
    found = parts(result)
    # Forward: six matrices of two layers and the head, six rows.  Backward, through the rows of the same cells, one of
    # the four slices of a weight after the other: the head, all six of layer 1, and of layer 0 down, up and o.
    forward, backward = (2 * 6 + 1) * 6 * BITS, (1 + 6 + 3) * 6 * BITS * 4
    assert (forward, backward) == (624, 1920)
    assert found["reram: crossbar"] == pytest.approx((forward + backward) * 30)
    # Columns are driven now and rows converted: a sixteenth, 16 or 10 rows of 8 columns of weights.
    assert at(result, "backward", "attention.q.grad_input") == pytest.approx([6 * BITS * 4 * CYCLE_NS])
    assert sorted(at(result, "backward", "attention.o.grad_input")) == pytest.approx([9_600, 19_200])  # a spare copy
    assert result.crossbar_writes == 0
    # Adapters are bf16 (0.25 pJ) and multiply on the arrays: 96 for each A and B of q and v of two layers, forward;
    # backward their input gradients (A's of layer 1 alone).  Their weight gradients multiply int8 by int8.
    adapters, adapter_gradients = 8 * 96 + (4 + 2) * 96, 8 * 96
    # Scores and context in int8: 144 each a layer; their gradients: of both operands, but layer 0's keys learn nothing.
    attention = 2 * 2 * 144 + (4 + 3) * 144
    assert found["systolic: mac"] == pytest.approx(adapters * 0.25 + (adapter_gradients + attention) * 0.038)
