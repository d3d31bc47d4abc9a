"""The chip file: its schema, and everything that can be wrong with it beyond the schema.

A chip has a package (planar, 2.5D, 3D) of dies: tiers of a stack, bottom first, or chiplets side by side.  Each die is
a grid of tiles; a tile has one network port and holds units of components.  A chip file names component files (of the
library or a path) and may change single values of them (`set`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from tierform.chip.parameters import constants, source_problems
from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document
from tierform.provenance import Constant
from tierform.schema import MOST, Count, FileModel, Whole, quantity
from tierform.workload.precision import PrecisionPlan

SCHEMA = "tierform.chip/1"
MAX_TILES = 100_000
# What `place` can send to a component: products with weights by module (or all, `static`), products of two
# activations, adapters, and everything that is not a product.
PLACES = ("attention", "ffn", "head", "static", "dynamic", "adapter", "other")

Place = Annotated[int, Field(strict=True, ge=-MOST, le=MOST)]
Length = Annotated[Constant, quantity("m", above=0)]


class DieFile(FileModel):
    """One tier or chiplet: a grid of equal tiles; `at` is a chiplet's column and row on the interposer."""

    name: str = Field(description="Name of the die; memories and temperatures refer to it.")
    grid: tuple[Count, Count] = Field(
        description="Columns and rows of tiles; each tile is a port of the network and a square of the heat map."
    )
    holds: dict[str, Whole] = Field(description="Units of each component in every tile; none is an empty tile.")
    at: tuple[Place, Place] = Field(
        (0, 0), description="Column and row of a chiplet on the interposer, counted in chiplets; only in 2.5D."
    )
    width: Length | None = Field(
        None,
        description="Width of the die; left out: what its components and routers need.  Moves heat and wires.",
    )
    height: Length | None = Field(
        None, description="Height of the die; left out: what its components and routers need.  Moves heat and wires."
    )


class PackageFile(FileModel):
    """How the dies are joined: `3d` tiers are listed from the bottom up."""

    kind: Literal["planar", "2.5d", "3d"] = Field(
        description="One die, chiplets on an interposer, or tiers of a stack; changes the network, heat and area."
    )
    dies: list[DieFile] = Field(description="The dies: chiplets in any order, tiers from the bottom up.")
    chiplet_gap: Length | None = Field(
        None, description="Gap between chiplets on the interposer; left out: 1 mm.  Changes heat and wires."
    )


class ComponentFile(FileModel):
    """A component of the library (or a path), with single values changed by `set`."""

    file: str = Field(description="A component of the library, or a path to a component file.")
    set: dict[str, Any] = Field({}, description="Values that replace those of the component file, key by key.")


class LinkFile(FileModel):
    """Vertical or interposer links: their width, latency, and how many there are."""

    width: Annotated[Constant, quantity("bit", above=0)] = Field(
        description="Width of one link in bit; a transfer over it takes its bits over this width."
    )
    latency_cycles: Whole = Field(
        1, ge=1, description="Cycles that a flit is on the link; they add to every head's time."
    )
    every: Count = Field(
        1,
        ge=1,
        description="1: a link at every place; n: vertical links at each n-th column and row, interposer links at each "
        "n-th router of a shared edge.  Fewer links take less area and carry less.",
    )


class NetworkFile(FileModel):
    """The network-on-chip: a mesh over each die's tiles, joined by vertical or interposer links."""

    clock: Annotated[Constant, quantity("Hz", above=0)] = Field(
        description="Clock of routers and links in Hz; bandwidth and latency of every transfer follow from it."
    )
    width: Annotated[Constant, quantity("bit", above=0)] = Field(
        description="Width of a planar link and of a flit in bit; bandwidth is width times clock."
    )
    router_cycles: Whole = Field(
        3,
        ge=2,
        le=64,
        description="Cycles of a router: 2 for channel and switch, 3 with the crossbar, more for the routing.",
    )
    vertical: LinkFile | None = Field(None, description="Links between the tiers of a 3D stack; needed there.")
    interposer: LinkFile | None = Field(None, description="Links between chiplets of a 2.5D package; needed there.")
    parameters: dict[str, str] = Field(
        {},
        description="Choices among the library's constants for router, wire, vertical and interposer (energy a bit, "
        "leakage, area); what is left out has the library's default.",
    )


class MemoryFile(FileModel):
    """Memory behind the chip, nearest first: a device of the library's memories and how many stacks or channels."""

    device: str = Field(description="A memory of the library, or a path to a memory file.")
    count: Count = Field(1, ge=1, description="Stacks or channels; capacity, bandwidth and idle power grow with it.")
    attached: str = Field(
        "",
        description="Component or die whose tiles have the memory's ports; its traffic crosses the network from there. "
        "Empty: the first and last column of the first die.",
    )


