"""The ways to do a task on several chips: method, split of the work, micro-batches, recomputation and offload.

Every combination is listed, but for chips that share a sequence where copies can share the batch.  Interleaved
pipelines, an even batch in several accumulated parts and fewer chips than there are cannot be said: all chips work, one
optimizer step is one pass over the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from tierform.errors import Problem, TierformError
from tierform.simulation.choose import CANDIDATES
from tierform.simulation.job import Job
from tierform.simulation.ways import FORMATS
from tierform.workload import Inference, Model, Task
from tierform.workload.context import context_problems
from tierform.workload.offloaded import OF_INFERENCE
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.recomputation import RECOMPUTATIONS
from tierform.workload.task import METHODS, FineTuning, Full, LoRA, Method, QLoRA, Training

# States that are paged cost no more than states that are always away, so `optimizer` is not tried beside it.
_AWAY_IN_TRAINING = ("paged-optimizer", "activations", "gradients", "weights")
Offload = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FitWay:
    """One way: the task with its method, recomputation and offload, and how chips share it."""

    method: str
    task: Task
    parallelism: Parallelism
    micro_batches: int | None

    def job(self, asked: Job) -> Job:
        """The job that does what is asked in this way."""
        return replace(asked, task=self.task, parallelism=self.parallelism, micro_batches=self.micro_batches)

    def changed(self, recomputation: str, offload: Offload) -> FitWay:
        """The same with other recomputation and offload."""
        if isinstance(self.task, FineTuning):
            return replace(self, task=replace(self.task, recomputation=recomputation, offload=offload))
        assert isinstance(self.task, Inference)
        return replace(self, task=replace(self.task, offload=offload))

    @property
    def recomputation(self) -> str:
        """What is recomputed; ``none`` in inference."""
        return self.task.recomputation if isinstance(self.task, FineTuning) else "none"

    @property
    def offload(self) -> Offload:
        """The parts that wait in a host's memory."""
        return self.task.offload if isinstance(self.task, (FineTuning, Inference)) else ()

    @property
    def split(self) -> str:
        """The split as ``--parallel`` says it."""
        given = self.parallelism.content()
        alone = Parallelism().content()
        changed = [
            name if value is True else f"{name}={value}" for name, value in given.items() if value != alone.get(name)
        ]
        return ",".join(changed)


def tasks_of(task: Task, methods: Sequence[Method] | None, plan: PrecisionPlan) -> list[tuple[str, Task]]:
    """The task by each method; of inference, by each format of the weights in `plan`, where it names none."""
    if isinstance(task, FineTuning):
        if methods is None:
            methods = (Full(),) if isinstance(task, Training) else (Full(), LoRA(), QLoRA())
        names = {kind: name for name, kind in METHODS.items()}
        return [(names[type(method)], replace(task, method=method)) for method in methods]
    if not isinstance(task, Inference):
        raise TierformError([Problem("only inference, fine-tuning and training can be tried in several ways")])
    if task.precision is not None:
        return [(task.precision.weights, task)]
    return [
        (form, replace(task, precision=replace(plan, weights=form))) for form in dict.fromkeys((plan.weights, *FORMATS))
    ]


def recomputations_of(task: Task) -> tuple[str, ...]:
    """What may be recomputed, least first."""
    return RECOMPUTATIONS if isinstance(task, FineTuning) else ("none",)


def offloads_of(task: Task) -> tuple[Offload, ...]:
    """The sets of parts that may be offloaded, smallest first."""
    parts = _AWAY_IN_TRAINING if isinstance(task, FineTuning) else tuple(reversed(OF_INFERENCE))
    return tuple(chosen for size in range(len(parts) + 1) for chosen in combinations(parts, size))


def splits_of(model: Model, task: Task, chips: int) -> Iterator[Parallelism]:
    """Every split over all of the chips: their number as a product, and what may be said beside it.

    Chips share the tokens of a sequence (`context`) where more copies could not share the batch: where they can, a copy
    has as many tokens and as many pairs of query and key, and sends no keys and values.
    """
    training = isinstance(task, FineTuning)
    for tensor in _divisors(chips):
        for pipeline in _divisors(chips // tensor):
            for context in _contexts(model, task, chips // tensor // pipeline):
                copies = chips // tensor // pipeline
                data = copies // context
                experts = sorted({1, tensor, data}) if model.experts and context == 1 else [1]
                for sequence in (False, True)[: 1 + (tensor > 1)]:
                    for zero in range(4 if training and copies > 1 else 1):
                        for overlap in (False, True)[: 1 + (training and copies > 1 and pipeline == 1 and zero < 2)]:
                            for expert in experts:
                                yield Parallelism(
                                    tensor=tensor,
                                    pipeline=pipeline,
                                    data=data,
                                    sequence=sequence,
                                    zero=zero,
                                    overlap=overlap,
                                    expert=expert,
                                    context=context,
                                )


def _contexts(model: Model, task: Task, copies: int) -> Iterator[int]:
    """How many of so many copies may share a sequence."""
    yield 1
    if not task.batch % copies:
        return
    for context in _divisors(copies)[1:]:
        alone = task.batch % (copies // context)  # the batch does not divide among what remains
        if not alone and not context_problems(model, task, Parallelism(context=context)):
            yield context


def micro_batches_of(task: Task, split: Parallelism) -> tuple[int | None, ...]:
    """The numbers of micro-batches of a pipeline; None where the chip's own rule holds."""
    if split.pipeline == 1:
        return (None,)
    batch = max(1, task.batch // split.data)
    wanted = {*CANDIDATES, *(split.pipeline * factor for factor in (1, 2, 4, 8))}
    return tuple(sorted({min(number, batch) for number in wanted}))


def _divisors(number: int) -> list[int]:
    return [one for one in range(1, number + 1) if number % one == 0]
