"""Are pipeline groups cut by time, does their schedule equal a line of stations, and do nodes of chips count?"""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tierform
from tierform import TierformError
from tierform.simulation.collectives import Interconnect
from tierform.simulation.pipeline import cut_by_time, parts_of_run, schedule_groups, schedule_interleaved
from tierform.simulation.schedule_layers import Edge, Layer, ScheduledOperator
from tierform.workload.parallel import Parallelism


def bottleneck(times: list[float], ends: tuple[int, ...]) -> float:
    return max(sum(times[first:last]) for first, last in zip((0, *ends), ends, strict=False))


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.5]), min_size=2, max_size=9), st.integers(2, 4))
def test_is_no_other_cut_faster(times: list[float], groups: int) -> None:
    groups = min(groups, len(times))
    ends = cut_by_time([(time, 1, True) for time in times], groups)
    assert len(ends) == groups and ends[-1] == len(times) and len(set(ends)) == groups
    every = [(*inside, len(times)) for inside in combinations(range(1, len(times)), groups - 1)]
    assert bottleneck(times, ends) == pytest.approx(min(bottleneck(times, other) for other in every))


def test_do_embedding_and_head_stand_beside_layers_and_count_as_time() -> None:
    # Eight layers of 1 s and a head of 3 s on two groups: 6 layers before, 2 layers and the head (5 s) after, or 5 and
    # 3 with the head (6 s): both have a slowest group of 6 s; four and four would take 7 s.
    ends = cut_by_time([(0.0, 1, False), (1.0, 8, True), (3.0, 1, False)], 2)
    assert ends[-1] == 10
    assert bottleneck([0.0, *[1.0] * 8, 3.0], ends) == pytest.approx(6.0)
    with pytest.raises(TierformError, match="cannot be cut"):
        cut_by_time([(1.0, 1, False), (1.0, 2, True), (1.0, 1, False)], 3)


def test_does_every_group_get_its_layers_in_either_direction() -> None:
    first, second = Layer("a", (ScheduledOperator("s", "r", 1.0),)), Layer("b", (ScheduledOperator("s", "r", 2.0),))
    forward = parts_of_run([(first, 3), (second, 1)], (2, 4))
    assert forward == [[(first, 2)], [(first, 1), (second, 1)]]
    # Backward goes from the last layer to the first: the last group comes first.
    backward = parts_of_run([(second, 1), (first, 3)], (2, 4), reverse=True)
    assert backward == [[(second, 1), (first, 1)], [(first, 2)]]


@pytest.mark.parametrize(
    ("micro_batches", "seconds"), [(1, 9.5), (2, 12.5), (10, 9.5 + 9 * 3), (10**6, 9.5 + 999_999 * 3)]
)
def test_does_a_line_of_groups_take_its_latency_and_its_slowest_period(micro_batches: int, seconds: float) -> None:
    def run(time: float) -> list[tuple[Layer, int]]:
        return [(Layer("layer", (ScheduledOperator("s", "r", time),)), 1)]

    # Groups of 2, 3 and 3 s, two sends of 0.5 s with 0.25 s of latency: 8 + 2 * 0.75 s for the first micro-batch, 3 s
    # (the slowest group) for each of the others.
    made = schedule_groups([[run(2.0), run(3.0), run(3.0)]], (micro_batches,), 1, (0.5, 0.25))
    assert made.makespan_s == pytest.approx(seconds)


def test_is_a_slow_link_the_bottleneck() -> None:
    run = [(Layer("layer", (ScheduledOperator("s", "r", 1.0),)), 1)]
    # 1 s, a send of 4 s, 1 s: 6 s for the first, 4 s for each of the other two.
    assert schedule_groups([[run, run]], (3,), 1, (4.0, 0.0)).makespan_s == pytest.approx(6.0 + 2 * 4.0)


