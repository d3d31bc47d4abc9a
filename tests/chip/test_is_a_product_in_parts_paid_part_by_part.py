"""What does a product cost on systolic arrays whose tokens come in parts?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform import load_chip
from tierform.chip.component import Cost, Share
from tierform.chip.systolic.component import SystolicArrays
from tierform.chip.systolic.token_parts import in_parts
from tierform.workload.operator import Kind, Operand, Operator, Origin, Phase, Role


def product(m: int, n: int, k: int, origin: Origin = Origin.MODEL) -> Operator:
    first = Operand("x", (m, k), "int8", Role.ACTIVATION)
    second = Operand("y", (k, n), "int8", Role.ACTIVATION)
    made = Operand("z", (m, n), "int8", Role.ACTIVATION)
    return Operator(
        name="product",
        kind=Kind.MATMUL,
        part="attention",
        phase=Phase.FORWARD,
        inputs=(first, second),
        outputs=(made,),
        m=m,
        n=n,
        k=k,
        origin=origin,
    )


def cost(operator: Operator, parts: int) -> Cost:
    own = load_chip("hetrax").components["sm"]
    assert isinstance(own, SystolicArrays)
    return replace(own, units=1).cost(operator, Share(parts=parts))


def test_are_parts_that_leave_the_array_half_empty_paid_as_full_ones() -> None:
    """One array of 32 x 16 that keeps results: in 32 parts of 16 rows each is a fold that is half empty, so that there
    are twice as many as for all 512 rows together."""
    whole, many = cost(product(512, 16, 64), 1), cost(product(512, 16, 64), 32)
    assert many.occupancy_s == pytest.approx(32 * cost(product(16, 16, 64), 1).occupancy_s)
    assert many.occupancy_s > 1.9 * whole.occupancy_s
    assert many.latency_s - many.occupancy_s == pytest.approx(whole.latency_s - whole.occupancy_s)
    assert many.energy_J["mac"] == pytest.approx(whole.energy_J["mac"])
    assert many.energy_J["sram"] > whole.energy_J["sram"]
    # The same multiplications in a longer time.
    assert many.utilization * many.occupancy_s == pytest.approx(whole.utilization * whole.occupancy_s)


def sizes(operator: Operator, parts: int) -> list[tuple[int, int, int]]:
    return [(one.m, one.k, times) for one, times in in_parts(operator, parts)]


def test_are_the_tokens_what_is_cut() -> None:
    assert sizes(product(512, 16, 64), 8) == [(64, 64, 8)]
    assert sizes(product(512, 16, 4096, Origin.WEIGHT_GRADIENT), 8) == [(512, 512, 8)]
    assert sizes(product(1, 16, 64), 8) == [(1, 64, 1)]  # one token is one part
    # 9 tokens in 4 parts: one of 3 and three of 2.
    assert sizes(product(9, 16, 64), 4) == [(3, 64, 1), (2, 64, 3)]


def test_do_whole_sequences_come_one_after_the_other() -> None:
    """6 sequences of 10 tokens, 2 heads each.  In 4 parts: two of 2 sequences, two of one.  In 8 parts of one sequence
    each: 60 tokens are four parts of 8 and four of 7."""
    operator = replace(product(10, 16, 64), batch=12)
    operator = replace(operator, inputs=tuple(replace(one, shape=(12, *one.shape)) for one in operator.inputs))
    few = [(one.m, one.batch, one.inputs[1].elements, times) for one, times in in_parts(operator, 4, 6)]
    assert few == [(10, 4, 4 * 64 * 16, 2), (10, 2, 2 * 64 * 16, 2)]
    many = [(one.m, one.batch, one.inputs[1].elements, times) for one, times in in_parts(operator, 8, 6)]
    assert many == [(8, 2, 2 * 64 * 16, 4), (7, 2, 2 * 64 * 16, 4)]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 300), st.integers(1, 64))
def test_are_all_tokens_done_and_never_for_less_than_together(m: int, n: int, k: int, parts: int) -> None:
    operator = product(m, n, k)
    pieces = in_parts(operator, parts)
    assert sum(one.m * times for one, times in pieces) == m
    assert sum(times for _, times in pieces) <= parts
    together, apart = cost(operator, 1), cost(operator, parts)
    assert apart.occupancy_s >= together.occupancy_s
    assert all(apart.energy_J[name] >= own for name, own in together.energy_J.items())
