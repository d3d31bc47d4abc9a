"""Are pillars put where traffic needs them, never more than there may be, on routes that cannot deadlock?

The stacks are small meshes with traffic that is written here, and HeTraX's (``tables/hetrax_traffic.json``).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, floyd_warshall

from tierform import Inference, Job, load_chip
from tierform.cli.explore import command as explore
from tierform.errors import TierformError
from tierform.exploration.compiled_draws import start_draws
from tierform.exploration.link_costs import byte_weight, link_costs
from tierform.exploration.link_search import search_links
from tierform.exploration.network_search import NetworkDesign, NetworkProblem, links_of, reference_of
from tierform.exploration.network_study import budgeted, study_network, with_design
from tierform.exploration.ordered_moves import relink
from tierform.exploration.ordered_routes import Budget, LinkSet, Ordered, empty_ordered, grow, line_up, scratch
from tierform.exploration.pillars import elevator_first, pillars_of, posts, tiers_of, with_pillars
from tierform.exploration.traffic_file import load_traffic
from tierform.exploration.turn_models import orders_of
from tierform.network import (
    AnalyticNetwork,
    RouterParameters,
    Topology,
    choose_routing,
    energy_parameters,
    mesh_3d,
)
from tierform.network.deadlock import class_dependencies, virtual_channel_plan
from tierform.network.topology import PLANAR, VERTICAL, RouteTable
from tierform.simulation.job_file import load_job, save_job
from tierform.simulation.package_network import network_of
from tierform.simulation.simulate import run_job

TABLE = Path(__file__).parent / "tables" / "hetrax_traffic.json"
SHAPE = (4, 4, 3)


def _network(pillars: list[tuple[int, ...]] | None = None) -> AnalyticNetwork:
    topology = mesh_3d(SHAPE, pillars=pillars, pitch_m=1e-3)
    router = RouterParameters(flit_bits=256, virtual_channels=4)
    return AnalyticNetwork(topology, choose_routing(topology), router, 1e9, energy_parameters())


def _problem(bytes_between: np.ndarray) -> NetworkProblem:
    return NetworkProblem(_network(), bytes_between, np.arange(48))


@pytest.fixture(scope="module")
def cornered() -> NetworkProblem:
    """Everybody talks within a tier a little; a lot goes up and down between the tiles of one corner."""
    bytes_between = np.full((48, 48), 1.0)
    corner = [0, 1, 4, 5]
    for here in corner:
        for there in corner:
            bytes_between[here, 16 + there] = bytes_between[16 + there, 32 + here] = 400.0
            bytes_between[32 + here, there] = 400.0
    np.fill_diagonal(bytes_between, 0.0)
    return _problem(bytes_between)


def _places(topology: Topology) -> set[tuple[int, int]]:
    upright = np.flatnonzero((topology.link_kind == VERTICAL) & (topology.link_source < topology.link_target))
    return {(int(topology.link_source[link]), int(topology.link_target[link])) for link in upright}


def _acyclic(design: NetworkDesign) -> bool:
    """Links and classes as one graph, by SciPy's strong components."""
    table = RouteTable(design.table, design.classes)
    count = design.topology.links * design.channels_needed
    pairs = class_dependencies(design.topology, table)
    graph = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    strong, _ = connected_components(graph, directed=True, connection="strong")
    return strong == count and bool((pairs[:, 0] != pairs[:, 1]).all())


