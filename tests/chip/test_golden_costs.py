"""Is each term of each cost what counting by hand gives?  The sums stand in the tests' texts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tierform.chip.component import Cost, cmos_leakage_W
from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.sample_operators import elementwise, product
from tierform.workload.operator import Kind, Operand, Operator, Role


def part(name: str, units: int = 1, **changes: Any) -> Any:
    return load_component("part", units, name, changes)


def given(value: str) -> dict[str, str]:
    return {"value": value, "kind": "assumed", "note": "test"}


def test_leakage_doubles_every_30_kelvin_from_its_value_at_300() -> None:
    assert [cmos_leakage_W(2.0, kelvin) for kelvin in (270.0, 300.0, 330.0, 360.0)] == pytest.approx([1, 2, 4, 8])
    assert cmos_leakage_W(1.0, 325.0) == pytest.approx(1.7818, rel=1e-4)  # 2^(25/30)
    assert np.allclose(cmos_leakage_W(1.0, np.array([300.0, 315.0])), [1.0, 2**0.5])


@pytest.mark.parametrize(
    ("name", "at_300_W", "at_330_W"),
    [
        ("vector-128-10nm", 4e-3, 8e-3),  # two of 2 mW
        ("systolic-128x32-10nm", 40e-3, 80e-3),  # two of 20 mW
        ("a100-gpu", 100.0, 100.0),  # two boards of 50 W, whatever the temperature
        ("haima-dram", 48e-3, 48e-3),  # two of 24 mW; refresh doubles above 358 K only
    ],
)
def test_static_power_of_two_units(name: str, at_300_W: float, at_330_W: float) -> None:
    two = part(name, 2)
    assert (two.leakage_W(300.0), two.leakage_W(330.0)) == pytest.approx((at_300_W, at_330_W))


def test_idle_power_is_added_and_does_not_double() -> None:
    idling = part("systolic-128x32-10nm", 3, idle_power=given("5 mW"))
    assert (idling.leakage_W(300.0), idling.leakage_W(330.0)) == pytest.approx((3 * 25e-3, 3 * 45e-3))
    board = part("a100-gpu")
    assert np.array_equal(board.leakage_W(np.array([300.0, 400.0])), [50.0, 50.0])


def test_a_cost_that_is_stretched_keeps_its_delay() -> None:
    cost = Cost(latency_s=5.0, occupancy_s=3.0, energy_J={"a": 1.0, "b": 2.0})
    assert (cost.scaled(6.0).occupancy_s, cost.scaled(6.0).latency_s) == (6.0, 8.0)
    assert cost.total_energy_J == 3.0


def test_a_vector_unit_does_an_operation_a_lane_and_cycle() -> None:
    """4 operations on 12,800 values over 2 * 128 lanes of 1 GHz: 200 cycles.  Energy: 51,200 * 0.3 pJ; bf16 in and out,
    51,200 bytes * 0.21 pJ."""
    cost = part("vector-128-10nm", 2).cost(elementwise(Kind.ACTIVATION, 12_800, precision="bf16"))
    assert cost.occupancy_s == cost.latency_s == pytest.approx(200e-9)
    assert cost.energy_J == pytest.approx({"operations": 51_200 * 0.3e-12, "buffer": 51_200 * 0.21e-12})
    assert cost.utilization == pytest.approx(1.0) and cost.operations == 51_200
    small = part("vector-128-10nm").cost(elementwise(Kind.ACTIVATION, 8, precision="bf16"))
    assert small.occupancy_s == pytest.approx(1e-9) and small.utilization == pytest.approx(32 / 128)


def looked_up(form: str) -> Operator:
    """32 rows of 64 values from a table of 1000."""
    table = Operand("table", (1000, 64), form, Role.WEIGHT, static=True)
    rows = Operand("rows", (32, 64), form, Role.ACTIVATION)
    return replace(elementwise(Kind.EMBEDDING, 1, operations=1.0), inputs=(table,), outputs=(rows,))


def test_an_embedding_moves_its_rows_and_not_its_table() -> None:
    """32 * 64 bf16 values: 4,096 bytes read, as many written; half of both as int8."""
    assert part("vector-128-10nm").cost(looked_up("bf16")).energy_J["buffer"] == pytest.approx(8192 * 0.21e-12)
    board = part("a100-gpu").cost(looked_up("bf16"))
    assert (board.memory_read_B, board.memory_write_B) == (4096, 4096)
    banks = part("haima-dram").cost(looked_up("int8"))
    assert (banks.memory_read_B, banks.memory_write_B) == (2048, 2048)


def test_a_systolic_array_is_charged_macs_and_sram_words() -> None:
    """128 x 32 x 128 int8 on 128 x 32 elements, weights in place: one fold.

    Cycles: 128 to load, then 128 + 32 + 128 - 2.  SRAM: 16,384 inputs, 4,096 weights and 4,096 results of a byte.
    """
    cost = part("systolic-128x32-10nm", dataflow="ws").cost(product(128, 32, 128))
    assert cost.occupancy_s == pytest.approx((128 + 286) * 1e-9)
    assert cost.energy_J == pytest.approx({"mac": 128 * 32 * 128 * 0.038e-12, "sram": 24_576 * 0.21e-12})
    assert cost.utilization == pytest.approx(128 / 414)
    assert cost.operations == 2 * 128 * 32 * 128 and cost.memory_read_B == 0


def test_wide_inputs_and_narrow_weights_pass_sram_each_in_its_width() -> None:
    """As above with bf16 inputs and results: 16,384 and 4,096 values of two bytes, 4,096 weights of one."""
    cost = part("systolic-128x32-10nm", dataflow="ws").cost(
        product(128, 32, 128, precision="bf16", weight_precision="int8")
    )
    assert cost.energy_J["sram"] == pytest.approx((2 * 16_384 + 4_096 + 2 * 4_096) * 0.21e-12)


def test_sums_that_continue_in_the_next_fold_pass_sram_at_the_accumulators_width() -> None:
    """k = 256 on 128 rows: two folds; 128 x 32 sums of 4 bytes are written and read back once."""
    cost = part("systolic-128x32-10nm", dataflow="ws").cost(product(128, 32, 256))
    bytes_moved = 128 * 256 + 256 * 32 + 128 * 32 + 128 * 32 * (4 + 4)
    assert cost.energy_J["sram"] == pytest.approx(bytes_moved * 0.21e-12)


def test_sparse_weights_pack_k_and_carry_an_index() -> None:
    """2:4 weights: k 128 becomes 64; a weight has 8 bits and an index of 2; inputs come unpacked."""
    dense, sparse = part("systolic-128x32-10nm", dataflow="ws"), None
    sparse = part("systolic-128x32-10nm", dataflow="ws", weight_sparsity={"kept": 2, "block": 4})
    cost = sparse.cost(product(128, 32, 128))
    assert cost.energy_J["mac"] == pytest.approx(dense.cost(product(128, 32, 128)).energy_J["mac"] / 2)
    assert cost.energy_J["sram"] == pytest.approx((128 * 128 + 64 * 32 * 10 / 8 + 128 * 32) * 0.21e-12)


def test_a_tile_is_charged_by_part() -> None:
    """ISAAC, 10 vectors of 8 bits through 128 x 64 weights of 8 bits: 4 cells each, two arrays side by side.

    8 cycles of 100 ns a vector, 6 more until the last result.  Per cycle: 2 array reads of 30 pJ; rows 128 in each of
    two arrays; 256 columns converted at 1.5625 pJ.
    """
    cost = part("isaac-tile-32nm").cost(product(10, 64, 128))
    assert cost.occupancy_s == pytest.approx(10 * 8 * 100e-9)
    assert cost.latency_s == pytest.approx(cost.occupancy_s + 6 * 100e-9)
    assert cost.energy_J["crossbar"] == pytest.approx(2 * 10 * 8 * 30e-12)
    assert cost.energy_J["adc"] == pytest.approx(256 * 10 * 8 * 1.5625e-12)
    tile: Any = part("isaac-tile-32nm").parameters.parts
    assert cost.energy_J["dac"] == pytest.approx(2 * 128 * 10 * 8 * tile["dac"].energy.value)
    assert cost.energy_J["edram"] == pytest.approx((10 * 128 + 10 * 64) * tile["edram"].energy.value)
    assert cost.utilization == 1.0


def light_kernel_s(moved_B: float) -> float:
    """Launch of 2.1 us; 2,039 GB/s at 74.5 %."""
    return 2.1e-6 + moved_B / (2039e9 * 0.745)


def test_a_light_kernel_streams_or_computes() -> None:
    """2^22 bf16 values in and out, 2^24 bytes; 4,000 operations each instead: 2^34 ... at 80 % of 19.5 T/s."""
    board = part("a100-gpu")
    streamed = board.cost(elementwise(Kind.ELEMENTWISE, 2**22, precision="bf16"))
    assert streamed.occupancy_s == pytest.approx(light_kernel_s(2**24))
    assert streamed.utilization == pytest.approx(2**24 / (19.5e12 * light_kernel_s(2**24)))
    assert streamed.energy_J == pytest.approx({"arithmetic": 2**24 * 11.9e-12, "memory": 2**24 * 100e-12})
    busy = board.cost(elementwise(Kind.ELEMENTWISE, 2**22, precision="bf16", operations=400.0))
    assert busy.occupancy_s == pytest.approx(2.1e-6 + 400 * 2**22 / (0.8 * 19.5e12))


def test_a_gpu_without_fitted_products_is_a_roofline() -> None:
    """2 * 4096^3 operations at 80 % of 312 T/s against 3 * 4096^2 * 2 bytes; two units halve both."""
    plain: Gpu = part("a100-gpu").at(products=None)
    operations = 2 * 4096**3
    expected = 2.1e-6 + operations / (0.8 * 312e12)
    cost = plain.cost(product(4096, 4096, 4096, precision="bf16"))
    assert cost.occupancy_s == cost.latency_s == pytest.approx(expected)
    assert cost.utilization == pytest.approx(operations / (312e12 * expected))
    two: Gpu = part("a100-gpu", 2).at(products=None)
    halved = 2.1e-6 + operations / (2 * 0.8 * 312e12)
    assert two.cost(product(4096, 4096, 4096, precision="bf16")).occupancy_s == pytest.approx(halved)
    thin = plain.cost(product(1, 4096, 4096, precision="bf16"))
    assert thin.occupancy_s == pytest.approx(light_kernel_s(2 * (4096 + 4096 * 4096 + 4096)))


def test_weights_come_from_memory_and_activations_from_the_cache() -> None:
    """A product of 32 rows with 2,048^2 bf16 values, 8 MiB: as a weight used once, or as an operand just computed."""
    board = part("a100-gpu")
    weight, made = (board.cost(product(32, 2048, 2048, held=held, precision="bf16")) for held in (True, False))
    assert weight.occupancy_s > 1.05 * made.occupancy_s
    assert weight.memory_read_B == made.memory_read_B == 2 * (32 * 2048 + 2048 * 2048)


def test_energy_goes_by_the_widest_operand() -> None:
    """int4 weights with bf16 inputs are multiplied as bf16: 0.79 pJ an operation; int8 with int4 as int8: 0.395 pJ."""
    board = part("a100-gpu")
    operations = 2 * 64**3
    for form, joules in (("bf16", 0.79e-12), ("int8", 0.395e-12)):
        cost = board.cost(product(64, 64, 64, precision=form, weight_precision="int4"))
        assert cost.energy_J["arithmetic"] == pytest.approx(operations * joules)
    assert math.isclose(cost.operations, operations)


@pytest.mark.parametrize("name", ["a100-gpu", "h100-gpu"])
def test_is_a_narrower_weight_never_slower(name: str) -> None:
    """A kernel for a wider weight can take it."""
    board = part(name)
    for m in (1, 16, 64, 256, 1024, 4096, 16384):
        for n, k in ((4096, 4096), (16384, 1024), (512, 8192)):
            wide, middle, narrow = (
                board.cost(product(m, n, k, precision="bf16", weight_precision=form)).occupancy_s
                for form in ("bf16", "int8", "int4")
            )
            assert narrow <= middle * (1 + 1e-12) and middle <= wide * (1 + 1e-12), (m, n, k)


def test_what_do_units_together_have() -> None:
    """Two arrays of 128 x 32 at 1 GHz; three units of DRAM of 13.4 mm2 and 256 MiB; two vector units of 0.12 mm2."""
    assert part("systolic-128x32-10nm", 2).peak_macs_per_s == pytest.approx(2 * 128 * 32 * 1e9)
    banks = part("haima-dram", 3)
    assert banks.area_m2 == pytest.approx(3 * 13.4e-6) and banks.memory_capacity_B == 3 * 256 * 2**20
    units = part("vector-128-10nm", 2)
    assert units.area_m2 == pytest.approx(2 * 0.12e-6) and units.sram_capacity_B == 2 * 64 * 2**10
