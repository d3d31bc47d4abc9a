"""When does training leave full-parameter mode?  Switch rules on plain numbers; nothing here knows tensors.

A rule is shown one :class:`Window` after every `window` steps and answers with a :class:`Decision`: wait, begin the
side-by-side trial, or switch.  After a trial it is shown both loss lists and answers switch or repeat.

:class:`HpTRule` is the rule of HpT (Dahal et al., TPDS 2025), as in its published code: with window means a1, a2, a3 of
the loss, (a1-a2)/a1 < 0.10, (a2-a3)/a2 < 0.10 and (a2-a3) < (a1-a2); with D1, D2, D3 the Frobenius norms of the change
of one layer's query and value weights over one window, the same three conditions at 0.01; both in the same window begin
the trial; a two-sample t-test at 0.01 that finds no difference ends it.  The first change needs the weights at the end
of two windows, so a trial begins after four windows at the earliest and the switch comes after five.
Limits: a mean or change of zero has no relative change, so its condition does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tierform.errors import Problem, TierformError, fail

Action = Literal["wait", "trial", "repeat", "switch"]


@dataclass(frozen=True, slots=True)
class Window:
    """What one window showed: its last step, the mean loss, the weights' change and the intrinsic dimension, if known.

    `weight_change` is the Frobenius norm of the change since the window before (None in the first window).
    """

    step: int
    mean_loss: float
    weight_change: float | None = None
    intrinsic_dimension: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule decided at a step, why, and every number that the decision was made from."""

    step: int
    action: Action
    reason: str
    numbers: Mapping[str, float | int | bool | None]


class SwitchRule(Protocol):
    """Anything that decides; `trial` says whether "trial" comes before "switch", `watches` what a window must hold."""

    window: int
    trial: bool
    watches: frozenset[str]

    def end_window(self, window: Window) -> Decision:
        """Decide after a window of full-parameter training."""

    def end_trial(self, step: int, full: Sequence[float], low: Sequence[float]) -> Decision:
        """Decide after a trial, from the two loss lists."""

    def thresholds(self) -> dict[str, object]:
        """The rule's settings but the window, by name: a checkpoint of another setting is refused."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep: plain numbers and lists."""

    def restore(self, state: Mapping[str, object]) -> None:
        """Continue from :meth:`state`."""


@dataclass(frozen=True, slots=True)
class TTest:
    """A two-sample t-test with pooled variance: statistic, two-sided p-value, critical value, degrees of freedom."""

    t: float
    p: float
    critical: float
    freedom: int

    def same(self, alpha: float) -> bool:
        """Whether no difference was found at the level `alpha`."""
        return abs(self.t) < self.critical and self.p > alpha


def t_test(first: Sequence[float], second: Sequence[float], alpha: float) -> TTest:
    """Student's two-sample test with equal variances; lists without spread differ surely or not at all."""
    from scipy.special import stdtr, stdtrit

    if len(first) < 2 or len(second) < 2:
        fail("a t-test needs at least two losses on each side", value=(len(first), len(second)))
    freedom = len(first) + len(second) - 2
    means = [math.fsum(one) / len(one) for one in (first, second)]
    squares = math.fsum((value - mean) ** 2 for one, mean in zip((first, second), means, strict=True) for value in one)
    error = math.sqrt(squares / freedom * (1 / len(first) + 1 / len(second)))
    difference = means[0] - means[1]
    critical = float(stdtrit(freedom, 1 - alpha / 2))
    if error == 0:
        return TTest(0.0, 1.0, critical, freedom) if difference == 0 else TTest(math.inf, 0.0, critical, freedom)
    t = difference / error
    return TTest(t, 2 * float(stdtr(freedom, -abs(t))), critical, freedom)


def slowing(first: float, second: float, third: float, threshold: float) -> tuple[bool, float | None, float | None]:
    """HpT's three conditions on a falling series, and its two relative falls (None where there is none)."""
    one = (first - second) / first if first else None
    two = (second - third) / second if second else None
    met = one is not None and two is not None and one < threshold and two < threshold
    return met and (second - third) < (first - second), one, two


