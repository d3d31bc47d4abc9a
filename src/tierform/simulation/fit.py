"""Does it fit, and what is cheapest?  Every method, split, recomputation and offload of a task on several chips.

Each way is a Job; its cost is what ``simulate`` says.  Not all need be timed.  Two rules prune, on a chip whose
components hold their own memory (a GPU), where what is recomputed is work beside the same work and what is offloaded a
transfer beside the same pass:

- with equal method, split and micro-batches no way is cheaper than one that offloads a part of the same and recomputes
  no more: what fits makes those needless (pages of a paged optimizer are more the less room there is: no way with them
  makes another needless);
- one that offloads nothing, timed as if memory had no end, is a floor under all that recompute as much or more: where
  the floor is no cheaper than the best way of its method that was found, none of them is timed;
- sharded states and reductions that overlap add communication to the same passes: where the passes of the split without
  them take as long as the best way of its method, none with them is timed (for the least time);
- a stage takes as long as what is offloaded takes on the host's link (:mod:`tierform.simulation.fit_floor`): where that
  makes a way no faster than the best of its method, it is not timed (for the least time).

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
from functools import cached_property
from math import fsum
from pathlib import Path

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError, nearest
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.choose import task_on
from tierform.simulation.collectives import require_cluster
from tierform.simulation.fit_answer import OBJECTIVES, FitAnswer, FitFound, Objective
from tierform.simulation.fit_floor import expanded, link_s, require_room
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
from tierform.simulation.offload import load_host
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.simulation.simulate import run_job
from tierform.simulation.traffic import MemoryBehind
from tierform.simulation.ways import RATES, largest_batch
from tierform.workload import Model, Task
from tierform.workload.graph import StageKind
from tierform.workload.offloaded import PAGED
from tierform.workload.parallel import Parallelism
from tierform.workload.quantization_config import quantized
from tierform.workload.task import FineTuning, Inference, Method, resolved_precision

NO_ROOM = "does not fit in memory"
NEEDLESS = "offloads or recomputes more, though it fits with less"
NO_GAIN = "is no cheaper than the best of its method, even if memory had no end"
NO_LINK = "moves more over the host's link than the best of its method takes"
NO_FASTER = "shares states in passes that take as long as the best of its method"
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
    own = task_on(task, job.chip)
    asked = quantized(own, job.model)  # a quantized checkpoint has its formats: no others are tried
    named_tasks = tasks_of(task if asked is own else asked, methods, resolved_precision(own))
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
    _passes_s: dict[tuple[str, Parallelism, int | None], float] = field(default_factory=dict)
    _floors: dict[tuple[FitWay, str], tuple[float, float]] = field(default_factory=dict)
    _done: dict[tuple[FitWay, str], bool] = field(default_factory=dict)  # ways that offload nothing: whether they fit

    def run(self, groups: list[FitWay]) -> None:
        """Try all groups; those whose plainest way does not fit last, lowest floor first."""
        self.total = len(groups) * len(self.kinds) * len(self.away)
        self._endless = self._without_end()
        if self._endless is None:
            for group in groups:
                self._each(group)
            return
        left: list[tuple[tuple[float, float], int, FitWay, str]] = []
        for group in (one for one in groups if _base(one.parallelism) == one.parallelism):
            self._plainest(group, left)
        sharing = [(self._under(one), one) for one in groups if _base(one.parallelism) != one.parallelism]
        for passes_s, group in sorted(sharing, key=lambda one: one[0]):
            best = self.best.get(group.method)
            if self.objective == "time" and best is not None and passes_s >= best.latency_s:
                self._prune(NO_FASTER, self._size)
            else:
                self._plainest(group, left)
        left.sort(key=lambda one: one[:2])
        if () in self.away:  # first what offloads nothing, of all groups: it finds good ways soon
            for floor, _, group, reason in left:
                if not self._slack(group):
                    self._recomputing(group, floor, reason)
        if self.objective == "time" and isinstance(self.job.task, FineTuning):
            self._lowest_first([(group, floor) for floor, _, group, _ in left])
            return
        for floor, _, group, reason in left:
            self._each(group, floor, reason)

    def _lowest_first(self, groups: list[tuple[FitWay, tuple[float, float]]]) -> None:
        """The ways of these groups that were not tried, those with the lowest floor first."""
        ways: list[tuple[float, int, int, FitWay, str, Offload]] = []
        for number, (group, floor) in enumerate(groups):
            for place, kind in enumerate(self.kinds):
                floor = self._floors.get((group, kind), floor)
                for away in self.away:
                    if away or not (place == 0 or (group, kind) in self._done):
                        least_s = max(floor[0], self._link_s(group, kind, away))
                        ways.append((least_s, number, place, group, kind, away))
        fitting: dict[int, list[tuple[int, frozenset[str]]]] = {
            number: [(self.kinds.index(kind), frozenset()) for kind in self.kinds if self._done.get((group, kind))]
            for number, (group, _) in enumerate(groups)
        }
        for least_s, number, place, group, kind, away in sorted(ways, key=lambda one: one[:3]):
            best = self.best.get(group.method)
            if any(before <= place and less <= frozenset(away) for before, less in fitting[number]):
                self._prune(NEEDLESS)
            elif best is not None and least_s >= best.latency_s:
                self._prune(NO_LINK if groups[number][1][0] < best.latency_s else NO_GAIN)
            elif self._tried(group.changed(kind, away)) is not None and PAGED not in away:
                fitting[number].append((place, frozenset(away)))

    def _plainest(self, group: FitWay, left: list[tuple[tuple[float, float], int, FitWay, str]]) -> None:
        """Try the way of a group that offloads nothing and recomputes least; where it is not the answer, keep it."""
        plainest = group.changed(self.kinds[0], ())
        found = self._tried(plainest) if () in self.away else None
        under = self._under(group) if self.objective == "time" else 0.0
        if found is None and under and () in self.away:  # how long its passes are is known
            left.append(((under, 0.0), len(left), group, NO_GAIN))
            return
        free = found or self._free(plainest)
        if free is not None:
            self._passes_s[group.method, group.parallelism, group.micro_batches] = free.passes_s
        if found is not None and not self._slack(group):
            self._prune(NEEDLESS, self._size - 1)
        elif free is not None:
            first, second = free.cost(self.objective)
            floor = (first * (1 - self._slack(group)), second)
            left.append((floor, len(left), group, NEEDLESS if found else NO_GAIN))

    def _under(self, group: FitWay) -> float:
        """Seconds that no way of a group which shares states takes less than; 0 where nothing is known."""
        return self._passes_s.get((group.method, _base(group.parallelism), group.micro_batches), 0.0)

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

    def _recomputing(self, group: FitWay, floor: tuple[float, float], reason: str) -> None:
        """The ways of a group that offload nothing, least recomputation first, until one fits."""
        for kind in self.kinds[1:]:
            if self._no_gain(group, floor):
                return
            way = group.changed(kind, ())
            found = self._tried(way)
            self._done[group, kind] = found is not None
            if found is not None:
                return
            if group.method in self.best and (free := self._free(way)) is not None:
                self._floors[group, kind] = floor = free.cost(self.objective)

    def _no_gain(self, group: FitWay, floor: tuple[float, float] | None) -> bool:
        best = self.best.get(group.method)
        return floor is not None and best is not None and floor >= best.cost(self.objective)

    def _link_s(self, group: FitWay, kind: str, away: Offload) -> float:
        """Seconds that a way takes at least, by what it offloads; 0 where nothing is known."""
        assert isinstance(group.task, FineTuning)
        key = (group.method, group.parallelism, group.micro_batches)
        passes_s = self._passes_s.get(key) or self._under(group)
        try:
            workload = expanded(group.changed(kind, ()).job(self.job))
        except TierformError:
            return 0.0
        over_s, update_s = link_s(workload, away, load_host(group.task.host), self._capacity_B)
        return max(passes_s, over_s) + update_s

    @cached_property
    def _capacity_B(self) -> int:
        assert isinstance(self.job.chip, Chip)
        return sum(tier.capacity_B for tier in MemoryBehind(self.job.chip).tiers)

    def _each(self, group: FitWay, floor: tuple[float, float] | None = None, reason: str = "") -> None:
        """Every way of a group; with a floor under them the rules prune, for this reason."""
        fitting: list[frozenset[str]] = []  # what was offloaded in ways that fit
        for kind in self.kinds:
            floor = self._floors.get((group, kind), floor) if floor is not None else None
            for away in self.away:
                if floor is not None and kind == self.kinds[0] and away == ():
                    continue  # it was tried before
                if floor is not None and away == () and (group, kind) in self._done:
                    fitting += [frozenset()] * self._done[group, kind]
                elif any(less <= frozenset(away) for less in fitting):
                    self._prune(NEEDLESS)
                elif self._no_gain(group, floor):
                    self._prune(reason)
                else:
                    found = self._tried(group.changed(kind, away))
                    if found is not None and floor is not None and PAGED not in away and not self._slack(group):
                        fitting.append(frozenset(away))

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
            capacity_B=self._capacity_B,
            ways=self.total,
            timed=tuple(sorted(self.timed, key=lambda found: found.cost(self.objective))),
            methods=tuple(replace(found, most_batch=_most_batch(found.way, self.job)) for found in best),
            pruned=dict(self.pruned.most_common()),
            without={name: self.why.get(name, NO_ROOM) for name in methods if name not in self.best},
            closest=None if best else self.closest,
        )


def _base(split: Parallelism) -> Parallelism:
    """The split with states on every copy, reduced before the update."""
    return replace(split, zero=0, overlap=False)


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
        passes_s=fsum(stage.latency_s for stage in result.stages if stage.kind != StageKind.UPDATE),
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
