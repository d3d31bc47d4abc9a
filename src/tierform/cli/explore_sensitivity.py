"""``--sensitivity FACTOR``: which assumed constant of the winner's chip would make another point the winner."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from tierform.cli.output import console, print_table
from tierform.units import format_quantity

if TYPE_CHECKING:
    from tierform.exploration.sensitivity import Sensitivity, Turn
    from tierform.exploration.study import Study

MOST_ROWS = 12
SHOWN = 1e-3  # of the objective: what moves it less is told in the JSON file alone


def tell_sensitivity(study: Study, within: float) -> list[dict[str, object]]:
    """A table for each objective, and the figures for a JSON file; nothing where no point is within the limits."""
    from tierform.exploration.sensitivity import sensitivity

    told: list[dict[str, object]] = []
    for wanted in study.space.objectives if study.front() else ():
        winner, found = sensitivity(study, wanted.figure, within=within)
        changing = [one for one in found if one.changes]
        console().print(
            f"{wanted.figure}: point {winner.number} wins; {len(changing)} of {len(found)} assumed constants, each "
            f"from 1/{within:g} to {within:g} times its value, would change that",
            soft_wrap=True,
        )
        shown = [one for one in found if one.changes or one.swing > SHOWN][:MOST_ROWS]
        if shown:
            body = [
                [one.path, _value(one, 1.0), _swing(one), *(_turn(one, turn) for turn in (one.below, one.above))]
                for one in shown
            ]
            print_table(
                f"Assumed constants and {wanted.figure}",
                ["constant", "value", "winner over as assumed", "below", "above"],
                body,
            )
        told.append({"figure": wanted.figure, "winner": winner.number, "constants": [_figures(one) for one in found]})
    return told


def _value(one: Sensitivity, factor: float) -> str:
    return format_quantity(one.constant.value * factor, one.constant.unit)


def _swing(one: Sensitivity) -> str:
    low, high = (f"{end:.3f}" if isfinite(end) else "cannot be" for end in (one.least, one.most))
    return f"{low} to {high}"


def _turn(one: Sensitivity, turn: Turn | None) -> str:
    return "" if turn is None else f"{_value(one, turn.factor)}: point {turn.number}"


def _figures(one: Sensitivity) -> dict[str, object]:
    turns = {"below": one.below, "above": one.above}
    return {
        "path": one.path,
        "value": one.constant.value,
        "unit": one.constant.unit,
        "note": one.constant.note,
        "winner_over_assumed": [end if isfinite(end) else None for end in (one.least, one.most)],
        **{
            name: None if turn is None else {"value": one.constant.value * turn.factor, "point": turn.number}
            for name, turn in turns.items()
        },
    }
