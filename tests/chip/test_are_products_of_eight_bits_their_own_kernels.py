"""Do products of 8-bit operands take the tile of their rows, no split of k, and a kernel that narrows their input?

Measured figures: AIConfigurator's tables (vLLM 0.19.0 on an H200, 0.14.0 where the scale is found on the run), six
weights in turn, narrowing included.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.narrow import quantization_s
from tierform.chip.gpu.samples import FINDS_SCALE, read_samples
from tierform.chip.sample_operators import elementwise, product
from tierform.workload.operator import Kind, Operand, Operator, Origin, Role


def gpu(name: str) -> Gpu:
    part = load_component("gpu", 1, f"{name}-gpu")
    assert isinstance(part, Gpu)
    return replace(part, weights_in_turn=6.0)


H200 = gpu("h200")


def narrowing(elements: int, results: int) -> Operator:
    made = Operand("q", (results,), "fp8", Role.ACTIVATION)
    return replace(elementwise(Kind.ELEMENTWISE, elements), outputs=(made,), origin=Origin.QUANTIZE)


def taken_us(m: int, n: int, k: int, on: Gpu = H200) -> float:
    both = on.cost(product(m, n, k, precision="fp8")), on.cost(narrowing(m * k, m * k))
    return 1e6 * sum(cost.occupancy_s for cost in both)


@pytest.mark.parametrize(
    ("shape", "measured_us"),
    [
        ((2, 32, 32), 4.13),  # two starts
        ((1, 32, 51200), 26.56),  # one chain along k: a kernel that splits k would take a quarter
        ((4, 4096, 7168), 12.63),
        ((8, 2048, 16384), 16.09),
        ((128, 2560, 16384), 29.5),  # tiles of 128 columns: 40 blocks on 132 multiprocessors
        ((256, 12288, 16384), 107.3),
        ((256, 16384, 7168), 47.1),
    ],
    ids=str,
)
def test_is_a_product_within_an_eighth_of_its_measured_time(shape: tuple[int, int, int], measured_us: float) -> None:
    assert taken_us(*shape) == pytest.approx(measured_us, rel=0.125)


def test_does_narrowing_take_a_start_and_its_bytes_and_a_scale_two_kernels_more() -> None:
    p = H200.parameters.quantization
    assert p is not None
    million = 2**20
    bytes_s = 3 * million / (0.5556 * 4.8e12)
    assert quantization_s(p, million, million, 4.8e12) == pytest.approx(1.546e-6 + bytes_s, rel=1e-9)
    assert quantization_s(p, million, 1, 4.8e12) == pytest.approx(6.72e-6 + 7.32e-12 * million, rel=1e-9)
    assert quantization_s(p, 1, 1, 4.8e12) == pytest.approx(1.546e-6 + 3 / (0.5556 * 4.8e12), rel=1e-9)  # one number
    assert H200.cost(narrowing(million, million)).occupancy_s == pytest.approx(1.546e-6 + bytes_s, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "m", "n", "tile"),
    [
        ("h200", 16, 9000, (16, 64)),
        ("h200", 17, 1280, (16, 64)),
        ("h200", 17, 1281, (64, 64)),
        ("h200", 65, 32, (64, 128)),
        ("h200", 129, 32, (128, 128)),
        ("l40s", 16, 8193, (16, 128)),
        ("l40s", 200, 4096, (64, 128)),
        ("l40s", 5000, 4097, (256, 128)),
        ("rtx-pro-6000", 1, 64, (128, 128)),
    ],
)
def test_does_a_product_take_the_tile_of_its_rows_and_columns(name: str, m: int, n: int, tile: tuple[int, int]) -> None:
    narrow = gpu(name).narrow
    assert narrow is not None
    assert narrow.kernel(m, n).tiles.tolist() == [list(tile)]


def test_do_other_formats_and_files_without_such_kernels_keep_theirs() -> None:
    without = H200.at(narrow_products=None, quantization=None)
    for form, weight in (("bf16", "bf16"), ("bf16", "fp8"), ("int8", "int8"), ("fp8", "fp8@2:4")):
        operator = product(32, 4096, 4096, precision=form, weight_precision=weight)
        assert H200.cost(operator) == without.cost(operator), (form, weight)
    operator = product(1, 32, 51200, precision="fp8")
    assert H200.cost(operator).occupancy_s > 2 * without.cost(operator).occupancy_s
    assert H200.cost(narrowing(64, 64)).occupancy_s < without.cost(narrowing(64, 64)).occupancy_s


@pytest.mark.parametrize("name", ["h200", "h100", "b200", "l40s", "rtx-pro-6000"])
def test_is_a_product_of_more_rows_never_faster(name: str) -> None:
    part = gpu(name)
    for n, k in ((32, 16384), (1280, 512), (4096, 4096), (14336, 4096), (65536, 2048)):
        times = [part.cost(product(m, n, k, precision="fp8")).occupancy_s for m in (*range(1, 140), 256, 257, 1024)]
        for fewer, more in pairwise(times):
            assert more >= fewer * (1 - 1e-9), (name, n, k)


def test_do_two_chips_of_a_component_share_the_rows() -> None:
    pair = replace(H200, units=2)
    for m in (16, 64, 4096):
        operator = product(m, 8192, 8192, precision="fp8")
        one, two = H200.cost(operator).occupancy_s, pair.cost(operator).occupancy_s
        assert 0.48 * one <= two <= one  # a shorter kernel holds its boost clock for longer


@pytest.mark.parametrize(
    ("version", "form", "operation"),
    [("0.14.0", "fp8", FINDS_SCALE), ("0.18.0", "fp8", ""), ("0.19.0", "fp8", ""), ("0.14.0", "bfloat16", "")],
)
def test_does_a_table_before_vllm_018_find_its_scale_on_the_run(
    tmp_path: Path, version: str, form: str, operation: str
) -> None:
    file = tmp_path / "x_gemm.csv"
    file.write_text(f"device,version,dtype,m,n,k,latency_ms\nNVIDIA H200,{version},{form},16,4096,4096,0.01\n")
    (sample,) = read_samples(file)
    assert sample.operation == operation
