"""The chip file: its schema.  What can be wrong beyond it is in :mod:`tierform.chip.chip_problems`.

A chip has a package (planar, 2.5D, 3D) of dies: tiers of a stack, bottom first, or chiplets side by side.  Each die is
a grid of tiles; a tile has one network port and holds units of components.  A chip file names component files (of the
library or a path) and may change single values of them (`set`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from tierform.provenance import Constant
from tierform.schema import MOST, Count, FileModel, Whole, quantity

SCHEMA = "tierform.chip/1"
MAX_TILES = 100_000
# What `place` can send to a component: products with weights by module (or all, `static`), products of two
# activations, adapters, and everything that is not a product.
PLACES = ("attention", "ffn", "head", "static", "dynamic", "adapter", "other")

# Of a router where nobody says; the library's constants of routers hold for them.
VIRTUAL_CHANNELS, BUFFER_FLITS = 4, 8
VERTICAL_VIA = "tsv-coarse-aggressive"  # of `network.parameters.vertical` where it is left out

Place = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Length = Annotated[Constant, quantity("m", above=0)]


class DieFile(FileModel):
    """One tier or chiplet: a grid of tiles, all equal or of several kinds."""

    name: str = Field(description="Name of the die; reports and paths use it.")
    grid: tuple[Count, Count] = Field(description="Columns and rows of tiles; each tile has one router.")
    holds: dict[str, Whole] = Field({}, description="Units of each component on every tile, where all tiles are equal.")
    kinds: dict[str, dict[str, Whole]] = Field(
        {}, description="Instead of `holds`: by a letter, the units of each component on a tile of that kind."
    )
    map: tuple[str, ...] | None = Field(
        None, description="The kind of each tile: a row of letters for each row of tiles, first y = 0; a dot is empty."
    )
    count: Count = Field(
        1,
        le=4096,
        description="Equal dies: tiers over each other, or chiplets in the next columns; NAME-1, NAME-2 and so on.",
    )
    at: tuple[Place, Place] = Field(
        (0, 0),
        description="Column and row of a chiplet on the interposer, from 0.  Chiplets of a column or row may have "
        "different grids and sizes; a column is as wide as its widest chiplet, and an empty one takes no room.",
    )
    width: Length | None = Field(
        None, description="Width of the die; left out: of square tiles that just hold their components."
    )
    height: Length | None = Field(
        None, description="Height of the die; left out: of square tiles that just hold their components."
    )


class PackageFile(FileModel):
    """How the dies are joined: `3d` tiers are listed from the bottom up."""

    kind: Literal["planar", "2.5d", "3d"] = Field(
        description="One die (planar), chiplets on an interposer (2.5d), or tiers over each other (3d)."
    )
    dies: list[DieFile] = Field(description="The dies; tiers of a 3d package from the bottom up.")
    chiplet_gap: Length | None = Field(
        None, description="Gap between chiplets: length of interposer links, and heat.  Left out: 1 mm."
    )


class ComponentFile(FileModel):
    """A component of the library (or a path), with single values changed by `set`."""

    file: str = Field(description="A component of the library, or a path to a component file beside the chip file.")
    set: dict[str, Any] = Field(
        {},
        description="Values to change: keys merge deeply, a key may be a path (parts.adc.energy), a list or constant "
        "is replaced whole, null takes a key away.",
    )


Pair = tuple[Whole, Whole]


class LinksFile(FileModel):
    """Which tiles of a die planar links join; every link goes both ways and is `network.width` wide.

    Its length comes from the places of its tiles.  `routes` are for a network that was searched: they say for every
    tile where to go next on the way to every other one.
    """

    kind: Literal["mesh", "torus", "express", "small-world", "list"] = Field(
        default="mesh",
        description="mesh: each tile to its neighbours; torus: rings, folded; express: a mesh, and links over `span` "
        "tiles in every row and column; small-world: a mesh, and drawn `shortcuts`; list: the links of `list` alone.",
    )
    span: Count | None = Field(default=None, ge=2, description="Tiles that an express link goes on; needed there.")
    shortcuts: Count | None = Field(default=None, description="Links drawn on each die of a small world; needed there.")
    exponent: Annotated[float, Field(strict=True, ge=0, le=10)] = Field(
        default=2.0, description="Of a small world: a link over d tiles is drawn with probability d^-exponent."
    )
    seed: Whole = Field(default=0, description="Of a small world: start of the draws.")
    list: tuple[Pair, ...] | None = Field(
        default=None, description="Pairs of tile numbers of one die; tiles are counted die by die, row by row, from 0."
    )
    length_per_cycle: Length | None = Field(
        default=None, description="Length of link that a flit crosses in a cycle; left out: one cycle each."
    )
    routes: tuple[tuple[Whole, ...], ...] | None = Field(
        default=None,
        description="For each tile a row: the next tile on the way to every tile (itself in its own column); left out: "
        "found by `routing`.",
    )
    classes: tuple[tuple[Whole, ...], ...] | None = Field(
        default=None,
        description="Of `routes`: the class of virtual channels in which a packet goes to that next tile, from 0; "
        "left out: one class.",
    )


class ViaFile(FileModel):
    """A through-silicon via; what is left out is as that of `network.parameters.vertical`."""

    diameter: Length | None = Field(None, description="Diameter of the copper; a wider via has more capacitance.")
    length: Length | None = Field(None, description="Length through the silicon; capacitance and energy go with it.")
    liner: Length | None = Field(None, description="Thickness of the oxide around it; a thicker one takes less energy.")
    pitch: Length | None = Field(None, description="From via to via; area goes with its square.")


class DriverFile(FileModel):
    """Drivers and receivers of interposer links; what is left out is as the library's law has it."""

    rate: Annotated[Constant, quantity("bit/s", above=0)] | None = Field(
        None,
        description="Bits a second of one wire: a faster one needs fewer wires and bumps, and above the knee of the "
        "law more energy for a bit.",
    )
    pitch: Annotated[Constant, quantity("m", above=0)] | None = Field(
        None, description="From micro-bump to micro-bump; area goes with its square."
    )


