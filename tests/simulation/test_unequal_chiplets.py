"""Do chiplets of any grids at any places get the routers and links that they have, and no others?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tierform import TierformError, load_chip
from tierform.chip.description import Chip
from tierform.network import Topology
from tierform.simulation.package_network import _any_links, network_of

HEAD = """\
name: side-by-side
description: chiplets
components: {vector: {file: vector-128-10nm}}
network: {clock: 1 GHz, width: 256 bit, interposer: {width: 64 bit, latency_cycles: 4}}
package:
  kind: %s
  chiplet_gap: 1 mm
  dies:
"""


def chip(folder: Path, *dies: str, kind: str = "2.5d") -> Chip:
    path = folder / "chip.yaml"
    lines = [f"    - {{name: die{index}, holds: {{vector: 1}}, {die}}}\n" for index, die in enumerate(dies)]
    path.write_text(HEAD % kind + "".join(lines))
    return load_chip(path)


def test_have_two_any_links_the_links_derived_by_hand(tmp_path: Path) -> None:
    # A row of two tiles of 1 mm x 1 mm, and 1 mm beside it a column of three tiles of 3 mm x 1 mm.  Routers stand in
    # the middle of tiles: x 0.5 and 1.5, y 0.5; then x 2 + 1 + 1.5 = 4.5, y 0.5, 1.5, 2.5.  Facing edges have 1 and 3
    # routers: one link, from the only one to the middle one, 3 mm across and 1 mm up.
    made = network_of(
        chip(
            tmp_path,
            "grid: [2, 1], at: [0, 0], width: 2 mm, height: 1 mm",
            "grid: [1, 3], at: [1, 0], width: 3 mm, height: 3 mm",
        )
    )
    assert made is not None
    network, node = made
    topology = network.topology
    assert node.tolist() == [0, 1, 2, 3, 4]
    found = {
        (int(a), int(b)): (round(length * 1e3, 6), int(width), int(cycles))
        for a, b, length, width, cycles in zip(
            topology.link_source,
            topology.link_target,
            topology.link_length_m,
            topology.link_width_bits,
            topology.link_latency_cycles,
            strict=True,
        )
    }
    one_way = {
        (0, 1): (1.0, 256, 1),
        (2, 3): (1.0, 256, 1),
        (3, 4): (1.0, 256, 1),
        (1, 3): (4.0, 64, 4),
    }
    assert found == one_way | {(b, a): value for (a, b), value in one_way.items()}
    # From the far tile of the first to the end of the second: over 0-1, 1-3, 3-4 at the interposer link's bandwidth.
    cost = network.flow_cost([0], [4])
    assert cost.mean_hops == 3
    assert cost.seconds_per_B == pytest.approx(8 / (64 * 1e9))


def test_are_equal_chiplets_that_fill_a_rectangle_the_same_both_ways(tmp_path: Path) -> None:
    square = "grid: [3, 3], width: 3 mm, height: 3 mm, at: "
    whole = chip(tmp_path, *(f"{square}[{x}, {y}]" for y in range(2) for x in range(3)))
    made = network_of(whole)
    assert made is not None and made[0].topology.grid is not None
    grid, node = made[0].topology, made[1]
    router = {int(grid.node_router[n]): tile for tile, n in enumerate(node)}
    free = _any_links(whole)

    def links(topology: Topology, number: dict[int, int]) -> set[tuple[object, ...]]:
        columns = ("link_source", "link_target", "link_length_m", "link_width_bits", "link_latency_cycles", "link_kind")
        rows = zip(*(getattr(topology, column).tolist() for column in columns), strict=True)
        return {(number[a], number[b], round(length, 9), *rest) for a, b, length, *rest in rows}

    assert links(grid, router) == links(free, {tile: tile for tile in range(len(whole.tiles))})


def test_are_there_no_routers_without_a_tile(tmp_path: Path) -> None:
    made = network_of(
        chip(tmp_path, "grid: [4, 4], at: [0, 0]", "grid: [2, 2], at: [0, 1]", "grid: [4, 4], at: [3, 0]")
    )
    assert made is not None
    topology = made[0].topology
    assert topology.routers == 16 + 4 + 16
    # In both directions: two meshes of 24 links, one of 4; 2 links up to the small one, 4 across the empty columns.
    assert topology.links == 2 * (24 + 24 + 4 + 2 + 4)


def test_does_every_byte_take_links_that_exist_and_arrive(tmp_path: Path) -> None:
    whole = chip(tmp_path, "grid: [3, 2], at: [0, 0]", "grid: [2, 4], at: [1, 0]", "grid: [1, 1], at: [1, 1]")
    made = network_of(whole)
    assert made is not None
    network, node = made
    topology = network.topology
    for goal in range(len(whole.tiles)):
        share = network.flow_cost(node, [node[goal]]).link_share
        balance = np.bincount(topology.link_target, share, topology.routers)
        balance -= np.bincount(topology.link_source, share, topology.routers)
        expected = np.full(topology.routers, -1 / len(whole.tiles))
        expected[goal] += 1.0
        assert balance == pytest.approx(expected, abs=1e-12)


def test_do_columns_and_rows_take_the_room_of_their_largest_chiplet(tmp_path: Path) -> None:
    whole = chip(
        tmp_path,
        "grid: [1, 1], at: [0, 0], width: 2 mm, height: 3 mm",
        "grid: [1, 1], at: [0, 1], width: 5 mm, height: 1 mm",
        "grid: [1, 1], at: [7, 0], width: 1 mm, height: 1 mm",
    )
    # Column 0 is 5 mm wide, then a gap of 1 mm; columns 1 to 6 hold nothing.  Row 0 is 3 mm high.
    assert whole.die_origin_m(2) == pytest.approx((6e-3, 0))
    assert whole.die_origin_m(1) == pytest.approx((0, 4e-3))


@pytest.mark.parametrize(
    ("dies", "kind", "key", "word"),
    [
        (("grid: [2, 2], at: [0, 0]", "grid: [2, 2], at: [-1, 0]"), "2.5d", "package.dies.1.at.0", "at least 0"),
        (("grid: [2, 2], at: [1, 1]", "grid: [2, 3], at: [1, 1]"), "2.5d", "package.dies.1.at", "'die0' stands at"),
        (("grid: [2, 2], at: [0, 0]", "grid: [2, 2], at: [1, 1]"), "2.5d", "package.dies.1.at", "no interposer link"),
        (("grid: [2, 2], at: [0, 0]",), "planar", "package.dies.0.at", "no place beside"),
    ],
)
def test_are_impossible_places_refused(tmp_path: Path, dies: tuple[str, ...], kind: str, key: str, word: str) -> None:
    with pytest.raises(TierformError) as caught:
        chip(tmp_path, *dies, kind=kind)
    (problem,) = caught.value.problems
    assert problem.key == key and word in str(problem)
    assert problem.line == 9 + int(key.split(".")[2])
