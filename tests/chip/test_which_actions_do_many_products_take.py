"""Which actions, bytes and joules do groups of products take on each component, counted by hand?

A product is m rows of k values by a (k, n) matrix; `count` groups have matrices of their own, the products of a batch
share one.
"""

from __future__ import annotations

from typing import Any

import pytest

from tierform.chip.component import Cost, Share
from tierform.chip.description import load_component
from tierform.chip.sample_operators import elementwise, product
from tierform.workload.operator import Kind


def part(name: str, units: int = 1, **changes: Any) -> Any:
    return load_component("part", units, name, changes)


def given(value: str) -> dict[str, str]:
    return {"value": value, "kind": "assumed", "note": "test"}


def actions(cost: Cost, tile: Any) -> dict[str, float]:
    """How often each part acts, from its energy."""
    energies = {name: entry.energy.value for name, entry in tile.parameters.parts.items() if entry.energy}
    return {name: joules / energies[name] for name, joules in cost.energy_J.items()}


# -- crossbars: 128 x 128 cells of 2 bits, a weight of 8 bits in 4 columns ------------------------------------------
def scaled_tile(**changes: Any) -> Any:
    """ISAAC's tile with a scale for each result of an array."""
    return part("isaac-tile-32nm", parts={"scale": {"charge": "result", "energy": given("1 pJ")}}, **changes)


def test_what_do_the_parts_of_a_tile_do_in_three_products_of_uneven_size() -> None:
    """300 rows need 3 arrays below each other, 40 weights (160 columns) 2 beside each other: 6, of three groups 18.

    Each of 10 vectors takes 8 cycles: 300 rows are driven in both arrays, 160 columns are read in all three.
    """
    tile = scaled_tile()
    operator = product(10, 40, 300, count=3)
    assert tile.crossbars_for(operator) == 18
    cost = tile.cost(operator)
    cycles = 3 * 10 * 8
    assert actions(cost, tile) == pytest.approx(
        {
            "crossbar": 6 * cycles,
            "registers": 6 * cycles,
            "dac": 300 * 2 * cycles,
            "sample-hold": 160 * 3 * cycles,
            "adc": 160 * 3 * cycles,
            "shift-add": 160 * 3 * cycles,
            # Every result is the sum of what three arrays give.
            "scale": 3 * 10 * 40 * 3,
            "edram": 3 * 10 * (300 + 40),
            "bus": 3 * 10 * (300 + 40),
            "output-register": 3 * 10 * 40,
            "tile-shift-add": 3 * 10 * 40,
        }
    )
    assert cost.occupancy_s == pytest.approx(10 * 8 * 100e-9)  # the groups work side by side
    assert cost.operations == 3 * 2 * 10 * 40 * 300
    assert cost.utilization == pytest.approx(300 * 160 / (6 * 128 * 128))


