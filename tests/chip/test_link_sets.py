"""Do the links, pillars, routes and memory ports that a chip file names exist, cost by their length, and no others?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tierform import Inference, TierformError, load_chip, simulate
from tierform.chip.description import Chip
from tierform.network import AnalyticNetwork, torus
from tierform.network.topology import RouteTable
from tierform.simulation.package_network import network_of, ports_of

PLANAR = """\
name: links
description: a die of tiles of 2 mm x 1 mm
components: {vector: {file: vector-128-10nm}}
network: {clock: 1 GHz, width: 256 bit, router_cycles: 2, links: LINKS}
package: {kind: planar, dies: [{name: die, grid: [4, 3], holds: {vector: 1}, width: 8 mm, height: 3 mm}]}
"""
ATLEUS = load_chip("atleus")
TASK = Inference(batch=1, sequence=64)


def planar(folder: Path, links: str) -> Chip:
    path = folder / "chip.yaml"
    path.write_text(PLANAR.replace("LINKS", links))
    return load_chip(path)


def network(chip: Chip) -> AnalyticNetwork:
    made = network_of(chip)
    assert made is not None and made[1].tolist() == list(range(len(chip.tiles)))
    return made[0]


def links(chip: Chip) -> dict[tuple[int, int], float]:
    """Each link, one way, with its length in mm."""
    topology = network(chip).topology
    rows = zip(
        topology.link_source.tolist(), topology.link_target.tolist(), topology.link_length_m.tolist(), strict=True
    )
    found = {(a, b): round(length * 1e3, 9) for a, b, length in rows}
    assert len(found) == topology.links
    assert all(found[b, a] == length for (a, b), length in found.items())
    return {ends: length for ends, length in found.items() if ends[0] < ends[1]}


def mesh_links() -> dict[tuple[int, int], float]:
    across = {(4 * y + x, 4 * y + x + 1): 2.0 for y in range(3) for x in range(3)}
    return across | {(4 * y + x, 4 * y + x + 4): 1.0 for y in range(2) for x in range(4)}


def test_is_a_mesh_as_long_as_its_tiles_are_wide_and_high(tmp_path: Path) -> None:
    assert links(planar(tmp_path, "{}")) == mesh_links()


def test_has_a_torus_rings(tmp_path: Path) -> None:
    # Of a row of four the last joins the first over three tiles, 6 mm; of a column of three over two, 2 mm.
    rings = {(4 * y, 4 * y + 3): 6.0 for y in range(3)} | {(x, x + 8): 2.0 for x in range(4)}
    chip = planar(tmp_path, "{kind: torus}")
    assert links(chip) == mesh_links() | rings
    # Routes are those of the closed-form torus: as many links on the way from each tile to each.
    mine, known = network(chip), AnalyticNetwork(torus((4, 3)))
    for goal in range(12):
        for here in range(12):
            hops = [float(one.flow_cost([here], [goal]).mean_hops) for one in (mine, known)]
            assert hops[0] == hops[1]


def test_do_express_links_go_on_over_their_span(tmp_path: Path) -> None:
    # Span 3: in each row from column 0 to 3, 6 mm; columns of three tiles have none.
    chip = planar(tmp_path, "{kind: express, span: 3, length_per_cycle: 2 mm}")
    assert links(chip) == mesh_links() | {(4 * y, 4 * y + 3): 6.0 for y in range(3)}
    # One hop of three cycles beats three hops of one cycle each behind a router of three.
    cost = network(chip).flow_cost([0], [3])
    assert cost.mean_hops == 1
    plain = network(planar(tmp_path, "{length_per_cycle: 2 mm}")).flow_cost([0], [3])
    router = network(chip).router.pipeline_cycles
    assert plain.head_latency_s - cost.head_latency_s == pytest.approx(2 * router * 1e-9)
    # The same wire, two routers less.
    energy = network(chip).energy
    assert plain.energy_J_per_B - cost.energy_J_per_B == pytest.approx(2 * 8 * energy.router_J_per_bit)


def test_is_a_small_world_drawn_again_from_its_seed(tmp_path: Path) -> None:
    chips = [planar(tmp_path, f"{{kind: small-world, shortcuts: 5, seed: {seed}}}") for seed in (1, 1, 2)]
    first, again, other = (links(chip) for chip in chips)
    assert first == again != other
    assert mesh_links().items() <= first.items() and len(first) == 17 + 5
    assert all(length > 2 or ends in mesh_links() for ends, length in first.items())


def test_is_a_list_all_there_is(tmp_path: Path) -> None:
    ring = [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    pairs = [[a, b] for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    chip = planar(tmp_path, f"{{kind: list, list: {pairs}}}")
    found = links(chip)
    assert found.keys() == {(min(a, b), max(a, b)) for a, b in pairs}
    assert found[0, 6] == 5.0  # two columns of 2 mm and one row of 1 mm
    assert found[0, 1] == 2.0


def test_are_given_routes_taken(tmp_path: Path) -> None:
    # A ring of four in which every byte goes round clockwise.
    text = PLANAR.replace("grid: [4, 3]", "grid: [2, 2]")
    ahead = {0: 1, 1: 3, 3: 2, 2: 0}
    routes = [[here if goal == here else ahead[here] for goal in range(4)] for here in range(4)]
    path = tmp_path / "chip.yaml"
    path.write_text(text.replace("LINKS", f"{{kind: mesh, routes: {routes}}}"))
    chip = load_chip(path)
    assert network(chip).routing.name == "given"
    assert network(chip).flow_cost([1], [0]).mean_hops == 3
    chip.write(tmp_path / "again.yaml")
    again = load_chip(tmp_path / "again.yaml")
    assert again == chip and again.fingerprint == chip.fingerprint


def test_stand_pillars_only_where_they_are_named() -> None:
    some = ATLEUS.vary({"network.vertical.at": [[0, 0], [3, 3]]})
    topology = network(some).topology
    up = topology.link_kind == 1
    assert up.sum() == 2 * 3 * 2  # two directions, three steps of tiers, two places
    places = {(int(tile) % 16) for tile in topology.link_source[up]}
    assert places == {0, 15}
    whole, few = (simulate("bert-base", TASK, chip) for chip in (ATLEUS, some))
    assert few.latency_s > whole.latency_s and few.energy_J > whole.energy_J


def test_are_interposer_links_where_their_pairs_are() -> None:
    chip = load_chip("atleus-2.5d")
    first = [sum(die.grid[0] * die.grid[1] for die in chip.package.dies[:index]) for index in range(4)]
    pairs = [[first[0], first[1]], [first[1], first[2]], [first[2], first[3]]]
    few = chip.vary({"network.interposer.at": pairs})
    topology = network(few).topology
    over = topology.link_kind == 2
    found = {(int(a), int(b)) for a, b in zip(topology.link_source[over], topology.link_target[over], strict=True)}
    assert found == {(a, b) for a, b in pairs} | {(b, a) for a, b in pairs}
    assert simulate("bert-base", TASK, few).latency_s > simulate("bert-base", TASK, chip).latency_s


@pytest.mark.parametrize(
    "changes",
    [
        {"network.links": {"kind": "torus"}},
        {"network.links": {"kind": "express", "span": 2}},
        {"network.links": {"kind": "small-world", "shortcuts": 6}},
        {"network.routing": "xy_yx"},
        {"network.routing": "up_down"},
        {"network.links": {"kind": "torus"}, "network.vertical.at": [[1, 1]]},
        {"network.links": {"kind": "small-world", "shortcuts": 6}, "network.routing": "up_down"},
    ],
)
def test_does_every_kind_change_what_a_run_takes(changes: dict[str, object]) -> None:
    chip = ATLEUS.vary(changes)
    plain, made = (simulate("bert-base", TASK, one) for one in (ATLEUS, chip))
    assert made.energy_J != plain.energy_J or made.latency_s != plain.latency_s


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"kind": "torus"}, {"kind": "express", "span": 2}])
def test_do_other_links_run_cycle_by_cycle_with_routes_that_cannot_deadlock(kind: dict[str, object]) -> None:
    chip = ATLEUS.vary({"network.links": kind, "network.routing": "up_down"})
    made, cycle = (simulate("bert-base", TASK, chip, fidelity=fidelity) for fidelity in ("analytic", "cycle"))
    assert cycle.latency_s == pytest.approx(made.latency_s, rel=0.3)
    if kind["kind"] == "torus":  # its own routes need escape channels, which multicasts cannot take
        with pytest.raises(TierformError, match="up_down"):
            simulate("bert-base", TASK, ATLEUS.vary({"network.links": kind}), fidelity="cycle")


def test_are_memory_ports_the_tiles_that_are_named() -> None:
    one = ATLEUS.vary({"memory.0.attached": [5]})
    assert ports_of(one, one.memory[0].attached) == (5,)
    four = ATLEUS.vary({"memory.0.attached": [0, 3, 12, 15]})
    slow, fast, whole = (simulate("bert-base", TASK, chip) for chip in (one, four, ATLEUS))
    assert slow.energy_J != fast.energy_J != whole.energy_J
    with pytest.raises(TierformError, match="numbered 0 to 63"):
        ATLEUS.vary({"memory.0.attached": [64]})


@pytest.mark.parametrize(
    ("given", "key", "word"),
    [
        ("{kind: tours}", "network.links.kind", "did you mean 'torus'"),
        ("{kind: express}", "network.links.span", "missing"),
        ("{kind: mesh, span: 2}", "network.links.span", "only express"),
        ("{kind: torus, seed: 2}", "network.links.seed", "only small-world"),
        ("{kind: small-world, shortcuts: 50}", "network.links.shortcuts", "at most 49"),
        ("{kind: express, span: 4}", "network.links.span", "more than 4 tiles"),
        ("{kind: list, list: [[0, 1], [1, 12]]}", "network.links.list.1", "0 to 11"),
        ("{kind: list, list: [[0, 1], [1, 0]]}", "network.links.list.1", "joined already"),
        ("{kind: list, list: [[0, 1], [1, 1]]}", "network.links.list.1", "two tiles"),
        ("{kind: list, list: [[0, 1], [2, 3]]}", "network.links.list", "no link leads to tile 2"),
        ("{routes: [[0]]}", "network.links.routes", "12 tiles"),
        ("{list: [[0, 1]]}", "network.links.list", "only list"),
        ("{classes: [[0]]}", "network.links.classes", "belong to routes"),
    ],
)
def test_are_impossible_links_refused(tmp_path: Path, given: str, key: str, word: str) -> None:
    with pytest.raises(TierformError) as caught:
        planar(tmp_path, given)
    found = {str(problem.key): problem for problem in caught.value.problems}
    assert key in found and word in str(found[key])
    assert found[key].line == 4


def test_are_routes_that_go_nowhere_refused() -> None:
    die = {"name": "a", "grid": [2, 2], "holds": {"systolic": 1, "vector": 1, "reram": 16}}
    square = ATLEUS.vary({"package": {"kind": "planar", "dies": [die]}, "memory.0.attached": ""})
    good = [[0, 1, 2, 1], [0, 1, 0, 3], [0, 0, 2, 3], [1, 1, 2, 3]]
    square.vary({"network.links": {"routes": good}})
    for row, column, step, word in ((0, 3, 3, "no link"), (0, 3, 0, "names itself"), (1, 2, 3, "")):
        wrong = [list(line) for line in good]
        wrong[row][column] = step
        if word:
            with pytest.raises(TierformError, match=word):
                square.vary({"network.links": {"routes": wrong}})
    circle = [[0, 1, 2, 1], [0, 1, 0, 0], [0, 0, 2, 3], [1, 1, 2, 3]]
    with pytest.raises(TierformError, match="circle"):
        square.vary({"network.links": {"routes": circle}})
    with pytest.raises(TierformError, match="belong together"):
        square.vary({"network.routing": "given"})


def test_are_classes_for_which_there_is_no_virtual_channel_refused() -> None:
    die = {"name": "a", "grid": [2, 2], "holds": {"systolic": 1, "vector": 1, "reram": 16}}
    square = ATLEUS.vary({"package": {"kind": "planar", "dies": [die]}, "memory.0.attached": ""})
    routes = [[0, 1, 2, 1], [0, 1, 0, 3], [0, 0, 2, 3], [1, 1, 2, 3]]
    classes = [[0, 0, 0, 1], [0] * 4, [0] * 4, [0] * 4]
    found = network_of(square.vary({"network.links": {"routes": routes, "classes": classes}}))
    assert found is not None
    table = found[0].topology.structure
    assert isinstance(table, RouteTable) and table.classes is not None
    assert table.classes.tolist() == classes
    with pytest.raises(TierformError, match=r"classes\.0\.3: no virtual channel"):
        square.vary({"network.links": {"routes": routes, "classes": classes}, "network.virtual_channels": 1})
    with pytest.raises(TierformError, match="4 tiles"):
        square.vary({"network.links": {"routes": routes, "classes": classes[:3]}})


def test_is_an_unoffered_routing_told_with_what_is_offered() -> None:
    with pytest.raises(TierformError, match="minimal") as caught:
        simulate("bert-base", TASK, ATLEUS.vary({"network.routing": "d_mod_k"}))
    assert caught.value.problems[0].key == "network.routing"
    with pytest.raises(TierformError, match="did you mean 'minimal'"):
        ATLEUS.vary({"network.routing": "minimall"})


def test_does_a_list_that_is_a_mesh_cost_what_the_mesh_costs() -> None:
    columns = rows = 4
    pairs = []
    for die in range(4):
        for tile in range(16):
            here, x, y = 16 * die + tile, tile % 4, tile // 4
            pairs += [[here, here + 1]] if x + 1 < columns else []
            pairs += [[here, here + 4]] if y + 1 < rows else []
    listed = network(ATLEUS.vary({"network.links": {"kind": "list", "list": pairs}}))
    plain = network(ATLEUS)
    for here, goal in ((0, 63), (5, 22), (40, 3)):
        mine, known = listed.flow_cost([here], [goal]), plain.flow_cost([here], [goal])
        assert mine.mean_hops == known.mean_hops
        assert mine.energy_J_per_B == pytest.approx(known.energy_J_per_B)
        assert mine.head_latency_s == pytest.approx(known.head_latency_s)
    assert np.sort(listed.link_J_per_B) == pytest.approx(np.sort(plain.link_J_per_B))
