"""Training that leaves full-parameter mode by itself.

:class:`HybridTrainer` trains a module in full, shows a :mod:`rule <tierform.tuning.rule>` each window's mean loss and
weight change, and when told so trains a low-rank copy side by side with the full model on the same batches; when the
rule finds no difference it goes on with the copy alone.  The full model, its gradients and optimizer states are then
released.  During a trial each step costs both models' work.
A step is all or nothing for checkpoints: they are written between steps, and a run continued from one gives the same
bits on a CPU.  Devices and data-parallel processes are accelerate's; the rule sees the losses' mean over processes.
Limits: mixed precision is the loss function's affair (not accelerate's); copies hold two models' weights in the trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.tuning import checkpoint as files
from tierform.tuning.checkpoint_check import Checked, described, state_names
from tierform.tuning.interrupts import interrupts
from tierform.tuning.intrinsic import intrinsic_dimension
from tierform.tuning.journal import Journal
from tierform.tuning.lowrank import (
    LowRank,
    attach,
    change_norm,
    choose_ranks,
    low_rank_copy,
    merged,
    parameter_count,
    target_modules,
    trainable_count,
    watched_weights,
)
from tierform.tuning.meter import Clock, EnergyCounter
from tierform.tuning.rule import SwitchRule, Window
from tierform.tuning.side import ADAMW, MakeOptimizer, MakeSchedule, Side, accelerated, fingerprint, mean, on_device

Loss = Callable[[Any, Any], Tensor]
RECENT = 8  # batches kept for the intrinsic dimension


class Batches(Protocol):
    """Batches by step: the same step gives the same batch, so that a run can go on anywhere."""

    def __call__(self, step: int) -> object:
        """The batch of a step, from 0."""


class HybridTrainer:
    """Trains `model` on `loss(model, batch)`; `phase` is "full", "trial" or "low".

    `layer` is the layer whose target weights the rule watches (None: all).  `schedule` makes a learning-rate schedule,
    stepped every step, for the full phase; `low_schedule` for the low-rank one.  `identity` names, as plain values,
    what else decides the run (data, batch): a checkpoint of a run with another one is refused.  Raises TierformError
    for targets that the model does not have and for a loss that is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        rule: SwitchRule,
        low_rank: LowRank | None = None,
        *,
        optimizer: MakeOptimizer | None = None,
        low_optimizer: MakeOptimizer | None = None,
        schedule: MakeSchedule | None = None,
        low_schedule: MakeSchedule | None = None,
        layer: int | None = 0,
        accelerator: Any = None,
        dimensions: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64),
        seed: int = 0,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.low_rank = low_rank or LowRank()
        watched_weights(model, self.low_rank.targets, layer)
        self.loss, self.rule, self.layer, self.seed = loss, rule, layer, seed
        self.dimensions = dimensions
        self._make = (optimizer or ADAMW, low_optimizer or optimizer or ADAMW)
        self._make_schedule = (schedule, low_schedule)
        self.identity = {f"run.{key}": value for key, value in (identity or {}).items()}
        self.accelerator = accelerator or accelerated()
        self.phase = "full"
        self.step_number = 0
        self.journal = Journal()
        self.ranks: dict[str, int] = {}
        self.base_parameters = parameter_count(model)
        self._shape = fingerprint(model)
        self._full: Side | None = self._side(model, 0)
        self._low: Side | None = None
        self._window: list[float] = []
        self._pair: tuple[list[float], list[float]] = ([], [])
        self._before: dict[str, Tensor] = {}
        self._recent: list[Any] = []
        self.energy = EnergyCounter(self.device)
        self.peak_B: dict[str, int] = {}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.accelerator.device)

    @property
    def model(self) -> nn.Module:
        """The model that training goes on with: full until the switch, adapted after it."""
        side = self._low if self.phase == "low" else self._full
        assert side is not None
        return side.plain

    @property
    def optimizer(self) -> Any:
        """The optimizer of :attr:`model`."""
        side = self._low if self.phase == "low" else self._full
        assert side is not None
        return side.optimizer

    def merged(self) -> nn.Module:
        """A plain model: the adapters, if any, folded into the weights."""
        return merged(self.model)

    def step(self, batch: Any) -> float:
        """One step on a batch; returns its loss.  TierformError, with nothing changed, when a loss is not finite."""
        batch = on_device(batch, self.device)
        row = [self.step_number + 1, self.phase]
        generator = torch.get_rng_state()
        sides = [side for side in (self._full, self._low) if side is not None]
        clock = Clock(self.device)
        losses, times = [], [0.0, 0.0, 0.0]
        for side in sides:  # all losses first: a bad one stops the step before any weight moves
            side.wrapped.train()
            value = self.loss(side.wrapped, batch)
            losses.append(value)
            times[0] += clock.lap()
        values = [mean(value, self.accelerator) for value in losses]
        if not all(math.isfinite(one) for one in values):
            torch.set_rng_state(generator)
            fail(
                "the loss is not a finite number; training stops with the weights of the step before",
                key=f"step {self.step_number + 1}",
                value=values,
                fix="Lower the learning rate or check the inputs; the last checkpoint is kept.",
            )
        clock.lap()
        for side, value in zip(sides, losses, strict=True):
            side.optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(value)
            times[1] += clock.lap()
            side.optimizer.step()
            if side.schedule is not None:
                side.schedule.step()
            side.optimizer.zero_grad(set_to_none=True)
            times[2] += clock.lap()
        del losses, value
        self.step_number += 1
        main, other = values[0], values[1] if len(values) == 2 else None
        self.journal.rows.append([*row, main, other, *times, sum(times)])
        self._note_memory()
        self._decide(batch, main, other)
        return main

    def switch(self, ranks: Mapping[str, int] | None = None) -> None:
        """Go on with a low-rank model now, without asking the rule (before the first step: LoRA from the start)."""
        if self.phase == "low":
            fail("the run is in low-rank mode already", key="phase", value=self.phase)
        assert self._full is not None
        if self.phase == "full":
            plain = self._full.plain
            self.ranks = dict(ranks or choose_ranks(self.low_rank, plain, self._changes() if self._before else None))
            self._release("_full")
            self._low = self._side(attach(plain, self.low_rank, self.ranks), 1)
        else:
            self._release("_full")
        self.phase, self._before, self._recent, self._window = "low", {}, [], []
        self._pair = ([], [])

    def fit(
        self,
        batches: Batches,
        steps: int,
        *,
        checkpoint: Path | str | None = None,
        every: int = 0,
        tell: Callable[[HybridTrainer], None] = lambda _: None,
    ) -> Journal:
        """Train until `steps` steps are done in all, writing `checkpoint` every `every` steps and at the end.

        Ctrl-C and SIGTERM end the step under way, write the checkpoint and raise KeyboardInterrupt.
        """
        if self.rule.window > steps:
            fail(
                "the window is longer than the run",
                key="window",
                value=self.rule.window,
                fix=f"Use at most {steps} steps, or a longer run.",
            )
        self.journal.steps = steps
        with interrupts() as stop:
            while self.step_number < steps and not stop:
                self.step(batches(self.step_number))
                if checkpoint and every and self.step_number % every == 0:
                    self.save(checkpoint)
                tell(self)
        if checkpoint:
            self.save(checkpoint)
        if stop:
            raise KeyboardInterrupt
        return self.journal

    def save(self, path: Path | str) -> None:
        """Write a checkpoint (only the main process does)."""
        if not self.accelerator.is_main_process:
            return
        content = {
            "settings": self._settings(),
            "phase": self.phase,
            "step": self.step_number,
            "ranks": dict(self.ranks),
            "rule": self.rule.state(),
            "window": list(self._window),
            "pair": [list(one) for one in self._pair],
            "before": dict(self._before),
            "recent": list(self._recent),
            "journal": self.journal.state(),
            "full": self._full.state() if self._full else None,
            "low": self._low.state() if self._low else None,
            "random": files.random_state(),
        }
        files.write(path, content)

    def resume(self, path: Path | str) -> None:
        """Continue from a checkpoint of a run with the same model and settings."""
        found = Checked(files.read(path), str(path))
        files.compare(found("settings", dict), self._settings(), str(path))
        start = self._full
        if start is None or self.step_number:
            fail("a run continues from a checkpoint before its first step", file=str(path))
        low, names = self.low_rank, target_modules(start.plain, self.low_rank.targets)
        bounds = (low.least, low.most) if low.rank == "spectrum" else (low.rank, low.rank)
        found.run(self.rule.state(), self.rule.window, found.ranks(names, *bounds), self._weights(), RECENT)
        self.ranks = dict(found("ranks", dict))
        self.phase, self.step_number = found("phase", str), found("step", int)
        if self.phase == "trial":
            self._low = self._side(low_rank_copy(start.plain, self.low_rank, self.ranks), 1)
        elif self.phase == "low":
            plain = start.plain
            self._release("_full")
            self._low = self._side(attach(plain, self.low_rank, self.ranks), 1)
        for index, (key, side) in enumerate((("full", self._full), ("low", self._low))):
            if side is not None:
                states = state_names(self._make[index])
                side.restore(found.side(key, side.plain, side.optimizer, side.schedule, states))
        self.rule.restore(found("rule", dict))
        self.journal.restore(found("journal", dict))
        self._window, self._pair = list(found("window", list)), tuple(map(list, found("pair", list)))  # type: ignore[assignment]
        self._before = {name: one.to(self.device) for name, one in found("before", dict).items()}
        self._recent = [on_device(one, self.device) for one in found("recent", list)]
        files.set_random_state(found("random", dict))

    def summary(self) -> dict[str, object]:
        """Switch step, phases, parameters, projected savings, energy and memory of the run so far."""
        joules = self.energy.joules()
        return {
            "steps": self.step_number,
            "phase": self.phase,
            "switch_step": self.journal.switch_step,
            "parameters": self.base_parameters,
            "trainable_parameters": trainable_count(self.model),
            "ranks": self.ranks,
            "phases": self.journal.phase_sums(),
            "projection": self.journal.projection(),
            "conditions": self.journal.conditions(),
            "energy_J": joules,
            "energy_note": self.energy.note,
            "device": str(self.device),
            "device_peak_B": self.peak_B or None,
        }

    # ------------------------------------------------------------------ the rule

    def _decide(self, batch: object, loss: float, other: float | None) -> None:
        if self.phase == "low":
            return
        if self.phase == "trial":
            assert other is not None
            self._pair[0].append(loss)
            self._pair[1].append(other)
            if len(self._pair[0]) < self.rule.window:
                return
            decision = self.rule.end_trial(self.step_number, *self._pair)
            self.journal.decisions.append(decision)
            if decision.action == "switch":
                self.switch()
            else:
                self._begin_trial()
            return
        if "intrinsic_dimension" in self.rule.watches:
            self._recent = [*self._recent, batch][-RECENT:]
        self._window.append(loss)
        if len(self._window) < self.rule.window:
            return
        assert self._full is not None
        now = self._weights()
        window = Window(
            self.step_number, math.fsum(self._window) / len(self._window), self._watched_change(now), self._dimension()
        )
        self._window = []
        decision = self.rule.end_window(window)
        self.journal.decisions.append(decision)
        if decision.action == "trial":
            self._begin_trial(now)
        elif decision.action == "switch":
            self.switch(choose_ranks(self.low_rank, self._full.plain, self._changes(now)))
        if self.phase == "full":
            self._before = now

    def _begin_trial(self, now: dict[str, Tensor] | None = None) -> None:
        assert self._full is not None
        if now is not None:
            self.ranks = choose_ranks(self.low_rank, self._full.plain, self._changes(now))
            self._before = {}
        self._release("_low")
        self._low = self._side(low_rank_copy(self._full.plain, self.low_rank, self.ranks), 1)
        self.phase, self._pair = "trial", ([], [])

    def _weights(self) -> dict[str, Tensor]:
        """Copies of the weights that must be remembered from window to window."""
        assert self._full is not None
        if self.low_rank.rank != "spectrum" and "weight_change" not in self.rule.watches:
            return {}
        layer = None if self.low_rank.rank == "spectrum" else self.layer
        return {n: w.clone() for n, w in watched_weights(self._full.plain, self.low_rank.targets, layer).items()}

    def _watched_change(self, now: dict[str, Tensor]) -> float | None:
        assert self._full is not None
        if not self._before or "weight_change" not in self.rule.watches:
            return None
        names = watched_weights(self._full.plain, self.low_rank.targets, self.layer)
        return change_norm({name: now[name] for name in names}, self._before)

    def _changes(self, now: dict[str, Tensor] | None = None) -> dict[str, Tensor] | None:
        now = self._weights() if now is None else now
        if not now or not self._before:
            if self.low_rank.rank == "spectrum":  # no window yet: the weights themselves stand for their change
                return now or None
            return None
        return {name: now[name] - self._before[name] for name in now}

    def _dimension(self) -> int | None:
        if "intrinsic_dimension" not in self.rule.watches:
            return None
        assert self._full is not None
        names = [f"{name}.weight" for name in target_modules(self._full.plain, self.low_rank.targets)]
        return intrinsic_dimension(
            self._full.plain, self.loss, self._recent, names, dimensions=self.dimensions, seed=self.seed
        )

    # ------------------------------------------------------------------ the rest

    def _side(self, model: nn.Module, index: int) -> Side:
        model = model.to(self.device)
        learning = [one for one in model.parameters() if one.requires_grad]
        made = self._make[index](learning)
        make = self._make_schedule[index]
        wrapped, prepared = self.accelerator.prepare(model, made)
        self.accelerator.free_memory()  # accelerate keeps no second hold on what is released later
        return Side(model, wrapped, prepared, make(made) if make else None)

    def _release(self, name: str) -> None:
        side: Side | None = getattr(self, name)
        if side is not None:
            side.release()
            setattr(self, name, None)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _note_memory(self) -> None:
        if self.device.type == "cuda":
            phase = self.journal.rows[-1][1]
            self.peak_B[phase] = max(self.peak_B.get(phase, 0), torch.cuda.max_memory_allocated(self.device))
            torch.cuda.reset_peak_memory_stats(self.device)

    def _settings(self) -> dict[str, Any]:
        return {
            **files.settings(self._shape, self.rule, self.low_rank, self.layer),
            "seed": self.seed,
            "optimizer": described(self._make[0], self._make_schedule[0]),
            "low_optimizer": described(self._make[1], self._make_schedule[1]),
            **self.identity,
        }
