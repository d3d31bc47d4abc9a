"""Do systolic arrays share work sensibly, charge what they do, and load nothing heavy?"""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.component import Share
from tierform.chip.contract import check
from tierform.chip.description import load_component
from tierform.chip.process import load_process, logic
from tierform.chip.sample_operators import product
from tierform.chip.systolic import DATAFLOWS, SystolicArrays, accesses, cycles
from tierform.chip.systolic.batch import product_costs
from tierform.chip.systolic.cores import best_cut, cut_along_k
from tierform.errors import TierformError

NAME = "systolic-128x32-10nm"


def arrays(units: int = 1, **changes: Any) -> SystolicArrays:
    component = load_component(NAME, units, NAME, changes)
    assert isinstance(component, SystolicArrays)
    return component


@settings(max_examples=80, deadline=None)
@given(
    m=st.integers(1, 400),
    n=st.integers(1, 400),
    k=st.integers(1, 400),
    products=st.integers(1, 40),
    units=st.integers(1, 20),
    dataflow=st.sampled_from(DATAFLOWS),
)
def test_more_arrays_are_never_slower_and_never_beyond_their_peak(
    m: int, n: int, k: int, products: int, units: int, dataflow: str
) -> None:
    one = best_cut(dataflow, m, n, k, products, 1, 16, 8, "double-buffered")
    many = best_cut(dataflow, m, n, k, products, units, 16, 8, "double-buffered")
    assert one.cycles == products * cycles(dataflow, m, n, k, 16, 8)
    assert many.cycles <= one.cycles
    assert many.cycles * units * 16 * 8 >= products * m * n * k
    assert many.m_parts * many.n_parts * products <= max(units, products)


def test_one_large_product_is_cut_over_all_arrays() -> None:
    cut = best_cut("os", 1024, 1024, 512, 1, 16, 32, 32, "pipelined")
    assert cut.cycles < cycles("os", 1024, 1024, 512, 32, 32, "pipelined") / 15


def test_cutting_along_k_pays_with_partial_sums() -> None:
    cut = cut_along_k("ws", 64, 64, 4096, 4, 32, 32, "serial")
    assert cut.cycles == cycles("ws", 64, 64, 1024, 32, 32, "serial")
    assert cut.reduction_words == 3 * 64 * 64


def test_time_is_that_of_the_best_dataflow_and_energy_that_of_its_accesses() -> None:
    operator = product(512, 256, 384)
    best = min(DATAFLOWS, key=lambda flow: cycles(flow, 512, 256, 384, 128, 32))
    cost = arrays().cost(operator)
    assert cost.occupancy_s == pytest.approx(cycles(best, 512, 256, 384, 128, 32) / 1e9)
    assert cost.energy_J["mac"] == pytest.approx(512 * 256 * 384 * 0.038e-12)
    counts = accesses(best, 512, 256, 384, 128, 32)
    partial = counts.output_writes - 512 * 256 + counts.partial_reads
    sram_B = counts.inputs + counts.weights + 512 * 256 + 4 * partial
    assert cost.energy_J["sram"] == pytest.approx(sram_B * 0.21e-12)
    for flow in DATAFLOWS:
        assert arrays(dataflow=flow).cost(operator).occupancy_s >= cost.occupancy_s * (1 - 1e-12)


@pytest.mark.parametrize("changes", [{}, {"dataflow": "is", "overlap": "serial"}, {"dataflow": "os"}])
def test_many_products_at_once_cost_what_each_costs(changes: dict[str, Any]) -> None:
    component = arrays(**changes)
    rng = np.random.default_rng(5)
    m, n, k = (rng.integers(1, 900, 60) for _ in range(3))
    for precision in ("int8", "bf16"):
        found = product_costs(component, m, n, k, precision)
        for i in range(m.size):
            cost = component.cost(product(int(m[i]), int(n[i]), int(k[i]), precision=precision))
            assert found["seconds"][i] == pytest.approx(cost.occupancy_s)
            assert found["mac_J"][i] == pytest.approx(cost.energy_J["mac"])
            assert found["sram_J"][i] == pytest.approx(cost.energy_J["sram"])
    with pytest.raises(TierformError):
        product_costs(component, [1], [1], [1], "fp64")


def test_a_share_of_the_arrays_takes_longer() -> None:
    operator = product(512, 512, 512, batch=16)
    times = [arrays(16).cost(operator, Share(units)).occupancy_s for units in (16, 8, 4, 1)]
    assert all(less < more for less, more in pairwise(times))


def test_hiding_more_is_faster_on_the_component_too() -> None:
    operator = product(64, 512, 512)
    times = [
        arrays(dataflow="ws", overlap=overlap).cost(operator).occupancy_s
        for overlap in ("pipelined", "double-buffered", "serial")
    ]
    assert times[0] < times[1] < times[2]


def test_sparse_weights_save_work_and_activations_do_not() -> None:
    sparse = arrays(weight_sparsity={"kept": 2, "block": 4})
    weight, activation = product(256, 512, 1024), product(256, 512, 1024, held=False)
    assert sparse.cost(weight).energy_J["mac"] == pytest.approx(arrays().cost(weight).energy_J["mac"] / 2)
    assert sparse.cost(weight).occupancy_s < 0.6 * arrays().cost(weight).occupancy_s
    assert sparse.cost(activation) == arrays().cost(activation)
    with pytest.raises(TierformError):
        arrays(weight_sparsity={"kept": 5, "block": 4})


def test_a_process_gives_what_the_file_leaves_out() -> None:
    left_out: dict[str, Any] = {"mac_energy": None, "sram_energy": None, "array_area": None, "leakage": None}
    with pytest.raises(TierformError, match="no process gives it"):
        arrays(**left_out)
    scaled = arrays(**left_out, process="7nm")
    coarse = arrays(**left_out, process="45nm")
    assert scaled.parameters.mac_energy["int8"].kind == "assumed"
    # From 0.23 pJ at 45 nm and 0.9 V to 7 nm and 0.7 V: (7 / 45)^0.536 * (0.7 / 0.9)^2 = 0.2232.
    assert coarse.parameters.mac_energy["int8"].value == pytest.approx(0.23e-12)
    assert scaled.parameters.mac_energy["int8"].value == pytest.approx(0.2232 * 0.23e-12, rel=1e-3)
    assert scaled.area_m2 < coarse.area_m2
    assert check(scaled) > 5
    with pytest.raises(TierformError, match="45nm"):
        load_process("46nm")


def test_process_nodes_shrink_in_order() -> None:
    nodes = [load_process(node) for node in logic().nodes]
    assert all(a.energy_factor > b.energy_factor for a, b in pairwise(nodes))
    assert all(a.area_factor > b.area_factor for a, b in pairwise(nodes))
    assert load_process("45nm").energy_factor == pytest.approx(1)


@pytest.mark.parametrize("changes", [{"rows": 0}, {"columns": 0}, {"accumulator_bits": 0}])
def test_impossible_arrays_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(TierformError) as caught:
        arrays(**changes)
    assert next(iter(changes)) in str(caught.value)


def test_costing_loads_no_heavy_library() -> None:
    code = (
        "import sys; from tierform.chip.description import load_component; "
        "from tierform.chip.sample_operators import product; "
        f"load_component('a', 2, '{NAME}').cost(product(8, 8, 8)); "
        "load_component('b', 2, 'isaac-tile-32nm').cost(product(8, 8, 8)); "
        "print([name for name in ('numba', 'scipy', 'torch', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
