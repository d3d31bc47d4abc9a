"""Does it fit, and what is cheapest?  Each way to do a task on a chip: its memory by part, and where it fits its cost.

Of fine-tuning the ways are full, LoRA and QLoRA, of inference the formats of the weights.  Every way is a Job like any
other: bytes, time and energy are those that ``tierform simulate`` would answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.choose import task_on
from tierform.simulation.job import Job
from tierform.simulation.runtime import Runtime
from tierform.simulation.traffic import MemoryBehind
from tierform.workload import FineTuning, Inference, Model, Task, expand
from tierform.workload.parallel import MicroBatches
from tierform.workload.task import Full, LoRA, QLoRA, resolved_precision

MOST_BATCH = 4096
FORMATS = ("bf16", "int8", "int4")
Content = dict[str, Any]


def fits(job: Job, recomputations: Sequence[str] = ()) -> Iterator[Content]:
    """The ways one by one, each as an event of a job; of `recomputations`, least first, the first that fits."""
    ways = ways_of(job)
    assert isinstance(job.chip, Chip)
    capacity = capacity_B(job.chip)
    for number, (name, way) in enumerate(ways):
        yield {"event": "progress", "done": number, "total": len(ways), "text": name}
        asked, content = least(replace(job, task=way), recomputations)
        told = with_most_batch(asked, content, capacity, recomputations)
        yield {"event": "fit", "name": name, "capacity_B": capacity, **told}


def capacity_B(chip: Chip) -> int:
    """Bytes of all memory behind one chip."""
    return sum(tier.capacity_B for tier in MemoryBehind(chip).tiers)


def ways_of(job: Job) -> list[tuple[str, Task]]:
    """The ways of the job's task by name; TierformError where it cannot be done in several."""
    if not isinstance(job.chip, Chip) or not isinstance(job.model, Model) or job.task is None:
        raise TierformError([Problem("only a model of the library or of a config.json can be tried in several ways")])
    return list(_ways(job.task))


def _ways(task: Task) -> Iterator[tuple[str, Task]]:
    if isinstance(task, FineTuning):
        rank = task.method.rank if isinstance(task.method, LoRA | QLoRA) else 8
        yield "full", replace(task, method=Full())
        yield f"LoRA, rank {rank}", replace(task, method=LoRA(rank))
        yield f"QLoRA, rank {rank}", replace(task, method=QLoRA(rank))
    elif isinstance(task, Inference):
        plan = resolved_precision(task)
        for form in dict.fromkeys((plan.weights, *FORMATS)):
            yield f"weights {form}", replace(task, precision=replace(plan, weights=form))
    else:
        yield "as asked", task


def least(job: Job, recomputations: Sequence[str]) -> tuple[Job, Content]:
    """The job with the first of `recomputations` that fits, else the last; as it is, where it is none of training."""
    if not recomputations or not isinstance(job.task, FineTuning):
        return job, timed(job)
    for recomputation in recomputations:
        asked = replace(job, task=replace(job.task, recomputation=recomputation))
        content = {"recomputation": recomputation, **timed(asked)}
        if "latency_s" in content:
            break
    return asked, content


def timed(job: Job) -> Content:
    """One way: its bytes by part as they wait in memory, and its cost where it fits."""
    try:
        result = job.simulate()
    except DoesNotFit as error:
        return {"parts_B": error.parts_B, "problem": str(error.problems[0].what)}
    except TierformError as error:
        return {"parts_B": {}, "problem": str(error.problems[0].what)}
    rate = next((result.throughput[key] for key in RATES if result.throughput.get(key)), None)
    return {
        "parts_B": {name: sum(places.values()) for name, places in result.memory_placement_B.items()},
        "latency_s": result.latency_s,
        "energy_J": result.energy_J,
        "chips": result.chips,
        "tokens_per_s": rate,
        "J_per_token": result.average_power_W / rate if rate else None,
    }


def with_most_batch(job: Job, content: Content, capacity: int, recomputations: Sequence[str] = ()) -> Content:
    """The way with its largest batch, where its bytes are known; with the most that may be recomputed."""
    if not content["parts_B"]:
        return content
    spared = sum(_parts(job).values()) - sum(content["parts_B"].values())
    if recomputations and isinstance(job.task, FineTuning):
        job = replace(job, task=replace(job.task, recomputation=recomputations[-1]))
    return {**content, "most_batch": _most_batch(job, capacity, spared)}


RATES = ("training_tokens_per_s", "decode_tokens_per_s", "prefill_tokens_per_s")


def _parts(job: Job) -> dict[str, int]:
    """Bytes on one chip by part, before anything is timed."""
    assert isinstance(job.model, Model) and isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
    assert job.task is not None
    task = task_on(job.task, job.chip)
    attention = job.runtime.attention_on(job.chip)
    split = job.micro_batches
    parts = split if isinstance(split, MicroBatches) else MicroBatches(split or 1, split or 1, split or 1)
    return expand(
        job.model, task, parts, parallelism=job.parallelism, attention=attention, habits=job.runtime.keeps
    ).footprint.parts()


def _most_batch(job: Job, capacity_B: int, spared_B: int) -> int:
    """The largest batch whose memory fits; 0 where not even one of each copy does.

    `spared_B` need not wait in memory, whatever the batch: weights that stay in crossbars.  A batch that has fewer
    sequences than micro-batches comes in as many as it has.
    """
    copies, split = job.parallelism.data, job.micro_batches

    def fits(batch: int) -> bool:
        assert job.task is not None
        try:
            changed = replace(job.task, batch=batch)  # type: ignore[arg-type]
            micro = min(split, max(1, batch // copies)) if isinstance(split, int) else split
            asked = replace(job, task=changed, micro_batches=micro)
            return sum(_parts(asked).values()) - spared_B <= capacity_B
        except TierformError:
            return False

    return largest_batch(fits, copies, copies) if fits(copies) else 0


def largest_batch(fits: Callable[[int], bool], copies: int, known: int) -> int:
    """The largest multiple of `copies` up to MOST_BATCH that fits, from one that is known to."""
    low = max(1, known // copies)
    high = low * 2
    while high * copies <= MOST_BATCH and fits(high * copies):
        low, high = high, high * 2
    high = max(low + 1, min(high, MOST_BATCH // copies + 1))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * copies) else (low, middle)
    return low * copies
