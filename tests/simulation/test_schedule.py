"""Does the schedule equal a slow, plain one, chunk by chunk, and does skipping equal ticks change nothing?"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.simulation.schedule import BLOCK_INPUT, Edge, Layer, Step, schedule_stage


def plain_makespan(runs: list[tuple[Layer, int]], micro_batches: int, chunks: int) -> float:
    """Every chunk of every step of every layer, put into the first gap of its resource by looking at all gaps."""
    busy: dict[object, list[tuple[float, float]]] = defaultdict(list)

    def reserve(resource: object, ready: float, length: float) -> float:
        if length <= 0:
            return ready
        begin = ready
        for start, end in sorted(busy[resource]):
            if begin + length <= start + 1e-6 * length:
                break
            begin = max(begin, end)
        busy[resource].append((begin, begin + length))
        return begin + length

    def block(resource: object, ready: list[float], length: float) -> list[float]:
        if length > 0 and len(set(ready)) == 1:  # all chunks there at once go as one piece
            end = reserve(resource, ready[0], length)
            return [end - length + (c + 1) * length / chunks for c in range(chunks)]
        done: list[float] = []
        for time in ready:
            done.append(reserve(resource, max(time, done[-1] if done else time), length / chunks))
        return done

    own_free: dict[object, float] = defaultdict(float)

    def alone(resource: object, ready: list[float], length: float) -> list[float]:
        done = []
        for time in ready:
            own_free[resource] = max(time, own_free[resource]) + length / chunks
            done.append(own_free[resource])
        return done

    layers = [layer for layer, count in runs for _ in range(count)]
    out = [[0.0] * chunks for _ in range(micro_batches)]
    end = 0.0
    for tick in range(len(layers) + micro_batches - 1):
        for index in range(min(tick, len(layers) - 1), max(0, tick - micro_batches + 1) - 1, -1):
            micro = tick - index
            entry, done, sent = out[micro], [], {}
            before = entry[0]
            for number, step in enumerate(layers[index].steps):
                ready = [0.0] * chunks
                for edge in step.after:
                    given = entry if edge.source == BLOCK_INPUT else done[edge.source]
                    if edge.path:
                        key = (edge.source, edge.path)
                        if key not in sent:
                            serve = alone if edge.own else block
                            place = (index, edge.path) if edge.own else edge.path
                            sent[key] = [t + edge.head_s for t in serve(place, given, edge.transfer_s)]
                        given = sent[key]
                    if edge.whole:
                        given = [given[-1]] * chunks
                    ready = [max(a, b) for a, b in zip(ready, given, strict=True)]
                if step.fetch:
                    there = block(step.fetch, [before] * chunks, step.fetch_s)[-1]
                    ready = [max(time, there) for time in ready]
                if step.own:
                    finish = alone((index, number), ready, step.occupancy_s)
                else:
                    finish = block(step.resource, ready, step.occupancy_s)
                before = finish[0] - step.occupancy_s / chunks
                done.append([time + step.tail_s for time in finish])
                end = max(end, done[-1][-1])
            out[micro] = done[layers[index].output]
    return end


_times = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 1.75, 3.0])


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    steps = []
    for number in range(draw(st.integers(1, 5))):
        edges = []
        for source in draw(st.sets(st.integers(-1, number - 1), min_size=1, max_size=2)):
            path = draw(st.sampled_from(["", "", "x > y", "y > x"]))
            edges.append(Edge(source, draw(st.booleans()), path, draw(_times), draw(_times), draw(st.booleans())))
        fetch = draw(st.sampled_from(["", "", "memory"]))
        steps.append(
            Step(
                f"s{number}",
                draw(st.sampled_from(["a", "b"])),
                draw(_times),
                draw(_times),
                draw(st.booleans()),
                tuple(edges),
                fetch,
                draw(_times) if fetch else 0.0,
            )
        )
    return Layer("layer", tuple(steps), draw(st.integers(0, len(steps) - 1)))


@given(st.lists(st.tuples(layers(), st.integers(1, 4)), min_size=1, max_size=2), st.integers(1, 4), st.integers(1, 4))
def test_does_it_equal_the_plain_schedule(runs: list[tuple[Layer, int]], micro_batches: int, chunks: int) -> None:
    expected = plain_makespan(runs, micro_batches, chunks)
    assert schedule_stage(runs, micro_batches, chunks, exact=True).makespan_s == pytest.approx(expected, rel=1e-5)


@given(layers(), st.integers(10, 60), st.integers(1, 4), st.sampled_from([1, 3, 8]))
def test_does_skipping_equal_ticks_change_nothing(layer: Layer, count: int, micro_batches: int, chunks: int) -> None:
    slow = schedule_stage([(layer, count)], micro_batches, chunks, exact=True)
    fast = schedule_stage([(layer, count)], micro_batches, chunks)
    assert fast.makespan_s == pytest.approx(slow.makespan_s, rel=1e-5, abs=1e-12)
    assert fast.ticks_run <= slow.ticks_run


@given(layers(), st.integers(1, 12), st.integers(1, 4), st.sampled_from([1, 4]))
def test_is_no_resource_busy_for_longer_than_the_schedule(layer: Layer, count: int, micro: int, chunks: int) -> None:
    made = schedule_stage([(layer, count)], micro, chunks, exact=True)
    busy: dict[str, float] = defaultdict(float)
    for step in layer.steps:
        if not step.own:
            busy[step.resource] += step.occupancy_s * count * micro
        if step.fetch:
            busy[step.fetch] += step.fetch_s * count * micro
    assert all(seconds <= made.makespan_s * (1 + 1e-9) + 1e-12 for seconds in busy.values())


def test_do_many_equal_layers_cost_few_ticks() -> None:
    steps = (Step("q", "crossbars", 4.0, 0.1, True), Step("a", "array", 0.7, 0, False, (Edge(0, True),)))
    made = schedule_stage([(Layer("layer", steps), 1000)], 1, 16)
    assert made.ticks_run < 10
    assert made.makespan_s == pytest.approx(1000 * (4.0 + 0.1 + 0.7 / 16) + 0.7 * 15 / 16)


def test_does_pipelining_hide_all_but_the_slowest_stage() -> None:
    steps = (Step("one", "a", 1.0, own=True), Step("two", "b", 1.0, own=True, after=(Edge(0),)))
    one_by_one = schedule_stage([(Layer("layer", steps), 4)], 1, 1).makespan_s
    piped = schedule_stage([(Layer("layer", steps), 4)], 8, 1).makespan_s
    assert one_by_one == pytest.approx(8.0)
    assert piped == pytest.approx(8.0 + 7.0)


def test_does_the_timeline_hold_every_bar_once() -> None:
    steps = (Step("one", "a", 1.0), Step("two", "b", 2.0, after=(Edge(0),)))
    made = schedule_stage([(Layer("layer", steps), 3)], 2, 2, record=True, exact=True)
    assert len(made.slices) == 3 * 2 * 2
    assert max(bar.end_s for bar in made.slices) == pytest.approx(made.makespan_s)
    skipped = schedule_stage([(Layer("layer", steps), 50)], 1, 2, record=True)
    assert sum(bar.repeats for bar in skipped.slices) == 50 * 2