def test_do_collectives_beyond_a_node_pay_for_the_links_between_nodes() -> None:
    chip = tierform.load_chip("a100")
    assert chip.cluster is not None and chip.cluster.node is not None
    links = Interconnect(chip, Parallelism(tensor=8, data=4))
    size_B = 1e9
    # Sixteen neighbours in two nodes: what eight do in a node, and a ring of two between the nodes over an eighth of
    # the bytes, 2 * 1/2 * 1.25e8 B at 25 GB/s and two steps of 8 us.
    inside = links._collective("all_reduce", 8, 1, size_B)[0]
    both = links._collective("all_reduce", 16, 1, size_B)[0]
    assert both - inside == pytest.approx(1.25e8 / 25e9 + 2 * 8e-6)
    # Copies a tensor group of eight apart are in nodes of their own: 2 * 3/4 of the bytes at 25 GB/s, six steps.
    assert links._collective("all_reduce", 4, 8, size_B)[0] == pytest.approx(1.5e9 / 25e9 + 6 * 8e-6)
    assert links._collective("all_gather", 4, 8, size_B)[0] == pytest.approx(0.75e9 / 25e9 + 3 * 8e-6)


def test_does_a_result_go_to_the_next_node_where_the_group_fills_one() -> None:
    links = Interconnect(tierform.load_chip("h100"))
    near, far = links.send(1e6, 1), links.send(1e6, 8)
    # 1 MB at 450 GB/s and 3 us; at 50 GB/s and 8 us.
    assert near[:2] == pytest.approx((1e6 / 450e9, 3e-6))
    assert far[:2] == pytest.approx((1e6 / 50e9, 8e-6))
    assert far[2] > near[2]