class CoolingFile(FileModel):
    """Package and environment; everything has a default in the thermal model."""

    ambient: Annotated[Constant, quantity("K", above=0)] | None = Field(
        default=None,
        description="Temperature of the air; left out: the thermal model's 318.15 K.  Moves every temperature.",
    )
    sink_resistance: Annotated[Constant, quantity("K/W", above=0)] | None = Field(
        default=None, description="Resistance from the heat sink to the air; left out: the thermal model's."
    )
    limits: dict[str, Annotated[Constant, quantity("K", above=0)]] = Field(
        default={}, description="Highest temperature of a component's tiles; a hotter one is told in the notes."
    )


class LevelFile(FileModel):
    """What joins the nodes in which the chips stand."""

    chips: int = Field(ge=1, description="Chips in one node.")
    bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(
        description="Bandwidth of one chip to other nodes, one direction, in B/s."
    )
    latency: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of one step of a collective between nodes, in s."
    )
    energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of a byte between nodes, in J/B."
    )


class ClusterFile(FileModel):
    """What joins several of these chips."""

    bandwidth: Annotated[Constant, quantity("B/s", above=0)] = Field(
        description="Bandwidth of one chip to its neighbours, one direction, in B/s."
    )
    latency: Annotated[Constant, quantity("s", minimum=0)] = Field(
        description="Time of one step of a collective, in s."
    )
    energy: Annotated[Constant, quantity("J/B", minimum=0)] = Field(
        description="Energy of a byte between chips, in J/B."
    )
    node: LevelFile | None = Field(
        None, description="Size of a node and the links between nodes; without it all chips are joined alike."
    )


class ChipFile(FileModel):
    """A whole chip file."""

    schema_: str = Field(SCHEMA, description="Layout of the file; written as `schema`.")
    name: str = Field(description="Name of the chip, as results print it.")
    description: str = Field(description="One line for people; changes no figure.")
    package: PackageFile = Field(description="The dies and how they are joined.")
    components: dict[str, ComponentFile] = Field(description="What computes, by the names that the dies hold.")
    network: NetworkFile | None = Field(
        None, description="The network between tiles; needed by a chip of more than one tile."
    )
    memory: list[MemoryFile] = Field(
        [], description="Memories behind the chip, nearest first; what does not fit in one waits in the next."
    )
    cluster: ClusterFile | None = Field(
        None, description="What joins several of these chips; needed by tensor, pipeline and data parallelism."
    )
    cooling: CoolingFile = Field(CoolingFile(), description="Environment, heat sink and limits of temperature.")
    precision: dict[str, str] = Field(
        {}, description="Number formats of the chip, by the keys of a precision plan; a task's own formats come first."
    )
    place: dict[str, str] = Field(
        {},
        description="Component that takes a kind of operators: attention, ffn, head, static, dynamic, adapter, other.  "
        "Left out: the rule of the mapping.",
    )
    backward_weights: Literal["transposed", "second-copy"] = Field(
        "transposed",
        description="How crossbars multiply by a transposed weight: with the same cells, driven from their columns, "
        "or a second copy, which takes as many crossbars again.",
    )
    pipelined: bool = Field(
        False, description="Whether tokens flow from operator to operator in chunks; changes the schedule."
    )
    notes: list[str] = Field([], description="What a reader of results should know; printed with them.")
    assumed: list[str] = Field([], description="Assumptions of no single constant; listed with the evidence.")


def problems_of(chip: ChipFile, document: Document, components: Iterable[str]) -> list[Problem]:
    """What is wrong with the dies, the package, the formats and the placement of a chip file."""
    return [
        *_die_problems(chip, document, set(components)),
        *_package_problems(chip, document),
        *_precision_problems(chip, document),
        *_place_problems(chip, document),
        *_memory_problems(chip, document),
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


def _memory_problems(chip: ChipFile, document: Document) -> list[Problem]:
    """Memories attached to what the chip does not have."""
    dies = [die.name for die in chip.package.dies]
    known = [*chip.components, *dies]
    return [
        Problem(
            "no component or die of this name",
            document.file,
            document.line_of(("memory", index, "attached")),
            f"memory.{index}.attached",
            entry.attached,
            nearest(entry.attached, known),
            f"Known here: {', '.join(known)}.",
        )
        for index, entry in enumerate(chip.memory)
        if entry.attached and entry.attached not in known
    ]


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
            problems.append(Problem("unknown key", document.file, line, shown, None, nearest(key, known), fix))
        elif value not in known[key]:
            fix = f"Known: {', '.join(known[key])}."
            close = nearest(value, known[key])
            problems.append(Problem(f"no {key} of this name", document.file, line, shown, value, close, fix))
    return problems


def _source_problems(chip: ChipFile, document: Document) -> list[Problem]:
    """Sources that the library does not know, in every section but the components, which are checked for themselves."""
    problems: list[Problem] = []
    for key, constant in constants(chip):
        if constant.source:
            steps = tuple(int(step) if step.isdigit() else step for step in key.split("."))
            problems += source_problems(constant.source, key, document.file, document.line_of(steps))
    return problems
