"""Whether the points of a space can be built at all: mistakes of its job and paths that lead nowhere.

A few points are made into jobs and varied chips; nothing is simulated.  What is wrong at the same key of every one of
them is a mistake of the file.  What is wrong in some is a point that cannot be, and its outcome tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError
from tierform.exploration.accuracy_space import ACCURACY, accuracy_problems
from tierform.exploration.evaluator import NO_TASK, put
from tierform.exploration.service_space import SERVICE, service_problems
from tierform.exploration.space import Space, Value
from tierform.files import Document, key_steps
from tierform.simulation.job_file import job_of
from tierform.simulation.runtime import load_runtime
from tierform.workload import load_model

# So many points are built, spread over all axes by multiples of the golden ratio (Weyl 1916), an axis's own start each.
POINTS, GOLDEN = 8, 0.6180339887498949
CHIP = "chip."
LOADERS: Mapping[str, Callable[[str], object]] = {"model": load_model, "chip": load_chip, "runtime": load_runtime}
Wrong = dict[tuple[str, str], Problem]


def mistakes(space: Space, document: Document) -> list[Problem]:
    """What is wrong with every point of a space, each with its line in the file."""
    checked = _Checked(space)
    points = []
    for k in range(POINTS):
        with suppress(TierformError):  # a formula without a value here: this point's mistake
            values = space.point([(GOLDEN * (k + 1) + i / 7) % 1.0 for i in range(len(space.parameters))])
            points += [space.changes(values)] if space.fits(values) else []
    always = _common([checked.wrong(point) for point in points]) if points else {}
    if not always:
        return []
    lines: dict[str, tuple[str | int, ...]] = {p.path: ("parameters", p.name) for p in space.parameters}
    lines |= {path: ("derived", path) for path, _ in space.derived}
    own = checked.wrong({})
    found = []
    for key, problem in always.items():
        acting = [path for path in lines if path in points[0]]
        path = next((path for path in acting if key[0] == path), None) or next(
            (path for path in acting if key not in own and key in checked.wrong({path: points[0][path]})), None
        )
        own_key = key[0] if key[0].startswith((SERVICE, ACCURACY)) else f"job.{key[0]}"
        at = key_steps(own_key) if path is None else lines[path]
        name = ".".join(map(str, at))
        shown = name if path is None else f"{name}: {path}"
        found.append(replace(problem, file=document.file, line=document.line_of(at), key=shown))
    return found


def _common(every: Sequence[Wrong]) -> Wrong:
    return {key: problem for key, problem in every[0].items() if all(key in other for other in every)}


class _Checked:
    """Jobs and chips of a space's points; a name is loaded once."""

    def __init__(self, space: Space) -> None:
        self._base, self._folder, self._service = space.base, Path(space.folder), space.service
        self._accuracy = space.accuracy
        self._loaded: dict[tuple[str, str], object] = {}

    def wrong(self, changes: Mapping[str, Value]) -> Wrong:
        """What is wrong with a job after changes at paths, by key (of the chip behind `chip.`) and text."""
        content: dict[str, Any] = {**(NO_TASK if self._service else {}), **self._base}
        service, accuracy, of_chip = dict(self._service), dict(self._accuracy), dict[str, object]()
        for path, value in changes.items():
            if path.startswith(CHIP):
                of_chip[path.removeprefix(CHIP)] = value
            elif path.startswith(SERVICE):
                service = put(service, path.removeprefix(SERVICE).split("."), value)
            elif path.startswith(ACCURACY):
                accuracy = put(accuracy, path.removeprefix(ACCURACY).split("."), value)
            else:
                content = put(content, path.split("."), value)
        problems: list[Problem] = []
        try:
            job_of(Document(content, str(self._folder / "job")))
        except TierformError as error:
            problems += error.problems
        if service:
            problems += [_behind(SERVICE, p) for p in service_problems(service, str(self._folder))]
        chip: object = None
        for part in LOADERS:
            given = content.get(part)
            found = self._load(part, given) if isinstance(given, str) else None
            if isinstance(found, TierformError):
                problems += [replace(p, file=None, line=None, key=part, value=given) for p in found.problems]
            elif isinstance(found, Chip):
                chip, wrong = _varied(found, of_chip)
                problems += wrong
        if accuracy:
            problems += [_behind(ACCURACY, p) for p in accuracy_problems(accuracy, chip)]
        return {(problem.key or "", problem.what): problem for problem in problems}

    def _load(self, part: str, name: str) -> object:
        if (part, name) not in self._loaded:
            beside = self._folder / name
            try:
                self._loaded[part, name] = LOADERS[part](str(beside) if beside.is_file() else name)
            except TierformError as error:
                self._loaded[part, name] = error
        return self._loaded[part, name]


def _varied(chip: Chip, changes: Mapping[str, object]) -> tuple[Chip, list[Problem]]:
    """The chip with changes; as it was, and why, where it cannot be."""
    try:
        return (chip.vary(changes) if changes else chip), []
    except TierformError as error:
        return chip, [_behind(CHIP, p) for p in error.problems]


def _behind(root: str, p: Problem) -> Problem:
    return replace(p, file=None, line=None, key=f"{root}{p.key}") if p.key else p


__all__ = ["mistakes"]
