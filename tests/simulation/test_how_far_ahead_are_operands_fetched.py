"""How far ahead are operands fetched: as far as the buffers have room, in pieces?"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.simulation.prefetch import LAYER_END, LAYER_START, freed_by, pieces
from tierform.simulation.schedule import schedule_stage
from tierform.simulation.schedule_layers import BLOCK_INPUT, Edge, Layer, ScheduledOperator


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (5.0, [None, None, None]),  # nothing fits beside another
        (10.0, [LAYER_END, None, None]),  # each fits alone
        (20.0, [LAYER_END, LAYER_END, 0]),
        (30.0, [LAYER_END, LAYER_END, LAYER_END]),
        (40.0, [LAYER_START, LAYER_END, LAYER_END]),  # all of the layer before, and the first step
        (60.0, [LAYER_START, LAYER_START, LAYER_START]),
    ],
)
def test_a_fetch_begins_when_its_room_is_free(room: float, expected: list[int | None]) -> None:
    assert freed_by([10.0, 10.0, 10.0], room) == expected


def test_what_fetches_nothing_takes_no_room() -> None:
    assert freed_by([10.0, 0.0, 10.0], 10.0) == [LAYER_END, None, 0]


def test_operands_come_in_eighths_of_the_buffer() -> None:
    assert [pieces(size, 80.0) for size in (1.0, 10.0, 11.0, 80.0, 800.0)] == [1, 1, 2, 8, 80]


def layer(*steps: tuple[float, float], freed: list[int | None], parts: int = 1) -> Layer:
    """Steps of (work, fetch) seconds on one array, one after the other."""
    made = tuple(
        ScheduledOperator(
            name=f"step{index}",
            resource="array",
            occupancy_s=work,
            after=(Edge(index - 1 if index else BLOCK_INPUT),),
            fetch="memory",
            fetch_s=fetch,
            freed_by=freed[index],
            pieces=parts,
        )
        for index, (work, fetch) in enumerate(steps)
    )
    return Layer("layer", made, len(made) - 1)


def test_one_step_ahead_waits_for_the_step_before() -> None:
    """The third fetch begins with the second step, so the memory rests while the first one works: 1 + 3 + 4 + 1."""
    steps = ((3.0, 1.0), (1.0, 1.0), (1.0, 4.0))
    assert schedule_stage([[(layer(*steps, freed=[None] * 3), 1)]]).makespan_s == pytest.approx(1 + 3 + 4 + 1)


def test_with_room_the_memory_never_rests() -> None:
    """All fetches follow each other: 1 + 1 + 4, and the third step works for 1 more."""
    steps = ((3.0, 1.0), (1.0, 1.0), (1.0, 4.0))
    ahead = layer(*steps, freed=[LAYER_END] * 3)
    assert schedule_stage([[(ahead, 1)]]).makespan_s == pytest.approx(1 + 1 + 4 + 1)


def test_a_layer_ahead_hides_what_a_layer_waits_for() -> None:
    """Work of 2 and fetches of 2: after the first fetch the array never rests."""
    ahead = layer((2.0, 2.0), freed=[LAYER_START])
    assert schedule_stage([[(ahead, 5)]]).makespan_s == pytest.approx(2 + 5 * 2)


def test_a_step_begins_with_its_first_piece() -> None:
    """Eight seconds of fetch and of work in 8 pieces: the first comes, then both go on; the last takes one more."""
    assert schedule_stage([[(layer((8.0, 8.0), freed=[None], parts=8), 1)]]).makespan_s == pytest.approx(9.0)
    fast = layer((4.0, 8.0), freed=[None], parts=8)  # the memory is slower
    assert schedule_stage([[(fast, 1)]]).makespan_s == pytest.approx(8.0 + 0.5)
    slow = layer((16.0, 8.0), freed=[None], parts=8)
    assert schedule_stage([[(slow, 1)]]).makespan_s == pytest.approx(1.0 + 16.0)


@st.composite
def stages(draw: st.DrawFn) -> tuple[list[list[tuple[Layer, int]]], list[list[tuple[Layer, int]]], list[int], int]:
    """The same random layers with fetches one step ahead and as far as a buffer allows; micro-batches and chunks."""
    seconds = st.sampled_from([0.0, 0.5, 1.0, 3.0, 7.0])
    room = draw(st.sampled_from([4.0, 9.0, 20.0, 100.0]))
    plain, ahead = [], []
    for number in range(draw(st.integers(1, 3))):
        steps: list[ScheduledOperator] = []
        for index in range(draw(st.integers(1, 6))):
            after = tuple(
                Edge(source, draw(st.booleans()), draw(st.sampled_from(["", "", "link"])), 0.25, draw(seconds))
                for source in draw(st.lists(st.integers(BLOCK_INPUT, index - 1), min_size=1, max_size=2, unique=True))
            )
            fetch_s = draw(seconds)
            steps.append(
                ScheduledOperator(
                    name=f"step{index}",
                    resource=draw(st.sampled_from(["array", "vector", "cells"])),
                    occupancy_s=draw(seconds),
                    tail_s=draw(st.sampled_from([0.0, 0.5])),
                    own=draw(st.booleans()),
                    after=after,
                    fetch="memory" if fetch_s else "",
                    fetch_s=fetch_s,
                )
            )
        count = draw(st.integers(1, 4))
        fetched = [step.fetch_s for step in steps]
        far = (
            replace(step, freed_by=by, pieces=pieces(size, room)) if size else step
            for step, by, size in zip(steps, freed_by(fetched, room), fetched, strict=True)
        )
        plain.append((Layer(f"layer{number}", tuple(steps)), count))
        ahead.append((Layer(f"layer{number}", tuple(far)), count))
    return [plain], [ahead], [draw(st.integers(1, 5))], draw(st.integers(1, 4))


@settings(max_examples=300 * int(os.environ.get("TIERFORM_LAWS", "1")), deadline=None, derandomize=True)
@given(stages())
def test_fetching_as_far_ahead_as_the_buffers_allow_is_never_slower(
    case: tuple[list[list[tuple[Layer, int]]], list[list[tuple[Layer, int]]], list[int], int],
) -> None:
    """Everything is served in the order of fetches one step ahead, and nothing waits for more than there."""
    plain, ahead, micro_batches, chunks = case
    far_s = schedule_stage(ahead, micro_batches, chunks).makespan_s
    assert far_s <= schedule_stage(plain, micro_batches, chunks).makespan_s * (1 + 1e-12)
