"""A loaded chip: tiles, built components, and the descriptions of network, memory and cooling for their own engines.

The file's schema and checks are in :mod:`tierform.chip.chip_file`.  This module reads and builds; it computes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tierform import library
from tierform.chip.capabilities import Capabilities
from tierform.chip.chip_file import (
    SCHEMA,
    ChipFile,
    ClusterFile,
    CoolingFile,
    MemoryFile,
    NetworkFile,
    PackageFile,
    problems_of,
)
from tierform.chip.component import COMPONENTS, Component, Remarker
from tierform.errors import Problem, TierformError, fail
from tierform.files import Document, read_yaml
from tierform.provenance import Assumption, Constant
from tierform.schema import validate
from tierform.units import format_quantity
from tierform.workload.precision import PrecisionPlan


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its number, die, place on the die's grid, and the units of components it holds."""

    number: int
    die: int
    x: int
    y: int
    holds: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Chip:
    """A loaded chip.  `components` are built; network, memory and heat are descriptions for their own engines."""

    name: str
    description: str
    file: str
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

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

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

    def of_type(self, type_name: str) -> list[Component]:
        """The components of a type, in file order."""
        return [self.components[name] for name, kind in self.component_types.items() if kind == type_name]

    @property
    def area_m2(self) -> float:
        """Silicon of all components (routers and links are added by the network)."""
        return sum(component.area_m2 for component in self.components.values())

    def die_size_m(self, die: int) -> tuple[float, float]:
        """Width and height of a die: as the file says, or square tiles that just hold their components."""
        described = self.package.dies[die]
        columns, rows = described.grid
        pitch = max(self.tile_area_m2(die), 1e-12) ** 0.5
        width = described.width.value if described.width else columns * pitch
        height = described.height.value if described.height else rows * pitch
        return width, height

    def tile_area_m2(self, die: int) -> float:
        """Silicon area of the components of one tile of a die."""
        held = self.package.dies[die].holds
        return sum(self.components[n].area_m2 / self.components[n].units * count for n, count in held.items())

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every constant of the chip file and of its components."""
        lines = [line for component in self.components.values() for line in component.assumptions()]
        own: list[tuple[str, Constant | None]] = []
        if self.network:
            own += [("network.clock", self.network.clock), ("network.width", self.network.width)]
            own += [("network.vertical.width", self.network.vertical.width)] if self.network.vertical else []
            own += [("network.interposer.width", self.network.interposer.width)] if self.network.interposer else []
        own += [("cooling.ambient", self.cooling.ambient), ("cooling.sink_resistance", self.cooling.sink_resistance)]
        own += [(f"cooling.limits.{name}", limit) for name, limit in self.cooling.limits.items()]
        if self.cluster:
            own += [(f"cluster.{name}", getattr(self.cluster, name)) for name in ("bandwidth", "latency", "energy")]
            if self.cluster.node:
                node = self.cluster.node
                own += [(f"cluster.node.{name}", getattr(node, name)) for name in ("bandwidth", "latency", "energy")]
        lines += [
            Assumption(name, format_quantity(item.value, item.unit), item.kind, item.source, item.note)
            for name, item in own
            if item is not None
        ]
        lines += [Assumption(self.name, "", "assumed", note=text) for text in self.assumed]
        return tuple(lines)


def load_chip(name: str | Path) -> Chip:
    """A chip of the library by name, or from a YAML file; TierformError with every mistake and its line."""
    text = str(name)
    path = Path(text) if text.endswith((".yaml", ".yml")) else library.find("chips", text)
    document = read_yaml(path)
    if isinstance(document.content, dict) and "schema" in document.content:
        _check_schema(document)
        content = {key: value for key, value in document.content.items() if key != "schema"}
        document = Document(content, document.file, document.lines)
    described = validate(ChipFile, document)
    digest = hashlib.sha256(Path(document.file).read_bytes())
    components, types = _components(described, document, digest)
    problems = problems_of(described, document, components)
    if problems:
        raise TierformError(problems)
    tiles = _tiles(described)
    return Chip(
        name=described.name,
        description=described.description,
        file=document.file,
        package=described.package,
        tiles=tiles,
        components=components,
        network=described.network,
        memory=tuple(described.memory),
        cluster=described.cluster,
        cooling=described.cooling,
        precision=PrecisionPlan(**described.precision) if described.precision else None,
        place=described.place,
        backward_weights=described.backward_weights,
        pipelined=described.pipelined,
        notes=(*described.notes, *_remarks(components.values())),
        assumed=tuple(described.assumed),
        fingerprint=digest.hexdigest(),
        component_types=types,
    )


def _remarks(components: Iterable[Component]) -> list[str]:
    return [note for part in components if isinstance(part, Remarker) for note in part.remarks]


def component_path(file: str) -> Path:
    """The data file of a component: of the library by name, or a path that ends in .yaml."""
    return Path(file) if file.endswith((".yaml", ".yml")) else library.find("components", file)


def load_component(name: str, units: int, file: str, changes: dict[str, Any] | None = None) -> Component:
    """A component of `units` units from a data file of the library or a path, with single values changed."""
    _, kind, parameters = _described(component_path(file), changes)
    return kind.build(name, units, parameters)  # type: ignore[no-any-return]


def _described(path: Path, changes: dict[str, Any] | None) -> tuple[str, Any, Any]:
    """A component's type, the class of that type and its parameters from a data file."""
    document = read_yaml(path)
    if not isinstance(document.content, dict) or "type" not in document.content:
        fail(
            "the key 'type' is missing",
            file=document.file,
            choices=COMPONENTS.names(),
            fix=f"Types: {', '.join(COMPONENTS.names())}.",
        )
    type_name = str(document.content["type"])
    kind = COMPONENTS.get(type_name)
    if changes:
        document = Document({**document.content, **changes}, document.file, document.lines)
    parameters = validate(kind.schema, document)
    _check_citations(parameters, document.file)
    return type_name, kind, parameters