@pytest.mark.parametrize(
    "pillars", [[(0, 0), (3, 3)], [(1, 2)], [(0, 0, 0), (2, 1, 0), (3, 3, 1), (1, 0, 1), (1, 3, 1)]]
)
def test_are_the_routes_those_of_elevator_first(pillars: list[tuple[int, ...]]) -> None:
    """The next router is that of the network's own routing, and by hand the pillar is the nearest one."""
    network = _network(pillars)
    topology = network.topology
    assert network.routing.name == "elevator_first"
    made, everyone = elevator_first(topology), np.arange(48, dtype=np.int32)
    own, found = network.routing.next_links(everyone), np.asarray(made.next_link)
    goes = own >= 0
    np.testing.assert_array_equal(goes, found >= 0)
    np.testing.assert_array_equal(topology.link_target[own[goes]], topology.link_target[found[goes]])
    tier = tiers_of(topology)
    for here in range(48):
        for goal in np.flatnonzero(tier != tier[here]):
            at, up = here, 1 if tier[goal] > tier[here] else -1
            while tier[at] == tier[here]:
                link = found[at, goal]
                left, at = at, int(topology.link_target[link])
            doors = [a if up > 0 else b for a, b in _places(topology) if tier[a if up > 0 else b] == tier[here]]
            doors = [door for door in doors if (door, door + 16 * up) in _places(topology) or up < 0]
            apart = {d: abs(d % 4 - here % 4) + abs(d % 16 // 4 - here % 16 // 4) for d in doors}
            assert apart[left] == min(apart.values())


def test_is_a_stack_with_fewer_pillars_free_of_deadlock_and_in_budget(cornered: NetworkProblem) -> None:
    for number in (2, 3, 7, 12, 31):
        made = with_pillars(cornered, number)
        design = reference_of(made)
        assert design.pillars == number and design.channels_needed == 2 and _acyclic(design)
        assert virtual_channel_plan(made.network.routing, 2).layers <= 2
        assert design.wire_m == pytest.approx(reference_of(cornered).wire_m, rel=1e-12)
        tiers = tiers_of(made.network.topology)
        shares = np.bincount([tiers[low] for low, _ in _places(made.network.topology)])
        assert shares.max() - shares.min() <= 1
    assert with_pillars(cornered, 32) is cornered
    for wrong in (0, 1, 33):
        with pytest.raises(TierformError, match="from 2 to 32"):
            with_pillars(cornered, wrong)


def test_do_pillars_keep_to_tiles_with_ports_left(cornered: NetworkProblem) -> None:
    """Inner tiles have five ports without pillars: with six, tiles of the middle tier there have room for one alone."""
    tight = with_pillars(replace(cornered, most_ports=6), 20)
    assert reference_of(tight).ports <= 6
    with pytest.raises(TierformError, match="no room for"):
        with_pillars(replace(cornered, most_ports=5), 26)


@pytest.mark.parametrize("number", [4, 12])
def test_is_a_pillar_moved_to_where_the_bytes_are(cornered: NetworkProblem, number: int) -> None:
    """The mesh has its few pillars in the middle of each tier; a search of links alone must leave them there."""
    few = with_pillars(cornered, number)
    fixed = search_links(few, rounds=20_000, seed=3)
    moved = search_links(few, pillars=True, rounds=20_000, seed=3)
    for design in (*fixed, *moved):
        assert design.pillars <= number and design.ports <= 7
        assert design.wire_m <= reference_of(few).wire_m * (1 + 1e-6)
        assert _acyclic(design)
    assert all(_places(design.topology) == _places(few.network.topology) for design in fixed)
    best = moved[0]
    assert _places(best.topology) != _places(few.network.topology)
    assert best.score < 0.97 * fixed[0].score
    # Where four stand, at least one of each step is in the corner or beside it.
    near = {low % 16 for low, _ in _places(best.topology)}
    assert near & {0, 1, 4, 5}


def test_does_one_class_move_pillars_as_well(cornered: NetworkProblem) -> None:
    few = with_pillars(cornered, 6)
    moved = search_links(few, pillars=True, rounds=60_000, seed=1, classes=1)
    found = [design for design in moved if design.channels_needed == 1]
    assert found and all(_acyclic(design) and design.pillars <= 6 for design in found)
    assert any(_places(design.topology) != _places(few.network.topology) for design in found)


def test_are_the_loads_with_pillars_those_of_the_analytic_network(cornered: NetworkProblem) -> None:
    few = with_pillars(cornered, 8)
    for design in (reference_of(few), *search_links(few, pillars=True, rounds=3_000)):
        loads, joules = np.zeros(design.topology.links), 0.0
        for here, there in np.argwhere(few.flow > 0):
            cost = design.network.flow_cost([design.place[here]], [design.place[there]])
            loads += few.flow[here, there] * cost.link_share
            joules += cost.energy_J(few.flow[here, there])
        np.testing.assert_allclose(design.loads, loads, rtol=1e-9, atol=1e-9 * loads.max())
        assert design.figures[1] * few.flow.sum() == pytest.approx(joules, rel=1e-9)


def _grown(problem: NetworkProblem) -> tuple[Ordered, Budget, LinkSet]:
    """The state of an annealing in one class with its budget, as a search begins with it."""
    topology, costs, n = problem.network.topology, link_costs(problem, 6), len(problem.kind)
    joined = np.zeros((n, n), np.bool_)
    joined[topology.link_source, topology.link_target] = True
    natural = orders_of(topology, problem.pitch_m, joined)["tree"]
    state = empty_ordered(n, topology.links, 1)
    state.source[:], state.target[:] = topology.link_source, topology.link_target
    state.weight[:] = byte_weight(problem, problem.cycles, problem.energy)
    state.relative[:] = 1.0
    state.traffic[:] = problem.flow.T
    state.order[:] = np.argsort(natural[state.source, state.target], kind="stable")
    state.rank[state.order] = np.arange(topology.links)
    links = links_of(topology, PLANAR, VERTICAL)
    upright = topology.link_kind[links[:, 0]] == VERTICAL
    length = np.where(upright, 0.0, costs.wire[topology.link_source[links[:, 0]], topology.link_target[links[:, 0]]])
    budget = Budget(
        links=links,
        upright=upright,
        posts=posts(topology),
        wire=costs.wire,
        weight=byte_weight(problem, costs.cycles, costs.energy),
        total_m=float(length.sum()),
        most_ports=problem.most_ports - 1,
        natural=natural[None],
    )
    return state, budget, LinkSet(length, np.bincount(topology.link_source, minlength=n).astype(np.int32), joined)


@pytest.mark.parametrize("most_ports", [6, 7])
def test_is_every_move_within_the_budgets_and_its_ways_those_of_a_plain_search(
    cornered: NetworkProblem, most_ports: int
) -> None:
    """After each of many moves: ports, wire and pillars counted anew, and the ways by a plain loop over the ranks."""
    problem = with_pillars(replace(cornered, most_ports=most_ports), 9)
    state, budget, wires = _grown(problem)
    moved, touched = np.zeros(2, np.int32), np.zeros(48, np.int8)
    start_draws(11)
    raised = 0
    room = scratch(48, len(state.source))
    for _ in range(1500):
        before = tuple(array.copy() for array in (*state, *wires))
        upright = _standing(state, problem)
        count = relink(state, wires, budget, moved, touched)
        ways = [grow(state, room, line_up(state, room), goal) for goal in range(48)]
        if count < 0 or not all(ways):
            for array, old in zip((*state, *wires), before, strict=True):
                array[...] = old
            continue
        built = np.flatnonzero(state.source >= 0)
        ports = np.bincount(state.source[built], minlength=48)
        np.testing.assert_array_equal(ports, wires.ports)
        assert ports.max() < most_ports
        planar = [link for link in built if not _over(state, link)]
        length = sum(_apart(int(state.source[link]), int(state.target[link])) for link in planar) / 2
        assert length == pytest.approx(float(wires.length.sum())) and length <= budget.total_m * (1 + 1e-9)
        now = _standing(state, problem)
        assert len(now) <= 9 and now <= {tuple(map(int, place)) for place in posts(problem.network.topology)}
        raised += bool(now - upright)
        for goal in (0, 21, 47):
            np.testing.assert_allclose(state.far[goal], _plain_ways(state, goal), rtol=1e-9)
    assert raised > 5


def _over(state: Ordered, link: int) -> bool:
    return int(state.source[link]) // 16 != int(state.target[link]) // 16


def _apart(one: int, other: int) -> float:
    return 1e-3 * (abs(one % 4 - other % 4) + abs(one % 16 // 4 - other % 16 // 4))


def _standing(state: Ordered, problem: NetworkProblem) -> set[tuple[int, int]]:
    ends = zip(state.source.tolist(), state.target.tolist(), strict=True)
    return {(a, b) for a, b in ends if a >= 0 and b // 16 == a // 16 + 1}


def _plain_ways(state: Ordered, goal: int) -> np.ndarray:
    """From the last rank on, a router takes a channel that is shorter, unless another waits behind it already."""
    far, chosen = {goal: 0.0}, {}
    for channel in state.order.tolist():
        source, target = int(state.source[channel]), int(state.target[channel])
        if source < 0 or source == goal or target not in far or any(end == source for end in chosen.values()):
            continue
        way = far[target] + float(state.weight[channel])
        if way < far.get(source, np.inf):
            far[source], chosen[source] = way, target
    return np.array([far[router] for router in range(48)])


def test_are_hetrax_pillars_searched_within_all_budgets() -> None:
    problem = with_pillars(load_traffic(TABLE), 6)
    made = search_links(problem, pillars=True, rounds=20_000)
    assert any(min(design.ratios.values) < 0.95 for design in made)
    for design in made:
        assert design.pillars <= 6 and design.ports <= 7 and _acyclic(design)
        hops = floyd_warshall(
            csr_matrix((np.ones(design.topology.links), (design.topology.link_source, design.topology.link_target)))
        )
        assert np.isfinite(hops).all()


@pytest.fixture(scope="module")
def narrow() -> Job:
    changes = {"network.width": "64 bit", "network.vertical.width": "16 bit"}
    return Job(model="bert-base", task=Inference(batch=2, sequence=128), chip=load_chip("hetrax").vary(changes))


def test_is_a_chip_with_searched_pillars_written_and_run(narrow: Job, tmp_path: Path) -> None:
    own = study_network(narrow)
    study = budgeted(own, pillars=4, ports=6)
    assert pillars_of(study.problem.network.topology) == 4
    assert study.result.latency_s > own.result.latency_s
    (design, *_) = search_links(study.problem, pillars=True, rounds=20_000)
    job = with_design(study.job, design)
    job.chip.write(tmp_path / "chip.yaml")  # type: ignore[union-attr]
    again = load_chip(tmp_path / "chip.yaml")
    found = network_of(again)
    assert found is not None
    assert _places(found[0].topology) == _places(design.topology) and found[0].topology.radix.max() <= 6
    assert virtual_channel_plan(found[0].routing, 4).layers <= design.channels_needed
    result, plain = run_job(replace(job, chip=again)), run_job(study.job)
    assert result.latency_s == run_job(job).latency_s < plain.latency_s
    cycle = run_job(replace(job, chip=again, fidelity="cycle"))
    assert cycle.latency_s == pytest.approx(result.latency_s, rel=0.1)


@pytest.mark.parametrize(
    ("budget", "what"),
    [
        ({"pillars": 2}, "from 3 to 21"),
        ({"pillars": 22}, "from 3 to 21"),
        ({"ports": 4}, "tiles with 5 ports"),
        ({"ports": 10}, "from 2 to 9 ports"),
        ({"pillars": 21, "ports": 4}, "tiles with 5 ports"),
    ],
)
def test_are_budgets_refused_that_no_network_keeps(narrow: Job, budget: dict[str, int], what: str) -> None:
    study = study_network(narrow)
    with pytest.raises(TierformError, match=what):
        budgeted(study, **budget)


@pytest.mark.parametrize(
    ("at", "what"),
    [
        ([[0, 0, 3]], "the last tier below another one is 2"),
        ([[0, 0, 0], [1, 0, 2]], "no vertical link joins 'sm-2' and 'sm-3'"),
        ([[0, 0], [0, 0, 1]], "each place once"),
        ([[0]], "vertical.at"),
    ],
)
def test_are_wrong_places_of_pillars_refused(at: list[list[int]], what: str) -> None:
    with pytest.raises(TierformError, match=what):
        load_chip("hetrax").vary({"network.vertical.at": at})


def test_stands_a_pillar_between_two_tiers_alone() -> None:
    chip = load_chip("hetrax").vary({"network.vertical.at": [[0, 0], [3, 0, 1], [6, 0, 2]]})
    found = network_of(chip)
    assert found is not None
    # Seven tiles a tier.
    assert _places(found[0].topology) == {(0, 7), (7, 14), (14, 21), (10, 17), (20, 27)}
    torus = network_of(chip.vary({"network.links": {"kind": "torus"}}))
    assert torus is not None and _places(torus[0].topology) == _places(found[0].topology)


def test_does_the_command_search_pillars_within_budgets(narrow: Job, tmp_path: Path) -> None:
    """The winner's job simulates as it was told; a budget that a space or a chip cannot have is one clear message."""
    narrow.chip.write(tmp_path / "chip.yaml")  # type: ignore[union-attr]
    save_job(replace(narrow, chip="chip.yaml"), tmp_path / "job.yaml")
    command = ["network", str(tmp_path / "job.yaml"), "--pillars", "4", "--ports", "6", "--ways", "links and pillars"]
    done = CliRunner().invoke(explore, [*command, "--winners", str(tmp_path / "w"), "--json", str(tmp_path / "j.json")])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "j.json").read_text())
    assert told["pillars"] == 4 and told["most_ports"] == 6
    (design,) = told["designs"]
    assert design["pillars"] <= 4 and design["ports"] <= 6
    assert design["latency_s"] < told["latency_s"] and told["as_it_is"]["latency_s"] < told["latency_s"]
    again = run_job(load_job(tmp_path / "w" / "job.yaml"))
    assert again.latency_s == pytest.approx(design["latency_s"], rel=1e-9)
    for wrong in (["space.yaml", "--pillars", "4"], [*command[:2], "--with-mapping", "--ports", "6"]):
        assert CliRunner().invoke(explore, wrong).exit_code != 0
