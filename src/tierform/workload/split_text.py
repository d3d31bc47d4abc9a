"""How several chips share the work, in one text or a file: ``tensor=8,pipeline=4,zero=1``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_yaml
from tierform.units import whole_number
from tierform.workload.parallel import Parallelism

OPTION = "--parallel"
_SWITCHES = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def read_parallel(text: str) -> Parallelism:
    """``tensor=8,pipeline=4,zero=1``, ``tensor=8,sequence``, or a YAML file with these keys; all mistakes at once."""
    known = tuple(item.name for item in fields(Parallelism))
    if text.endswith((".yaml", ".yml", ".json")):
        return Parallelism(**_from_file(text, known))
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, given, value = (item.strip() for item in part.partition("="))
        if key not in known:
            problems.append(_unknown(key, known))
        elif key in found:
            problems.append(Problem("is given twice", key=f"{OPTION} {key}", value=value))
        elif key in ("sequence", "overlap"):
            found[key] = _switch(key, value if given else "true", problems)
        elif key in ("imbalance", "capacity"):
            found[key] = _number(key, value, problems)
        elif (number := whole_number(value)) is None:
            fix = f"Write {key}=8, for example." if key != "zero" else "Write zero=1, 2 or 3."
            problems.append(Problem("not a whole number", key=f"{OPTION} {key}", value=value, fix=fix))
        else:
            found[key] = number
    if problems:
        raise TierformError(problems)
    return Parallelism(**found)


def _from_file(path: str, known: tuple[str, ...]) -> dict[str, Any]:
    document = read_yaml(path)
    if not isinstance(document.content, dict):
        fail("keys with values are needed here", file=document.file)
    problems = [_unknown(str(key), known) for key in document.content if key not in known]
    if problems:
        raise TierformError(problems)
    return dict(document.content)


def _unknown(key: str, known: tuple[str, ...]) -> Problem:
    return Problem(
        "not a way to share the work",
        key=OPTION,
        value=key,
        nearest=nearest(key, known),
        fix=f"Known: {', '.join(known)}; for example tensor=8,pipeline=4,zero=1.",
    )


def _number(key: str, value: str, problems: list[Problem]) -> float:
    try:
        return float(value)
    except ValueError:
        problems.append(Problem("not a number", key=f"{OPTION} {key}", value=value, fix=f"Write {key}=1.25."))
        return 1.0


def _switch(key: str, value: str, problems: list[Problem]) -> bool:
    if value.lower() not in _SWITCHES:
        fix = f"Write {key}, or {key}=true."
        problems.append(Problem("neither true nor false", key=f"{OPTION} {key}", value=value, fix=fix))
    return _SWITCHES.get(value.lower(), False)
