"""What may be chosen: parameters with choices or ranges, conditions, derived values and splits; points as numbers.

A point is a tuple of one value for each parameter, given by a position from 0 to 1 on each axis.  A parameter whose
condition does not hold has no value (None) and does not act; points that differ only there are the same point.
Limits: derived values are arithmetic over parameter names; a condition names one other parameter above it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from json.encoder import encode_basestring_ascii
from math import ceil, exp, floor, isfinite, log, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail

Value = str | int | float | bool | None
Values = dict[str, Value]
Floats = NDArray[np.float64]
# A continuous range is cut into this many positions where a finite number is needed.
FINE = 1 << 20
# The path of a parameter whose choices are splits, as in "tensor 2 x pipeline 4".
SPLIT = "parallelism"
# The path of a parameter that acts through formulas alone.
DERIVED = "derived"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing to choose: `choices`, or a range from `low` to `high`, whole or not, linear or logarithmic.

    `path` is where the value goes in the job or its chip; `unit` is written behind a number.  `when` is (name of an
    earlier parameter or of a way of the split, the values of it with which this one acts).
    """

    name: str
    path: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    unit: str = ""
    when: tuple[str, tuple[Value, ...]] | None = None

    @property
    def count(self) -> int:
        """How many values there are; 0 for a continuous range."""
        if self.choices:
            return len(self.choices)
        return floor(self.high) - ceil(self.low) + 1 if self.whole else 0

    @property
    def ordered(self) -> bool:
        """Whether neighbouring positions are alike: a range, or choices that are all numbers."""
        return not self.choices or all(_number(choice) is not None for choice in self.choices)

    def at(self, position: float) -> Value:
        """The value at a position from 0 to 1."""
        position = min(max(float(position), 0.0), 1.0)
        if self.choices:
            return self.choices[min(int(position * len(self.choices)), len(self.choices) - 1)]
        if self.whole:
            low, high = self.low - 0.499999, self.high + 0.499999
            if self.log:
                low = max(low, self.low * 0.75)
                return int(min(max(round(exp(log(low) + position * (log(high) - log(low)))), self.low), self.high))
            return int(min(max(round(low + position * (high - low)), self.low), self.high))
        position = round(position * FINE) / FINE
        if self.log:
            return exp(log(self.low) + position * (log(self.high) - log(self.low)))
        return self.low + position * (self.high - self.low)

    def position(self, value: Value) -> float:
        """A position at which the value stands."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        number = float(value) if isinstance(value, int | float) else fail("not a number", key=self.name, value=value)
        if self.whole:
            positions = (np.arange(FINE >> 8) + 0.5) / (FINE >> 8)
            found = min(positions, key=lambda p: abs(float(self.at(p) or 0) - number))
            return float(found)
        if self.log:
            return (log(number) - log(self.low)) / (log(self.high) - log(self.low))
        return (number - self.low) / (self.high - self.low)

    def values(self) -> tuple[Value, ...]:
        """All values of a finite parameter."""
        return self.choices or tuple(range(ceil(self.low), floor(self.high) + 1))


def _number(value: Value) -> float | None:
    """The number of a choice, of one with a unit as well."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value.split()[0])
    except (ValueError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure of the result to make small, or large where `maximize`."""

    figure: str
    maximize: bool = False


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure that must stay at or below `most` (or at or above `least`)."""

    figure: str
    most: float | None = None
    least: float | None = None

    def margin(self, value: float) -> float:
        """Beyond the limit (above zero) or within it, as a logarithm where value and limit are above zero."""
        found = []
        for end, sign in ((self.most, 1.0), (self.least, -1.0)):
            if end is not None:
                apart = log(value / end) if value > 0 and end > 0 else (value - end) / max(abs(end), 1e-300)
                found.append(sign * apart)
        return max(found, default=0.0)

    def violation(self, value: float) -> float:
        """How far beyond the limit, as a share of it; 0 where it is kept."""
        beyond = 0.0
        if self.most is not None:
            beyond = max(beyond, (value - self.most) / max(abs(self.most), 1e-300))
        if self.least is not None:
            beyond = max(beyond, (self.least - value) / max(abs(self.least), 1e-300))
        return beyond


@dataclass(frozen=True, eq=False)
class Space:
    """All that a study may choose, what it wants, and within which limits; `base` is the job's content.

    `service` is that of a service, empty where points are jobs; `accuracy` that of a model that answers on the chip.
    """

    name: str
    parameters: tuple[Parameter, ...]
    objectives: tuple[Objective, ...]
    limits: tuple[Bound, ...] = ()
    derived: tuple[tuple[str, str], ...] = ()
    base: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    pruned: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    service: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def size(self) -> int | None:
        """How many points there are (those that conditions make equal counted apart); None where not finite."""
        counts = [parameter.count for parameter in self.parameters]
        return None if 0 in counts else prod(counts)

    def point(self, positions: Sequence[float] | Floats) -> Values:
        """The values at positions from 0 to 1, one for each parameter."""
        values: Values = {}
        for parameter, position in zip(self.parameters, positions, strict=True):
            values[parameter.name] = parameter.at(position) if self._acts(parameter, values) else None
        return values

    def _acts(self, parameter: Parameter, values: Values) -> bool:
        if parameter.when is None:
            return True
        name, wanted = parameter.when
        return (values[name] if name in values else self.names(values).get(name)) in wanted

    def names(self, values: Values) -> Values:
        """What formulas may use: parameters (0 where they do not act) and the numbers of the split."""
        known: Values = {name: 0 if value is None else value for name, value in values.items()}
        for parameter in self.parameters:
            if parameter.path == SPLIT and parameter.name in values:
                known.update(ways_of(str(values[parameter.name])))
        return known

    def fits(self, values: Values) -> bool:
        """Whether all formulas of `whole` are whole numbers from 1 on."""
        known = self.names(values) if self.whole else values
        made = (evaluate(formula, known) for formula in self.whole)
        return all(isinstance(number, int | float) and number >= 1 and number == int(number) for number in made)

    def positions(self, values: Values) -> Floats:
        """Positions of a point; 0.5 where a parameter does not act."""
        return np.array(
            [0.5 if values[p.name] is None else p.position(values[p.name]) for p in self.parameters], np.float64
        )

    def every(self) -> Iterator[Values]:
        """Every point of a finite space that fits, each once."""
        seen: set[str] = set()
        conditional = any(parameter.when for parameter in self.parameters)
        for chosen in product(*(parameter.values() for parameter in self.parameters)):
            values: Values = {}
            for parameter, value in zip(self.parameters, chosen, strict=True):
                values[parameter.name] = value if self._acts(parameter, values) else None
            if not self.fits(values):
                continue
            if conditional:
                key = point_key(values)
                if key in seen:
                    continue
                seen.add(key)
            yield values

    def changes(self, values: Values) -> dict[str, Value]:
        """Path -> value: those chosen and those derived from them."""
        made: dict[str, Value] = {}
        for parameter in self.parameters:
            value = values[parameter.name]
            if parameter.path == SPLIT:
                made.update({f"{SPLIT}.{way}": number for way, number in ways_of(str(value)).items()})
            elif value is not None and parameter.path != DERIVED:
                made[parameter.path] = f"{value!r} {parameter.unit}" if parameter.unit else value
        known = self.names(values) if self.derived else values
        for path, formula in self.derived:
            value = evaluate(formula, known)
            # A quotient without a remainder is a whole number, as keys that count want it.
            made[path] = int(value) if isinstance(value, float) and value.is_integer() else value
        return made

    @cached_property
    def fingerprint(self) -> str:
        """Equal for spaces that mean the same: a study is continued only with its own."""
        content = [
            [(p.name, p.path, p.choices, p.low, p.high, p.whole, p.log, p.unit, p.when) for p in self.parameters],
            [(o.figure, o.maximize) for o in self.objectives],
            [(x.figure, x.most, x.least) for x in self.limits],
            self.derived,
            dict(self.base),
            *([self.whole] if self.whole else []),
            *([dict(self.service)] if self.service else []),
            *([{"accuracy": dict(self.accuracy)}] if self.accuracy else []),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@lru_cache(maxsize=4096)
def ways_of(split: str) -> dict[str, int]:
    """The numbers of a split such as "tensor 2 x pipeline 4"."""
    return {way: int(number) for way, number in (part.split() for part in split.split(" x "))}


_TEXT = json.JSONEncoder(sort_keys=True).encode


def _real(number: float) -> str:
    return repr(number) if isfinite(number) else _TEXT(number)


_WRITTEN: dict[type, Callable[[Any], str]] = {int: repr, float: _real, str: encode_basestring_ascii}


_WHOLE = frozenset((int,))  # a boolean is none


@lru_cache(maxsize=64)
def _form(names: tuple[str, ...]) -> tuple[Callable[[Values], tuple[Value, ...]], str]:
    """The values of a point in the order of names, and the text with a place for each."""
    ordered = sorted(names)
    text = ", ".join(_TEXT(name).replace("%", "%%") + ": %s" for name in ordered)
    take = operator.itemgetter(*ordered) if len(ordered) > 1 else lambda values: tuple(values[name] for name in ordered)
    return take, "{" + text + "}"


def point_text(values: Values) -> str:
    """What is chosen as JSON in the order of names: equal for equal points."""
    take, form = _form(tuple(values))
    chosen = take(values)
    if _WHOLE.issuperset(map(type, chosen)):
        return form % chosen
    return form % tuple([_WRITTEN.get(type(value), _TEXT)(value) for value in chosen])


def text_key(text: str) -> str:
    """A hash of a point's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def point_key(values: Values) -> str:
    """A hash of what is chosen: equal for equal points."""
    return text_key(point_text(values))


MOST_LETTERS = 300  # of a formula
LARGEST = 1e60  # no figure in SI units of anything that is described here comes near
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "round": round, "ceil": ceil, "floor": floor}


@lru_cache(maxsize=512)
def _parsed(formula: str) -> ast.Expression:
    """A formula as a tree; every point of a space has the same ones."""
    return ast.parse(formula, mode="eval")


def evaluate(formula: str, values: Mapping[str, Value]) -> Value:
    """The value of an arithmetic formula over parameter names; TierformError for anything else."""

    def of(node: ast.AST) -> Any:
        if isinstance(node, ast.Expression):
            return of(node.body)
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            return node.value
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = of(node.left), of(node.right)
            if isinstance(left, str) or isinstance(right, str):
                raise TypeError("texts are no numbers")
            return _OPERATORS[type(node.op)](left, right)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -of(node.operand)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            return _FUNCTIONS[node.func.id](*(of(argument) for argument in node.args))
        return fail(
            "a formula holds numbers, names of parameters, + - * / // %, and " + ", ".join(_FUNCTIONS),
            key="derived",
            value=formula,
            choices=values,
        )

    if len(formula) > MOST_LETTERS:
        fail(f"a formula has at most {MOST_LETTERS} letters", key="derived", value=formula[:40])
    try:
        made = of(_parsed(formula))
        unbounded = isinstance(made, int | float) and not abs(made) <= LARGEST
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        fail(f"this formula has no value: {error}", key="derived", value=formula)
    if unbounded or not isinstance(made, str | int | float):
        fail("this formula has no value", key="derived", value=formula)
    return made


def splits(devices: int, ways: Mapping[str, Sequence[int]]) -> tuple[list[dict[str, int]], list[str]]:
    """Products of `ways` that use all devices, and how many were left out and why.

    `ways` is name -> numbers that the way may take (divisors of what it splits); empty: any divisor of `devices`.
    """
    names = list(ways)
    divisors = [n for n in range(1, devices + 1) if devices % n == 0]
    chosen, wrong_total, not_fitting = [], 0, 0
    for numbers in product(divisors, repeat=len(names)):
        if prod(numbers) != devices:
            wrong_total += 1
        elif any(ways[name] and number not in ways[name] for name, number in zip(names, numbers, strict=True)):
            not_fitting += 1
        else:
            chosen.append(dict(zip(names, numbers, strict=True)))
    told = [
        f"{wrong_total} whose product is not {devices}",
        f"{not_fitting} with a number that does not divide its part",
    ]
    return chosen, [text for text, number in zip(told, (wrong_total, not_fitting), strict=True) if number]
