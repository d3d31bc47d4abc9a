"""The best of a few: numbers of micro-batches by phase, and mappings.

A pipelined chip, or a pipeline of chips, works on several micro-batches at once; too few leave it empty, too many cost
more in starts and rewritten weights.  Where the user names no number, those of :data:`CANDIDATES` that the batch
allows are tried from the largest down, phase by phase, until it gets slower, and the fastest is taken (the smaller
number where it makes no difference).  Where weights would be written into crossbars for every pass, some or all of
them are tried on components that read them from memory, and where spare crossbars replicate weights, the mapping
without replicas.  The same rule holds for every chip, so that both sides of a comparison run at their best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum
from typing import Any

from tierform.chip.description import Chip
from tierform.errors import fail
from tierform.mapping import Mapping, completed, default_mapping, load_mapping, weights_left_open
from tierform.memory.hierarchy import DoesNotFit
from tierform.simulation.advice import advice
from tierform.simulation.aside import aside_of
from tierform.simulation.costing import Costing
from tierform.simulation.drafted import best_tokens, drafts, leaves_tokens_open, with_gain
from tierform.simulation.fabric import Fabric
from tierform.simulation.job import Job
from tierform.simulation.offload import host_of
from tierform.simulation.remember import Bounded
from tierform.simulation.runtime import Runtime
from tierform.simulation.stages import WORTHWHILE, Stages, Timed, held_B
from tierform.simulation.traffic import MemoryBehind
from tierform.units import format_quantity
from tierform.workload import Model, Task, Workload, expand, is_training
from tierform.workload.graph import StageKind
from tierform.workload.memory import Footprint
from tierform.workload.parallel import ONE_PART, MicroBatches
from tierform.workload.quantization_config import quantized
from tierform.workload.task import FineTuning

CANDIDATES = (1, 2, 4, 8, 16, 32, 64)
# Fewer parts of tokens are tried where more than this share of the time is paid for them.
PAID_FOR_PARTS = 0.05
PHASES = {
    StageKind.PREFILL: "prefill",
    StageKind.DECODE: "decode",
    StageKind.DRAFT: "decode",
    StageKind.VERIFY: "decode",
    StageKind.FORWARD: "training",
    StageKind.BACKWARD: "training",
    StageKind.TEACHER: "training",
    StageKind.UPDATE: "training",
}

_fabrics: Bounded = Bounded(32)


@dataclass(slots=True)
class Trial:
    """A mapped workload with its stages timed."""

    workload: Workload
    mapping: Mapping
    costing: Costing
    stages: Stages
    timed: list[Timed]
    placement: Any
    footprint: Footprint
    notes: tuple[str, ...] = ()

    def seconds(self, phase: str) -> float:
        """Time of all stages of a phase."""
        return fsum(made.seconds * made.stage.repeat for made in self.timed if PHASES[made.stage.kind] == phase)

    @property
    def parted_s(self) -> float:
        """What components take more since tokens come to them in parts, of all stages."""
        return fsum(made.parted_s * made.stage.repeat for made in self.timed)

    @property
    def total_s(self) -> float:
        """Time of all stages."""
        return fsum(made.seconds * made.stage.repeat for made in self.timed)


def choose(job: Job, *, timeline: bool = False, gains: bool = True) -> Trial:
    """The trial that is booked: what the job says, or the best of what it leaves open.

    `gains`: of drafts, say what they gain over plain decoding.
    """
    if leaves_tokens_open(job):
        return best_tokens(job, choose, timeline=timeline)
    choice = _Choice(job)
    try:
        trial = choice.best(timeline)
        return with_gain(job, trial, choose) if gains and drafts(job) is not None else trial
    except DoesNotFit as error:
        task = None if job.task is None else task_on(job.task, choice.chip)
        runtime = choice.runtime
        fix = advice(job, task, error, runtime.attention_on(choice.chip), runtime.keeps)
        raise (error.with_fix(fix) if fix else error) from None


class _Choice:
    """The trials of one job."""

    def __init__(self, job: Job) -> None:
        assert isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
        self.job, self.chip, self.runtime = job, job.chip, job.runtime
        self.cycle = job.fidelity == "cycle"
        self.fabric = fabric_of(self.chip)
        self.model = job.reduced_model
        self.tried: list[str] = []  # what was tried of the micro-batches that were chosen
        self.apart: set[StageKind] = set()  # where tokens in parts are faster than all of them together
        self.beside: frozenset[tuple[str, str]] = frozenset()  # weights that other components read from memory

    def workload(self, split: MicroBatches) -> Workload:
        """The operators of one chip for these micro-batches."""
        return workload_of(self.job, split)

    # -- what is left open ------------------------------------------------------------------------------------
    def best(self, timeline: bool) -> Trial:
        """Try, choose, and time the choice once more with its timeline where one is asked for."""
        split = self._given()
        numbers = self._numbers()
        if isinstance(self.job.mapping, Mapping):
            given = self.job.mapping
            return self._trial(self.workload(given.micro_batches), given, timeline)
        plain = self.job.mapping == "plain"
        if self.job.mapping not in ("best", "plain"):
            return self._from_file(split or _even(numbers[-1]), timeline)
        first = split or _even(numbers[-1])
        workload = self.workload(first)
        trial = self._trial(workload, self._default(workload, first))
        notes: list[str] = []
        if split is None and len(numbers) > 1:
            trial = self._over_micro_batches(trial, numbers, self.tried)
        if not plain and any(not p.resident for p in trial.mapping.placements):
            trial = self._beside_crossbars(trial, numbers if split is None else [], notes)
        if not plain and any(p.replicas > 1 for p in trial.mapping.placements):
            trial = self._without_replicas(trial, notes)
        if not plain:
            trial = self._in_fewer_parts(trial, numbers if split is None else [], notes)
        if timeline:
            trial = self._trial(trial.workload, trial.mapping, True)
        trial.notes = (*self.tried, *notes)
        return trial

    def _given(self) -> MicroBatches | None:
        """The numbers of micro-batches that the job names."""
        given = self.job.micro_batches
        return _even(given) if isinstance(given, int) else given

    def _numbers(self) -> list[int]:
        """The numbers of micro-batches to try, smallest first."""
        if isinstance(self.model, Workload):
            return [1]
        assert self.job.task is not None
        batch = self.job.task.batch // self.job.parallelism.data
        groups = self.job.parallelism.pipeline
        if not self.chip.pipelined and groups == 1:
            return [1]
        wanted = {*CANDIDATES, *(groups * factor for factor in (1, 2, 4, 8) if groups > 1)}
        # The batch itself is tried, too, as parts of one sequence: 17 sequences do well in 17 parts.
        numbers = sorted({min(number, max(batch, 1)) for number in wanted})
        if self.job.parallelism.interleave > 1 and isinstance(self.job.task, FineTuning):
            times = self.job.task.gradient_accumulation
            return [number for number in numbers if not number * times % groups] or numbers[-1:]
        return numbers

    def _from_file(self, split: MicroBatches, timeline: bool) -> Trial:
        workload = self.workload(split)
        mapping = load_mapping(str(self.job.mapping), self.chip, workload)
        if self.job.micro_batches is not None:
            mapping = replace(mapping, micro_batches=split)
        return self._trial(self.workload(mapping.micro_batches), mapping, timeline)

    # -- trials -----------------------------------------------------------------------------------------------
    def _trial(self, workload: Workload, mapping: Mapping, timeline: bool = False) -> Trial:
        if workload.parallelism.zero == 3 and any(placement.resident for placement in mapping.placements):
            fail(
                "weights that sit in crossbars cannot be sharded over copies: gathering would program them again",
                key="zero",
                value=3,
                fix="Choose zero=2, which shards the optimizer's states and the gradients.",
            )
        task = workload.task
        host = host_of(task, self.chip)
        memory = MemoryBehind(self.chip, self.cycle, host)
        resident_B = float(workload.footprint.adapters)
        placement = memory.place(workload, workload.footprint, held_B(workload, mapping), aside_of(workload))
        costing = Costing(
            self.chip,
            mapping,
            self.fabric,
            memory,
            resident_B=resident_B,
            runtime=self.runtime,
            split=workload.parallelism,
            cycle=self.cycle,
        )
        stages = Stages(costing, workload, mapping, record=timeline, apart=self.apart)
        timed = stages.all()
        footprint = workload.footprint
        if stages.bounds:
            groups = workload.group_footprints(stages.cut)
            footprint = max(groups, key=lambda group: group.total)
            held = held_B(workload, mapping) // self.job.parallelism.pipeline
            placement = memory.place(workload, footprint, held, aside_of(workload))
        return Trial(
            workload=workload,
            mapping=mapping,
            costing=costing,
            stages=stages,
            timed=timed,
            placement=placement,
            footprint=footprint,
        )

    def _over_micro_batches(self, first: Trial, numbers: list[int], notes: list[str]) -> Trial:
        """Time smaller and smaller numbers with the mapping of the first trial, until every phase gets slower.

        The best of each phase is taken.
        """
        trials = {numbers[-1]: first}
        phases = list(dict.fromkeys(PHASES[made.stage.kind] for made in first.timed))
        falling = set(phases)
        for number, larger in zip(reversed(numbers[:-1]), reversed(numbers), strict=False):
            try:
                trials[number] = self._again(first.mapping, _even(number))
            except DoesNotFit:  # larger parts of the batch need more room at a time
                break
            falling = {phase for phase in falling if trials[number].seconds(phase) <= trials[larger].seconds(phase)}
            if not falling:
                break
        numbers = sorted(trials)
        chosen: dict[str, int] = {}
        for phase in phases:
            seconds = {number: trials[number].seconds(phase) for number in numbers}
            least = min(seconds.values())
            chosen[phase] = min(n for n in numbers if seconds[n] <= least * (1 + WORTHWHILE))
            tried = ", ".join(f"{n}: {format_quantity(value, 's')}" for n, value in seconds.items())
            notes.append(f"micro-batches of {phase}: {chosen[phase]}, the best of those tried ({tried})")
        if len(set(chosen.values())) == 1:
            return trials[next(iter(chosen.values()))]
        split = MicroBatches(**{**dict.fromkeys(("prefill", "decode", "training"), 1), **chosen})
        return self._again(first.mapping, split)

    def _in_fewer_parts(self, trial: Trial, numbers: list[int], notes: list[str]) -> Trial:
        """The same with tokens in half as many parts, and again, where components pay for parts and it is faster.

        Fewer parts save no more than what is paid for them.  Where they are about as fast, they have their own numbers
        of micro-batches.
        """
        best, told = trial, [f"{trial.mapping.chunks}: {format_quantity(trial.total_s, 's')}"]
        while best.mapping.chunks > 1 and best.parted_s > PAID_FOR_PARTS * best.total_s:
            own: list[str] = []
            fewer = replace(best.mapping, chunks=best.mapping.chunks // 2)
            other = self._trial(best.workload, fewer)
            if len(numbers) > 1 and other.total_s < best.total_s * (1 + PAID_FOR_PARTS):
                first = other if fewer.micro_batches == _even(numbers[-1]) else self._again(fewer, _even(numbers[-1]))
                other = self._over_micro_batches(first, numbers, own)
            told.append(f"{fewer.chunks}: {format_quantity(other.total_s, 's')}")
            if other.total_s >= best.total_s * (1 - WORTHWHILE):
                break
            best, self.tried = other, own or self.tried
        if best is not trial:
            notes.append(f"tokens in {best.mapping.chunks} parts, the best of those tried ({', '.join(told)})")
        return best

    def _again(self, mapping: Mapping, split: MicroBatches) -> Trial:
        """The same mapping for other micro-batches."""
        workload = self.workload(split)
        return self._trial(workload, replace(completed(mapping, self.chip, workload), micro_batches=split))

    def _beside_crossbars(self, trial: Trial, numbers: list[int], notes: list[str]) -> Trial:
        """Weights that would be written for every pass, read from memory by other components instead, if faster.

        The largest one, the largest two (the halves of a feed-forward network), as many as let the others stay, and
        all are tried.
        """
        placements = trial.mapping.placements
        written = {(p.block, p.weight) for p in placements if not p.resident}
        open_ = weights_left_open(self.chip, trial.workload, written)
        streamed = sorted({(-p.crossbars, p.block, p.weight) for p in placements if (p.block, p.weight) in open_})
        if not streamed:
            return trial
        room = {name: int(holder.crossbars) for name, holder in self.chip.can.holders.items()}
        for p in placements:
            room[p.component] -= p.crossbars * p.copies * p.replicas * p.layers
        enough = len(streamed)
        for count, (_, block, name) in enumerate(streamed, 1):
            for p in placements:
                if (p.block, p.weight) == (block, name):
                    room[p.component] += p.crossbars * p.copies * p.replicas * p.layers
            if min(room.values()) >= 0:
                enough = count
                break
        best, chosen, told = trial, self.beside, [f"written for every pass: {format_quantity(trial.total_s, 's')}"]
        for count in sorted({1, min(2, len(streamed)), enough, len(streamed)}):
            self.beside = frozenset((block, name) for _, block, name in streamed[:count])
            try:
                other = self._trial(trial.workload, self._default(trial.workload, trial.mapping.micro_batches))
            except DoesNotFit:
                continue
            told.append(f"{count} of {len(streamed)}: {format_quantity(other.total_s, 's')}")
            if other.total_s < best.total_s * (1 - WORTHWHILE):
                best, chosen = other, self.beside
        self.beside = chosen
        if best is trial:
            return trial
        held = ", ".join(dict.fromkeys(name for _, name in sorted(self.beside)))
        notes.append(f"{held} beside the crossbars, read from memory: the best of those tried ({', '.join(told)})")
        if len(numbers) > 1:
            self.tried = []
            best = self._over_micro_batches(self._again(best.mapping, _even(numbers[-1])), numbers, self.tried)
        return best

    def _default(self, workload: Workload, split: MicroBatches, replicate: bool = True) -> Mapping:
        """The rule's mapping, with the weights that were chosen beside the crossbars."""
        return default_mapping(
            self.chip,
            workload,
            overflow=self.job.overflow,
            micro_batches=split,
            replicate=replicate,
            beside=self.beside,
        )

    def _without_replicas(self, trial: Trial, notes: list[str]) -> Trial:
        """The same without copies of weights in spare crossbars, if that is faster."""
        split = trial.mapping.micro_batches
        other = self._trial(trial.workload, self._default(trial.workload, split, replicate=False))
        if other.total_s < trial.total_s * (1 - WORTHWHILE):
            notes.append(
                f"no copies of weights in spare crossbars: they would make it {format_quantity(trial.total_s, 's')}"
            )
            return other
        return trial


