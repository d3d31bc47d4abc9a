"""Chip files: what a chip is made of, where it sits, and how it is loaded.

A chip has a package (planar, 2.5D, 3D) of dies: tiers of a stack, bottom first, or chiplets side by side.  Each die is
a grid of tiles; a tile has one network port and holds units of components.  A chip file names component files (of the
library or a path) and may change single values of them (`set`).  This module reads and checks; it computes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tierform import library
from tierform.chip.component import COMPONENTS, Component
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import Document, read_yaml
from tierform.provenance import Assumption, Constant
from tierform.schema import FileModel, quantity, validate
from tierform.units import format_quantity
from tierform.workload.precision import PrecisionPlan

SCHEMA = "tierform.chip/1"
MAX_TILES = 100_000
# What `place` can send to a component: products with weights by module (or all, `static`), products of two
# activations, adapters, and everything that is not a product.
PLACES = ("attention", "ffn", "head", "static", "dynamic", "adapter", "other")

Length = Annotated[Constant, quantity("m", above=0)]


class DieFile(FileModel):
    """One tier or chiplet: a grid of equal tiles; `at` is a chiplet's column and row on the interposer."""

    name: str
    grid: tuple[int, int]
    holds: dict[str, int]
    at: tuple[int, int] = (0, 0)
    width: Length | None = None
    height: Length | None = None


class PackageFile(FileModel):
    """How the dies are joined: `3d` tiers are listed from the bottom up."""

    kind: Literal["planar", "2.5d", "3d"]
    dies: list[DieFile]
    chiplet_gap: Length | None = None


class ComponentFile(FileModel):
    """A component of the library (or a path), with single values changed by `set`."""

    file: str
    set: dict[str, Any] = {}


class LinkFile(FileModel):
    """Links of one kind: width, latency in cycles, and energy where it differs from the network's default."""

    width: Annotated[Constant, quantity("bit", above=0)]
    latency_cycles: int = 1
    every: int = 1


class NetworkFile(FileModel):
    """The network-on-chip: a mesh over each die's tiles, joined by vertical or interposer links."""

    clock: Annotated[Constant, quantity("Hz", above=0)]
    width: Annotated[Constant, quantity("bit", above=0)]
    router_cycles: int = 3
    vertical: LinkFile | None = None
    interposer: LinkFile | None = None
    parameters: str = ""


class MemoryFile(FileModel):
    """Memory behind the chip, nearest first: a device of the library's memories and how many stacks or channels."""

    device: str
    count: int = 1
    attached: str = ""


class CoolingFile(FileModel):
    """Package and environment; everything has a default in the thermal model."""

    ambient: Annotated[Constant, quantity("K", above=0)] | None = None
    sink_resistance: Annotated[Constant, quantity("K/W", above=0)] | None = None
    limits: dict[str, Annotated[Constant, quantity("K", above=0)]] = {}


class ClusterFile(FileModel):
    """What joins several of these chips: bandwidth of one chip in one direction, time of a step, energy."""

    bandwidth: Annotated[Constant, quantity("B/s", above=0)]
    latency: Annotated[Constant, quantity("s", minimum=0)]
    energy: Annotated[Constant, quantity("J/B", minimum=0)]


class ChipFile(FileModel):
    """A whole chip file."""

    schema_: str = SCHEMA
    name: str
    description: str
    package: PackageFile
    components: dict[str, ComponentFile]
    network: NetworkFile | None = None
    memory: list[MemoryFile] = []
    cluster: ClusterFile | None = None
    cooling: CoolingFile = CoolingFile()
    precision: dict[str, str] = {}
    place: dict[str, str] = {}
    backward_weights: Literal["transposed", "second-copy"] = "transposed"
    pipelined: bool = False
    notes: list[str] = []
    assumed: list[str] = []


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

    def tiles_of(self, component: str) -> tuple[int, ...]:
        """Numbers of the tiles that hold the component."""
        return tuple(tile.number for tile in self.tiles if any(name == component for name, _ in tile.holds))

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
    problems = [*_die_problems(described, document, components), *_package_problems(described, document)]
    problems += [*_precision_problems(described, document), *_place_problems(described, document)]
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
        notes=tuple(described.notes),
        assumed=tuple(described.assumed),
        fingerprint=digest.hexdigest(),
        component_types=types,
    )


