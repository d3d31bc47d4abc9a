"""Bytes between the tiles of a chip, from a file of schema ``noc-reference/1``, and the network that carried them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from tierform.errors import fail
from tierform.exploration.network_search import NetworkProblem
from tierform.files import read_json
from tierform.network import LINK_KINDS, AnalyticNetwork, EnergyParameters, RouterParameters, Topology, choose_routing
from tierform.network.topology import RouteTable
from tierform.schema import FileModel, validate

SCHEMA = "noc-reference/1"


_OPEN = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False, strict=True)
_Place = Annotated[float, Field(ge=-10, le=10)]
_End = Annotated[int, Field(ge=0, lt=4096)]
_Joules = Annotated[float, Field(ge=0, le=1)]


class TrafficTile(FileModel):
    """A tile with its router; other keys are notes."""

    model_config = _OPEN
    router: _End
    kind: str
    position_m: list[_Place] = Field(min_length=3, max_length=3)
    die: Annotated[int, Field(ge=0, lt=4096)]


class TrafficEnergy(FileModel):
    """Joules of a bit in a router, along a metre of wire, and across dies."""

    model_config = _OPEN
    router: _Joules
    wire_per_m: _Joules
    vertical: _Joules
    interposer: _Joules


class TrafficFile(FileModel):
    """A traffic file; other keys are notes.  A link is (from, to, mm, bits, cycles, kind)."""

    model_config = _OPEN
    tiles: list[TrafficTile] = Field(min_length=1, max_length=4096)
    links: list[list[int | float | str]] = Field(max_length=65536)
    bytes_tile_to_tile: list[list[Annotated[float, Field(ge=0, le=1e18)]]]
    energy_J_per_bit: TrafficEnergy
    router_pipeline_cycles: Annotated[float, Field(ge=1, le=100)]
    flit_bits: Annotated[int, Field(ge=1, le=65536)]
    clock_Hz: Annotated[float, Field(gt=0, le=1e12)]


def load_traffic(path: Path | str) -> NetworkProblem:
    """The problem of a traffic file: a mesh with dimension order, places within one kind of tile."""
    document = read_json(path)
    content: Any = document.content
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        fail("this file has another schema", file=str(path), key="schema", choices=[SCHEMA])
    _check(validate(TrafficFile, document), str(path))
    return problem_of(content)


def _check(found: TrafficFile, file: str) -> None:
    """Refuse routers, links and bytes that do not fit together."""
    n = len(found.tiles)
    if sorted(tile.router for tile in found.tiles) != list(range(n)):
        fail(f"the routers of the tiles are 0 to {n - 1}, each once", file=file, key="tiles")
    for number, link in enumerate(found.links):
        whole = len(link) == 6 and all(type(link[place]) is int for place in (0, 1, 3, 4))
        if not whole or not _is_link([int(link[place]) for place in (0, 1, 3, 4)], n) or link[5] not in LINK_KINDS:
            what = "a link is [from, to, mm, bits, cycles, kind]"
            fail(what, file=file, key=f"links.{number}", value=link, fix=f"Kinds: {', '.join(LINK_KINDS)}.")
    if [len(row) for row in found.bytes_tile_to_tile] != [n] * n:
        fail(f"{n} rows of {n} numbers are needed", file=file, key="bytes_tile_to_tile")


def _is_link(numbers: list[int], routers: int) -> bool:
    source, target, bits, cycles = numbers
    return (
        max(source, target) < routers
        and min(source, target) >= 0
        and source != target
        and 0 < bits <= 65536
        and 0 < cycles < 10**6
    )


def problem_of(content: dict[str, Any]) -> NetworkProblem:
    """The problem of a file's content."""
    tiles, links, energy = content["tiles"], content["links"], content["energy_J_per_bit"]
    router = np.array([tile["router"] for tile in tiles])
    n = len(tiles)
    kinds = sorted({tile["kind"] for tile in tiles})
    place, kind, die = np.zeros((n, 3)), np.zeros(n, np.int64), np.zeros(n, np.int32)
    for tile in tiles:
        place[tile["router"]] = tile["position_m"]
        kind[tile["router"]], die[tile["router"]] = kinds.index(tile["kind"]), tile["die"]
    between = np.zeros((n, n))
    between[np.ix_(router, router)] = np.array(content["bytes_tile_to_tile"], dtype=np.float64)
    source, target = (np.array([link[end] for link in links], np.int32) for end in (0, 1))
    kind_of_link = np.array([LINK_KINDS.index(link[5]) for link in links], np.int32)
    length = np.abs(place[source] - place[target]).sum(axis=1)
    ahead = place[target] - place[source]
    axis = np.argmax(np.abs(ahead), axis=1)
    sign = np.sign(np.take_along_axis(ahead, axis[:, None], 1)[:, 0])
    reached = np.take_along_axis(place[target], axis[:, None], 1)[:, 0]
    order = np.lexsort((-sign * reached, -axis)).astype(np.int32)
    from tierform.exploration.placement_moves import ordered_table

    table = ordered_table(order, source, target, np.ones(len(links)), n)
    topology = Topology(
        name=str(content.get("case", "traffic")),
        node_router=np.arange(n, dtype=np.int32),
        position_m=place,
        link_source=source,
        link_target=target,
        link_length_m=length,
        link_width_bits=np.array([link[3] for link in links], np.int32),
        link_latency_cycles=np.array([link[4] for link in links], np.int32),
        link_kind=kind_of_link,
        chiplet=die,
        structure=RouteTable(table),
    )
    cycles = round(float(content["router_pipeline_cycles"]))
    parameters = RouterParameters(
        flit_bits=int(content["flit_bits"]), routing_delay=max(0, cycles - 3), crossbar_delay=1 if cycles > 2 else 0
    )
    joules = EnergyParameters(
        router_J_per_bit=energy["router"],
        wire_J_per_bit_m=energy["wire_per_m"],
        vertical_J_per_bit=energy["vertical"],
        interposer_J_per_bit=energy["interposer"],
        interposer_wire_J_per_bit_m=0.0,
    )
    network = AnalyticNetwork(topology, choose_routing(topology), parameters, float(content["clock_Hz"]), joules)
    return NetworkProblem(network, between, kind)
