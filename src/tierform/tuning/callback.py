"""The switch as a callback of the Hugging Face ``Trainer``.

The Trainer trains in full as always.  After a window the rule is asked; on trial the callback trains a low-rank copy on
the very batches that the Trainer's model has just seen, with an optimizer of its own; when the rule says so, adapters
are put into the Trainer's model in place, the copy's weights move in, and the Trainer's optimizer is left with what
still learns.  Losses come from the model's own output, so the model must return one.
Into each of the Trainer's checkpoints goes ``switch.tft`` with the rule's history, the journal and the trial; a run
continued with :meth:`SwitchCallback.resume` goes on bit by bit on a CPU, inside the trial too.
Limits: one process (the Trainer's wrapper for data-parallel training has fixed its parameters before; use
HybridTrainer there), and full precision; the trial begins with the step after the window.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from tierform.errors import fail
from tierform.files import make_folder
from tierform.tuning import checkpoint as files
from tierform.tuning.checkpoint_check import Checked, described, state_names
from tierform.tuning.journal import PHASES, Journal
from tierform.tuning.lowrank import (
    LowRank,
    attach,
    change_norm,
    choose_ranks,
    low_rank_copy,
    target_modules,
    watched_weights,
)
from tierform.tuning.rule import SwitchRule, Window
from tierform.tuning.side import ADAMW, MakeOptimizer, fingerprint

FILE = "switch.tft"  # beside the Trainer's own files in a checkpoint folder


class SwitchCallback(TrainerCallback):
    """Pass it to ``Trainer(callbacks=[...])``; `journal` holds the decisions, `phase` where training is."""

    def __init__(
        self, rule: SwitchRule, low_rank: LowRank, *, low_optimizer: MakeOptimizer = ADAMW, layer: int | None = 0
    ) -> None:
        if "intrinsic_dimension" in rule.watches:
            fail("the callback does not estimate the intrinsic dimension", key="rule", fix="Use HybridTrainer.")
        if low_rank.rank == "spectrum":
            layer = None
        self.rule, self.low_rank, self.layer, self._make = rule, low_rank, layer, low_optimizer
        self.phase, self.journal = "full", Journal()
        self._seen: list[tuple[dict[str, Any], float]] = []
        self._losses: list[float] = []
        self._pair: tuple[list[float], list[float]] = ([], [])
        self._before: dict[str, torch.Tensor] = {}
        self._changes: dict[str, torch.Tensor] | None = None
        self._low: nn.Module | None = None
        self._low_optimizer: torch.optim.Optimizer | None = None
        self._hook: Any = None
        self._ranks: dict[str, int] = {}
        self._shape = ""
        self._step = 0

    def resume(self, trainer: Any, folder: Path | str) -> None:
        """Continue from a checkpoint folder; call it before ``trainer.train(resume_from_checkpoint=folder)``.

        After the switch the adapters are put into the Trainer's model here, so that its weights and optimizer fit.
        """
        path = Path(folder) / FILE
        found = Checked(files.read(path), str(path))
        self._shape = fingerprint(trainer.model)
        files.compare(found("settings", dict), self._settings(), str(path))
        self._check(found, trainer.model)
        self.phase, self._step = found("phase", str), found("step", int)
        self._ranks = dict(found("ranks", dict))
        self.rule.restore(found("rule", dict))
        self.journal.restore(found("journal", dict))
        self._losses, (first, second) = list(found("losses", list)), found("pair", list)
        self._pair = (list(first), list(second))
        device = next(trainer.model.parameters()).device
        self._before = {name: one.to(device) for name, one in found("before", dict).items()}
        changes = found.content["changes"]
        self._changes = {n: one.to(device) for n, one in changes.items()} if changes else None
        if self.phase == "low":
            attach(trainer.model, self.low_rank, self._ranks)
        elif self.phase == "trial":
            self._copy(trainer.model)
            assert self._low is not None and self._low_optimizer is not None
            low = found.side("low", self._low, self._low_optimizer, None, state_names(self._make))
            self._low.load_state_dict(low["model"])
            self._low_optimizer.load_state_dict(low["optimizer"])

    def _check(self, found: Checked, model: nn.Module) -> None:
        """Refuse a state that no run of these settings could have written."""
        phase, step = found("phase", str), found.whole(found.content.get("step"), "step")
        if phase not in PHASES or (found.content.get("low") is not None) != (phase == "trial"):
            found.refuse("phase", phase)
        low = self.low_rank
        bounds = (low.least, low.most) if low.rank == "spectrum" else (low.rank, low.rank)
        if not found.ranks(target_modules(model, low.targets), *bounds) and phase != "full":
            found.refuse("ranks")
        found.rule(self.rule.state(), 10**4)
        found.journal(step)
        found.numbers(found.content.get("losses"), "losses", self.rule.window - 1)
        found.pair(self.rule.window)
        weights = watched_weights(model, low.targets, self.layer)
        for key in ("before", "changes"):
            if found.content.get(key):
                found.tensors(found.content[key], key, weights)

    def on_save(self, args: Any, state: Any, control: object, **_: object) -> None:
        """Put the switch's own state beside the Trainer's."""
        low = None
        if self._low is not None and self._low_optimizer is not None:
            low = {"model": self._low.state_dict(), "optimizer": self._low_optimizer.state_dict(), "schedule": None}
        content = {
            "settings": self._settings(),
            "phase": self.phase,
            "step": state.global_step,
            "ranks": dict(self._ranks),
            "rule": self.rule.state(),
            "journal": self.journal.state(),
            "losses": list(self._losses),
            "pair": [list(one) for one in self._pair],
            "before": dict(self._before),
            "changes": self._changes,
            "low": low,
        }
        folder = make_folder(Path(args.output_dir) / f"checkpoint-{state.global_step}", parents=True)
        files.write(folder / FILE, content)

    def _settings(self) -> dict[str, Any]:
        settings = files.settings(self._shape, self.rule, self.low_rank, self.layer)
        return {**settings, "low_optimizer": described(self._make, None)}

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        """Check the targets and watch the model's batches and losses."""
        if args.world_size > 1:
            fail("the callback works in one process", key="world_size", value=args.world_size, fix="Use HybridTrainer.")
        if args.fp16 or args.bf16:
            fail("the callback trains in full precision", key="bf16 or fp16", value=True)
        if state.max_steps < self.rule.window:
            fail(
                "the window is longer than the run",
                key="window",
                value=self.rule.window,
                fix=f"The run has {state.max_steps} steps.",
            )
        if state.global_step != self._step:
            what = "the run goes on from a checkpoint that the switch was not told of"
            how = "Call callback.resume(trainer, folder) before trainer.train(resume_from_checkpoint=folder)."
            if not state.global_step:
                what, how = "the callback has seen another run", "Give each run a callback of its own."
            fail(what, key="step", value=state.global_step, fix=how)
        if self.phase != "low":
            watched_weights(model, self.low_rank.targets, self.layer)
        self._shape = self._shape or fingerprint(model)
        self.journal.steps = state.max_steps

        def seen(module: nn.Module, positional: object, named: Any, out: object) -> None:
            loss = out.get("loss") if hasattr(out, "get") else getattr(out, "loss", None)
            if module.training and torch.is_grad_enabled() and self.phase != "low":
                if loss is None:
                    fail("the model returns no loss", key="model", fix="Give it labels.")
                self._seen.append((dict(named), float(loss.detach())))

        self._hook = model.register_forward_hook(seen, with_kwargs=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop watching."""
        self._hook.remove()

    def on_step_end(
        self, args: Any, state: Any, control: Any, *, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """One step is done: note its loss, train the copy on trial, ask the rule at a window's end."""
        self._step = state.global_step
        seen, self._seen = self._seen, []
        if self.phase == "low" or not seen:
            return
        loss = math.fsum(one for _, one in seen) / len(seen)
        if not math.isfinite(loss):
            fail("the loss is not a finite number; training stops", key=f"step {state.global_step}", value=loss)
        if self.phase == "trial":
            low = self._train_low([batch for batch, _ in seen])
            self.journal.rows.append([state.global_step, "trial", loss, low, 0.0, 0.0, 0.0, 0.0])
            self._pair[0].append(loss)
            self._pair[1].append(low)
            if len(self._pair[0]) >= self.rule.window:
                decision = self.rule.end_trial(state.global_step, *self._pair)
                self.journal.decisions.append(decision)
                if decision.action == "switch":
                    self._switch(model, optimizer)
                else:
                    self._begin(model)
            return
        self.journal.rows.append([state.global_step, "full", loss, None, 0.0, 0.0, 0.0, 0.0])
        self._losses.append(loss)
        if len(self._losses) < self.rule.window:
            return
        now = {n: w.clone() for n, w in watched_weights(model, self.low_rank.targets, self.layer).items()}
        change = change_norm(now, self._before) if self._before else None
        self._changes = {n: now[n] - self._before[n] for n in now} if self._before else now
        self._before = now
        window = Window(state.global_step, math.fsum(self._losses) / len(self._losses), change)
        self._losses = []
        decision = self.rule.end_window(window)
        self.journal.decisions.append(decision)
        if decision.action == "trial":
            self._begin(model)
        elif decision.action == "switch":
            self._switch(model, optimizer)

    def _begin(self, model: nn.Module) -> None:
        self.phase, self._pair = "trial", ([], [])
        self._ranks = choose_ranks(self.low_rank, model, self._changes)
        self._copy(model)

    def _copy(self, model: nn.Module) -> None:
        self._low = low_rank_copy(_without_hooks(model), self.low_rank, self._ranks)
        device = next(model.parameters()).device
        self._low_optimizer = self._make([one for one in self._low.to(device).parameters() if one.requires_grad])

    def _train_low(self, batches: list[dict[str, object]]) -> float:
        assert self._low is not None and self._low_optimizer is not None
        self._low.train()
        losses = []
        for batch in batches:
            loss = self._low(**batch).loss
            (loss / len(batches)).backward()
            losses.append(float(loss.detach()))
        self._low_optimizer.step()
        self._low_optimizer.zero_grad(set_to_none=True)
        return math.fsum(losses) / len(losses)

    def _switch(self, model: nn.Module, trained_by: Any) -> None:
        """Adapters into the Trainer's own model; its optimizer keeps what learns, each in the group it was in."""
        inner = getattr(trained_by, "optimizer", trained_by)
        place = {one: index for index, group in enumerate(inner.param_groups) for one in group["params"]}
        if self._low is None:
            self._ranks = choose_ranks(self.low_rank, model, self._changes)
        attach(model, self.low_rank, self._ranks)
        if self._low is not None:
            model.load_state_dict(self._low.state_dict())
        inner.state.clear()
        for index, group in enumerate(inner.param_groups):
            group["params"] = [one for one in model.parameters() if one.requires_grad and place.get(one, 0) == index]
        self.phase, self._low, self._low_optimizer, self._before, self._changes = "low", None, None, {}, None


def _without_hooks(model: nn.Module) -> nn.Module:
    """A copy that the callback's own hook does not watch."""
    made = copy.deepcopy(model)
    made._forward_hooks.clear()
    made._forward_hooks_with_kwargs.clear()
    for one in made.parameters():
        one.grad = None
    return made
