"""Does the schedule equal a slow, plain one, does it obey its laws, and does it give what a hand derives?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.simulation import schedule_flat
from tierform.simulation.prefetch import LAYER_END, LAYER_START
from tierform.simulation.schedule import schedule_stage
from tierform.simulation.schedule_layers import BLOCK_INPUT, Edge, Layer, ScheduledOperator

ORDERS = {True: ((1, 0.5), (4, 1.0), (16, 1.0), (64, 1.0)), False: ((1, 0.0), (4, 0.0), (16, 0.0))}
Piece = tuple[str, bool, float, float, bool, list[tuple[int, bool]]]


def pieces_of(layer: Layer) -> tuple[list[Piece], list[int]]:
    """(resource, own, time, tail, once, waits) of every step, transfer and fetch in order; the place of each step."""
    pieces: list[Piece] = []
    place: list[int] = []
    sent: dict[tuple[int, str], int] = {}
    for step in layer.steps:
        waits: list[tuple[int, bool]] = []
        for edge in step.after or (Edge(BLOCK_INPUT),):
            source = -1 if edge.source == BLOCK_INPUT else place[edge.source]
            if edge.path:
                key = (edge.source, edge.path)
                if key not in sent:
                    sent[key] = len(pieces)
                    pieces.append((edge.path, edge.own, edge.transfer_s, edge.head_s, False, [(source, False)]))
                source = sent[key]
            if (source, edge.whole or step.once) not in waits:
                waits.append((source, edge.whole or step.once))
        needed = list(waits)
        if step.fetch:
            giver = waits[0][0]
            before = [(-2, False)] if giver == -1 else [(source, False) for source, _ in pieces[giver][5]]
            pieces.append((step.fetch, False, step.fetch_s, 0.0, True, before))
            needed.append((len(pieces) - 1, False))
        place.append(len(pieces))
        pieces.append((step.resource, step.own, step.occupancy_s, step.tail_s, step.once, needed))
    return pieces, place


def plain_makespan(runs: list[tuple[Layer, int]], micro_batches: int, chunks: int, weight: int, spacing: int) -> float:
    """Every chunk of every piece, sorted by its virtual time, served one after the other by its resource."""
    layers = [pieces_of(layer) for layer, count in runs for _ in range(count)]
    outputs = [place[layer.output] for layer, count in runs for _ in range(count) for _, place in [pieces_of(layer)]]
    events, start = [], 0
    for index, (pieces, place) in enumerate(layers):
        levels: list[int] = []
        lengths = [weight if own and number in place else 1 for number, (_, own, *_) in enumerate(pieces)]
        for _, _, _, _, _, waits in pieces:
            level = 0
            for source, whole in waits:
                given = levels[source] + lengths[source] if source >= 0 else 0
                level = max(level, given + (weight * (chunks - 1) if whole else 0))
            levels.append(level)
        for micro in range(micro_batches):
            for number, piece in enumerate(pieces):
                for chunk in range(1 if piece[4] else chunks):
                    moment = start + levels[number] + chunk * weight + micro * spacing
                    events.append((moment, micro, index, number, chunk))
        start += levels[outputs[index]] + lengths[outputs[index]]
    done: dict[tuple[int, int, int, int], float] = {}
    free: dict[object, float] = defaultdict(float)
    for _, micro, index, number, chunk in sorted(events):
        resource, own, time, tail, once, waits = layers[index][0][number]
        ready = 0.0
        for source, whole in waits:
            at, when, wanted = index, chunks - 1 if whole else chunk, source
            if source < 0:
                at -= 1
                if at < 0:
                    continue
                wanted = outputs[at]
                if source == -2:
                    wanted, when = layers[at][0][wanted][5][0][0], 0
                    if wanted < 0:
                        continue
                if layers[at][0][wanted][4]:
                    when = 0
            elif layers[index][0][source][4]:
                when = 0
            ready = max(ready, done[micro, at, wanted, when])
        each = time if once else time / chunks
        if each > 0:
            key = (index, number) if own else resource
            ready = max(ready, free[key])
            free[key] = ready + each
        done[micro, index, number, chunk] = ready + each + tail
    return max(done.values())


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
            ScheduledOperator(
                name=f"s{number}",
                resource=draw(st.sampled_from(["a", "b"])),
                occupancy_s=draw(_times),
                tail_s=draw(_times),
                own=draw(st.booleans()),
                after=tuple(edges),
                fetch=fetch,
                fetch_s=draw(_times) if fetch else 0.0,
                once=draw(st.sampled_from([False, False, True])),
            )
        )
    return Layer("layer", tuple(steps), draw(st.integers(0, len(steps) - 1)))


runs_of_layers = st.lists(st.tuples(layers(), st.integers(1, 4)), min_size=1, max_size=2)


def made(runs: list[tuple[Layer, int]], micro_batches: int = 1, chunks: int = 1) -> float:
    return schedule_stage([runs], (micro_batches,), chunks).makespan_s


@given(runs_of_layers, st.integers(1, 4), st.integers(1, 4))
def test_does_it_equal_the_best_of_the_plain_schedules(
    runs: list[tuple[Layer, int]], micro_batches: int, chunks: int
) -> None:
    orders = ORDERS[micro_batches > 1]
    plain = [
        plain_makespan(runs, micro_batches, chunks, weight, max(1, round(weight * share * chunks)))
        for weight, share in orders
    ]
    assert made(runs, micro_batches, chunks) == pytest.approx(min(plain), rel=1e-9)


@given(runs_of_layers, st.integers(1, 4), st.integers(1, 4), st.data())
def test_does_a_faster_step_or_transfer_never_make_it_longer(
    runs: list[tuple[Layer, int]], micro_batches: int, chunks: int, data: st.DataObject
) -> None:
    before = made(runs, micro_batches, chunks)
    chosen = data.draw(st.integers(0, len(runs) - 1))
    layer, count = runs[chosen]
    number = data.draw(st.integers(0, len(layer.steps) - 1))
    step = layer.steps[number]
    factor = data.draw(st.sampled_from([0.25, 0.5, 0.9]))
    faster = replace(
        step,
        occupancy_s=step.occupancy_s * factor,
        tail_s=step.tail_s * factor,
        fetch_s=step.fetch_s * factor,
        after=tuple(replace(e, transfer_s=e.transfer_s * factor, head_s=e.head_s * factor) for e in step.after),
    )
    steps = (*layer.steps[:number], faster, *layer.steps[number + 1 :])
    changed = [*runs[:chosen], (replace(layer, steps=steps), count), *runs[chosen + 1 :]]
    assert made(changed, micro_batches, chunks) <= before * (1 + 1e-12)


@given(layers(), st.integers(1, 4), st.integers(1, 4), st.data())
def test_does_a_plan_that_was_made_for_other_times_give_the_same(
    layer: Layer, micro_batches: int, chunks: int, data: st.DataObject
) -> None:
    """Layers differ in times, in numbers of pieces, in what frees their room: a plan of their own gives the same."""
    freed = st.sampled_from([None, LAYER_START, LAYER_END, 0])
    cut = [replace(s, pieces=data.draw(st.integers(1, 3)), freed_by=data.draw(freed)) for s in layer.steps]
    cut = [replace(step, freed_by=None) if step.freed_by == 0 and not at else step for at, step in enumerate(cut)]
    layer = replace(layer, steps=tuple(new if new.fetch else old for new, old in zip(cut, layer.steps, strict=True)))
    other = replace(
        layer,
        steps=tuple(
            replace(
                step,
                occupancy_s=data.draw(_times),
                tail_s=data.draw(_times),
                fetch_s=data.draw(_times) if step.fetch else 0.0,
                pieces=data.draw(st.integers(1, 3)) if step.fetch else 1,
                freed_by=data.draw(st.sampled_from([None, LAYER_START, LAYER_END])) if step.fetch else None,
                after=tuple(
                    replace(edge, transfer_s=data.draw(_times), head_s=data.draw(_times)) for edge in step.after
                ),
            )
            for step in layer.steps
        ),
    )
    made([(layer, 3)], micro_batches, chunks)
    shared = made([(other, 3)], micro_batches, chunks)
    schedule_flat._layer_plans.clear()
    schedule_flat._alike.clear()
    schedule_flat._stage_plans.clear()
    assert made([(other, 3)], micro_batches, chunks) == shared


@given(layers(), st.integers(1, 12), st.integers(1, 4), st.sampled_from([1, 4]))
def test_is_no_resource_busy_for_longer_than_the_schedule(layer: Layer, count: int, micro: int, chunks: int) -> None:
    makespan = made([(layer, count)], micro, chunks)
    busy: dict[str, float] = defaultdict(float)
    for step in layer.steps:
        if not step.own:
            busy[step.resource] += step.occupancy_s * count * micro
        if step.fetch:
            busy[step.fetch] += step.fetch_s * count * micro
    assert all(seconds <= makespan * (1 + 1e-9) + 1e-12 for seconds in busy.values())


@given(runs_of_layers, st.integers(1, 3), st.sampled_from([1, 3]))
def test_does_another_micro_batch_never_make_it_shorter(
    runs: list[tuple[Layer, int]], micro_batches: int, chunks: int
) -> None:
    assert made(runs, micro_batches + 1, chunks) >= made(runs, 1, chunks) * (1 - 1e-12)


def test_does_a_chain_on_one_resource_take_its_sum() -> None:
    steps = (ScheduledOperator("one", "gpu", 2.0), ScheduledOperator("two", "gpu", 3.0, 0.5, after=(Edge(0),)))
    # Three layers of 2 + 3 s on the one resource; the next layer waits for the tail of 0.5 s, too: 3 * 5.5.
    assert made([(Layer("layer", steps), 3)]) == pytest.approx(16.5)


def test_does_a_step_that_works_once_take_all_chunks_together() -> None:
    """Two chunks through a (2 s), b (3 s) and c (2 s).  In parts: b ends at 1 + 3 s, c a half later, at 5 s.  Where b
    takes both together it begins at 2 s, and c waits for its end: 2 + 3 + 2 s."""
    steps = (
        ScheduledOperator("a", "a", 2.0),
        ScheduledOperator("b", "b", 3.0, after=(Edge(0),)),
        ScheduledOperator("c", "c", 2.0, after=(Edge(1),)),
    )
    assert made([(Layer("layer", steps), 1)], chunks=2) == pytest.approx(5.0)
    together = (steps[0], replace(steps[1], once=True), steps[2])
    assert made([(Layer("layer", together), 1)], chunks=2) == pytest.approx(7.0)
    # As the last step of a layer it is what the next one waits for: 2 + 3 s, and again.
    assert made([(Layer("layer", together[:2]), 2)], chunks=2) == pytest.approx(10.0)


def test_does_a_whole_edge_wait_for_the_last_chunk() -> None:
    steps = (ScheduledOperator("keys", "a", 4.0), ScheduledOperator("scores", "b", 2.0, after=(Edge(0, True),)))
    piped = (ScheduledOperator("keys", "a", 4.0), ScheduledOperator("scores", "b", 2.0, after=(Edge(0, False),)))
    # Whole: 4 s of keys, then 4 chunks of 0.5 s.  Chunk by chunk: the last one ends at 4 s and takes 0.5 s more.
    assert made([(Layer("layer", steps), 1)], 1, 4) == pytest.approx(6.0)
    assert made([(Layer("layer", piped), 1)], 1, 4) == pytest.approx(4.5)


def test_does_pipelining_hide_all_but_the_slowest_stage() -> None:
    steps = (
        ScheduledOperator("one", "a", 1.0, own=True),
        ScheduledOperator("two", "b", 1.0, own=True, after=(Edge(0),)),
    )
    assert made([(Layer("layer", steps), 4)], 1) == pytest.approx(8.0)
    assert made([(Layer("layer", steps), 4)], 8) == pytest.approx(8.0 + 7.0)


def test_is_a_fetch_hidden_behind_the_step_before() -> None:
    steps = (
        ScheduledOperator("one", "array", 3.0, fetch="memory", fetch_s=2.0),
        ScheduledOperator("two", "array", 3.0, after=(Edge(0),), fetch="memory", fetch_s=2.0),
    )
    # 2 s for the first weights; the second ones come while the first are at work, so only the arrays count from there.
    assert made([(Layer("layer", steps), 1)]) == pytest.approx(2.0 + 3.0 + 3.0)
    slow = tuple(replace(step, fetch_s=4.0) for step in steps)
    # Memory is the bottleneck: 4 s, 4 s, then the last 3 s of work.
    assert made([(Layer("layer", slow), 1)]) == pytest.approx(4.0 + 4.0 + 3.0)


def test_are_operands_in_pieces_worked_on_as_they_come() -> None:
    """Three fetches of 4 s end at 12 s; then the last is worked on whole (1 s), or the last of two pieces (0.5 s)."""

    def fetched(pieces: int) -> list[tuple[Layer, int]]:
        step = ScheduledOperator("s", "a", 1.0, fetch="memory", fetch_s=4.0, pieces=pieces)
        return [(Layer("layer", (step,), 0), 3)]

    assert made(fetched(1)) == pytest.approx(13.0)
    assert made(fetched(2)) == pytest.approx(12.5)


def test_do_uneven_parts_lie_between_even_ones() -> None:
    def layer(seconds: float) -> Layer:
        return Layer(
            "layer",
            (
                ScheduledOperator("one", "a", seconds, own=True),
                ScheduledOperator("two", "b", seconds, after=(Edge(0),)),
            ),
        )

    small, large = [(layer(1.0), 6)], [(layer(2.0), 6)]
    mixed = schedule_stage([large, small], (1, 3), 2).makespan_s
    assert made(small, 4, 2) < mixed < made(large, 4, 2)


def test_is_a_long_run_continued_with_its_period() -> None:
    steps = (
        ScheduledOperator("one", "a", 1.0, own=True),
        ScheduledOperator("two", "b", 3.0, own=True, after=(Edge(0),)),
    )
    # 5 layers of 4 s for the first micro-batch, 3 s (the slowest station) for each of the others.
    assert made([(Layer("layer", steps), 5)], 1000) == pytest.approx(5 * 4 + 999 * 3)
    assert made([(Layer("layer", steps), 5)], 10**6) == pytest.approx(5 * 4 + (10**6 - 1) * 3)


def test_are_micro_batches_of_several_waves_numbered_on() -> None:
    steps = (ScheduledOperator("one", "a", 1.0), ScheduledOperator("two", "a", 2.0, after=(Edge(0),)))
    run = [(Layer("layer", steps), 2)]
    recorded = schedule_stage([run, run, run], (2, 1, 3), 1, record=True)
    numbered = sorted((bar.micro_batch, bar.layer, bar.name) for bar in recorded.slices())
    assert numbered == [(micro, layer, name) for micro in range(6) for layer in range(2) for name in ("one", "two")]
    # One resource: no bar begins before another ends, and all of it is 6 x 2 x 3 s.
    bars = sorted((bar.start_s, bar.end_s) for bar in recorded.slices())
    assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(bars))
    assert recorded.makespan_s == pytest.approx(36.0) == bars[-1][1]


def test_does_the_timeline_hold_every_bar_once() -> None:
    steps = (ScheduledOperator("one", "a", 1.0), ScheduledOperator("two", "b", 2.0, after=(Edge(0),)))
    recorded = schedule_stage([[(Layer("layer", steps), 3)]], (2,), 2, record=True)
    assert len(recorded.slices()) == 3 * 2 * 2
    assert max(bar.end_s for bar in recorded.slices()) == pytest.approx(recorded.makespan_s)
    assert {(bar.layer, bar.micro_batch, bar.name) for bar in recorded.slices()} == {
        (layer, micro, name) for layer in range(3) for micro in range(2) for name in ("one", "two")
    }


def pieces(steps: tuple[ScheduledOperator, ...], count: int, chunks: int) -> list[tuple[object, ...]]:
    """(name, layer, begin, end, waits for) of every piece."""
    made = schedule_stage([[(Layer("layer", steps), count)]], (1,), chunks, record=True)
    return [(p.name or p.kind, p.layer, p.start_s, p.end_s, p.after) for p in made.pieces()]


def test_are_pieces_broken_where_a_resource_waits() -> None:
    """Two chunks: a works 2 s on each, b half a second as soon as one is there, and waits for the next.

    The second layer's a has its first chunk at 2.5 s, and its resource at 4 s.  A step without time is no piece: what
    waits for it waits for a.
    """
    a, b = ScheduledOperator("a", "r", 4.0), ScheduledOperator("b", "s", 1.0, after=(Edge(0),))
    expected = [
        ("a", 0, 0.0, 4.0, ()),
        ("b", 0, 2.0, 2.5, (0,)),
        ("b", 0, 4.0, 4.5, ()),
        ("a", 1, 4.0, 8.0, (1,)),
        ("b", 1, 6.0, 6.5, (3,)),
        ("b", 1, 8.0, 8.5, ()),
    ]
    assert pieces((a, b), 2, 2) == expected
    nothing = ScheduledOperator("z", "t", 0.0, after=(Edge(0),))
    assert pieces((a, nothing, replace(b, after=(Edge(1),))), 1, 2) == expected[:3]


def test_are_transfers_and_fetches_pieces_of_their_own() -> None:
    """a 2 s, a transfer of 1 s over a way, b 3 s; its weights are fetched for 1.5 s from when the transfer begins."""
    a = ScheduledOperator("a", "r", 2.0)
    b = ScheduledOperator("b", "s", 3.0, after=(Edge(0, path="way", transfer_s=1.0),), fetch="memory", fetch_s=1.5)
    assert pieces((a, b), 1, 1) == [
        ("a", 0, 0.0, 2.0, ()),
        ("transfer", 0, 2.0, 3.0, (0,)),
        ("fetch", 0, 2.0, 3.5, (0,)),
        ("b", 0, 3.5, 6.5, (1, 2)),
    ]


def test_where_is_each_bar_of_several_layers_and_micro_batches() -> None:
    """Two layers of 1 s on resources of their own: a micro-batch enters every second."""
    step = ScheduledOperator("one", "a", 1.0, own=True)
    recorded = schedule_stage([[(Layer("layer", (step,)), 3)]], (3,), 1, record=True)
    bars = {(bar.micro_batch, bar.layer): (bar.start_s, bar.end_s) for bar in recorded.slices()}
    assert bars == {(micro, layer): (micro + layer, micro + layer + 1) for micro in range(3) for layer in range(3)}


@pytest.mark.parametrize("number", [65, 80, 200])
def test_is_a_continued_run_as_long_as_all_of_it(number: int) -> None:
    steps = (
        ScheduledOperator("one", "a", 1.0, own=True),
        ScheduledOperator("two", "b", 3.0, own=True, after=(Edge(0),)),
    )
    run = [(Layer("layer", steps), 2)]
    whole = schedule_stage([run], (number,), 1, record=True)
    assert (
        schedule_stage([run], (number,), 1).makespan_s
        == pytest.approx(whole.makespan_s)
        == pytest.approx(2 * 4 + (number - 1) * 3)
    )
