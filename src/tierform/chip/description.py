"""A loaded chip: tiles, built components, and the descriptions of network, memory and cooling for their own engines.

The file's schema and checks are in :mod:`tierform.chip.chip_file`, components in :mod:`tierform.chip.parts`.  This
module reads, builds, varies and writes chips; it computes nothing.
"""

from __future__ import annotations

import contextlib
import io
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import fsum
from pathlib import Path
from typing import Any

from tierform import library
from tierform.chip.capabilities import Capabilities
from tierform.chip.changes import changed, with_router_width
from tierform.chip.chip_card import chip_card, chip_line
from tierform.chip.chip_evidence import chip_assumptions
from tierform.chip.chip_file import (
    SCHEMA,
    ChipFile,
    ClusterFile,
    ComponentFile,
    CoolingFile,
    MemoryFile,
    NetworkFile,
    PackageFile,
)
from tierform.chip.chip_problems import problems_of
from tierform.chip.component import Component
from tierform.chip.component_paths import seen_from, with_full_paths
from tierform.chip.dies import held_at, map_problems, one_by_one, units_on
from tierform.chip.parts import Part, component_path, digest_of, document_of, load_component, part_of
from tierform.errors import Problem, TierformError, fail
from tierform.files import Document, write_text
from tierform.provenance import Assumption
from tierform.schema import validate
from tierform.workload.precision import PrecisionPlan

# Between chiplets where the file names no gap: a common spacing on silicon interposers.
CHIPLET_GAP_M = 1e-3
__all__ = ["Chip", "Tile", "load_chip", "load_component"]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its number, die, place on the die's grid, and the units of components it holds."""

    number: int
    die: int
    x: int
    y: int
    holds: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ChipOrigin:
    """What a chip was made from: the plain content of its file, the checked description, the parts.

    `digest` is that of the content without the components.
    """

    content: dict[str, Any]
    described: ChipFile
    parts: dict[str, Part]
    digest: str


