"""The splits of a task over several chips, one by one, for a page: data, tensor and pipeline copies of each way.

Every product of the three that gives the number of chips is tried, in training with states on every chip (ZeRO 0) and
spread over the copies (ZeRO 3) unless others are asked for, each with its best number of micro-batches.  Nothing is
recomputed unless it is asked for, nothing is offloaded, and sends do not hide: :func:`tierform.simulation.fit.fit`
tries those, too, and answers once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tierform.chip.description import Chip
from tierform.simulation.collectives import require_cluster
from tierform.simulation.fit_ways import micro_batches_of, splits_of
from tierform.simulation.job import Job
from tierform.simulation.ways import Content, capacity_B, fits, least, ways_of, with_most_batch
from tierform.workload import Model, Task
from tierform.workload.parallel import Parallelism

USUAL_ZERO = (0, 3)


def fits_on(
    job: Job, chips: int, recomputations: Sequence[str] = (), zeros: Sequence[int] = USUAL_ZERO
) -> Iterator[Content]:
    """The ways of :func:`fits`, of several chips in their cheapest split; each split comes as an event before.

    Of `recomputations`, least first, each takes the first with which it fits; `zeros` are the stages of ZeRO that are
    tried where there are copies.
    """
    if chips == 1:
        yield from fits(job, recomputations)
        return
    task, ways = job.task, ways_of(job)
    assert isinstance(job.model, Model) and isinstance(job.chip, Chip) and task is not None
    require_cluster(job.chip, chips)
    splits = list(_plain(job.model, task, chips, zeros))
    capacity = capacity_B(job.chip)
    for number, (name, way) in enumerate(ways):
        found: list[tuple[Job, Content]] = []
        for place, split in enumerate(splits):
            done, total = number * len(splits) + place, len(ways) * len(splits)
            yield {"event": "progress", "done": done, "total": total, "text": f"{name}, {_told(split)}"}
            tried = [
                least(replace(job, task=way, parallelism=split, micro_batches=micro), recomputations)
                for micro in micro_batches_of(way, split)
            ]
            best, content = min(tried, key=lambda one: _order(one[1], capacity))
            found.append((best, content))
            parts = {"data": split.data, "tensor": split.tensor, "pipeline": split.pipeline, "zero": split.zero}
            yield {"event": "split", "name": name, **parts, "micro_batches": best.micro_batches, **content}
        best, content = min(found, key=lambda one: _order(one[1], capacity))
        told = with_most_batch(best, content, capacity, recomputations)
        yield {"event": "fit", "name": name, "capacity_B": capacity, "split": _told(best.parallelism), **told}


def _plain(model: Model, task: Task, chips: int, zeros: Sequence[int]) -> Iterator[Parallelism]:
    """Splits by data, tensor and pipeline alone, with states on every chip or spread."""
    for split in splits_of(model, task, chips):
        plain = not split.sequence and not split.overlap and split.expert == split.context == 1
        if plain and (split.zero in zeros or split.data == 1):
            yield split


def _order(content: Content, capacity: int) -> tuple[int, float]:
    """What fits, by time; then what lacks bytes, fewest first; then what cannot be."""
    if "latency_s" in content:
        return 0, content["latency_s"]
    needed = sum(content["parts_B"].values())
    return (1, needed - capacity) if needed else (2, 0.0)


def _told(split: Parallelism) -> str:
    parts = [("data", split.data), ("tensor", split.tensor), ("pipeline", split.pipeline), ("zero", split.zero)]
    return ", ".join(f"{name} {number}" for name, number in parts if number > (name != "zero"))