def test_is_the_energy_of_gradients_the_same_however_the_layers_are_cut() -> None:
    def reduced_J(pipeline: int) -> float:
        task = tierform.FineTuning(batch=8, sequence=32)
        split = Parallelism(pipeline=pipeline, data=2)
        result = tierform.simulate("bert-base", task, "a100", parallelism=split, thermal="none", micro_batches=4)
        return result.energy_J_by_part["interconnect: links"]

    assert reduced_J(4) == pytest.approx(reduced_J(1), rel=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("micro_batches", [4, 8, 40, 4_000])
def test_is_the_bubble_divided_by_the_parts_of_each_group(parts: int, micro_batches: int) -> None:
    """Narayanan et al., SC 2021: M micro-batches of t on p groups of m parts take M t + (p - 1) t / m."""
    groups, whole = 4, 6.0

    def run(time: float) -> list[tuple[Layer, int]]:
        return [(Layer("layer", (ScheduledOperator("s", "r", time),)), 1)]

    stations = [run(whole / parts) for _ in range(groups * parts)]
    made = schedule_interleaved([stations], (micro_batches,), 1, (0.0, 0.0), groups)
    assert made.makespan_s == pytest.approx(micro_batches * whole + (groups - 1) * whole / parts)
    if parts == 1:
        assert made.makespan_s == pytest.approx(schedule_groups([stations], (micro_batches,), 1, (0, 0)).makespan_s)


def test_do_parts_wait_for_their_turn_and_for_what_arrives() -> None:
    """Two groups of two parts of 1 s; a send takes 3 s: the first group stands still until the ring has come round.

    Two micro-batches: parts 0 at 0 and 1; they arrive at 4 and 7 (the link is held), parts 1 end at 5 and 8, arrive at
    8 and 11, parts 2 end at 9 and 12, arrive at 12 and 15, parts 3 end at 13 and 16.
    """

    def run(time: float) -> list[tuple[Layer, int]]:
        return [(Layer("layer", (ScheduledOperator("s", "r", time),)), 1)]

    made = schedule_interleaved([[run(1.0)] * 4], (2,), 1, (3.0, 0.0), 2)
    assert made.makespan_s == pytest.approx(16.0)


def test_does_a_gpu_run_one_micro_batch_after_the_other() -> None:
    """A group's collectives wait for nothing of the next micro-batch, unless the chip is a pipeline itself."""
    sent = ScheduledOperator("sum", "links", 1.0, after=(Edge(0),))
    layer = Layer("layer", (ScheduledOperator("work", "gpu", 2.0), sent))
    waves = [[[(layer, 1)], [(layer, 1)]]]
    alone = schedule_groups(waves, (3,), 1, (0.0, 0.0), overlap=False)
    assert alone.makespan_s == pytest.approx(2 * 3.0 + 2 * 3.0)
    assert schedule_groups(waves, (3,), 1, (0.0, 0.0)).makespan_s == pytest.approx(2 * 3.0 + 2 * 2.0)


Seconds = list[list[float]]  # of each wave, for each part


def plain_line(waves: Seconds, micro_batches: tuple[int, ...], send: tuple[float, float]) -> float:
    """Every micro-batch through every station and link, one after the other."""
    free, link = [0.0] * len(waves[0]), [0.0] * len(waves[0])
    time = makespan = 0.0
    for wave, number in enumerate(micro_batches):
        for _ in range(number):
            time = 0.0
            for station, seconds in enumerate(waves[wave]):
                time = free[station] = max(time, free[station]) + seconds
                if station + 1 < len(free):
                    link[station] = max(time, link[station]) + send[0]
                    time = link[station] + send[1]
            makespan = max(makespan, time)
    return makespan


def plain_turns(waves: Seconds, micro_batches: tuple[int, ...], send: tuple[float, float], groups: int) -> float:
    """Every part for `groups` micro-batches, one round of parts after the other."""
    every = [wave for wave, number in enumerate(micro_batches) for _ in range(number)]
    free, link = [0.0] * groups, [0.0] * groups
    makespan = 0.0
    for first in range(0, len(every), groups):
        arrived = [0.0] * groups
        for turn in range(0, len(waves[0]), groups):
            for index, wave in enumerate(every[first : first + groups]):
                for group in range(groups):
                    done = free[group] = max(arrived[index], free[group]) + waves[wave][turn + group]
                    if turn + group + 1 == len(waves[0]):
                        makespan = max(makespan, done)
                    else:
                        link[group] = max(done, link[group]) + send[0]
                        arrived[index] = link[group] + send[1]
    return makespan


def runs_of(waves: Seconds) -> list[list[list[tuple[Layer, int]]]]:
    return [[[(Layer("layer", (ScheduledOperator("s", "r", time),)), 1)] for time in wave] for wave in waves]


@pytest.mark.parametrize("micro_batches", [(1,), (7,), (2, 1), (3, 5), (40, 3), (30, 30)])
@pytest.mark.parametrize("send", [(0.0, 0.0), (0.5, 0.25), (5.0, 1.0)])
def test_do_waves_in_a_line_take_what_each_of_them_takes(
    micro_batches: tuple[int, ...], send: tuple[float, float]
) -> None:
    waves = [[2.0, 3.0, 1.0], [1.0, 1.5, 0.5]][: len(micro_batches)]
    made = schedule_groups(runs_of(waves), micro_batches, 1, send).makespan_s
    assert made == pytest.approx(plain_line(waves, micro_batches, send))


@pytest.mark.parametrize("micro_batches", [(4,), (60,), (60, 40), (61, 39), (41, 3), (3, 57)])
@pytest.mark.parametrize("send", [(0.0, 0.0), (0.5, 0.25), (5.0, 1.0)])
def test_do_waves_that_take_turns_take_what_each_of_them_takes(
    micro_batches: tuple[int, ...], send: tuple[float, float]
) -> None:
    waves = [[2.0, 3.0, 1.0, 2.5], [1.0, 1.5, 0.5, 1.25]][: len(micro_batches)]
    made = schedule_interleaved(runs_of(waves), micro_batches, 1, send, 2).makespan_s
    assert made == pytest.approx(plain_turns(waves, micro_batches, send, 2))
