# ruff: noqa: B023 - the closures of the slow reference are called where they are made
"""Do the kernel models behave as kernels do, and do the GPUs' files load and refuse what they must?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.collectives import CollectiveModel
from tierform.chip.gpu.gemm import FITTED
from tierform.errors import TierformError
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role

BOARDS = ["a100", "a100-pcie", "h100", "h200", "l40s", "b200", "mi210", "rtx-4090", "jetson-agx-orin"]
BOARDS += ["v100", "t4", "l4", "a10g", "rtx-3090", "rtx-a6000", "rtx-5090", "rtx-pro-6000"]
BOARDS += ["h20", "gb200", "mi250", "mi300x"]
SIZE = st.integers(1, 20_000)


def board(name: str) -> Gpu:
    part = load_component("gpu", 1, f"{name}-gpu")
    assert isinstance(part, Gpu)
    return part


A100, H200 = board("a100"), board("h200")


def product(m: int, n: int, k: int, form: str = "bf16", weight: str | None = None) -> Operator:
    a = Operand("x", (m, k), form, Role.ACTIVATION)
    b = Operand("w", (n, k), weight or form, Role.WEIGHT, static=True)
    return Operator(
        "p", Kind.MATMUL, "ffn", Phase.FORWARD, (a, b), (Operand("y", (m, n), form, Role.ACTIVATION),), m=m, n=n, k=k
    )


def reference_seconds(gpu: Gpu, m: int, n: int, k: int, copies: float = 1e6, width: float = 2.0) -> float:
    """The product model written as plain loops over the candidates."""
    p = gpu.parameters.products
    assert p is not None
    v: dict[str, float] = {name: getattr(p, name).value for name in FITTED}
    sheet, cycle = gpu.sheet, 1 / gpu.sheet.clock_Hz
    per_sm = sheet.peak_per_s / sheet.multiprocessors / 2
    a, b, c = m * k * width, n * k * width, m * n * 2.0

    def missed(used: float) -> float:
        return 1 / (1 + (sheet.l2_B * v["l2_share"] / used) ** 4)

    best = (math.inf, 0.0)
    for rows0, columns0 in p.tiles:
        down, across = math.ceil(m / rows0), math.ceil(n / columns0)
        rows, columns = float(rows0), float(columns0)
        if p.tile_step:
            rows = min(rows, math.ceil(m / down / p.tile_step[0]) * p.tile_step[0])
            columns = min(columns, math.ceil(n / across / p.tile_step[1]) * p.tile_step[1])
        area, tiles = rows * columns, down * across
        resident = min(max(math.floor(v["resident_outputs"] / area), 1), 4)
        slots = sheet.multiprocessors * resident
        splits = [1, 2, 3, 4, 6, 8] + [math.floor(w * sheet.multiprocessors / tiles) for w in (1, 2, 3, 4, 6, 8)]
        for wanted in splits:
            split = min(max(min(wanted, math.floor(k / 128)), 1), 64)
            length = math.ceil(k / split / 32) * 32
            blocks = tiles * split
            full = math.floor(blocks / slots)
            last = math.ceil((blocks - full * slots) / sheet.multiprocessors)

            def busy(half: float, prologue: float) -> float:
                def once(r: int) -> float:
                    math_s = length * (
                        r * area / (per_sm * min(v["tensor_efficiency"], 1.15)) * (1 + half**2 / (r * area))
                    )
                    fed = (min(rows, m) + min(columns, n)) * width
                    feed_s = length * r * fed / (v["operand_feed"] * 2 * per_sm)
                    chain_s = length * v["step"] * cycle * width / 2 * (1 + v["miss_step"] * missed(copies * b + a + c))
                    start_s = (prologue + v["miss_prologue"] * missed(copies * b + a + c)) * cycle
                    return max(math_s, feed_s, chain_s) + start_s + r * area * 2 * cycle / v["epilogue"]

                return full * once(resident) + (once(last) if last else 0.0)

            panels = 2 * math.sqrt(slots * area / split) * k * width * max(blocks / slots, 1)
            streamed = min(max(panels, a + b), max(a + b, tiles * (rows + columns) * width * k))
            moved = b * missed(copies * b + a + c) + (a + c) * missed(a + b + c) + (streamed - a - b) * missed(a + b)
            memory_s = moved / (sheet.memory_B_per_s * v["memory_efficiency"])
            memory_s += v["miss_latency"] * cycle * missed(copies * b + a + c)
            forced = m > 16 and m * n < v["smallest_grid"]

            def total(half: float, prologue: float, reduction: float, share: float) -> float:
                x, y, q = busy(half, prologue), memory_s, v["overlap"]
                result = max(x, y) * (1 + (min(x, y) / max(x, y)) ** q) ** (1 / q)
                if split > 1 or forced:
                    result += reduction * cycle * (1 if split > 1 else v["small_grid_reduction"])
                    result += ((8 * split * m * n if split > 1 else 0) + c) / (share * sheet.memory_B_per_s)
                return result

            score = total(
                v["chosen_half_tile"], v["chosen_prologue"], v["chosen_reduction"], v["chosen_reduction_bandwidth"]
            )
            if score < best[0] * (1 - 1e-12):
                time = total(v["half_tile"], v["prologue"], v["reduction"], v["reduction_bandwidth"])
                best = (score, v["launch"] * cycle + time)
    boosted = best[1]
    throttled = 2 * m * n * k / (sheet.peak_per_s * v["sustained_efficiency"])
    if throttled > boosted:
        boosted += (throttled - boosted) * boosted / (boosted + v["boost_time"] * cycle)
    return boosted


@pytest.mark.parametrize("gpu", [A100, H200], ids=["a100", "h200"])
@settings(max_examples=60, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE)
def test_does_the_array_code_agree_with_plain_loops(gpu: Gpu, m: int, n: int, k: int) -> None:
    assert gpu.products is not None
    assert gpu.products.seconds(m, n, k)[0] == pytest.approx(reference_seconds(gpu, m, n, k), rel=1e-9)


@pytest.mark.parametrize("name", BOARDS)
@settings(max_examples=40, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE)
def test_is_no_product_faster_than_the_silicon_allows(name: str, m: int, n: int, k: int) -> None:
    gpu = board(name)
    seconds = gpu.cost(product(m, n, k)).latency_s
    rate = gpu.parameters.peak_rate["bf16"].value
    assert seconds >= 2.0 * m * n * k / (rate * 1.15)
    assert seconds >= n * k * 2 / gpu.parameters.memory_bandwidth.value
    assert seconds > gpu.parameters.launch.value * 0.99


def test_does_a_further_tile_open_a_further_wave() -> None:
    """108 tiles of 256 x 128 fill the A100 once; the 109th costs a second wave."""
    assert A100.products is not None
    one, two = A100.products.seconds([256 * 9, 256 * 9 + 1], 128 * 12, 16384)
    assert two > 1.2 * one


def test_do_narrow_weights_move_less_but_compute_as_wide_ones() -> None:
    small, wide = A100.cost(product(1, 4096, 4096, weight="int4")), A100.cost(product(1, 4096, 4096))
    assert small.latency_s < 0.75 * wide.latency_s
    big, bigger = A100.cost(product(8192, 8192, 8192, weight="int4")), A100.cost(product(8192, 8192, 8192))
    assert big.latency_s == pytest.approx(bigger.latency_s, rel=0.1)


def test_is_a_format_without_a_peak_refused() -> None:
    with pytest.raises(TierformError, match="no peak rate") as caught:
        A100.at(peak_rate={"bf16": A100.parameters.peak_rate["bf16"]}).cost(product(8, 8, 8, "fp32"))
    assert "no peak rate for fp32 or a wider format, only for bf16" in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(batch=st.integers(1, 64), queries=st.integers(2, 8192), heads=st.sampled_from([8, 16, 64]), wider=st.booleans())
def test_does_attention_grow_with_its_work(batch: int, queries: int, heads: int, wider: bool) -> None:
    gpu = H200 if wider else A100
    assert gpu.prefill is not None and gpu.decode is not None
    one = gpu.prefill.seconds(batch, queries, queries, heads, 8, 128)
    assert gpu.prefill.seconds(batch, 2 * queries, 2 * queries, heads, 8, 128) > one
    assert gpu.prefill.seconds(batch, queries, queries, heads, 8, 128, causal=False) >= one * (1 - 1e-12)
    useful = 4.0 * batch * heads * queries * (queries + 1) / 2 * 128
    assert one * gpu.sheet.peak_per_s > useful
    step = gpu.decode.seconds(batch, queries, heads, 8, 128)
    assert step > 2 * batch * 8 * queries * 128 * 2 / gpu.sheet.memory_B_per_s


def test_do_collectives_follow_their_laws() -> None:
    assert A100.parameters.links is not None
    model = CollectiveModel.of(A100.parameters.links)
    sizes = np.array([2.0**i for i in range(8, 30)])
    for kind in ("all_reduce", "all_gather", "reduce_scatter", "alltoall"):
        times = model.seconds(kind, 8, sizes)
        assert (np.diff(times) > 0).all()
        moved = (2 if kind == "all_reduce" else 1) * sizes * 7 / 8
        assert (times > moved / A100.parameters.links.bandwidth.value).all()
    large = 2.0**33
    both = model.seconds("all_gather", 4, large) + model.seconds("reduce_scatter", 4, large)
    assert model.seconds("all_reduce", 4, large) == pytest.approx(both, rel=0.01)
    with pytest.raises(TierformError, match="all_reduce"):
        model.seconds("all-reduce", 4, 1e6)


def test_are_more_products_than_boards_dealt_out_whole() -> None:
    """Three products on two boards take as long as two on one; a single one is cut by rows."""
    one, two = A100, load_component("gpu", 2, "a100-gpu")

    def several(number: int, m: int = 4096) -> Operator:
        return replace(product(m, 4096, 4096), batch=number)

    assert two.cost(several(3)).occupancy_s == one.cost(several(2)).occupancy_s
    assert two.cost(several(1)).occupancy_s == one.cost(several(1, 2048)).occupancy_s
