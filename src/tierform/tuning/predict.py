"""What will a run cost, and what will its switch save, before it runs?  Steps are simulated on any chip, none is taken.

The module, its loss and a batch are traced: a full step, and a low-rank one with the adapters that the run would have.
A step of the trial is one of each, and holds both models.  The whole run is then told for the steps at which the rule
could switch.  On a chip whose weights wait in crossbars a registered application is the library's model of it, whose
frozen matrices such a chip can place; on every other chip it is what PyTorch will run, dropout by dropout.  On a
processor that issues its own kernels the step is every kernel that PyTorch dispatches, autograd's among them.

Limits: the check windows, tests and checkpoints of a run take no time here; with `rank: spectrum` the rank is not known
before the run, and the largest that it may choose is taken.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from tierform.chip.component import WeightHolder
from tierform.chip.description import Chip
from tierform.simulation.choose import task_on
from tierform.simulation.runtime import Runtime
from tierform.simulation.simulate import simulate
from tierform.tuning.applications import APPLICATIONS
from tierform.tuning.config import TuneFile
from tierform.tuning.costs import PhaseCost, StepCosts, WholeRun, low_rank_of, step_cost, whole_run
from tierform.tuning.lowrank import LowRank, attach, target_modules
from tierform.tuning.rule import FixedStep, IntrinsicDimension, LossPlateau, SwitchRule
from tierform.tuning.trainer import Loss
from tierform.workload import FineTuning, Full, Workload, load_model
from tierform.workload.tracing.dispatched import as_dispatched
from tierform.workload.tracing.module import trace

SHARES = (0.05, 0.1, 0.2, 0.5)
OPTIMIZERS = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd"}  # Adam keeps what AdamW keeps


@dataclass(frozen=True, slots=True)
class Prediction:
    """Steps of each phase and whole runs; `notes` say what was assumed."""

    chip: str
    runtime: str
    steps: int
    full: PhaseCost
    low: PhaseCost
    trial: PhaseCost
    runs: tuple[WholeRun, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        saved = [{"saved_time": run.saved_time, "saved_energy": run.saved_energy} for run in self.runs]
        told = asdict(self)
        told["runs"] = [run | shares for run, shares in zip(told["runs"], saved, strict=True)]
        return {"schema": "tierform.prediction/1", **told}


class _Step(nn.Module):
    """A model and its loss as one module, whose inputs are the tensors of a batch."""

    def __init__(self, model: nn.Module, loss: Loss, spec: TreeSpec) -> None:
        super().__init__()
        self.model, self.loss, self.spec = model, loss, spec

    def forward(self, *leaves: Tensor) -> Tensor:
        """The loss."""
        return self.loss(self.model, tree_unflatten(list(leaves), self.spec))


def step_of(
    model: nn.Module, loss: Loss, batch: object, optimizer: str, chip: Chip | None = None, name: str = "step"
) -> Workload:
    """The workload of one training step of `model`, whose parameters learn where they ask for a gradient.

    Its number formats are the chip's own, where it states any.
    """
    leaves, spec = tree_flatten(batch)
    tensors = [one if isinstance(one, Tensor) else torch.as_tensor(one) for one in leaves]
    sizes = (*(tensors[0].shape if tensors else ()), 1, 1)
    task = FineTuning(Full(), batch=int(sizes[0]), sequence=int(sizes[1]), optimizer=optimizer)  # type: ignore[arg-type]
    if chip is not None:
        resolved = task_on(task, chip)
        assert isinstance(resolved, FineTuning)
        task = resolved
    model.train()
    step = _Step(model, loss, spec)
    traced = trace(step, tensors, training=True, name=name, task=task)
    return as_dispatched(traced, step, tensors) if chip is not None and chip.can.issuers else traced


def earliest(rule: SwitchRule) -> int:
    """The first step after which a rule can switch, its trial included."""
    windows = 4  # three means and three changes, the first of which needs two windows
    if isinstance(rule, FixedStep):
        windows = math.ceil(rule.step / rule.window)
    elif isinstance(rule, LossPlateau):
        windows = 1 + rule.patience
    elif isinstance(rule, IntrinsicDimension):
        windows = 1
    return (windows + bool(rule.trial)) * rule.window


def switches(rule: SwitchRule, steps: int) -> list[int]:
    """Steps at which the run could switch: the earliest, some shares of the run, all at ends of windows."""
    first = earliest(rule)
    if isinstance(rule, FixedStep):
        return [first] if first < steps else []
    places = [first, *(math.ceil(share * steps / rule.window) * rule.window for share in SHARES)]
    return sorted({place for place in places if first <= place < steps})


def predict(file: TuneFile, folder: Path, chip: Chip, runtime: Runtime | str = "ideal") -> Prediction:
    """Time, energy and memory of a run's phases, and of the whole by the step of its switch, on `chip`.

    A model, loss or data of the user's are executed, as a run does; no step is taken.
    """
    from tierform.tuning.run import prepare

    trainer, batches, _ = prepare(file, folder)
    application = APPLICATIONS.get(file.model) if ":" not in file.model else None
    optimizers = [OPTIMIZERS[one.kind] for one in (file.optimizer, file.low_optimizer or file.optimizer)]
    settings, notes = trainer.low_rank, []
    rank = settings.most if settings.rank == "spectrum" else settings.rank
    if settings.rank == "spectrum":
        notes.append(f"rank {rank}: the largest that the spectrum may choose")
    if application is not None and holds_weights(chip):
        model = load_model(application.model)
        full = step_cost(model, Full(), chip, file.batch, optimizers[0], runtime)
        low = step_cost(model, low_rank_of(rank), chip, file.batch, optimizers[1], runtime)
        notes.append(f"steps of the library's model {application.model}, which this chip can place")
    else:
        full, low = (
            PhaseCost.of(simulate(one, None, chip, thermal="none", runtime=runtime))
            for one in traced_steps(trainer.model, trainer.loss, batches(0), settings, rank, optimizers, chip)
        )
    costs = StepCosts(full, low, low)
    rule, steps = trainer.rule, file.steps
    if file.start == "low":
        runs = [whole_run(costs, steps, 0, 0)]
    else:
        places = switches(rule, steps)
        runs = [whole_run(costs, steps, place, rule.window if rule.trial else 0) for place in places]
        runs.append(whole_run(costs, steps, None, 0))
    return Prediction(
        chip=chip.name,
        runtime=runtime if isinstance(runtime, str) else runtime.name,
        steps=steps,
        full=full,
        low=low,
        trial=full.beside(low),
        runs=tuple(runs),
        notes=tuple(notes),
    )


def holds_weights(chip: Chip) -> bool:
    """Whether weights wait in parts of the chip, in crossbars or their kin."""
    return any(isinstance(part, WeightHolder) for part in chip.components.values())


def traced_steps(
    model: nn.Module,
    loss: Loss,
    batch: object,
    settings: LowRank,
    rank: int,
    optimizers: Sequence[str],
    chip: Chip | None = None,
) -> tuple[Workload, Workload]:
    """The workloads of a full and of a low-rank step; the model is left as it is."""
    full = step_of(model, loss, batch, optimizers[0], chip, "full")
    adapted = copy.deepcopy(model)
    attach(adapted, settings, dict.fromkeys(target_modules(adapted, settings.targets), rank))
    return full, step_of(adapted, loss, batch, optimizers[1], chip, "low")
