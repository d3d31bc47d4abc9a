"""A Result's file read back: every figure as it was written, each checked against the type that it has in a Result.

The file has no mapping and no timeline; what needs the finished run (a timeline) is made where it ran.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tierform.errors import Problem, TierformError, fail
from tierform.files import read_json

# What a Result has and its file does not.
_ONLY_IN_MEMORY = {"mapping": None, "timeline": (), "slots": ()}
# Files of this program that hold results, or may be taken for one.
_OTHERS = {
    "tierform.comparison/1": "It holds several results, under `results`.",
    "tierform.view/1": "It is the key `view` of a result's file; load the file that --json wrote.",
    "tierform.job/1": "A job is simulated with `tierform simulate --job FILE`.",
}
_MOST = 8


def read_figures(path: Path | str, schema: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a result's file by name; TierformError for another file, with all that is missing or wrong."""
    content = read_json(path).content
    if not isinstance(content, dict) or "schema" not in content:
        fail("this is no result", file=str(path), fix="`tierform simulate ... --json FILE` and Result.save write one.")
    if content["schema"] != schema:
        fix = _OTHERS.get(str(content["schema"]), f"This version reads {schema}.")
        fail("this file has another schema", file=str(path), key="schema", value=content["schema"], fix=fix)
    return figures_of(content, types, str(path))


def figures_of(content: dict[str, Any], types: Mapping[str, Any], file: str = "") -> dict[str, Any]:
    """As :func:`read_figures`, from the plain data."""
    from pydantic import TypeAdapter, ValidationError

    found: dict[str, Any] = dict(_ONLY_IN_MEMORY)
    problems: list[Problem] = []
    fix = "The file was cut or changed; simulate again."
    for name, kind in types.items():
        if name in _ONLY_IN_MEMORY:
            continue
        if name not in content:
            if name in ("limits", "view"):  # files of before it was written
                found[name] = None
                continue
            problems.append(Problem("is missing", file, key=name, fix=fix))
            continue
        value = content[name]
        try:
            made = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            for wrong in error.errors()[:_MOST]:
                key = ".".join(map(str, (name, *wrong["loc"])))
                problems.append(Problem(wrong["msg"].lower(), file, key=key, value=wrong["input"], fix=fix))
            continue
        found[name] = value if _plain(made) else made
    if problems:
        raise TierformError(problems[:_MOST])
    found["memory_footprint_B"] = {key: size for key, size in content["memory_footprint_B"].items() if key != "total"}
    return found


def _plain(made: Any) -> bool:
    """Whether it is numbers and texts in lists and dictionaries: it stays as the file has it (1 for 1.0)."""
    if isinstance(made, list):
        return all(_plain(item) for item in made[:1])
    return made is None or isinstance(made, int | float | str | dict)
