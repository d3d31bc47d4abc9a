"""Service level objectives: the most that a request may take.

``ttft=0.5s,tpot=50ms,e2e=20s``: time to the first token, mean time of a further token, time to the last.  A request is
good when it was served whole and keeps all that are given; goodput is good requests a second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from tierform.errors import Problem, TierformError, nearest
from tierform.units import parse_quantity


@dataclass(frozen=True, slots=True)
class Slo:
    """Seconds; infinite where nothing is asked."""

    ttft: float = math.inf
    tpot: float = math.inf
    e2e: float = math.inf

    def __str__(self) -> str:
        given = [(item.name, getattr(self, item.name)) for item in fields(self)]
        return ", ".join(f"{name} {value:g} s" for name, value in given if value < math.inf) or "none"


def parse_slo(text: str) -> Slo:
    """An SLO from ``name=time`` pairs; TierformError with every mistake."""
    names = [item.name for item in fields(Slo)]
    found: dict[str, float] = {}
    problems = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or name not in names or name in found:
            what = "this objective stands twice" if name in found else "not an objective: write ttft=0.5s,tpot=50ms"
            problems.append(Problem(what, key="slo", value=part, nearest=nearest(name, names)))
            continue
        try:
            found[name] = parse_quantity(value.strip(), "s", key=f"slo {name}")
            if found[name] <= 0:
                problems.append(Problem("must be greater than 0", key=f"slo {name}", value=value))
        except TierformError as error:
            problems += error.problems
    if problems:
        raise TierformError(problems)
    return Slo(**found)
