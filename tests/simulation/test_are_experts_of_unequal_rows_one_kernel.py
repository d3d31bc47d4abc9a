"""Are products of experts one grouped kernel on a board, whether or not the tokens divide by the experts?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tierform import Job, load_chip
from tierform.simulation.result import Result
from tierform.workload.operator import Kind
from tierform.workload.parallel import Parallelism
from tierform.workload.task import SequenceGroup, Step


def _step(tokens: int, runtime: str = "vllm") -> Result:
    task = Step((SequenceGroup(1, tokens, 0),))
    job = Job(
        "mixtral-8x7b", task, load_chip("h100"), parallelism=Parallelism(tensor=2), runtime=runtime, thermal="none"
    )
    return job.simulate()


def _experts(result: Result):  # type: ignore[no-untyped-def]
    """(operator, seconds) of the experts' products of one layer, by their grouped kernel."""
    assert result._run is not None
    (made,) = result._run.timed
    layers = [segment for segments in made.waves for segment in segments if segment.count > 1]
    found: dict[int, list[tuple[object, float]]] = {}
    for item in layers[0].executions:
        if item.operator.kind is Kind.MATMUL and item.operator.together:
            found.setdefault(item.operator.together, []).append((item.operator, item.cost.occupancy_s))
    return result._run, found


def test_is_a_group_s_time_its_share_of_all_experts_alike() -> None:
    """210 tokens make 420 rows of eight experts: four of 52 and four of 53; gate and up are one product of both."""
    run, kernels = _experts(_step(210))
    gpu, software = run.chip.components["gpu"], run.stages.costing.software
    assert len(kernels) == 3  # gate, up, down
    for members in kernels.values():
        assert sorted((one.count, one.m) for one, _ in members) == [(4, 52), (4, 53)]
    down = next(some for some in kernels.values() if some[0][0].weight.endswith("down"))
    for one, seconds in down:
        whole = software.alone(one, gpu.cost(replace(one, count=8))).occupancy_s
        assert seconds == pytest.approx(whole / 2, rel=1e-9)
        # Alone the four would take more than half: a kernel's start, and its last wave of tiles, are paid once.
        assert software.alone(one, gpu.cost(one)).occupancy_s > seconds


def test_a_token_more_takes_next_to_nothing_more() -> None:
    """From 208 tokens (one group of 52 rows) to 216 (one of 54), over two groups: no jump.

    Light kernels of a second group are started for themselves, which is less than a hundredth of the step.
    """
    seconds = [_step(tokens).latency_s for tokens in range(208, 217)]
    for fewer, more in pairwise(seconds):
        assert 0.99 * fewer < more < 1.01 * fewer


def test_a_runtime_without_fused_kernels_has_each_group_for_itself() -> None:
    run, kernels = _experts(_step(210, "pytorch-eager"))
    gpu, software = run.chip.components["gpu"], run.stages.costing.software
    for members in kernels.values():
        for one, seconds in members:
            assert seconds == pytest.approx(software.alone(one, gpu.cost(one)).occupancy_s)
