"""What stands on the tiles of a die, and dies that stand several times.

A die holds the same on every tile (`holds`), or has a map: rows of letters, the first row at y = 0, and what each
letter holds (`kinds`); a dot is a tile with a router alone.  `count` equal dies lie over each other in a stack, and
side by side, in the next columns, on an interposer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tierform.chip.chip_file import DieFile, PackageFile
from tierform.errors import Problem
from tierform.files import Document, key_steps

EMPTY = "."
_DIE = re.compile(r"^package\.dies\.(\d+)")


def held_at(die: DieFile, x: int, y: int) -> Mapping[str, int]:
    """Units of each component on a tile."""
    if die.map is None:
        return die.holds
    letter = die.map[y][x]
    return {} if letter == EMPTY else die.kinds[letter]


def units_on(die: DieFile, component: str) -> int:
    """Units of a component on all tiles of the die."""
    if die.map is None:
        return die.holds.get(component, 0) * die.grid[0] * die.grid[1]
    return sum(row.count(letter) * held.get(component, 0) for letter, held in die.kinds.items() for row in die.map)


def held_by(die: DieFile) -> dict[str, int]:
    """Every component of the die with its most units on a tile."""
    if die.map is None:
        return dict(die.holds)
    found: dict[str, int] = {}
    for held in die.kinds.values():
        for name, count in held.items():
            found[name] = max(count, found.get(name, 0))
    return found


def held_text(die: DieFile) -> str:
    """What tiles of the die hold, for people."""
    kinds = {"": die.holds} if die.map is None else die.kinds
    texts = []
    for letter, held in kinds.items():
        text = ", ".join(f"{count} {name}" for name, count in held.items())
        texts.append(f"{letter}: {text}" if letter else text)
    return "; ".join(texts)


def map_problems(index: int, die: DieFile, document: Document) -> list[Problem]:
    """What is wrong with what the tiles of a die hold, but the names of components."""
    at, key = ("package", "dies", index), f"package.dies.{index}"
    if die.map is None:
        if die.kinds:
            return [Problem("kinds need a map", document.file, document.line_of((*at, "kinds")), f"{key}.kinds")]
        if not die.holds:
            return [Problem("'holds' or a 'map' is needed", document.file, document.line_of(at), key)]
        return []
    problems = []
    line = document.line_of((*at, "map"))
    if die.holds:
        problems.append(
            Problem("a die has 'holds' or a 'map'", document.file, document.line_of((*at, "holds")), f"{key}.holds")
        )
    columns, rows = die.grid
    if len(die.map) != rows or any(len(row) != columns for row in die.map):
        what = f"{rows} rows of {columns} letters are needed"
        problems.append(Problem(what, document.file, line, f"{key}.map", list(map(len, die.map))))
    known = [*die.kinds, EMPTY]
    unknown = sorted({letter for row in die.map for letter in row} - set(known))
    problems += [
        Problem("no kind of tile has this letter", document.file, line, f"{key}.map", letter, fix=f"Known: {known}.")
        for letter in unknown
    ]
    problems += [
        Problem("one letter is needed", document.file, document.line_of((*at, "kinds", name)), f"{key}.kinds.{name}")
        for name in die.kinds
        if len(name) != 1 or name == EMPTY
    ]
    return problems


@dataclass(frozen=True)
class Dies:
    """The dies of a package one by one; `origin` is each one's place in the file, `groups` those of one entry."""

    package: PackageFile
    origin: tuple[int, ...]
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def located(self, problem: Problem, document: Document) -> Problem:
        """A problem with the place that the file has for its die."""
        found = _DIE.match(problem.key or "")
        if found is None or not self.groups:
            return problem
        place = self.origin[int(found[1])] if int(found[1]) < len(self.origin) else int(found[1])
        key = f"package.dies.{place}" + (problem.key or "")[found.end() :]
        steps = key_steps(key)
        lines = (document.line_of(steps[:end]) for end in range(len(steps), 2, -1))
        return replace(problem, key=key, line=next((line for line in lines if line), problem.line))


def one_by_one(package: PackageFile) -> Dies:
    """The dies of a package, those with a count so many times."""
    if all(die.count == 1 for die in package.dies):
        return Dies(package, tuple(range(len(package.dies))))
    dies: list[DieFile] = []
    origin: list[int] = []
    groups: dict[str, tuple[int, ...]] = {}
    for index, die in enumerate(package.dies):
        if die.count > 1:
            groups[die.name] = tuple(range(len(dies), len(dies) + die.count))
        for copy in range(die.count):
            beside = copy if package.kind == "2.5d" else 0
            at = {"at": (die.at[0] + beside, die.at[1])} if package.kind == "2.5d" else {}
            name = die.name if die.count == 1 else f"{die.name}-{copy + 1}"
            dies.append(die.model_copy(update={"name": name, "count": 1, **at}))
            origin.append(index)
    return Dies(package.model_copy(update={"dies": dies}), tuple(origin), groups)