def load_component(name: str, units: int, file: str, changes: dict[str, Any] | None = None) -> Component:
    """A component of `units` units from a data file of the library or a path, with single values changed."""
    path = Path(file) if file.endswith((".yaml", ".yml")) else library.find("components", file)
    document = read_yaml(path)
    if not isinstance(document.content, dict) or "type" not in document.content:
        fail(
            "the key 'type' is missing",
            file=document.file,
            choices=COMPONENTS.names(),
            fix=f"Types: {', '.join(COMPONENTS.names())}.",
        )
    kind = COMPONENTS.get(str(document.content["type"]))
    if changes:
        document = Document({**document.content, **changes}, document.file, document.lines)
    parameters = validate(kind.schema, document)
    _check_citations(parameters, document.file)
    return kind.build(name, units, parameters)  # type: ignore[no-any-return]


def _check_citations(parameters: Any, file: str) -> None:
    from tierform.chip.parameters import evidence

    for line in evidence("", parameters):
        if line.source and not line.source.startswith("http"):
            try:
                library.citation(line.source)
            except TierformError as error:
                raise TierformError(
                    [Problem(p.what, file, None, line.subject, p.value, p.nearest, p.fix) for p in error.problems]
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
            built[name] = load_component(name, units, file, entry.set)
            path = Path(file) if file.endswith((".yaml", ".yml")) else library.find("components", file)
            digest.update(path.read_bytes())
            types[name] = str(getattr(built[name], "parameters").type)
        except TierformError as error:
            at = document.line_of(("components", name, "file"))
            key = f"components.{name}.file"
            problems += [
                p if p.file else replace(p, file=document.file, line=at, key=p.key or key) for p in error.problems
            ]
    if problems:
        raise TierformError(problems)
    return built, types


def _die_problems(chip: ChipFile, document: Document, components: dict[str, Component]) -> list[Problem]:
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
        for name, count in die.holds.items():
            line = document.line_of((*at, "holds", name))
            if name not in components:
                close = nearest(name, components)
                problems.append(
                    Problem(
                        "no component of this name",
                        document.file,
                        line,
                        f"package.dies.{index}.holds.{name}",
                        None,
                        close,
                    )
                )
            elif count < 1:
                problems.append(
                    Problem(
                        "a tile holds at least one unit",
                        document.file,
                        line,
                        f"package.dies.{index}.holds.{name}",
                        count,
                    )
                )
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
    if chip.package.kind == "2.5d" and len({die.at for die in dies}) < len(dies):
        problems.append(
            Problem(
                "two chiplets stand at the same place ('at')",
                document.file,
                document.line_of(("package", "dies")),
                "package.dies",
            )
        )
    return problems


def _precision_problems(chip: ChipFile, document: Document) -> list[Problem]:
    known = list(PrecisionPlan.__dataclass_fields__)
    problems = [
        Problem(
            "unknown key",
            document.file,
            document.line_of(("precision", key)),
            f"precision.{key}",
            None,
            nearest(key, known),
            f"Known here: {', '.join(known)}.",
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
        line = document.line_of(("place", key))
        if key not in PLACES:
            fix = f"Known here: {', '.join(PLACES)}."
            problems.append(
                Problem("unknown key", document.file, line, f"place.{key}", None, nearest(key, PLACES), fix)
            )
        elif component not in chip.components:
            close = nearest(component, chip.components)
            problems.append(Problem("no component of this name", document.file, line, f"place.{key}", component, close))
    return problems


def _tiles(chip: ChipFile) -> tuple[Tile, ...]:
    tiles: list[Tile] = []
    for index, die in enumerate(chip.package.dies):
        held = tuple(die.holds.items())
        for y in range(die.grid[1]):
            for x in range(die.grid[0]):
                tiles.append(Tile(len(tiles), index, x, y, held))
    return tuple(tiles)
