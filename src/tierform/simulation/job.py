"""A Job: everything that is asked, in one frozen record.

Model, task, chip, how several chips share the work, runtime, fidelity, and how the work is mapped.  A Job can be hashed
and compared (by what it means, not by identity): it is the key of caches and databases.  Its file form is read and
written by :mod:`tierform.simulation.job_file`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError, nearest
from tierform.mapping import Mapping
from tierform.simulation.runtime import Runtime, load_runtime
from tierform.workload import Model, Task, Workload, load_model
from tierform.workload.parallel import MicroBatches, Parallelism
from tierform.workload.reduced import Reduction
from tierform.workload.task import describe

if TYPE_CHECKING:
    from tierform.simulation.result import Result

Fidelity = Literal["analytic", "cycle"]
Thermal = Literal["none", "steady", "transient"]
Overflow = Literal["stream", "refuse"]
MappingRule = Literal["best", "plain"]
CHOICES: dict[str, tuple[str, ...]] = {
    "fidelity": get_args(Fidelity),
    "thermal": get_args(Thermal),
    "overflow": get_args(Overflow),
}


@dataclass(frozen=True, eq=False)
class Job:
    """What is asked.

    `model` is a :class:`Model`, a library name, a folder or a Hub id; or a :class:`Workload` (then `task` is None).
    `chip` and `runtime` are loaded ones, names or paths.  `mapping` is a Mapping, a path to a mapping file, ``best``
    (the best of several that are tried) or ``plain`` (the first of them).  `micro_batches` cuts the batch of every
    phase, or of each phase by itself; None: the best of several numbers.  `reduction` takes parts away from the model.
    """

    model: Model | Workload | str
    task: Task | None
    chip: Chip | str
    parallelism: Parallelism = field(default_factory=Parallelism)
    runtime: Runtime | str = "ideal"
    fidelity: Fidelity = "analytic"
    thermal: Thermal = "steady"
    overflow: Overflow = "stream"
    mapping: Mapping | str | Path = "best"
    micro_batches: int | MicroBatches | None = None
    reduction: Reduction | None = None

    def __post_init__(self) -> None:
        problems = [
            Problem(
                "not a known choice",
                key=name,
                value=getattr(self, name),
                nearest=nearest(str(getattr(self, name)), choices),
                fix=f"Choose one of {', '.join(choices)}.",
            )
            for name, choices in CHOICES.items()
            if getattr(self, name) not in choices
        ]
        if self.reduction is not None and isinstance(self.model, Workload):
            problems.append(Problem("a workload is reduced before it is expanded", key="reduction"))
        if (self.task is None) != isinstance(self.model, Workload):
            what = "a workload brings its own task" if self.task is not None else "a task is needed"
            problems.append(Problem(what, key="task"))
        number = self.micro_batches
        if isinstance(number, int) and (isinstance(number, bool) or number < 1):
            problems.append(Problem("must be a whole number of at least 1", key="micro_batches", value=number))
        if problems:
            raise TierformError(problems)

    def loaded(self) -> Job:
        """This job with model, chip and runtime loaded; TierformError with the problems of all of them at once."""
        problems: list[Problem] = []
        found: dict[str, Any] = {}
        for name, kind, load in (
            ("model", (Model, Workload), load_model),
            ("chip", (Chip,), load_chip),
            ("runtime", (Runtime,), load_runtime),
        ):
            value = getattr(self, name)
            if isinstance(value, kind):
                continue
            try:
                found[name] = load(str(value))
            except TierformError as error:
                problems.extend(error.problems)
        loaded = replace(self, **found) if found else self
        if not isinstance(loaded.model, str):
            try:
                loaded.reduced_model  # noqa: B018  what cannot be taken away is said with the other problems
            except TierformError as error:
                problems.extend(error.problems)
        if problems:
            raise TierformError(problems)
        return loaded

    @property
    def reduced_model(self) -> Model | Workload:
        """The loaded model without what the reduction takes away."""
        assert not isinstance(self.model, str)
        if self.reduction is None or isinstance(self.model, Workload):
            return self.model
        return self.reduction.of(self.model)

    @cached_property
    def key(self) -> str:
        """A hash of what is asked: equal for jobs that mean the same, whatever they were loaded from."""
        job = self.loaded()
        assert isinstance(job.chip, Chip) and isinstance(job.runtime, Runtime)
        mapping = job.mapping.to_dict() if isinstance(job.mapping, Mapping) else str(job.mapping)
        split = job.micro_batches
        content = {
            "model": job.model.whole if isinstance(job.model, Workload) else repr(job.model),
            "task": None if job.task is None else describe(job.task),
            "chip": [job.chip.name, job.chip.fingerprint],
            "parallelism": job.parallelism.content(),
            "runtime": asdict(job.runtime),
            "mapping": mapping,
            "micro_batches": asdict(split) if isinstance(split, MicroBatches) else split,
            **{name: getattr(job, name) for name in CHOICES},
            **({"reduction": self.reduction.used} if self.reduction is not None else {}),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and self.key == other.key

    def simulate(self, *, timeline: bool = False) -> Result:
        """The Result of this job; `timeline` keeps every bar of the schedule."""
        from tierform.simulation.simulate import run_job

        return run_job(self, timeline=timeline)
