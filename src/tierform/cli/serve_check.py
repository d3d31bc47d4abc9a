"""Every mistake in a line of ``tierform serve`` at once: what one of them would hide is looked for, too.

Numbers are checked before anything is read.  Where a reader refuses something, all other readers are asked as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tierform.errors import MissingDependency, Problem, TierformError
from tierform.units import whole_number

Reader = Callable[[], object]
# What an option's number must be: (option, its name in the call, least, whether the least itself is allowed, most).
RANGES = (
    ("--rate", "rate", 0.0, False, math.inf),
    ("--requests", "number", 1.0, True, math.inf),
    ("--prompt", "prompt", 1.0, True, 2.0**24),
    ("--output", "output", 1.0, True, 2.0**24),
    ("--adapters", "adapters", 0.0, True, 2.0**20),
    ("--variation", "variation", 0.0, True, 100.0),
    ("--load", "load", 0.0, False, math.inf),
    ("--first", "first", 1.0, True, math.inf),
    ("--pipeline", "pipeline", 1.0, True, 2.0**20),
    ("--most", "most", 1.0, True, 2.0**20),
    ("--within", "within", 0.0, False, 1.0),
    ("--turns", "turns", 1.0, True, 2.0**20),
    ("--prefill-replicas", "prefill_replicas", 0.0, True, 2.0**20),
    ("--seed", "seed", 0.0, True, 2.0**63),
)


def wrong_numbers(given: dict[str, Any]) -> list[Problem]:
    """Numbers of options that are out of their range."""
    problems = []
    for option, name, least, itself, most in RANGES:
        value = given.get(name)
        if value is None:
            continue
        if not (least <= value <= most) or (value == least and not itself) or not math.isfinite(value):
            lower = f"at least {least:g}" if itself else f"more than {least:g}"
            upper = f", and at most {most:g}" if most == 1.0 else ""
            problems.append(Problem(f"must be {lower}{upper}", key=option, value=value))
    return problems


def numbers_right(given: dict[str, Any]) -> None:
    """Refuse numbers of options that are out of their range; TierformError with all of them."""
    problems = wrong_numbers(given)
    if problems:
        raise TierformError(problems)


@contextmanager
def all_at_once(others: Callable[[], Iterable[Reader]]) -> Iterator[None]:
    """Add to a refusal what the `others` would have refused had they been asked."""
    try:
        yield
    except MissingDependency:
        raise
    except TierformError as error:
        problems = list(error.problems)
        for read in others():
            try:
                read()
            except TierformError as more:
                problems += [one for one in more.problems if one not in problems]
        if len(problems) == len(error.problems):
            raise
        raise TierformError(problems) from error


def whole_numbers(text: str, key: str) -> list[int]:
    """Whole numbers from 1, separated by commas."""
    found = [whole_number(one.strip()) for one in text.split(",") if one.strip()]
    if not found or not all(found):
        raise TierformError([Problem("whole numbers from 1 are needed", key=key, value=text)])
    return [one for one in found if one]


def enough_replicas(chip: str | None, replicas: str) -> None:
    """Refuse other numbers of replicas than chips."""
    chips = [one for one in (chip or "").split(",") if one.strip()]
    numbers = whole_numbers(replicas, "--replicas")
    if chips and len(chips) != len(numbers):
        what = f"{len(chips)} chips need as many numbers of replicas"
        raise TierformError([Problem(what, key="replicas", value=", ".join(map(str, numbers)))])