def workload_of(job: Job, split: MicroBatches = ONE_PART) -> Workload:
    """The operators of one chip of a loaded job, its batch cut into these micro-batches."""
    assert isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
    model = job.reduced_model
    if isinstance(model, Workload):
        return model
    assert isinstance(model, Model) and job.task is not None
    return expand(
        model,
        quantized(task_on(job.task, job.chip), model),
        split,
        parallelism=job.parallelism,
        attention=job.runtime.attention_on(job.chip),
        in_turn=job.runtime.admission == "in-turn",
        length_spread=job.runtime.length_spread,
        habits=job.runtime.keeps,
    )


def task_on(task: Task, chip: Chip) -> Task:
    """The task in the chip's own number formats, where it names none."""
    if task.precision is not None or chip.precision is None:
        return task
    master = chip.precision.master_weights if is_training(task) else None
    return replace(task, precision=replace(chip.precision, master_weights=master))


def _even(number: int) -> MicroBatches:
    return MicroBatches(number, number, number)


def fabric_of(chip: Chip) -> Fabric:
    """The network of a chip; chips with equal packages, networks and tiles share one."""
    dies = tuple((die.name, die.grid, die.at) for die in chip.package.dies)
    sizes = tuple(chip.die_size_m(index) for index in range(len(dies)))
    gap = chip.package.chiplet_gap
    key = (chip.package.kind, dies, sizes, gap.value if gap else None, repr(chip.network))
    found = _fabrics.get(key)
    if found is None:
        found = _fabrics[key] = Fabric(chip)
    made: Fabric = found
    return made
