"""A network in a file: its topology with pillars, chiplets and links of each kind, its routers, and what is sent.

What is sent is either random traffic at a rate, or flows: transfers between nodes that wait for each other, a multicast
among them if wanted.  Keys of ``network`` are those of the topology's builder in
:mod:`tierform.network.topologies` and :mod:`tierform.network.graphs`; lengths, widths and times carry their units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from tierform.errors import Problem, TierformError, nearest
from tierform.files import Document, read_yaml
from tierform.network import graphs, topologies
from tierform.network.case import Injection, Sampling, TrafficCase, TrafficClass
from tierform.network.flows import Flow
from tierform.network.parameters import RouterParameters
from tierform.network.routing import ROUTINGS, Routing, choose_routing
from tierform.network.topology import Topology
from tierform.network.traffic import PATTERNS, pattern
from tierform.provenance import Constant
from tierform.schema import FileModel, quantity, validate
from tierform.units import parse_quantity

BUILDERS: dict[str, Callable[..., Topology]] = {
    "mesh": topologies.mesh,
    "torus": topologies.torus,
    "mesh_3d": topologies.mesh_3d,
    "chiplets": topologies.chiplets,
    "cmesh": topologies.cmesh,
    "crossbar": graphs.crossbar,
    "fat_tree": graphs.fat_tree,
    "tapered_tree": graphs.tapered_tree,
    "butterfly": graphs.butterfly,
    "flattened_butterfly": graphs.flattened_butterfly,
    "dragonfly": graphs.dragonfly,
    "express_cmesh": graphs.express_cmesh,
    "small_world": graphs.small_world,
    "graph": graphs.from_graph,
}
# Unit of a builder's parameter by the end of its name; a file's key has no such end.
_UNITS = {"_m": "m", "_bits": "bit"}
LONGEST_CYCLES = 100_000


class FlowEntry(FileModel):
    """A transfer: nodes that send and receive, bytes, the flows (by place, from 0) it waits for, a delay after them."""

    sources: list[int] = Field(alias="from", min_length=1)
    destinations: list[int] = Field(alias="to", min_length=1)
    size: Annotated[Constant, quantity("B", minimum=0.0)]
    multicast: bool = False
    after: list[int] = []
    delay: Annotated[Constant, quantity("s", minimum=0.0)] | None = None


class TrafficEntry(FileModel):
    """Random traffic: a pattern, flits per node and cycle, packet sizes in flits with equal chances."""

    pattern: str = "uniform"
    flit_rate: float = Field(gt=0, le=1)
    packet_flits: list[Annotated[int, Field(ge=1, le=1 << 20)]] = Field(default=[1], min_length=1)
    period: int = Field(default=1000, ge=1, le=1_000_000_000)


class NetworkRunFile(FileModel):
    """The whole file."""

    network: dict[str, object]
    routing: str = "default"
    clock: Annotated[Constant, quantity("Hz", above=0.0)]
    router: dict[str, int | float | bool | str] = {}
    packet_flits: int = Field(default=8, ge=1, le=1 << 20)
    seed: int = Field(default=0, ge=0, le=2**62)
    traffic: TrafficEntry | None = None
    flows: list[FlowEntry] = []


@dataclass(frozen=True, eq=False)
class NetworkJob:
    """What a network file asks for: `case` (random traffic) or `flows` on the topology."""

    topology: Topology
    routing: Routing
    router: RouterParameters
    clock_Hz: float
    case: TrafficCase | None
    flows: tuple[Flow, ...]
    packet_flits: int
    seed: int


def read_network_job(path: Path | str) -> NetworkJob:
    """Read a network file; every mistake of its keys at once, with its line."""
    document = read_yaml(path)
    read = validate(NetworkRunFile, document)
    problems: list[Problem] = []
    if (read.traffic is None) == (not read.flows):
        problems.append(Problem("a network file has either traffic or flows", document.file))
    for key, value, known in (
        ("routing", read.routing, ROUTINGS),
        ("traffic", read.traffic.pattern if read.traffic else "uniform", PATTERNS),
    ):
        if value not in known:
            line = document.line_of((key,))
            problems.append(Problem("unknown name", document.file, line, key, value, nearest(value, known)))
    topology = _topology(read.network, document, problems)
    router = _router(read, document, problems)
    if problems or topology is None:
        raise TierformError(problems)
    routing = choose_routing(topology, read.routing)
    flows = tuple(
        Flow(
            sources=entry.sources,
            destinations=entry.destinations,
            size_B=entry.size.value,
            after=entry.after,
            delay_s=entry.delay.value if entry.delay else 0.0,
            multicast=entry.multicast,
        )
        for entry in read.flows
    )
    case = None
    if read.traffic is not None:
        injection = Injection(1.0, read.traffic.packet_flits, [1.0] * len(read.traffic.packet_flits))
        group = TrafficClass(pattern(read.traffic.pattern, topology.nodes), injection)
        sampling = Sampling(period=read.traffic.period)
        case = TrafficCase(topology, routing, router, (group,), sampling, read.seed).at_flit_rate(
            read.traffic.flit_rate
        )
    return NetworkJob(
        topology=topology,
        routing=routing,
        router=router,
        clock_Hz=read.clock.value,
        case=case,
        flows=flows,
        packet_flits=read.packet_flits,
        seed=read.seed,
    )


def _topology(given: dict[str, object], document: Document, problems: list[Problem]) -> Topology | None:
    """The topology that the keys describe, or None with the problems added."""

    def complain(what: str, key: str, value: object = None, near: str | None = None) -> None:
        line = document.line_of(("network", key))
        problems.append(Problem(what, document.file, line, f"network.{key}", value, near))

    name = given.get("topology")
    if not isinstance(name, str) or name not in BUILDERS:
        complain("unknown topology", "topology", name, nearest(str(name), BUILDERS))
        return None
    build = BUILDERS[name]
    hints = get_type_hints(build)
    # A file says `pitch: 1 mm` for the parameter `pitch_m`.
    keys = {}
    for parameter in signature(build).parameters:
        end = next((end for end in _UNITS if parameter.endswith(end)), "")
        keys[parameter.removesuffix(end)] = (parameter, _UNITS.get(end))
    arguments: dict[str, object] = {}
    before = len(problems)
    for key, value in given.items():
        if key == "topology":
            continue
        if key not in keys:
            complain(f"unknown key of {name}", key, value, nearest(key, keys))
            continue
        parameter, unit = keys[key]
        try:
            arguments[parameter] = _argument(value, hints[parameter], unit, key)
        except TierformError as error:
            complain(error.problems[0].what, key, value)
        except ValidationError:
            complain(f"this is no {hints[parameter]}", key, value)
    for key, (parameter, _) in keys.items():
        if signature(build).parameters[parameter].default is signature(build).empty and key not in given:
            complain("this key is missing", key)
    if len(problems) > before:
        return None
    try:
        return build(**arguments)
    except TierformError as error:
        problems += [Problem(problem.what, document.file, document.line_of(("network",))) for problem in error.problems]
        return None


def _argument(value: object, hint: Any, unit: str | None, key: str) -> object:
    """A builder's argument from a file's value: a quantity where the parameter has a unit, bounded whole numbers."""
    if unit is not None and value is not None:
        number = parse_quantity(value, unit, key=key)
        if not 0 < number < 1e9 or (unit == "bit" and number != int(number)):
            raise TierformError([Problem(f"a positive {'whole ' if unit == 'bit' else ''}number of {unit} is needed")])
        return int(number) if unit == "bit" else number
    read: Any = TypeAdapter(hint).validate_python(value)
    if isinstance(read, int) and abs(read) > (LONGEST_CYCLES if "cycles" in key else 1 << 20):
        raise TierformError([Problem("the number is too large")])
    return read if isinstance(read, (int, float, str, type(None))) else list(read)


def _router(read: NetworkRunFile, document: Document, problems: list[Problem]) -> RouterParameters:
    """The routers' parameters, or the default ones with the problems added."""
    known = {field.name: field.type for field in fields(RouterParameters)}
    wrong = []
    for key, value in read.router.items():
        line = document.line_of(("router", key))
        if key not in known:
            near = nearest(key, known)
            wrong.append(Problem("unknown key of a router", document.file, line, f"router.{key}", value, near))
        elif not _fits(value, str(known[key])):
            what = f"this is no {known[key]} in bounds"
            wrong.append(Problem(what, document.file, line, f"router.{key}", value))
    problems += wrong
    if wrong:
        return RouterParameters()
    try:
        return RouterParameters(**read.router)  # type: ignore[arg-type]
    except TierformError as error:
        problems += [Problem(p.what, document.file, None, f"router.{p.key}", p.value) for p in error.problems]
        return RouterParameters()


def _fits(value: object, kind: str) -> bool:
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str)
    return isinstance(value, int if kind == "int" else (int, float)) and 0 <= float(str(value)) <= 1 << 20
