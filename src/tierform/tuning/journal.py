"""The record of a run: a row per step, every decision with its numbers, sums by phase, projected savings.

Rows are (step, phase, loss, loss of the low-rank copy on trial, seconds of forward, backward, optimizer and all).
During the trial both models are counted, so its steps cost double.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tierform.files import write_json, write_text
from tierform.tuning.rule import Decision

HEAD = ("step", "phase", "loss", "trial_loss", "forward_s", "backward_s", "optimizer_s", "step_s")
PHASES = ("full", "trial", "low")


@dataclass
class Journal:
    """Rows and decisions of a run; `steps` is how long it is to be, for projections."""

    rows: list[list[Any]] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    steps: int = 0

    def phase_sums(self) -> dict[str, dict[str, float]]:
        """By phase: steps, seconds by part, mean seconds per step (the first step of a phase, a warm-up, left out)."""
        sums: dict[str, dict[str, float]] = {}
        for phase in PHASES:
            rows = [row for row in self.rows if row[1] == phase]
            if not rows:
                continue
            timed = rows[1:] or rows
            entry = {"steps": float(len(rows)), "seconds": sum(row[7] for row in rows)}
            entry |= {f"mean_{name}": sum(row[4 + i] for row in timed) / len(timed) for i, name in enumerate(HEAD[4:])}
            sums[phase] = entry
        return sums

    @property
    def switch_step(self) -> int | None:
        """The step after which the low-rank model went on alone."""
        return next((one.step for one in self.decisions if one.action == "switch"), None)

    def conditions(self) -> dict[str, int] | None:
        """Windows in which the rule could judge, and in how many of them the loss, the weights, both met its tests."""
        judged = [one.numbers for one in self.decisions if "change_fall_1" in one.numbers]
        if not judged:
            return None
        loss, weights = ([bool(one[key]) for one in judged] for key in ("loss_test", "weight_test"))
        both = sum(a and b for a, b in zip(loss, weights, strict=True))
        return {"windows": len(judged), "loss": sum(loss), "weights": sum(weights), "both": both}

    def projection(self) -> dict[str, float | None]:
        """Seconds that the switch saves over the whole run against full training, the trial's extra work charged."""
        sums = self.phase_sums()
        if "full" not in sums or "low" not in sums or self.switch_step is None:
            return {"full_s": None, "hybrid_s": None, "saved_share": None}
        full, low = sums["full"]["mean_step_s"], sums["low"]["mean_step_s"]
        steps = max(self.steps, len(self.rows))
        trial = sums.get("trial", {"seconds": 0.0, "steps": 0.0})
        before = sums["full"]["steps"]
        hybrid = before * full + trial["seconds"] + (steps - before - trial["steps"]) * low
        return {"full_s": steps * full, "hybrid_s": hybrid, "saved_share": 1 - hybrid / (steps * full)}

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "schema": "tierform.tuning-log/1",
            "switch_step": self.switch_step,
            "phases": self.phase_sums(),
            "projection": self.projection(),
            "conditions": self.conditions(),
            "decisions": [_plain(one) for one in self.decisions],
            "head": list(HEAD),
            "rows": self.rows,
        }

    def write(self, folder: Path | str) -> None:
        """`log.csv`, a row per step, and `log.json`, everything."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows(self.rows)
        write_text(Path(folder) / "log.csv", text.getvalue())
        write_json(Path(folder) / "log.json", self.to_dict())

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "rows": [list(row) for row in self.rows],
            "decisions": [_plain(one) for one in self.decisions],
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.rows, self.steps = [list(row) for row in state["rows"]], int(state["steps"])
        self.decisions = [Decision(**one) for one in state["decisions"]]

    def loss_points(self, most: int = 400) -> list[tuple[float, float, str]]:
        """(step, mean loss, phase) over at most `most` groups of steps of one phase, for a picture."""
        size = max(1, -(-len(self.rows) // most))
        points = []
        for group in _groups(self.rows, size):
            losses = [row[2] for row in group]
            points.append((group[-1][0], sum(losses) / len(losses), group[0][1]))
        return points


def _groups(rows: list[list[object]], size: int) -> Iterable[list[list[Any]]]:
    group: list[list[object]] = []
    for row in rows:
        if group and (len(group) == size or group[0][1] != row[1]):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _plain(decision: Decision) -> dict[str, object]:
    return {**asdict(decision), "numbers": dict(decision.numbers)}