def test_what_do_the_parts_of_a_tile_do_when_columns_are_driven() -> None:
    """The same matrices transposed: 40 values drive columns, 300 rows are read, once for each of 4 slices."""
    tile = scaled_tile()
    cost = tile.cost(product(10, 300, 40, count=3, transposed=True))
    cycles = 3 * 10 * 8
    found = actions(cost, tile)
    expected = {
        "crossbar": 6 * 4 * cycles,
        "dac": 40 * 4 * 3 * cycles,  # each column in one of the four passes, in three arrays
        "sample-hold": 300 * 2 * 4 * cycles,
        "adc": 300 * 2 * 4 * cycles,
        "scale": 3 * 10 * 300 * 2,  # two arrays beside each other add to a result
        "edram": 3 * 10 * (300 + 40),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert cost.occupancy_s == pytest.approx(4 * 10 * 8 * 100e-9)
    # A transposed copy is read like any other matrix, and slices that lie in arrays of their own in one pass.
    copied = actions(tile.cost(product(10, 300, 40, count=3, transposed=True), Share(0, 1, second_copy=True)), tile)
    assert copied["adc"] == pytest.approx(300 * 2 * cycles) and copied["crossbar"] == pytest.approx(6 * cycles)
    # 40 columns lie in one array of each slice: 3 arrays below each other, 4 slices.
    apart = scaled_tile(slices="crossbars")
    found = actions(apart.cost(product(10, 300, 40, count=3, transposed=True)), apart)
    assert found["crossbar"] == pytest.approx(12 * cycles) and found["adc"] == pytest.approx(300 * 4 * cycles)
    assert found["dac"] == pytest.approx(40 * 3 * 4 * cycles) and found["scale"] == pytest.approx(3 * 10 * 300)


def test_does_a_batch_of_products_with_one_matrix_stream_all_of_its_rows() -> None:
    tile = scaled_tile()
    batch, rows = tile.cost(product(10, 40, 300, batch=5)), tile.cost(product(50, 40, 300))
    assert batch.energy_J == pytest.approx(rows.energy_J) and batch.occupancy_s == rows.occupancy_s
    # 50 vectors over three copies: 17 on the busiest.
    shared = tile.cost(product(10, 40, 300, batch=5), Share(0, 3))
    assert shared.occupancy_s == pytest.approx(17 * 8 * 100e-9) and shared.energy_J == batch.energy_J


def test_does_an_activation_run_on_the_units_that_it_has() -> None:
    """2.4e9 values a second on a tile, 0.217 pJ each."""
    tile, three = elementwise(Kind.ACTIVATION, 12_000), part("isaac-tile-32nm", 3)
    cost = three.cost(tile)
    assert cost.occupancy_s == cost.latency_s == pytest.approx(12_000 / (3 * 2.4e9))
    assert cost.energy_J == pytest.approx({"activation": 12_000 * 0.217e-12})
    assert three.cost(tile, Share(2)).occupancy_s == pytest.approx(12_000 / (2 * 2.4e9))
    assert not part("isaac-tile-32nm", activation_rate=None).supports(tile)


def test_what_does_writing_crossbars_take() -> None:
    """Ten crossbars on three tiles that write two each: two rounds of 128 rows, 4 pulses of 50.88 ns; 44 pJ a cell."""
    tiles = part("isaac-tile-32nm", 3, parallel_writes=given("2"))
    cost = tiles.programming_cost(10)
    assert cost.occupancy_s == cost.latency_s == pytest.approx(2 * 128 * 4 * 50.88e-9)
    assert cost.energy_J == pytest.approx({"programming": 10 * 128 * 128 * 44e-12})
    assert (cost.cell_writes, cost.writes_per_cell) == (10 * 128 * 128, 1.0)
    half = tiles.programming_cost(10, 0.5)
    assert half.occupancy_s == pytest.approx(128 * 4 * 50.88e-9) and half.writes_per_cell == 0.5
    assert half.energy_J["programming"] == pytest.approx(5 * 128 * 128 * 44e-12) and half.cell_writes == 5 * 128 * 128
    assert tiles.programming_cost(6).occupancy_s == pytest.approx(128 * 4 * 50.88e-9)
    assert tiles.programming_cost(0).occupancy_s == 0.0
    # A read after each of four pulses.
    checked = part("isaac-tile-32nm", verify_energy=given("2 pJ")).programming_cost(1)
    assert checked.energy_J["programming"] == pytest.approx(128 * 128 * (44e-12 + 4 * 2e-12))


def test_how_often_is_what_cells_forget_written_again() -> None:
    kept = part("hermes-pcm-14nm")  # for a day
    assert [kept.refreshes(days * 86_400.0) for days in (0.9, 1.0, 3.5)] == [0, 1, 3]
    assert part("isaac-tile-32nm").refreshes(1e9) == 0
    assert kept.cells_per_crossbar == 256 * 512 and kept.endurance_writes == 1e9


# -- DRAM with arithmetic -------------------------------------------------------------------------------------------
ROW_S = (14 + 32 * 4 + 15) * 1e-9 / (1 - 260 / 3900)  # open, 32 columns, close; 1 KiB; without what refreshes take


def test_what_do_groups_take_near_the_bank() -> None:
    """16 units of 16 banks.  Three groups of 256 x 1024 int8 weights: 768 rows of 1 KiB, 3 in each of 256 banks.

    Each of 20 vectors streams them once.  Multipliers: 8e9 a second and bank.  One link carries what goes in and out.
    """
    banks = part("haima-dram", 16)
    cost = banks.cost(product(20, 256, 1024, count=3))
    macs = 3 * 20 * 256 * 1024
    inside_B, outside_B = 3 * 20 * 1024, 3 * 20 * 256
    link_s = (inside_B + outside_B) / 256e9
    assert macs / (256 * 8e9) < 20 * 3 * ROW_S  # multiplying hides behind streaming
    assert cost.occupancy_s == cost.latency_s == pytest.approx(20 * 3 * ROW_S + link_s + 100e-9)
    assert cost.memory_read_B == 20 * 3 * 256 * 1024 and cost.memory_write_B == outside_B
    written_J = outside_B * (12.56e-12 + 414e-12 / 1024)
    assert cost.energy_J == pytest.approx(
        {
            "rows": 20 * (768 * 414e-12 + 768 * 1024 * 12.56e-12) + written_J,
            "mac": macs * 0.23e-12,
            "link": (inside_B + outside_B) * 8 * 3.9e-12,
        }
    )
    assert cost.utilization == pytest.approx(macs / (256 * 8e9 * cost.occupancy_s))
    # With vectors served eight at a time, three passes are left, and multiplying takes longer.
    many = part("haima-dram", 16, near_bank={"reuse": {"value": 8, "kind": "assumed", "note": "test"}})
    again = many.cost(product(20, 256, 1024, count=3))
    assert again.occupancy_s == pytest.approx(macs / (256 * 8e9) + link_s + 100e-9)
    assert again.memory_read_B == 3 * 3 * 256 * 1024
    assert again.energy_J["rows"] == pytest.approx(3 * (768 * 414e-12 + 768 * 1024 * 12.56e-12) + written_J)
    # Half of the units have half of the banks and of the multipliers.
    assert banks.cost(product(20, 256, 1024, count=3), Share(8)).occupancy_s == pytest.approx(
        20 * 6 * ROW_S + link_s + 100e-9
    )


def test_what_do_products_take_in_the_bank() -> None:
    """One unit of 64 banks with 8192 bit lines each: 663 row operations of 48 ns for 524,288 products at once."""
    banks = part("transpim-layer")
    macs = 96 * 256 * 64  # 1,572,864: three rounds
    cost = banks.cost(product(96, 256, 64))
    lost = 1 - 260 / 3900
    assert cost.occupancy_s == pytest.approx(3 * 663 * 48e-9 / lost + 100e-9)
    written_J = 96 * 256 * (12.56e-12 + 414e-12 / 1024)
    assert cost.energy_J == pytest.approx(
        {"rows": macs / 8192 * 663 * 414e-12 + written_J, "adders": macs * 0.03e-12, "link": 0.0}
    )
    assert (cost.memory_read_B, cost.memory_write_B) == (256 * 64, 96 * 256)
    # Adders of 1e6 a second and bank take longer than the rows; one product more begins a fourth round.
    slow = part("transpim-layer", in_bank={"adder_rate": given("1e6 1/s")})
    assert slow.cost(product(96, 256, 64)).occupancy_s == pytest.approx(macs / (64 * 1e6) + 100e-9)
    assert banks.cost(product(97, 256, 64)).occupancy_s == pytest.approx(4 * 663 * 48e-9 / lost + 100e-9)
    # Two groups have as many rounds as twice the work, and twice the weights.
    two = banks.cost(product(96, 256, 64, count=2))
    assert two.occupancy_s == pytest.approx(6 * 663 * 48e-9 / lost + 100e-9) and two.memory_read_B == 2 * 256 * 64
    assert two.energy_J == pytest.approx({name: 2 * joules for name, joules in cost.energy_J.items()})


def test_what_do_light_operators_take_in_dram() -> None:
    """A million values of one byte in and out, two operations each, on half of four units."""
    banks = part("haima-dram", 4)
    operator = elementwise(Kind.SOFTMAX, 10**6, operations=2.0)
    cost = banks.cost(operator, Share(2))
    assert cost.occupancy_s == pytest.approx(2e6 / (2 * 4e9))
    joules = {"operations": 2e6 * 0.6e-12, "rows": 2e6 * (12.56e-12 + 414e-12 / 1024)}
    assert cost.energy_J == pytest.approx(joules)
    assert (cost.memory_read_B, cost.memory_write_B) == (10**6, 10**6)


# -- systolic arrays: 128 x 32 elements at 1 GHz, weights in place --------------------------------------------------
def test_what_do_groups_and_batches_take_on_systolic_arrays() -> None:
    """Three products of 40 rows that share a matrix stream 120 rows over it, for two groups twice.

    A fold takes 128 cycles to load and 128 + 32 + 120 - 2 to run.
    """
    arrays = part("systolic-128x32-10nm", dataflow="ws")
    cost = arrays.cost(product(40, 32, 128, batch=3, count=2))
    assert cost.occupancy_s == cost.latency_s == pytest.approx(2 * (128 + 278) * 1e-9)
    macs = 2 * 120 * 32 * 128
    sram_B = 2 * (120 * 128 + 128 * 32 + 120 * 32)
    assert cost.energy_J == pytest.approx({"mac": macs * 0.038e-12, "sram": sram_B * 0.21e-12})
    assert cost.utilization == pytest.approx(macs / (128 * 32 * 812)) and cost.operations == 2 * macs
    # On two arrays each takes one; of four that share may be two.
    four = part("systolic-128x32-10nm", 4, dataflow="ws")
    halved = four.cost(product(40, 32, 128, batch=3, count=2), Share(2))
    assert halved.occupancy_s == pytest.approx(406e-9)
    assert halved.utilization == pytest.approx(macs / (2 * 128 * 32 * 406))
    assert four.peak_macs_per_s == pytest.approx(4 * 128 * 32 * 1e9) and four.sram_capacity_B == 4 * 512 * 2**10


def test_do_products_of_own_matrices_stay_apart() -> None:
    """Four groups with a matrix each, one after the other on one array."""
    arrays = part("systolic-128x32-10nm", dataflow="ws")
    alone = arrays.cost(product(40, 32, 128))
    four = arrays.cost(product(40, 32, 128, count=4))
    assert four.occupancy_s == pytest.approx(4 * alone.occupancy_s)
    assert four.energy_J == pytest.approx({name: 4 * joules for name, joules in alone.energy_J.items()})


# -- vector units and GPUs ------------------------------------------------------------------------------------------
def test_what_does_a_part_of_the_vector_units_take() -> None:
    """1,000 values of 4 operations on 128 lanes of 1 GHz: 4,000 / 128 cycles."""
    units = part("vector-128-10nm", 3)
    cost = units.cost(elementwise(Kind.ACTIVATION, 1_000, precision="bf16"), Share(1))
    assert cost.occupancy_s == cost.latency_s == pytest.approx(4_000 / 128 * 1e-9)
    assert cost.energy_J == pytest.approx({"operations": 4_000 * 0.3e-12, "buffer": 4_000 * 0.21e-12})
    assert cost.utilization == pytest.approx(1.0)


def test_what_do_several_boards_have_together() -> None:
    """A100: 400 W of which 50 idle; 2,039 GB/s at 74.5 %; 312 T/s in bf16; 80 GB; 826 mm2."""
    one, two = part("a100-gpu"), part("a100-gpu", 2)
    limit, idle = one.parameters.board_power.value, one.parameters.idle_power.value
    active = one.parameters.active_power.value if one.parameters.active_power else 0.0
    assert (one.headroom_W, two.headroom_W) == pytest.approx((limit - idle - active, 2 * (limit - idle - active)))
    assert (one.active_W, two.active_W) == pytest.approx((active, 2 * active))
    assert two.memory_s(1e9) == pytest.approx(1e9 / (2 * 2039e9 * 0.745))
    assert two.roof().peak_per_s["bf16"] == 2 * 312e12 and two.roof().bandwidth_B_per_s == 2 * 2039e9
    assert two.memory_capacity_B == 2 * one.memory_capacity_B and two.area_m2 == pytest.approx(2 * one.area_m2)


def test_how_do_boards_share_groups_and_rows() -> None:
    """Four groups on two boards: two each.  One product on two: half of its rows each.  Energy is that of all."""
    one, two = part("a100-gpu"), part("a100-gpu", 2)

    def form(m: int, count: int) -> Any:
        return product(m, 4096, 4096, precision="bf16", count=count)

    assert two.cost(form(512, 4)).occupancy_s == one.cost(form(512, 2)).occupancy_s
    assert two.cost(form(4096, 1)).occupancy_s == pytest.approx(one.cost(form(2048, 1)).occupancy_s)
    cost = two.cost(form(512, 3))
    assert cost.occupancy_s == one.cost(form(512, 2)).occupancy_s  # the busiest has two
    operations = 3 * 2 * 512 * 4096 * 4096
    read_B, write_B = 3 * 2 * (512 * 4096 + 4096 * 4096), 3 * 2 * 512 * 4096
    assert (cost.operations, cost.memory_read_B, cost.memory_write_B) == (operations, read_B, write_B)
    assert cost.energy_J == pytest.approx({"arithmetic": operations * 0.79e-12, "memory": (read_B + write_B) * 100e-12})
    assert cost.utilization == pytest.approx(operations / (2 * 312e12 * cost.occupancy_s))


def test_are_sparse_weights_multiplied_at_twice_the_peak() -> None:
    """2:4 weights double the peak of a product, not that of other operators or of dense weights."""
    board = part("a100-gpu")
    sparse = product(8, 64, 64, precision="fp16", weight_precision="fp16@2:4")
    assert board.rate(sparse) == 2 * 312e12 and board.rate(product(8, 64, 64, precision="fp16")) == 312e12