class StackLinkFile(FileModel):
    """Vertical or interposer links: their width, latency, and how many there are."""

    width: Annotated[Constant, quantity("bit", above=0)] = Field(
        description="Width of one link in bit; a transfer over it takes its bits over this width."
    )
    latency_cycles: Whole = Field(
        1,
        ge=1,
        description="Cycles that a flit is on the link; they add to every head's time.  Left out where interposer "
        "links have a `driver`: as many as that and the length take.",
    )
    every: Count = Field(
        1,
        ge=1,
        description="1: a link at every place; n: vertical links at each n-th column and row, interposer links at each "
        "n-th router of a shared edge.  Fewer links take less area and carry less.",
    )
    at: tuple[Annotated[tuple[Whole, ...], Field(min_length=2, max_length=3)], ...] | None = Field(
        None,
        description="Instead of `every`: the places of vertical links as column and row of the tiles, through the "
        "whole stack, or with a third number n from tier n (the first is 0) to the next one alone.",
    )
    via: ViaFile | None = Field(
        None, description="Geometry of vertical links, from which the energy of a bit and their area follow."
    )
    driver: DriverFile | None = Field(
        None, description="Drivers of interposer links, from which the energy of a bit, their area and latency follow."
    )


class InterposerLinkFile(StackLinkFile):
    """Interposer links, which join pairs of tiles."""

    at: tuple[Pair, ...] | None = Field(
        None, description="Instead of `every`: the pairs of tile numbers that interposer links join."
    )


class NetworkFile(FileModel):
    """The network-on-chip: links over each die's tiles (a mesh), joined by vertical or interposer links."""

    clock: Annotated[Constant, quantity("Hz", above=0)] = Field(
        description="Clock of routers and links in Hz; bandwidth and latency of every transfer follow from it."
    )
    width: Annotated[Constant, quantity("bit", above=0)] = Field(
        description="Width of a planar link and of a flit in bit; bandwidth is width times clock."
    )
    router_width: Annotated[Constant, quantity("bit", above=0)] | None = Field(
        None,
        description="Width for which the constants of the router hold; left out: `width`, until `vary` changes that.  "
        "Area, leakage and energy of a bit are scaled from there.",
    )
    router_cycles: Whole = Field(
        3,
        ge=2,
        le=64,
        description="Cycles of a router: 2 for channel and switch, 3 with the crossbar, more for the routing.",
    )
    virtual_channels: Count = Field(
        VIRTUAL_CHANNELS,
        ge=1,
        le=64,
        description="Virtual channels of a port.  At cycle fidelity they decide how traffic is served; energy, leakage "
        "and area of routers follow the flits of all of them.",
    )
    buffer_flits: Count = Field(
        BUFFER_FLITS,
        ge=1,
        le=1024,
        description="Flits that a virtual channel holds; they act as `virtual_channels` do.",
    )
    links: LinksFile = Field(
        LinksFile.model_validate({}), description="Which tiles of a die links join; left out: a mesh."
    )
    routing: str = Field(
        "default",
        description="How packets find their way: dimension_order, xy_yx, elevator_first, minimal, up_down and others; "
        "default: the one that suits the links (given where `links.routes` are).",
    )
    vertical: StackLinkFile | None = Field(None, description="Links between the tiers of a 3D stack; needed there.")
    interposer: InterposerLinkFile | None = Field(
        None, description="Links between chiplets of a 2.5D package; needed there."
    )
    parameters: dict[str, str] = Field(
        {},
        description="Choices among the library's constants for router, wire, vertical and interposer (energy a bit, "
        "leakage, area); what is left out has the library's default.",
    )