def _check_citations(parameters: Any, file: str) -> None:
    from tierform.chip.parameters import evidence

    for line in evidence("", parameters):
        if line.source and not line.source.startswith("http"):
            try:
                library.citation(line.source)
            except TierformError as error:
                raise TierformError(
                    [
                        Problem(
                            p.what, file=file, line=None, key=line.subject, value=p.value, nearest=p.nearest, fix=p.fix
                        )
                        for p in error.problems
                    ]
                ) from None


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


def _components(chip: ChipFile, document: Document, digest: Any) -> tuple[dict[str, Component], dict[str, str]]:
    """Build every component; the digest takes in each component file."""
    problems: list[Problem] = []
    built: dict[str, Component] = {}
    types: dict[str, str] = {}
    for name, entry in chip.components.items():
        units = sum(die.holds.get(name, 0) * die.grid[0] * die.grid[1] for die in chip.package.dies)
        if units < 1:
            problems.append(
                Problem(
                    "no die holds this component",
                    document.file,
                    document.line_of(("components", name)),
                    f"components.{name}",
                )
            )
            continue
        file = entry.file
        if file.endswith((".yaml", ".yml")) and not Path(file).is_absolute():
            file = str(Path(document.file).parent / file)
        try:
            path = component_path(file)
            types[name], kind, parameters = _described(path, entry.set)
            built[name] = kind.build(name, units, parameters)
            digest.update(path.read_bytes())
        except TierformError as error:
            at = document.line_of(("components", name, "file"))
            key = f"components.{name}.file"
            problems += [
                p if p.file else replace(p, file=document.file, line=at, key=p.key or key) for p in error.problems
            ]
    if problems:
        raise TierformError(problems)
    return built, types


def _tiles(chip: ChipFile) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    for index, die in enumerate(chip.package.dies):
        held = tuple(die.holds.items())
        for y in range(die.grid[1]):
            for x in range(die.grid[0]):
                tiles.append(Tile(len(tiles), index, x, y, held))
    return tuple(tiles)
