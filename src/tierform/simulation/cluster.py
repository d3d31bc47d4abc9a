"""Several chips at one task: the cost of telling each other, and the schedule of pipeline groups.

Where a GPU's file has collectives fitted to measurements, those are used.  Otherwise a ring all-reduce of S bytes
among p chips takes 2 (p - 1) steps of S / p bytes (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009):
2 (p - 1) / p * S / bandwidth + 2 (p - 1) * latency.  A pipeline group is one step of the schedule: its layers take as
long as they would alone, and its next micro-batch may enter when the layers' own schedule would let it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tierform.chip.chip_file import ClusterFile
from tierform.chip.component import Cost
from tierform.chip.description import Chip
from tierform.chip.gpu.collectives import KINDS, CollectiveModel
from tierform.errors import fail
from tierform.simulation.schedule import BLOCK_INPUT, Edge, Layer, StageSchedule, Step, schedule_stage
from tierform.workload.operator import Operator


def require_cluster(chip: Chip, chips: int) -> ClusterFile:
    """The description of what joins several chips; TierformError when the chip file has none."""
    if chip.cluster is None:
        fail(
            f"{chips} chips are asked for, and the chip file does not say what joins them",
            key=chip.name,
            fix="Add 'cluster' with bandwidth, latency and energy to the chip file.",
        )
    return chip.cluster


def collective_cost(chip: Chip, operator: Operator) -> Cost:
    """Time and energy of a collective, per chip that takes part."""
    link = require_cluster(chip, operator.participants)
    p, size_B = operator.participants, max(operator.input_B, operator.output_B)
    passes = 2 if operator.collective == "all_reduce" else 1  # a reduce-scatter, an all-gather, or one after the other
    moved, steps = passes * (p - 1) / p * size_B, passes * (p - 1)
    seconds = moved / link.bandwidth.value + steps * link.latency.value
    measured = _measured(chip)
    if measured is not None and operator.collective in KINDS:
        seconds = float(measured.seconds(operator.collective, p, size_B))
    return Cost(seconds, seconds, {"links": moved * link.energy.value})


def _measured(chip: Chip) -> CollectiveModel | None:
    """The collectives of the chip's GPU as fitted to measurements, if its file has them."""
    for gpu in chip.of_type("gpu"):
        link = getattr(getattr(gpu, "parameters"), "links", None)
        if link is not None:
            return CollectiveModel.of(link)
    return None


def send_cost(chip: Chip, size_B: int) -> tuple[float, float]:
    """Seconds that a group's result occupies the link to the next group, and the latency on top."""
    link = require_cluster(chip, 2)
    return size_B / link.bandwidth.value, link.latency.value


def schedule_groups(
    layers: Sequence[tuple[Layer, int]], micro_batches: int, chunks: int, groups: int, send_s: tuple[float, float]
) -> StageSchedule:
    """The schedule of a stage whose layers are cut into `groups` consecutive parts on chips of their own."""
    total = sum(count for _, count in layers)
    if groups > total:
        fail(f"{total} layers cannot be cut into {groups} pipeline groups", key="pipeline", value=groups)
    bounds = [round(index * total / groups) for index in range(groups + 1)]
    known: dict[tuple[tuple[int, int], ...], tuple[float, float]] = {}
    steps = []
    for group in range(groups):
        part = _between(layers, bounds[group], bounds[group + 1])
        key = tuple((id(layer), count) for layer, count in part)
        if key not in known:
            alone = schedule_stage(part, 1, chunks).makespan_s
            known[key] = (alone, schedule_stage(part, 2, chunks).makespan_s - alone)
        latency, period = known[key]
        edge = Edge(BLOCK_INPUT) if group == 0 else Edge(BLOCK_INPUT, True, f"link {group}", send_s[1], send_s[0])
        step = Step(f"group {group}", f"group {group}", period, latency - period, after=(edge,))
        steps.append((Layer(f"group {group}", (step,), 0), 1))
    return schedule_stage(steps, micro_batches, 1)


def side_by_side(layers: Sequence[tuple[Layer, int]], groups: int) -> StageSchedule:
    """The schedule of a stage whose pipeline groups work at the same time and wait for nobody (the update)."""
    total = sum(count for _, count in layers)
    bounds = [round(index * total / groups) for index in range(groups + 1)]
    parts = [_between(layers, first, last) for first, last in pairwise(bounds)]
    return max((schedule_stage(part) for part in parts if part), key=lambda made: made.makespan_s)


def _between(layers: Sequence[tuple[Layer, int]], first: int, last: int) -> list[tuple[Layer, int]]:
    result, start = [], 0
    for layer, count in layers:
        inside = min(last, start + count) - max(first, start)
        if inside > 0:
            result.append((layer, inside))
        start += count
    return result