class MemoryFile(FileModel):
    """Memory behind the chip, nearest first: a device of the library's memories and how many stacks or channels."""

    device: str = Field(description="A memory of the library, or a path to a memory file.")
    count: Count = Field(1, ge=1, description="Stacks or channels; capacity, bandwidth and idle power grow with it.")
    speed: Annotated[Constant, quantity("1", above=0)] | None = Field(
        None,
        description="Speed of DRAM over that of its grade: bandwidth goes with it, latencies shrink, a byte takes the "
        "same energy.",
    )
    attached: str | tuple[Whole, ...] = Field(
        "",
        description="Component or die whose tiles have the memory's ports, or tiles by number; its traffic crosses the "
        "network from there.  Empty: the first and last column of the first die.",
    )


class CoolingFile(FileModel):
    """Package and environment; everything has a default in the thermal model."""

    ambient: Annotated[Constant, quantity("K", above=0)] | None = Field(
        default=None, description="Temperature of the surroundings, as in 45 degC."
    )
    sink_resistance: Annotated[Constant, quantity("K/W", above=0)] | None = Field(
        default=None, description="Thermal resistance from the heat sink to the surroundings."
    )
    limits: dict[str, Annotated[Constant, quantity("K", above=0)]] = Field(
        default={}, description="Highest temperature of a component, by its name; a hotter tile is reported."
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
    name: str = Field(description="Name of the chip in results.")
    description: str = Field(description="What it is, in a line.")
    package: PackageFile = Field(description="The dies and how they are joined.")
    components: dict[str, ComponentFile] = Field(description="What computes, by names of your own.")
    network: NetworkFile | None = Field(None, description="The network-on-chip; needed with more than one tile.")
    memory: list[MemoryFile] = Field([], description="Memory behind the chip, nearest first.")
    cluster: ClusterFile | None = Field(None, description="What joins several of these chips.")
    cooling: CoolingFile = Field(CoolingFile(), description="Surroundings, heat sink and limits of temperature.")
    precision: dict[str, str] = Field(
        {}, description="Number formats by role (weights, activations, kv_cache, ...) where a task names none."
    )
    place: dict[str, str] = Field(
        {}, description=f"Component for a class of operators, over the default rule: {', '.join(PLACES)}."
    )
    backward_weights: Literal["transposed", "second-copy"] = Field(
        "transposed", description="How input gradients read weights in crossbars: the same cells, or a second copy."
    )
    pipelined: bool = Field(
        False, description="Whether parts of the input follow each other through the components at the same time."
    )
    notes: list[str] = Field([], description="Remarks that results repeat.")
    assumed: list[str] = Field([], description="What was assumed beyond the constants, in sentences.")


def neighbours(dies: Sequence[DieFile]) -> list[tuple[int, int, int]]:
    """Chiplets that interposer links join: (die, next die in its row, 0) and (die, next die in its column, 1).

    The next one is the nearest of a larger `at`; places between that hold nothing are crossed.
    """
    found = []
    for axis in (0, 1):
        lines: dict[int, list[tuple[int, int]]] = {}
        for index, die in enumerate(dies):
            lines.setdefault(die.at[1 - axis], []).append((die.at[axis], index))
        for line in lines.values():
            ordered = [index for _, index in sorted(line)]
            found += [(one, other, axis) for one, other in pairwise(ordered)]
    return found
