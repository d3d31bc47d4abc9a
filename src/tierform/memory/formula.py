"""Timing formulas: what a standard's file may write in place of a number.

A formula is arithmetic over named timings in clock cycles, with ``min``, ``max``, ``ceil`` and ``ns(t)``, the number of
clock cycles that covers `t` nanoseconds.  Nothing else is accepted, so a file cannot run code.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping

from tierform.errors import Problem, TierformError, nearest

MOST_CYCLES = 10**8  # of a timing: a tenth of a second
_ROUNDING = 1e-6  # of a cycle: 15 ns at a 0.625 ns clock is 24 cycles, not 25


class FormulaError(ValueError):
    """A formula that cannot be read or evaluated; the text says why."""


def cycles_of(time_ns: float, clock_ns: float) -> int:
    """The least number of clock cycles that covers `time_ns`."""
    return max(0, math.ceil(time_ns / clock_ns - _ROUNDING))


def evaluate(text: str, value_of: Callable[[str], float], clock_ns: float) -> float:
    """The value of a formula; `value_of` gives the value of a name or raises KeyError."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise FormulaError(f"{text!r} is not a formula") from None
    try:
        return _value(tree.body, value_of, clock_ns, text)
    except (OverflowError, RecursionError):
        raise FormulaError(f"{text[:60]!r} has no value within bounds") from None


def _value(node: ast.expr, value_of: Callable[[str], float], clock_ns: float, text: str) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.Name):
        return value_of(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, value_of, clock_ns, text)
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, value_of, clock_ns, text), _value(node.right, value_of, clock_ns, text)
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div) and right != 0:
            return left / right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and node.args:
        arguments = [_value(argument, value_of, clock_ns, text) for argument in node.args]
        name = node.func.id
        if name == "min":
            return min(arguments)
        if name == "max":
            return max(arguments)
        if name == "ceil" and len(arguments) == 1:
            return math.ceil(arguments[0] - _ROUNDING)
        if name == "ns" and len(arguments) == 1:
            return cycles_of(arguments[0], clock_ns)
    raise FormulaError(f"{text!r} may use + - * / min max ceil ns and names of timings only")


def resolve_timings(
    written: Mapping[str, object], clock_ns: float, file: str, line_of: Callable[[str], int | None]
) -> dict[str, int]:
    """All timings in whole clock cycles from numbers and formulas; TierformError with everything that is wrong."""
    resolved: dict[str, int] = {}
    problems: list[Problem] = []
    failed: set[str] = set()
    active: list[str] = []

    def value_of(name: str) -> float:
        if name in resolved:
            return resolved[name]
        if name not in written:
            raise FormulaError(f"{name!r} is not a timing of this memory{_hint(name, written)}")
        if name in active:
            raise FormulaError(f"the formulas go in a circle: {' -> '.join([*active[active.index(name) :], name])}")
        if name in failed:
            raise KeyError(name)
        active.append(name)
        try:
            given = written[name]
            if isinstance(given, bool) or not isinstance(given, (int, float, str)):
                raise FormulaError("a number of clock cycles or a formula is needed")
            number = evaluate(given, value_of, clock_ns) if isinstance(given, str) else given
            if not -MOST_CYCLES <= number <= MOST_CYCLES:
                raise FormulaError(f"the value lies beyond {MOST_CYCLES:.0e} clock cycles")
            if number != int(number):
                raise FormulaError(f"the value {number:g} is not a whole number of clock cycles")
            resolved[name] = int(number)
            return number
        finally:
            active.pop()

    for name in written:
        try:
            value_of(name)
        except FormulaError as error:
            failed.add(name)
            problems.append(Problem(str(error), file, line_of(name), name))
        except KeyError:
            failed.add(name)
    if problems:
        raise TierformError(problems)
    return resolved


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = nearest(name, known)
    return f"; did you mean {close!r}?" if close else ""
