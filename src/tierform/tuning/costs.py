"""What do a step of each phase and the whole run cost?  Records and sums, used before a run and by the study of HpT.

Hybrid training takes full steps up to the switch; in the last of them, the trial, a low-rank step too.  Then the
weights may move to another chip, and low-rank steps go on to the end.  Imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import fsum

from tierform.chip.description import Chip
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.simulation.simulate import simulate
from tierform.workload import FineTuning, Full, LoRA, Model
from tierform.workload.graph import StageKind

ENDS = ("embedding", "head")


@dataclass(frozen=True, slots=True)
class PhaseCost:
    """One step of a phase: seconds by part, joules, bytes of memory."""

    seconds: float
    forward_s: float
    backward_s: float
    update_s: float
    joules: float
    memory_B: float

    @classmethod
    def of(cls, result: Result) -> PhaseCost:
        """From the result of one step."""

        def seconds(kind: StageKind) -> float:
            return fsum(stage.latency_s for stage in result.stages if stage.kind == kind)

        return cls(
            seconds=result.latency_s,
            forward_s=seconds(StageKind.FORWARD),
            backward_s=seconds(StageKind.BACKWARD),
            update_s=seconds(StageKind.UPDATE),
            joules=result.energy_J,
            memory_B=float(sum(result.memory_footprint_B.values())),
        )

    def scaled(self, times: float) -> PhaseCost:
        """The same step, that takes and costs `times` as much; its memory stays."""
        return PhaseCost(
            seconds=self.seconds * times,
            forward_s=self.forward_s * times,
            backward_s=self.backward_s * times,
            update_s=self.update_s * times,
            joules=self.joules * times,
            memory_B=self.memory_B,
        )

    def beside(self, other: PhaseCost) -> PhaseCost:
        """Both models' step on one batch, as in the trial."""
        mine, theirs = asdict(self), asdict(other)
        return PhaseCost(**{key: mine[key] + theirs[key] for key in mine})


@dataclass(frozen=True, slots=True)
class WholeRun:
    """The run that switches after `switch` steps (None: never), `trial` of them the trial's; and full training."""

    switch: int | None
    trial: int
    seconds: float
    joules: float
    full_s: float
    full_J: float

    @property
    def saved_time(self) -> float:
        """Share of full training's time that is saved."""
        return 1 - self.seconds / self.full_s

    @property
    def saved_energy(self) -> float:
        """Share of full training's energy that is saved."""
        return 1 - self.joules / self.full_J if self.full_J else 0.0


@dataclass(frozen=True, slots=True)
class StepCosts:
    """A full and a low-rank step where training begins, a low-rank step where it goes on, and moving there once."""

    full: PhaseCost
    trial: PhaseCost
    low: PhaseCost
    move_s: float = 0.0
    move_J: float = 0.0


def whole_run(costs: StepCosts, steps: int, switch: int | None, trial: int) -> WholeRun:
    """The run of `steps` that switches after `switch` of them, the last `trial` of which are low-rank steps too."""
    at, tried, moved = (steps, 0, 0) if switch is None else (switch, trial, 1)
    left = steps - at
    seconds = at * costs.full.seconds + tried * costs.trial.seconds + moved * costs.move_s + left * costs.low.seconds
    joules = at * costs.full.joules + tried * costs.trial.joules + moved * costs.move_J + left * costs.low.joules
    return WholeRun(switch, tried, seconds, joules, steps * costs.full.seconds, steps * costs.full.joules)


def low_rank_of(rank: int, *, ends: bool = True) -> LoRA:
    """Adapters of queries and values; `ends` says whether the dense ends of the network go on learning."""
    return LoRA(rank, ("q", "v"), ENDS if ends else ())


def step_task(model: Model, method: Full | LoRA, batch: int = 1, optimizer: str = "adamw") -> FineTuning:
    """A step of one of HpT's models."""
    return FineTuning(method, batch=batch, sequence=model.fixed_tokens, optimizer=optimizer)  # type: ignore[arg-type]


def step_cost(
    model: Model,
    method: Full | LoRA,
    chip: Chip,
    batch: int = 1,
    optimizer: str = "adamw",
    runtime: Runtime | str = "ideal",
) -> PhaseCost:
    """A step of one of HpT's models on a chip."""
    task = step_task(model, method, batch, optimizer)
    return PhaseCost.of(simulate(model, task, chip, thermal="none", runtime=runtime))