@dataclass(frozen=True)
class Chip:
    """A loaded chip.  `components` are built; network, memory and heat are descriptions for their own engines.

    Chips are equal when what their files say is equal.  `file` is empty for a varied chip, and `fingerprint` a hash of
    all that is said: of the chip's own file and of its components' files with their changes.
    """

    name: str
    description: str
    file: str = field(compare=False)
    package: PackageFile
    tiles: tuple[Tile, ...]
    components: dict[str, Component]
    network: NetworkFile | None
    memory: tuple[MemoryFile, ...]
    cluster: ClusterFile | None
    cooling: CoolingFile
    precision: PrecisionPlan | None
    place: dict[str, str]
    backward_weights: str
    pipelined: bool
    notes: tuple[str, ...]
    assumed: tuple[str, ...]
    fingerprint: str
    component_types: dict[str, str] = field(default_factory=dict)
    die_groups: dict[str, tuple[int, ...]] = field(default_factory=dict)
    origin: ChipOrigin | None = field(default=None, compare=False, repr=False)

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    def __repr__(self) -> str:
        return chip_line(self)

    def _repr_html_(self) -> str:
        return chip_card(self)

    @cached_property
    def can(self) -> Capabilities:
        """Which components can do what."""
        return Capabilities.of(self.components)

    @cached_property
    def _tiles_by_component(self) -> dict[str, tuple[int, ...]]:
        return {
            component: tuple(tile.number for tile in self.tiles if any(name == component for name, _ in tile.holds))
            for component in self.components
        }

    def tiles_of(self, component: str) -> tuple[int, ...]:
        """Numbers of the tiles that hold the component."""
        return self._tiles_by_component[component]

    def units_at(self, component: str) -> tuple[int, ...]:
        """Units of the component on each of its tiles."""
        return self._units_by_component[component]

    @cached_property
    def _units_by_component(self) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(dict(self.tiles[number].holds)[name] for number in numbers)
            for name, numbers in self._tiles_by_component.items()
        }

    def tiles_of_units(self, component: str, first: float, last: float) -> tuple[int, ...]:
        """The component's tiles that hold its units from `first` on to before `last`, filled one after the other."""
        tiles, ends = self._tiles_by_component[component], list(accumulate(self.units_at(component)))
        start = min(bisect_right(ends, first + 1e-9), len(tiles) - 1)
        end = min(bisect_left(ends, last - 1e-9), len(tiles) - 1)
        return tiles[start : max(end, start) + 1]

    def of_type(self, type_name: str) -> list[Component]:
        """The components of a type, in file order."""
        return [self.components[name] for name, kind in self.component_types.items() if kind == type_name]

    @property
    def area_m2(self) -> float:
        """Silicon of all components (routers and links are added by the network)."""
        return fsum(component.area_m2 for component in self.components.values())

    def die_size_m(self, die: int) -> tuple[float, float]:
        """Width and height of a die: as the file says, or square tiles that just hold their components."""
        described = self.package.dies[die]
        columns, rows = described.grid
        pitch = max(self.tile_area_m2(die), 1e-12) ** 0.5
        width = described.width.value if described.width else columns * pitch
        height = described.height.value if described.height else rows * pitch
        return width, height

    def die_origin_m(self, die: int) -> tuple[float, float]:
        """Left and lower edge of a chiplet on the interposer; the first column and row begin at 0.

        A column is as wide as its widest chiplet, a row as high as its highest; the gap is between them.
        """
        dies = self.package.dies
        gap = self.package.chiplet_gap.value if self.package.chiplet_gap else CHIPLET_GAP_M
        origin = [0.0, 0.0]
        for axis in (0, 1):
            widest: dict[int, float] = {}
            for index, other in enumerate(dies):
                place = other.at[axis]
                widest[place] = max(widest.get(place, 0.0), self.die_size_m(index)[axis])
            origin[axis] = fsum(size + gap for place, size in sorted(widest.items()) if place < dies[die].at[axis])
        return origin[0], origin[1]

    def tile_area_m2(self, die: int) -> float:
        """Silicon area of the components of a tile of a die; where tiles differ, of the largest."""
        described = self.package.dies[die]
        kinds = [described.holds] if described.map is None else described.kinds.values()
        return max(
            fsum(self.components[n].area_m2 / self.components[n].units * count for n, count in held.items())
            for held in kinds
        )

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant of the chip file and of its components."""
        return chip_assumptions(self)

    def vary(self, changes: Mapping[str, object]) -> Chip:
        """The chip with values changed at the paths of its file; TierformError with everything that cannot be.

        ``chip.vary({"components.reram.adc_bits": 6, "network.width": "128 bit", "package.dies.systolic.grid": [6, 6],
        "memory.0.count": 4})``: a component's keys stand directly below its name, entries of lists go by name or
        number, keys merge deeply, None takes a key away.  What does not change is the same object as in this chip.
        """
        if self.origin is None:
            fail("only a chip that was read from a file can be varied", value=self.name)
        content, problems = changed(self.origin.content, changes)
        content = with_router_width(self.origin.content, content)
        try:
            made = _chip(Document(content, ""), self)
        except TierformError as error:
            problems += [_without_file(problem, changes) for problem in error.problems]
        if problems:
            raise TierformError({str(problem): problem for problem in problems}.values())
        return made

    def write(self, path: Path | str) -> None:
        """Write the chip as a file that reads back equal; component files beside it are named from there."""
        from ruamel.yaml import YAML

        if self.origin is None:
            fail("only a chip that was read from a file can be written", value=self.name)
        folder = Path(path).absolute().parent
        entries = {
            name: {**entry, "file": seen_from(folder, entry["file"])}
            for name, entry in self.origin.content["components"].items()
        }
        writer = YAML()
        writer.default_flow_style = None
        writer.width = 118
        text = io.StringIO()
        writer.dump({"schema": SCHEMA, **self.origin.content, "components": entries}, text)
        write_text(
            path, f"# The chip {self.name!r}: simulate with `tierform simulate MODEL --chip FILE`.\n" + text.getvalue()
        )


def load_chip(name: str | Path) -> Chip:
    """A chip of the library by name, or from a YAML file; TierformError with every mistake and its line."""
    text = str(name)
    document = document_of(Path(text) if text.endswith((".yaml", ".yml")) else library.find("chips", text))
    if not isinstance(document.content, dict):
        fail("keys with values are needed here", file=document.file)
    if "schema" in document.content:
        _check_schema(document)
    content = {key: value for key, value in document.content.items() if key != "schema"}
    return _chip(Document(with_full_paths(content, Path(document.file)), document.file, document.lines))


def _without_file(problem: Problem, changes: Mapping[str, object]) -> Problem:
    """A problem of changes in Python: it has a path, and no line."""
    key = problem.key
    if key and key.startswith("components.") and not any(".set" in str(path) for path in changes):
        key = key.replace(".set.", ".", 1)
    return Problem(
        problem.what, file=None, line=None, key=key, value=problem.value, nearest=problem.nearest, fix=problem.fix
    )


def _chip(document: Document, before: Chip | None = None) -> Chip:
    """The chip of a content; of `before` everything is kept that stays the same."""
    old = before.origin if before is not None else None
    described, problems = _described(document, old)
    if described is None:
        raise TierformError([*problems, *_component_problems(document)])
    problems = [
        problem for index, die in enumerate(described.package.dies) for problem in map_problems(index, die, document)
    ]
    if problems:
        raise TierformError([*problems, *_component_problems(document)])
    parts, problems = _parts(described, document, old)
    dies = one_by_one(described.package)
    if not problems:
        single = described.model_copy(update={"package": dies.package}) if dies.groups else described
        found = problems_of(single, document, described.components, dies.groups)
        problems = [dies.located(problem, document) for problem in found]
    if problems:
        raise TierformError(problems)
    components = {name: part.component for name, part in parts.items()}
    same = before if before is not None and old is not None and described.package is old.described.package else None
    digest = _own_digest(document.content, old)
    return Chip(
        name=described.name,
        description=described.description,
        file=document.file,
        package=same.package if same else dies.package,
        tiles=same.tiles if same else _tiles(dies.package),
        die_groups=dies.groups,
        components=components,
        network=described.network,
        memory=tuple(described.memory),
        cluster=described.cluster,
        cooling=described.cooling,
        precision=PrecisionPlan(**described.precision) if described.precision else None,
        place=described.place,
        backward_weights=described.backward_weights,
        pipelined=described.pipelined,
        notes=(*described.notes, *(remark for part in parts.values() for remark in part.remarks)),
        assumed=tuple(described.assumed),
        fingerprint=digest_of([digest, {name: part.digest for name, part in parts.items()}]),
        component_types={name: part.type for name, part in parts.items()},
        origin=ChipOrigin(document.content, described, parts, digest),
    )


def _described(document: Document, old: ChipOrigin | None) -> tuple[ChipFile | None, list[Problem]]:
    """The checked content; sections that are the same as before are taken from there."""
    content = document.content
    if old is not None:
        kept = {key: getattr(old.described, key) for key in content if content[key] == old.content.get(key, _OTHER)}
        content = {**content, **kept}
    try:
        return validate(ChipFile, Document(content, document.file, document.lines)), []
    except TierformError as error:
        return None, list(error.problems)


_OTHER = object()


def _component_problems(document: Document) -> list[Problem]:
    """What is wrong with the components of a content that is wrong elsewhere, too."""
    entries = document.content.get("components")
    described = {}
    for name in entries if isinstance(entries, dict) else ():
        with contextlib.suppress(TierformError):
            described[name] = validate(ComponentFile, document, ("components", name))
    return [problem for name, entry in described.items() for problem in _part(name, 1, entry, document, None)[1]]


def _own_digest(content: dict[str, object], old: ChipOrigin | None) -> str:
    own = {key: value for key, value in content.items() if key != "components"}
    if old is not None and own == {key: value for key, value in old.content.items() if key != "components"}:
        return old.digest
    return digest_of(own)


def _check_schema(document: Document) -> None:
    found = document.content["schema"]
    if found != SCHEMA:
        fail(
            "this file has another schema",
            file=document.file,
            line=document.line_of(("schema",)),
            value=found,
            choices=[SCHEMA],
            fix=f"This version reads {SCHEMA}.",
        )


def _parts(chip: ChipFile, document: Document, old: ChipOrigin | None) -> tuple[dict[str, Part], list[Problem]]:
    """Every component of the chip, and what is wrong with them."""
    problems: list[Problem] = []
    parts: dict[str, Part] = {}
    for name, entry in chip.components.items():
        units = sum(die.count * units_on(die, name) for die in chip.package.dies)
        if units < 1:
            where = document.line_of(("components", name))
            problems.append(Problem("no die holds this component", document.file, where, f"components.{name}"))
            continue
        made, wrong = _part(name, units, entry, document, old.parts.get(name) if old else None)
        problems += wrong
        if made is not None:
            parts[name] = made
    return parts, problems


def _part(
    name: str, units: int, entry: ComponentFile, document: Document, before: Part | None
) -> tuple[Part | None, list[Problem]]:
    """One component, or what is wrong with it."""
    try:
        path = component_path(entry.file)
        kept = before if before is not None and before.document.file == str(path) else None
        data = kept.document if kept is not None else document_of(path)
        return part_of(name, units, data, entry.set, chip=document, before=kept), []
    except TierformError as error:
        at = ("components", name, "file")
        return None, [p if p.file is not None else _at(p, document, at) for p in error.problems]


def _at(problem: Problem, document: Document, at: tuple[str, ...]) -> Problem:
    where = document.line_of(at)
    return Problem(
        problem.what,
        file=document.file,
        line=where,
        key=problem.key or ".".join(at),
        value=problem.value,
        nearest=problem.nearest,
        fix=problem.fix,
    )


def _tiles(package: PackageFile) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    for index, die in enumerate(package.dies):
        for y in range(die.grid[1]):
            for x in range(die.grid[0]):
                tiles.append(Tile(len(tiles), index, x, y, tuple(held_at(die, x, y).items())))
    return tuple(tiles)