def _slowing_of(series: Sequence[float], threshold: float) -> tuple[bool, float | None, float | None]:
    first, second, third = series
    return slowing(first, second, third, threshold)


class _Rule:
    """What the rules share: the trial's test, and a history that a checkpoint keeps."""

    watches: frozenset[str] = frozenset()

    def __init__(self, window: int, trial: bool, alpha: float) -> None:
        problems: list[Problem] = []
        if window < (2 if trial else 1):
            problems.append(Problem("a window has at least two steps, for the t-test", key="window", value=window))
        if not 0 < alpha < 1:
            problems.append(Problem("must lie between 0 and 1", key="alpha", value=alpha))
        problems += self._problems()
        if problems:
            raise TierformError(problems)
        self.window, self.trial, self.alpha = window, trial, alpha
        self.losses: list[float] = []
        self.changes: list[float] = []
        self.windows = 0

    def _problems(self) -> Iterable[Problem]:
        return ()

    def _go(self) -> Action:
        return "trial" if self.trial else "switch"

    def _keep(self, window: Window) -> None:
        self.windows += 1
        self.losses = [*self.losses, window.mean_loss][-max(3, self._history()) :]
        if window.weight_change is not None:
            self.changes = [*self.changes, window.weight_change][-3:]

    def _history(self) -> int:
        return 3

    def end_trial(self, step: int, full: Sequence[float], low: Sequence[float]) -> Decision:
        """Switch when the t-test finds no difference between the two loss lists, else repeat."""
        test = t_test(full, low, self.alpha)
        same = test.same(self.alpha)
        numbers = {
            "t": test.t,
            "p": test.p,
            "t_critical": test.critical,
            "freedom": test.freedom,
            "alpha": self.alpha,
            "mean_full": math.fsum(full) / len(full),
            "mean_low": math.fsum(low) / len(low),
        }
        if same:
            return Decision(step, "switch", "the t-test finds no difference", numbers)
        return Decision(step, "repeat", "the t-test finds a difference; the trial begins anew", numbers)

    def thresholds(self) -> dict[str, object]:
        """The rule's settings but the window, by name."""
        names = ("alpha", "loss_threshold", "weight_threshold", "step", "threshold", "patience", "dimension")
        kept = vars(self)
        return {f"rule.{name}": kept[name] for name in names if name in kept}

    def state(self) -> dict[str, Any]:
        """The history, for a checkpoint."""
        return {"losses": list(self.losses), "changes": list(self.changes), "windows": self.windows}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's history."""
        self.losses, self.changes = list(state["losses"]), list(state["changes"])
        self.windows = int(state["windows"])


class HpTRule(_Rule):
    """The published rule: the loss and the weights slow down in the same window, then a trial and a t-test."""

    watches = frozenset({"weight_change"})

    def __init__(
        self, window: int, loss_threshold: float = 0.10, weight_threshold: float = 0.01, alpha: float = 0.01
    ) -> None:
        self.loss_threshold, self.weight_threshold = loss_threshold, weight_threshold
        super().__init__(window, True, alpha)

    def _problems(self) -> Iterable[Problem]:
        for key in ("loss_threshold", "weight_threshold"):
            if not math.isfinite(getattr(self, key)):
                yield Problem("must be a finite number", key=key, value=getattr(self, key))

    def end_window(self, window: Window) -> Decision:
        """Both tests on the last three means and the last three changes; "trial" when both hold in this window."""
        self._keep(window)
        numbers: dict[str, float | int | bool | None] = {
            "windows": self.windows,
            "mean_loss": window.mean_loss,
            "weight_change": window.weight_change,
        }
        loss_met = weight_met = False
        if len(self.losses) == 3:
            loss_met, one, two = _slowing_of(self.losses, self.loss_threshold)
            numbers |= {"loss_fall_1": one, "loss_fall_2": two}
        if len(self.changes) == 3:
            weight_met, one, two = _slowing_of(self.changes, self.weight_threshold)
            numbers |= {"change_fall_1": one, "change_fall_2": two}
        numbers |= {"loss_test": loss_met, "weight_test": weight_met}
        if loss_met and weight_met:
            return Decision(window.step, "trial", "loss and weights have slowed down", numbers)
        if len(self.changes) < 3:
            return Decision(window.step, "wait", "fewer than four windows", numbers)
        missing = [name for name, met in (("loss", loss_met), ("weights", weight_met)) if not met]
        return Decision(window.step, "wait", f"not slowed down: {' and '.join(missing)}", numbers)


