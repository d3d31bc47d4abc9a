"""Is a checkpoint's content that of a run like this one?  Every value is compared before any of it is used.

A digest tells that a file is whole, not who wrote it.  What is read here decides sizes, indices and numbers of a run,
so types, lengths, names, shapes and ranges must be those that this run's own state has; a number must be finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tierform.errors import fail
from tierform.tuning.journal import PHASES
from tierform.tuning.rule import Decision

LONGEST = 10**9  # steps of a run
_ROW = 8
_PYTHON_STATE, _NUMPY_STATE = 625, 624


def same(one: object, other: object) -> bool:
    """Whether two plain values are the same; a tensor or another thing of a forged file never is."""
    try:
        return type(one) is type(other) and bool(one == other)
    except (RuntimeError, ValueError, TypeError):
        return False


class Checked:
    """Reads the values of one checkpoint; each method gives a value that is right or refuses the file."""

    def __init__(self, content: Any, file: str) -> None:
        self.content, self.file = content, file
        if not isinstance(content, dict):
            self.refuse("the content")

    def refuse(self, what: str, value: object = None) -> NoReturn:
        """TierformError: this part of the file is not that of a run."""
        shown = value if isinstance(value, (str, int, float)) else None
        fail("the checkpoint does not hold a run like this one", file=self.file, key=what, value=shown)

    def __call__(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value of a key, which must be of a kind."""
        found = self.content.get(key)
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is int):
            self.refuse(key, found)
        return found

    def number(self, value: object, what: str, *, finite: bool = True) -> float:
        """A number; infinite only where that is allowed, never none."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            self.refuse(what, value)
        if finite and (math.isinf(value) or abs(value) > 1e300):
            self.refuse(what, value)
        return float(value)

    def whole(self, value: object, what: str, least: int = 0, most: int = LONGEST) -> int:
        """A whole number in a range."""
        if type(value) is not int or not least <= value <= most:
            self.refuse(what, value)
        return value

    def numbers(self, value: object, what: str, most: int) -> list[float]:
        """A list of at most so many finite numbers."""
        if not isinstance(value, list) or len(value) > most:
            self.refuse(what)
        return [self.number(one, what) for one in value]

    def tensors(self, value: object, what: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the names, shapes and types of `like`, with finite values."""
        if not isinstance(value, dict) or set(value) != set(like):
            self.refuse(what)
        return {name: self.tensor(one, f"{what}.{name}", like[name]) for name, one in value.items()}

    def tensor(self, value: object, what: str, like: Tensor) -> Tensor:
        """A tensor of the shape and type of another."""
        if not isinstance(value, Tensor) or value.shape != like.shape or value.dtype != like.dtype:
            self.refuse(what)
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            self.refuse(f"{what}: a value is not finite")
        return value

    def run(
        self, rule: Mapping[str, Any], window: int, ranks: dict[str, int], weights: Mapping[str, Tensor], recent: int
    ) -> None:
        """Refuse what no run with such a rule, window and watched weights could have written."""
        phase, step = self("phase", str), self.whole(self.content.get("step"), "step")
        held = {"full": ("full",), "trial": ("full", "low"), "low": ("low",)}.get(phase)
        if held is None or any((self.content.get(key) is not None) != (key in held) for key in ("full", "low")):
            self.refuse("phase", phase)
        if phase != "full" and not ranks:
            self.refuse("ranks")
        self.rule(rule, 10**4)
        if len(self.journal(step)["rows"]) != step:
            self.refuse("step", step)
        self.numbers(self.content.get("window"), "window", window - 1)
        self.pair(window)
        if self("before", dict):
            self.tensors(self.content["before"], "before", weights)
        if len(self("recent", list)) > recent:
            self.refuse("recent")
        self.random()

    def pair(self, window: int) -> None:
        """The losses of both models in a trial that has not ended."""
        found = self("pair", list)
        if len(found) != 2 or len({len(self.numbers(one, "pair", window)) for one in found}) != 1:
            self.refuse("pair")

    def journal(self, step: int) -> dict[str, Any]:
        """The rows and decisions of so many steps."""
        found: dict[str, Any] = self("journal", dict)
        rows, decisions = found.get("rows"), found.get("decisions")
        if not isinstance(rows, list) or not isinstance(decisions, list):
            self.refuse("journal")
        last = 0
        for row in rows:
            if not isinstance(row, list) or len(row) != _ROW or row[1] not in PHASES:
                self.refuse("journal.rows")
            last = self.whole(row[0], "journal.rows", last + 1)
            for place, one in enumerate(row[2:], 2):
                if not (place == 3 and one is None):
                    self.number(one, "journal.rows")
        if last > step:
            self.refuse("step", step)
        for one in decisions:
            self.decision(one, step)
        self.whole(found.get("steps"), "journal.steps")
        return found

    def decision(self, value: object, step: int) -> None:
        """A decision of the rule."""
        if not isinstance(value, dict) or set(value) != set(Decision.__dataclass_fields__):
            self.refuse("journal.decisions")
        self.whole(value["step"], "journal.decisions.step", 0, step)
        if value["action"] not in ("wait", "trial", "repeat", "switch") or not isinstance(value["reason"], str):
            self.refuse("journal.decisions")
        if not isinstance(value["numbers"], dict):
            self.refuse("journal.decisions.numbers")
        for name, one in value["numbers"].items():
            if not isinstance(name, str) or not (one is None or isinstance(one, (bool, int, float))):
                self.refuse("journal.decisions.numbers")

    def rule(self, like: Mapping[str, object], history: int) -> dict[str, Any]:
        """The state of a switch rule: the keys of `like`, lists of numbers where it has lists, and numbers."""
        found: dict[str, Any] = self("rule", dict)
        if set(found) != set(like):
            self.refuse("rule")
        for key, one in like.items():
            if isinstance(one, list):
                self.numbers(found[key], f"rule.{key}", history)
            elif type(one) is int:
                self.whole(found[key], f"rule.{key}")
            elif isinstance(one, float):
                self.number(found[key], f"rule.{key}", finite=False)
        return found

    def ranks(self, names: list[str], least: int, most: int) -> dict[str, int]:
        """The rank of every target, or none yet."""
        found = self("ranks", dict)
        if found and set(found) != set(names):
            self.refuse("ranks")
        return {name: self.whole(found[name], f"ranks.{name}", least, most) for name in found}

    def side(
        self, key: str, module: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, state_names: set[str]
    ) -> dict[str, Any]:
        """The state of a model in training: weights, optimizer and schedule as this run's own have them."""
        found: dict[str, Any] = self(key, dict)
        if set(found) != {"model", "optimizer", "schedule"}:
            self.refuse(key)
        self.tensors(found["model"], f"{key}.model", module.state_dict())
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        self.optimizer(found["optimizer"], f"{key}.optimizer", optimizer.state_dict(), parameters, state_names)
        own = plain_state(schedule)
        if own is None and found["schedule"] is None:
            return found
        if own is None or not isinstance(found["schedule"], dict) or set(found["schedule"]) != set(own):
            self.refuse(f"{key}.schedule")
        for name, one in own.items():
            if isinstance(one, list):
                self.numbers(found["schedule"][name], f"{key}.schedule.{name}", len(one))
            elif type(one) is int:
                self.whole(found["schedule"][name], f"{key}.schedule.{name}")
            else:
                self.number(found["schedule"][name], f"{key}.schedule.{name}")
        return found

    def optimizer(self, found: Any, what: str, own: Any, parameters: list[Tensor], names: set[str]) -> None:
        """An optimizer's groups (only the learning rate may differ) and states."""
        if not isinstance(found, dict) or set(found) != set(own) or not isinstance(found["param_groups"], list):
            self.refuse(what)
        if len(found["param_groups"]) != len(own["param_groups"]) or not isinstance(found["state"], dict):
            self.refuse(what)
        for group, mine in zip(found["param_groups"], own["param_groups"], strict=True):
            if not isinstance(group, dict) or set(group) != set(mine):
                self.refuse(what)
            for name, one in mine.items():
                if name == "lr":
                    self.number(group[name], f"{what}.lr")
                elif not same(group[name], one):
                    self.refuse(f"{what}.{name}")
        for index, state in found["state"].items():
            if type(index) is not int or not 0 <= index < len(parameters):
                self.refuse(f"{what}.state")
            if not isinstance(state, dict) or set(state) != names:
                self.refuse(f"{what}.state.{index}")
            for name, one in state.items():
                scalar = isinstance(one, Tensor) and one.ndim == 0 and one.is_floating_point()
                self.tensor(one, f"{what}.state.{index}.{name}", one if scalar else parameters[index])

    def random(self) -> dict[str, Any]:
        """The states of the random generators."""
        found: dict[str, Any] = self("random", dict)
        self.tensor(found.get("torch"), "random.torch", torch.get_rng_state())
        version, numbers, gauss = self._parts(found, "python", 3)
        if not same(version, 3) or not isinstance(numbers, list) or len(numbers) != _PYTHON_STATE:
            self.refuse("random.python")
        for one in numbers[:-1]:
            self.whole(one, "random.python", 0, 2**32 - 1)
        self.whole(numbers[-1], "random.python", 0, _PYTHON_STATE - 1)
        if gauss is not None:
            self.number(gauss, "random.python")
        kind, keys, place, has, cached = self._parts(found, "numpy", 5)
        if not same(kind, "MT19937") or not isinstance(keys, list) or len(keys) != _NUMPY_STATE:
            self.refuse("random.numpy")
        for one in keys:
            self.whole(one, "random.numpy", 0, 2**32 - 1)
        self.whole(place, "random.numpy", 0, _NUMPY_STATE)
        self.whole(has, "random.numpy", 0, 1)
        self.number(cached, "random.numpy")
        if "cuda" in found and torch.cuda.is_available():
            own = torch.cuda.get_rng_state_all()
            if not isinstance(found["cuda"], list) or len(found["cuda"]) != len(own):
                self.refuse("random.cuda")
            for one, like in zip(found["cuda"], own, strict=True):
                self.tensor(one, "random.cuda", like)
        return found

    def _parts(self, found: dict[str, object], key: str, count: int) -> list[object]:
        parts = found.get(key)
        if not isinstance(parts, list) or len(parts) != count:
            self.refuse(f"random.{key}")
        return parts


def plain_state(schedule: Any) -> dict[str, object] | None:
    """The numbers of a learning-rate schedule's state."""
    if schedule is None:
        return None
    state = schedule.state_dict()
    return {k: v for k, v in state.items() if isinstance(v, (int, float, list)) and not isinstance(v, bool)}


def state_names(make: Any) -> set[str]:
    """The names of the states that a kind of optimizer keeps of a weight, found by one step of a single weight."""
    weight = nn.Parameter(torch.zeros(1))
    made = make([weight])
    weight.grad = torch.zeros(1)
    made.step()
    return set(made.state[weight])


def described(make: Any, schedule: Any) -> dict[str, object]:
    """What a maker makes: kind and settings of an optimizer and of its schedule, as plain values to be compared."""
    made = make([nn.Parameter(torch.zeros(1))])
    found: dict[str, object] = {"kind": type(made).__name__}
    found |= {key: _plain(value) for key, value in made.defaults.items()}
    if schedule is not None:
        planned = schedule(made)
        found["schedule"] = type(planned).__name__
        found |= {f"schedule.{key}": _plain(value) for key, value in (plain_state(planned) or {}).items()}
    return found


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
