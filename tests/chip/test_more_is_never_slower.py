"""More units, a faster clock, more bandwidth, narrower formats: is a component never slower for it?

One exception is known.  The library's choice of kernels on a GPU was fitted with its number of multiprocessors and its
clock; exchanging these may choose worse.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.chip.component import Share
from tierform.chip.description import load_component
from tierform.chip.sample_operators import elementwise, product
from tierform.workload.operator import Kind, Operator

PARTS = [
    "a100-gpu",
    "h200-gpu",
    "systolic-128x32-10nm",
    "vector-128-10nm",
    "haima-dram",
    "transpim-layer",
    "isaac-tile-32nm",
    "retransformer-tile",
    "xformer-attention-sram",
]
FASTER = [
    ("a100-gpu", "memory_bandwidth"),
    ("h200-gpu", "memory_bandwidth"),
    ("a100-gpu", "vector_rate"),
    ("systolic-128x32-10nm", "clock"),
    ("vector-128-10nm", "clock"),
    ("haima-dram", "vector_rate"),
    ("haima-dram", "link_bandwidth"),
    ("transpim-layer", "link_bandwidth"),
    ("isaac-tile-32nm", "adc_rate"),
    ("retransformer-tile", "parallel_writes"),
]
SIZE = st.integers(1, 5000)


def changed(part: Any, name: str, factor: float) -> Any:
    constant = getattr(part.parameters, name)
    values = part.parameters.model_copy(update={name: replace(constant, value=constant.value * factor)})
    return type(part).build(part.name, part.units, values)


def operators(m: int, n: int, k: int, batch: int, held: bool, form: str) -> list[Operator]:
    light = elementwise(Kind.SOFTMAX, m * n, precision=form)
    return [product(m, n, k, batch=batch, held=held, precision=form), light]


@settings(max_examples=25, deadline=None)
@given(
    m=SIZE,
    n=SIZE,
    k=SIZE,
    batch=st.sampled_from([1, 1, 5, 32]),
    held=st.booleans(),
    form=st.sampled_from(["int4", "int8", "bf16"]),
    units=st.integers(1, 12),
    more=st.integers(1, 12),
)
@pytest.mark.parametrize("name", PARTS)
def test_more_units(
    name: str, m: int, n: int, k: int, batch: int, held: bool, form: str, units: int, more: int
) -> None:
    few, many = (load_component("part", count, name) for count in (units, units + more))
    for operator in operators(m, n, k, batch, held, form):
        if few.supports(operator):
            assert many.cost(operator).latency_s <= few.cost(operator).latency_s * (1 + 1e-12)
            assert many.cost(operator, Share(units)).occupancy_s <= few.cost(operator).occupancy_s * (1 + 1e-12)


@settings(max_examples=25, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE, batch=st.sampled_from([1, 5]), held=st.booleans(), factor=st.floats(1, 10))
@pytest.mark.parametrize(("name", "key"), FASTER)
def test_a_faster_part(name: str, key: str, m: int, n: int, k: int, batch: int, held: bool, factor: float) -> None:
    slow = load_component("part", 2, name)
    fast = changed(slow, key, factor)
    for operator in operators(m, n, k, batch, held, "int8"):
        if slow.supports(operator):
            assert fast.cost(operator).latency_s <= slow.cost(operator).latency_s * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(m=SIZE, n=SIZE, k=SIZE, batch=st.sampled_from([1, 33]), held=st.booleans())
@pytest.mark.parametrize("name", PARTS)
def test_narrower_weights(name: str, m: int, n: int, k: int, batch: int, held: bool) -> None:
    part = load_component("part", 2, name)
    times = []
    for width in ("int4", "int8"):
        operator = product(m, n, k, batch=batch, held=held, weight_precision=width)
        if part.supports(operator):
            times.append(part.cost(operator).latency_s)
    assert times == sorted(times)
