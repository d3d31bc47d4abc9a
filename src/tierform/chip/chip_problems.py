"""What can be wrong with a chip file beyond its schema: dies, package, formats, placement, memories, sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from tierform.chip.chip_file import MAX_TILES, PLACES, ChipFile, neighbours
from tierform.chip.link_problems import link_problems
from tierform.chip.parameters import source_problems
from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, key_steps
from tierform.library import has_source
from tierform.provenance import Constant
from tierform.workload.precision import PrecisionPlan


def problems_of(
    chip: ChipFile, document: Document, components: Iterable[str], groups: Iterable[str] = ()
) -> list[Problem]:
    """What is wrong with the dies, the package, the formats and the placement of a chip file.

    `groups`: names of entries that stand for several dies, which are here one by one.
    """
    return [
        *_die_problems(chip, document, set(components)),
        *_package_problems(chip, document),
        *link_problems(chip, document),
        *_precision_problems(chip, document),
        *_place_problems(chip, document),
        *_memory_problems(chip, document, groups),
        *_constant_problems(chip, document),
        *_source_problems(chip, document),
    ]


def _die_problems(chip: ChipFile, document: Document, components: set[str]) -> list[Problem]:
    problems = []
    total = 0
    for index, die in enumerate(chip.package.dies):
        at = ("package", "dies", index)
        if min(die.grid) < 1:
            problems.append(
                Problem(
                    "a grid needs at least 1 x 1 tiles",
                    document.file,
                    document.line_of((*at, "grid")),
                    f"package.dies.{index}.grid",
                    list(die.grid),
                )
            )
        total += max(die.grid[0], 0) * max(die.grid[1], 0)
        problems += _holds_problems(die.holds, f"package.dies.{index}.holds", document, components)
        for letter, held in die.kinds.items():
            problems += _holds_problems(held, f"package.dies.{index}.kinds.{letter}", document, components)
    names = [die.name for die in chip.package.dies]
    if len(set(names)) < len(names):
        problems.append(Problem("two dies have the same name", document.file, document.line_of(("package", "dies"))))
    if total > MAX_TILES:
        problems.append(
            Problem(
                f"{total} tiles; at most {MAX_TILES} are simulated",
                document.file,
                document.line_of(("package", "dies")),
            )
        )
    return problems


def _holds_problems(held: Mapping[str, int], at: str, document: Document, components: set[str]) -> list[Problem]:
    problems = []
    for name, count in held.items():
        if name in components and count >= 1:
            continue
        line, key = document.line_of((*key_steps(at), name)), f"{at}.{name}"
        if name not in components:
            close = nearest(name, components)
            problems.append(Problem("no component of this name", document.file, line, key, None, close))
        else:
            problems.append(Problem("a tile holds at least one unit", document.file, line, key, count))
    return problems


def _package_problems(chip: ChipFile, document: Document) -> list[Problem]:
    problems = []
    dies = chip.package.dies
    tiles = sum(die.grid[0] * die.grid[1] for die in dies)
    if chip.package.kind == "planar" and len(dies) != 1:
        problems.append(
            Problem(
                "a planar package has exactly one die",
                document.file,
                document.line_of(("package", "dies")),
                "package.dies",
                len(dies),
            )
        )
    if tiles > 1 and chip.network is None:
        problems.append(Problem("a chip of more than one tile needs a network", document.file, None, "network"))
    if chip.network is not None:
        needed = {"3d": "vertical", "2.5d": "interposer"}.get(chip.package.kind)
        if needed and len(dies) > 1 and getattr(chip.network, needed) is None:
            problems.append(
                Problem(
                    f"a {chip.package.kind} package needs its links described",
                    document.file,
                    document.line_of(("network",)),
                    f"network.{needed}",
                )
            )
    if chip.package.kind == "3d" and len({die.grid for die in dies}) > 1:
        problems.append(
            Problem(
                "all tiers of a stack need the same grid",
                document.file,
                document.line_of(("package", "dies")),
                "package.dies",
            )
        )
    return [*problems, *_place_of_die_problems(chip, document)]


def _place_of_die_problems(chip: ChipFile, document: Document) -> list[Problem]:
    dies = chip.package.dies
    if chip.package.kind != "2.5d":
        return [
            Problem(
                f"dies of a {chip.package.kind} package have no place beside each other",
                document.file,
                document.line_of(("package", "dies", index, "at")),
                f"package.dies.{index}.at",
                list(die.at),
                fix="Take 'at' away, or make the package 2.5d.",
            )
            for index, die in enumerate(dies)
            if "at" in die.model_fields_set
        ]
    problems = []
    first: dict[tuple[int, int], str] = {}
    for index, die in enumerate(dies):
        if die.at in first:
            problems.append(
                Problem(
                    f"the chiplet {first[die.at]!r} stands at this place, too",
                    document.file,
                    document.line_of(("package", "dies", index, "at")),
                    f"package.dies.{index}.at",
                    list(die.at),
                )
            )
        first.setdefault(die.at, die.name)
    if problems:
        return problems
    reached, found = {0}, neighbours(dies)
    for _ in dies:
        reached |= {one for pair in found for one in pair[:2] if reached & {*pair[:2]}}
    return [
        Problem(
            f"no interposer link joins this chiplet to {dies[0].name!r}",
            document.file,
            document.line_of(("package", "dies", index, "at")),
            f"package.dies.{index}.at",
            list(die.at),
            fix="Links join the next chiplets of a row and of a column: put it into the row or column of another one.",
        )
        for index, die in enumerate(dies)
        if index not in reached
    ]


def _precision_problems(chip: ChipFile, document: Document) -> list[Problem]:
    known = list(PrecisionPlan.__dataclass_fields__)
    problems = [
        Problem(
            "unknown key",
            file=document.file,
            line=document.line_of(("precision", key)),
            key=f"precision.{key}",
            value=None,
            nearest=nearest(key, known),
            fix=f"Known here: {', '.join(known)}.",
        )
        for key in chip.precision
        if key not in known
    ]
    if not problems and chip.precision:
        try:
            PrecisionPlan(**chip.precision)
        except TierformError as error:
            at = document.line_of(("precision",))
            problems = [Problem(p.what, document.file, at, "precision", p.value, p.nearest) for p in error.problems]
    return problems


def _place_problems(chip: ChipFile, document: Document) -> list[Problem]:
    problems = []
    for key, component in chip.place.items():
        if key in PLACES and component in chip.components:
            continue
        line = document.line_of(("place", key))
        if key not in PLACES:
            fix = f"Known here: {', '.join(PLACES)}."
            problems.append(
                Problem(
                    "unknown key",
                    file=document.file,
                    line=line,
                    key=f"place.{key}",
                    value=None,
                    nearest=nearest(key, PLACES),
                    fix=fix,
                )
            )
        else:
            close = nearest(component, chip.components)
            problems.append(Problem("no component of this name", document.file, line, f"place.{key}", component, close))
    return problems


def _memory_problems(chip: ChipFile, document: Document, groups: Iterable[str]) -> list[Problem]:
    """Memories attached to what the chip does not have."""
    known = [*chip.components, *groups, *(die.name for die in chip.package.dies)]
    tiles = sum(die.grid[0] * die.grid[1] for die in chip.package.dies)
    problems = []
    for index, entry in enumerate(chip.memory):
        at, key = ("memory", index, "attached"), f"memory.{index}.attached"
        if isinstance(entry.attached, str):
            if entry.attached and entry.attached not in known:
                problems.append(
                    Problem(
                        "no component or die of this name",
                        file=document.file,
                        line=document.line_of(at),
                        key=key,
                        value=entry.attached,
                        nearest=nearest(entry.attached, known),
                        fix=f"Known here: {', '.join(known)}.",
                    )
                )
        elif not entry.attached or max(entry.attached) >= tiles or len(set(entry.attached)) < len(entry.attached):
            what = f"at least one tile, each once, numbered 0 to {tiles - 1}"
            problems.append(Problem(what, document.file, document.line_of(at), key, list(entry.attached)))
    return problems


def _constant_problems(chip: ChipFile, document: Document) -> list[Problem]:
    """Choices of network constants that the library does not have."""
    if chip.network is None or not chip.network.parameters:
        return []
    from tierform.network import energy_choices

    known, problems = energy_choices(), []
    for key, value in chip.network.parameters.items():
        line, shown = document.line_of(("network", "parameters", key)), f"network.parameters.{key}"
        if key not in known:
            fix = f"Known here: {', '.join(known)}."
            problems.append(
                Problem(
                    "unknown key",
                    file=document.file,
                    line=line,
                    key=shown,
                    value=None,
                    nearest=nearest(key, known),
                    fix=fix,
                )
            )
        elif value not in known[key]:
            fix = f"Known: {', '.join(known[key])}."
            close = nearest(value, known[key])
            problems.append(
                Problem(
                    f"no {key} of this name",
                    file=document.file,
                    line=line,
                    key=shown,
                    value=value,
                    nearest=close,
                    fix=fix,
                )
            )
    return problems


_MOST_KNOWN = 4096
_LEAVES = (str, int, float, bool, type(None))
_known: dict[int, object] = {}  # sections and their parts, by identity, whose sources are all known


def _source_problems(chip: ChipFile, document: Document) -> list[Problem]:
    """Sources that the library does not know, in every section but the components, which are checked for themselves."""
    problems: list[Problem] = []
    for name in type(chip).model_fields:
        if name != "components":
            problems += _unknown_sources(getattr(chip, name), name, document)
    return problems


def _unknown_sources(value: object, name: str, document: Document) -> list[Problem]:
    if isinstance(value, Constant):
        if not value.source or has_source(value.source):
            return []
        return source_problems(value.source, name, document.file, document.line_of(key_steps(name)))
    inner: Iterable[tuple[object, object]]
    if isinstance(value, BaseModel):
        inner = ((key, getattr(value, key)) for key in type(value).model_fields)
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    else:
        return []
    if _known.get(id(value)) is value:
        return []
    found: list[Problem] = []
    for key, item in inner:
        if type(item) not in _LEAVES:
            found += _unknown_sources(item, f"{name}.{key}", document)
    if not found:
        _known[id(value)] = value
        while len(_known) > _MOST_KNOWN:
            del _known[next(iter(_known))]
    return found