class FixedStep(_Rule):
    """Switch at the end of the window that reaches `step`, without a trial unless one is asked for."""

    def __init__(self, step: int, window: int = 1, trial: bool = False, alpha: float = 0.01) -> None:
        self.step = step
        super().__init__(window, trial, alpha)

    def _problems(self) -> Iterable[Problem]:
        if self.step < 1:
            yield Problem("must be at least 1", key="step", value=self.step)

    def end_window(self, window: Window) -> Decision:
        """Go when the step is reached."""
        self._keep(window)
        numbers = {"mean_loss": window.mean_loss, "step": self.step}
        if window.step >= self.step:
            return Decision(window.step, self._go(), "the fixed step is reached", numbers)
        return Decision(window.step, "wait", "before the fixed step", numbers)


class LossPlateau(_Rule):
    """Switch when the best window mean has not fallen by `threshold` (relative) for `patience` windows."""

    def __init__(
        self, window: int, threshold: float = 0.01, patience: int = 2, trial: bool = True, alpha: float = 0.01
    ) -> None:
        self.threshold, self.patience = threshold, patience
        super().__init__(window, trial, alpha)
        self.best = math.inf
        self.stale = 0

    def _problems(self) -> Iterable[Problem]:
        if self.patience < 1:
            yield Problem("must be at least 1", key="patience", value=self.patience)
        if not 0 <= self.threshold < 1:
            yield Problem("must be at least 0 and less than 1", key="threshold", value=self.threshold)

    def end_window(self, window: Window) -> Decision:
        """Count windows without enough improvement."""
        self._keep(window)
        limit = self.best - self.threshold * abs(self.best) if math.isfinite(self.best) else math.inf
        if window.mean_loss < limit:
            self.best, self.stale = window.mean_loss, 0
        else:
            self.stale += 1
        numbers = {"mean_loss": window.mean_loss, "best": self.best, "stale_windows": self.stale}
        if self.stale >= self.patience:
            return Decision(window.step, self._go(), "the loss is on a plateau", numbers)
        return Decision(window.step, "wait", "the loss still falls", numbers)

    def state(self) -> dict[str, Any]:
        """The history, the best mean and the windows since."""
        return {**super().state(), "best": self.best, "stale": self.stale}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's history."""
        super().restore(state)
        self.best, self.stale = float(state["best"]), int(state["stale"])


class IntrinsicDimension(_Rule):
    """Switch when the estimated intrinsic dimension of the remaining training is at most `dimension`.

    The estimate is the trainer's (random-subspace training, Li et al., ICLR 2018); None, when no subspace tried was
    large enough, never switches.
    """

    watches = frozenset({"intrinsic_dimension"})

    def __init__(self, window: int, dimension: int, trial: bool = True, alpha: float = 0.01) -> None:
        self.dimension = dimension
        super().__init__(window, trial, alpha)

    def _problems(self) -> Iterable[Problem]:
        if self.dimension < 1:
            yield Problem("must be at least 1", key="dimension", value=self.dimension)

    def end_window(self, window: Window) -> Decision:
        """Go when the estimate is small enough."""
        self._keep(window)
        found = window.intrinsic_dimension
        numbers = {"mean_loss": window.mean_loss, "intrinsic_dimension": found, "dimension": self.dimension}
        if found is not None and found <= self.dimension:
            return Decision(window.step, self._go(), "the intrinsic dimension is small enough", numbers)
        return Decision(window.step, "wait", "the intrinsic dimension is too large or unknown", numbers)
