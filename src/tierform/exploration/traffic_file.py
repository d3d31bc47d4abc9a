"""Bytes between the tiles of a chip, from a file of schema ``noc-reference/1``, and the network that carried them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tierform.errors import fail
from tierform.exploration.network_search import NetworkProblem
from tierform.files import read_json
from tierform.network import LINK_KINDS, AnalyticNetwork, EnergyParameters, RouterParameters, Topology, choose_routing
from tierform.network.topology import RouteTable

SCHEMA = "noc-reference/1"


def load_traffic(path: Path | str) -> NetworkProblem:
    """The problem of a traffic file: a mesh with dimension order, places within one kind of tile."""
    document = read_json(path)
    content: Any = document.content
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        fail("this file has another schema", file=str(path), key="schema", choices=[SCHEMA])
    missing = [key for key in ("tiles", "links", "bytes_tile_to_tile", "energy_J_per_bit") if key not in content]
    if missing:
        fail("this key is missing", file=str(path), key=missing[0])
    return problem_of(content)


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
