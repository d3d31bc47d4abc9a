"""How several chips share the work, in one text or a file: ``tensor=8,pipeline=4,zero=1``."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_yaml
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
        name, given, value = (item.strip() for item in part.partition("="))
        if name not in known:
            problems.append(_unknown(name, known))
        elif name in found:
            problems.append(Problem("is given twice", key=f"{OPTION} {name}", value=value))
        elif name == "sequence":
            found[name] = _switch(value if given else "true", problems)
        elif not value.isdecimal():
            fix = f"Write {name}=8, for example." if name != "zero" else "Write zero=1, 2 or 3."
            problems.append(Problem("not a whole number", key=f"{OPTION} {name}", value=value, fix=fix))
        else:
            found[name] = int(value)
    if problems:
        raise TierformError(problems)
    return Parallelism(**found)


def _from_file(path: str, known: tuple[str, ...]) -> dict[str, Any]:
    document = read_yaml(path)
    if not isinstance(document.content, dict):
        fail("keys with values are needed here", file=document.file)
    problems = [_unknown(str(name), known) for name in document.content if name not in known]
    if problems:
        raise TierformError(problems)
    return dict(document.content)


def _unknown(name: str, known: tuple[str, ...]) -> Problem:
    return Problem(
        "not a way to share the work",
        key=OPTION,
        value=name,
        nearest=nearest(name, known),
        fix=f"Known: {', '.join(known)}; for example tensor=8,pipeline=4,zero=1.",
    )


def _switch(value: str, problems: list[Problem]) -> bool:
    if value.lower() not in _SWITCHES:
        fix = "Write sequence, or sequence=true."
        problems.append(Problem("neither true nor false", key=f"{OPTION} sequence", value=value, fix=fix))
    return _SWITCHES.get(value.lower(), False)
