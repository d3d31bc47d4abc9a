"""Does it fit, and what is cheapest?  Every method, split, recomputation and offload of a task on several chips.

Each way is a Job; its cost is what ``simulate`` says.  Not all need be timed.  Two rules prune, on a chip whose
components hold their own memory (a GPU), where what is recomputed is work beside the same work and what is offloaded a
transfer beside the same pass:

- with equal method, split and micro-batches no way is cheaper than the one that offloads nothing and recomputes least;
- that one, timed as if memory had no end, is a floor under all others: where the floor is no cheaper than the best way
  of its method that was found, none of them is timed.

Tests hold the best way against all ways, timed one by one.  One case bends the rules: the energy of a pipeline, where
a transfer that slows a pass may save up to 3.3 % (2 groups of Llama 3.2 1B, a runtime with slow launches).  There the
floor is lowered by SLACK.  On other chips every way is tried.

Ways that cannot be (a batch that does not divide) and ways that do not fit are counted with their reasons; all counts
add up to the number of ways.  Heat is left out (``thermal="none"``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, nearest
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.aside import aside_of
from tierform.simulation.choose import task_on
from tierform.simulation.collectives import require_cluster
from tierform.simulation.fit_answer import OBJECTIVES, FitAnswer, FitFound, Objective
from tierform.simulation.fit_ways import (
    FitWay,
    Offload,
    micro_batches_of,
    offloads_of,
    recomputations_of,
    splits_of,
    tasks_of,
)
from tierform.simulation.job import Job
from tierform.simulation.offload import host_of, load_host
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.simulation.simulate import run_job
from tierform.simulation.traffic import MemoryBehind
from tierform.simulation.ways import RATES, largest_batch
from tierform.workload import Model, Task, expand
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.task import FineTuning, Inference, Method, resolved_precision

NO_ROOM = "does not fit in memory"
NEEDLESS = "offloads or recomputes more, though it fits with less"
NO_GAIN = "is no cheaper than the best of its method, even if memory had no end"
_ENDLESS = "1e9 GB"
SLACK = 0.05  # of the energy of a pipeline: more than an offload was seen to save
Tell = Callable[[int, int], None]


def fit(
    model: Model | str | Path,
    task: Task,
    chip: Chip | str | Path,
    *,
    gpus: int = 1,
    methods: Sequence[Method] | None = None,
    recomputations: Sequence[str] | None = None,
    offloads: Sequence[Offload] | None = None,
    parallelism: Parallelism | None = None,
    runtime: Runtime | str = "ideal",
    objective: Objective = "time",
    tell: Tell | None = None,
) -> FitAnswer:
    """The cheapest way of `task` on so many chips, by `objective` (time or energy), exactly.

    What is None is tried in every way: `methods` (of fine-tuning full, LoRA and QLoRA; of inference the formats of the
    weights, where the task names no precision), `recomputations`, sets of `offloads`, and splits over the chips.  The
    task's own method, recomputation and offload count for nothing; its host does.  `tell(done, ways)` hears how far it
    is.  TierformError with every mistake.
    """
    problems = []
    if isinstance(gpus, bool) or not isinstance(gpus, int) or not 1 <= gpus <= 4096:
        problems.append(Problem("must be a whole number from 1 to 4096", key="gpus", value=gpus))
    elif parallelism is not None and parallelism.chips != gpus:
        what = f"the split is over {parallelism.chips} chips, and there are {gpus}"
        problems.append(Problem(what, key="parallelism", value=repr(parallelism), fix=f"Give {parallelism.chips}."))
    if objective not in OBJECTIVES:
        near = nearest(str(objective), OBJECTIVES)
        problems.append(Problem("not a known choice", key="objective", value=objective, nearest=near))
    try:
        named = model if isinstance(model, Model) else str(model)
        job = Job(named, task, chip if isinstance(chip, Chip) else str(chip), runtime=runtime, thermal="none").loaded()
    except TierformError as error:
        raise TierformError([*problems, *error.problems]) from None
    if problems:
        raise TierformError(problems)
    assert isinstance(job.chip, Chip) and isinstance(job.model, Model)
    if gpus > 1:
        require_cluster(job.chip, gpus)
    splits = [parallelism] if parallelism is not None else list(splits_of(job.model, task, gpus))
    kinds = tuple(recomputations_of(task) if recomputations is None else recomputations)
    away = tuple(offloads_of(task) if offloads is None else offloads)
    named_tasks = tasks_of(task, methods, resolved_precision(task_on(task, job.chip)))
    search = _Search(job, objective, kinds, away, tell)
    groups = [
        FitWay(name, changed, split, number)
        for name, changed in named_tasks
        for split in splits
        for number in micro_batches_of(changed, split)
    ]
    search.run(groups)
    return search.answer(gpus, [name for name, _ in named_tasks])


@dataclass
class _Search:
    """Ways by groups: those of one group differ in recomputation and offload alone."""

    job: Job
    objective: Objective
    kinds: tuple[str, ...]
    away: tuple[Offload, ...]
    tell: Tell | None
    total: int = 0
    timed: list[FitFound] = field(default_factory=list)
    pruned: Counter[str] = field(default_factory=Counter)
    best: dict[str, FitFound] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    closest: tuple[FitWay, dict[str, int], int] | None = None
    _endless: Chip | None = None

    def run(self, groups: list[FitWay]) -> None:
        """Try all groups; those whose plainest way does not fit last, lowest floor first."""
        self.total = len(groups) * len(self.kinds) * len(self.away)
        self._endless = self._without_end()
        left: list[tuple[tuple[float, float], int, FitWay, str]] = []
        for group in groups:
            plainest = group.changed(self.kinds[0], ())
            if self._endless is None:
                self._each(group)
                continue
            found = self._tried(plainest) if () in self.away else None
            if found is not None and not self._slack(group):
                self._prune(NEEDLESS, self._size - 1)
            elif (free := found or self._free(plainest)) is not None:
                first, second = free.cost(self.objective)
                floor = (first * (1 - self._slack(group)), second)
                left.append((floor, len(left), group, NEEDLESS if found else NO_GAIN))
        for floor, _, group, reason in sorted(left, key=lambda one: one[:2]):
            self._each(group, floor, reason)

    def _slack(self, group: FitWay) -> float:
        return SLACK if self.objective == "energy" and group.parallelism.pipeline > 1 else 0.0

    @property
    def _size(self) -> int:
        return len(self.kinds) * len(self.away)

    def _prune(self, reason: str, number: int = 1) -> None:
        if number:
            self.pruned[reason] += number
        if self.tell:
            self.tell(len(self.timed) + self.pruned.total(), self.total)

    def _each(self, group: FitWay, floor: tuple[float, float] | None = None, reason: str = "") -> None:
        """Every way of a group; with a floor under them the rules prune, for this reason."""
        needless = False
        for kind in self.kinds:
            for away in self.away:
                best = self.best.get(group.method)
                if floor is not None and kind == self.kinds[0] and away == ():
                    continue  # it was tried before
                if needless:
                    self._prune(NEEDLESS)
                elif floor is not None and best is not None and floor >= best.cost(self.objective):
                    self._prune(reason)
                else:
                    found = self._tried(group.changed(kind, away))
                    needless = found is not None and floor is not None and away == () and not self._slack(group)

    def _tried(self, way: FitWay) -> FitFound | None:
        """Time a way; None where it cannot be or does not fit, which is counted."""
        job = way.job(self.job)
        try:
            if self._endless is not None:
                require_room(job)
            found = _found(way, run_job(job))
        except DoesNotFit as error:
            missing = error.needed_B - error.available_B
            if self.closest is None or missing < self.closest[2]:
                self.closest = (way, error.parts_B, missing)
            self.why.setdefault(way.method, NO_ROOM)
            self._prune(NO_ROOM)
            return None
        except TierformError as error:
            self._impossible(way, error, 1)
            return None
        self.timed.append(found)
        before = self.best.get(way.method)
        if before is None or found.cost(self.objective) < before.cost(self.objective):
            self.best[way.method] = found
        return found

    def _impossible(self, way: FitWay, error: TierformError, number: int) -> None:
        reason = str(error.problems[0].what)
        self.why.setdefault(way.method, reason)
        self._prune(reason, number)

    def _free(self, plainest: FitWay) -> FitFound | None:
        """The plainest way of a group as if memory had no end; None where no way of the group can be."""
        assert self._endless is not None
        try:
            return _found(plainest, run_job(replace(plainest.job(self.job), chip=self._endless)))
        except TierformError as error:
            self._impossible(plainest, error, self._size - (() in self.away))
            return None

    def _without_end(self) -> Chip | None:
        """The chip with endless memory, where its components hold it; None where the rules do not hold."""
        chip = self.job.chip
        assert isinstance(chip, Chip)
        if not chip.can.memories or chip.memory or chip.pipelined or chip.origin is None:
            return None
        try:
            return chip.vary({f"components.{name}.memory_capacity": _ENDLESS for name in chip.can.memories})
        except TierformError:
            return None

    def answer(self, gpus: int, methods: list[str]) -> FitAnswer:
        """What was found, with the largest batch of the best way of each method."""
        assert isinstance(self.job.chip, Chip) and isinstance(self.job.runtime, Runtime)
        assert isinstance(self.job.model, Model)
        best = sorted(self.best.values(), key=lambda found: found.cost(self.objective))
        return FitAnswer(
            model=self.job.model.name,
            chip=self.job.chip.name,
            gpus=gpus,
            runtime=self.job.runtime.name,
            objective=self.objective,
            capacity_B=sum(tier.capacity_B for tier in MemoryBehind(self.job.chip).tiers),
            ways=self.total,
            timed=tuple(sorted(self.timed, key=lambda found: found.cost(self.objective))),
            methods=tuple(replace(found, most_batch=_most_batch(found.way, self.job)) for found in best),
            pruned=dict(self.pruned.most_common()),
            without={name: self.why.get(name, NO_ROOM) for name in methods if name not in self.best},
            closest=None if best else self.closest,
        )


def require_room(job: Job) -> None:
    """DoesNotFit where the bytes of one chip, layers shared evenly, find no place; nothing is timed."""
    assert isinstance(job.model, Model) and isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
    assert isinstance(job.task, FineTuning | Inference)
    number = job.micro_batches if isinstance(job.micro_batches, int) else 1
    workload = expand(
        job.model,
        task_on(job.task, job.chip),
        MicroBatches(number, number, number),
        parallelism=job.parallelism,
        attention=job.runtime.attention_on(job.chip),
        in_turn=job.runtime.admission == "in-turn",
    )
    host = host_of(job.task, job.chip)
    MemoryBehind(job.chip, host=host).place(workload, workload.footprint, 0, aside_of(workload))


def _found(way: FitWay, result: Result) -> FitFound:
    placed = {part: dict(places) for part, places in result.memory_placement_B.items()}
    host = load_host(way.task.host).name if isinstance(way.task, FineTuning | Inference) and way.offload else ""
    return FitFound(
        way=way,
        placed_B=placed,
        chip_B=sum(size for places in placed.values() for name, size in places.items() if name != host),
        latency_s=result.latency_s,
        energy_J=result.energy_J,
        tokens_per_s=next((result.throughput[key] for key in RATES if result.throughput.get(key)), None),
    )


def _most_batch(way: FitWay, asked: Job) -> int:
    """The largest batch, up to MOST_BATCH, that fits in this way; that of the way itself does."""
    copies = way.parallelism.data

    def fits(batch: int) -> bool:
        assert isinstance(way.task, FineTuning | Inference)
        job = replace(way, task=replace(way.task, batch=batch)).job(asked)
        try:
            if way.parallelism.pipeline == 1:
                require_room(job)
            else:
                run_job(job)
        except TierformError:
            return False
        return True

    return largest_batch(fits, copies, way.task.batch)
