"""Which routers and links have dies in one grid, what does a way over them take, and where do memories join: by hand.

Tiles of 1 mm x 1 mm; a router takes 3 cycles of 1 ns, a planar link 1, an interposer link 4, a vertical link 2.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import tierform
from tierform.chip.description import Chip
from tierform.simulation.fabric import Fabric, Place
from tierform.simulation.package_network import ports_of

HEAD = """\
name: wired
description: toy
components: {%s}
network:
  clock: 1 GHz
  width: 256 bit
  router_cycles: %d
  vertical: {width: 64 bit, latency_cycles: 2, every: %d}
  interposer: {width: 128 bit, latency_cycles: 4, every: %d}
package:
  kind: %s
  dies:
"""


def chip(folder: Path, kind: str, *dies: str, every: int = 1, router_cycles: int = 3) -> Chip:
    lines = [f"    - {{name: die{index}, {die}}}\n" for index, die in enumerate(dies)]
    parts = ", ".join(f"{name}: {{file: vector-128-10nm}}" for name in ("vector", "more") if name in "".join(dies))
    (folder / "chip.yaml").write_text(HEAD % (parts, router_cycles, every, every, kind) + "".join(lines))
    return tierform.load_chip(folder / "chip.yaml")


def die(columns: int, rows: int, at: str = "", holds: str = "vector") -> str:
    size = f"width: {columns} mm, height: {rows} mm"
    place = f"at: {at}, " if at else ""
    return f"grid: [{columns}, {rows}], {place}{size}, holds: {{{holds}: 1}}"


def wires(fabric: Fabric) -> dict[str, set[tuple[int, int]]]:
    """Pairs of tiles by kind of link; there is one link in each direction."""
    ends = fabric.link_ends()
    pairs = list(zip(ends.source, ends.target, strict=True))
    assert len(set(pairs)) == len(pairs) and {(b, a) for a, b in pairs} == set(pairs)
    return {
        kind: {pair for pair, other in zip(pairs, ends.kind, strict=True) if other == kind and pair[0] < pair[1]}
        for kind in set(ends.kind)
    }


def ns_and_ns_per_flit(fabric: Fabric, one: int, other: int) -> tuple[float, float]:
    """Nanoseconds until the head is there, and for each 32 bytes that follow."""
    here, there = (fabric.place(((tile,),)) for tile in (one, other))
    route = fabric.route(here, (there,))
    return route.head_s * 1e9, route.seconds_per_B * 32e9


def test_has_one_die_a_mesh(tmp_path: Path) -> None:
    # Tiles 0 1 2 below, 3 4 5 above.
    fabric = Fabric(chip(tmp_path, "planar", die(3, 2)))
    assert wires(fabric) == {"planar": {(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)}}
    assert fabric.link_B_per_s.tolist() == [32e9] * 14
    near, far = ns_and_ns_per_flit(fabric, 0, 1), ns_and_ns_per_flit(fabric, 0, 5)
    # Two links and two routers more; a flit of 32 bytes follows in each cycle.
    assert far[0] - near[0] == pytest.approx(2 * (3 + 1))
    assert near[1] == far[1] == pytest.approx(1.0)


@pytest.mark.parametrize("cycles", [2, 3, 4, 6])
def test_does_every_cycle_of_a_router_count(cycles: int, tmp_path: Path) -> None:
    fabric = Fabric(chip(tmp_path, "planar", die(4, 1), router_cycles=cycles))
    near, far = ns_and_ns_per_flit(fabric, 0, 1)[0], ns_and_ns_per_flit(fabric, 0, 3)[0]
    assert far - near == pytest.approx(2 * (cycles + 1))


def test_has_a_stack_pillars_at_every_place_or_some(tmp_path: Path) -> None:
    stack = ("3d", die(3, 1), die(3, 1))
    fabric = Fabric(chip(tmp_path, *stack))
    planar = {(0, 1), (1, 2), (3, 4), (4, 5)}
    assert wires(fabric) == {"planar": planar, "vertical": {(0, 3), (1, 4), (2, 5)}}
    assert sorted(set(fabric.link_B_per_s)) == [8e9, 32e9]
    # Across and up: a vertical link is on its way for 2 cycles, and takes 4 for each flit of 256 bit.
    across, up = ns_and_ns_per_flit(fabric, 0, 1), ns_and_ns_per_flit(fabric, 0, 3)
    assert up[0] - across[0] >= 1 and up[1] == pytest.approx(4.0)
    few = Fabric(chip(tmp_path, *stack, every=2))
    assert wires(few) == {"planar": planar, "vertical": {(0, 3), (2, 5)}}


def test_have_chiplets_in_a_grid_links_over_the_edges_that_they_share(tmp_path: Path) -> None:
    # Four chiplets of 2 x 2: tiles 0 to 3 at the left below, 4 to 7 right of it, 8 to 11 above, 12 to 15 beside that.
    dies = [die(2, 2, at) for at in ("[0, 0]", "[1, 0]", "[0, 1]", "[1, 1]")]
    fabric = Fabric(chip(tmp_path, "2.5d", *dies))
    found = wires(fabric)
    assert found["interposer"] == {(1, 4), (3, 6), (9, 12), (11, 14), (2, 8), (3, 9), (6, 12), (7, 13)}
    first = {(0, 1), (2, 3), (0, 2), (1, 3)}
    assert found["planar"] == {(a + 4 * n, b + 4 * n) for a, b in first for n in range(4)}
    assert sorted(set(fabric.link_B_per_s)) == [16e9, 32e9]
    inside, between = ns_and_ns_per_flit(fabric, 0, 1), ns_and_ns_per_flit(fabric, 1, 4)
    assert between[0] - inside[0] >= 3 and between[1] == pytest.approx(2.0)
    # One link an edge where only every second router has one.
    few = wires(Fabric(chip(tmp_path, "2.5d", *dies, every=2)))
    assert len(few["interposer"]) == 4 and few["planar"] == found["planar"]


def test_have_two_chiplets_of_one_grid_no_third(tmp_path: Path) -> None:
    fabric = Fabric(chip(tmp_path, "2.5d", die(2, 1, "[0, 0]"), die(2, 1, "[1, 0]")))
    assert wires(fabric) == {"planar": {(0, 1), (2, 3)}, "interposer": {(1, 2)}}


def test_where_do_memories_join(tmp_path: Path) -> None:
    made = chip(tmp_path, "3d", die(3, 2), die(3, 2, holds="more"))
    assert ports_of(made, "vector") == (0, 1, 2, 3, 4, 5)
    assert ports_of(made, "more") == ports_of(made, "die1") == (6, 7, 8, 9, 10, 11)
    assert ports_of(made, "die0") == (0, 1, 2, 3, 4, 5)
    # First and last column of the first die.
    assert ports_of(made, "") == (0, 2, 3, 5)


def test_is_a_chip_of_one_tile_without_a_network() -> None:
    fabric = Fabric(tierform.load_chip("a100"))
    assert (fabric.network, fabric.leakage_W, fabric.area_m2) == (None, 0.0, 0.0)
    assert len(fabric.link_B_per_s) == 0 and fabric.assumptions() == () and fabric.link_ends().kind == []
    here: Place = fabric.place(((0,),))
    assert not fabric.apart(here, fabric.place(((0,),), own=True))


def test_where_is_the_energy_of_a_way_spent(tmp_path: Path) -> None:
    fabric = Fabric(chip(tmp_path, "planar", die(3, 1)))
    here, there = fabric.place(((0,),)), fabric.place(((2,),))
    # Over two links, driven by tiles 0 and 1, all bytes over both.
    route = fabric.route(here, (there,))
    assert route.where is not None and route.where.tolist() == pytest.approx([0.5, 0.5, 0.0])
    assert route.link_share.sum() == pytest.approx(2.0)
    assert route.name == "tile 0 > tile 2" and not route.own
    # Two layers: to tile 2 and to tile 1, one link and a half in the mean.
    moving = fabric.place(((2,), (1,)), own=True)
    mean = fabric.route(here, (moving,))
    assert mean.link_share.sum() == pytest.approx(1.5) and mean.own
    assert mean.head_s == pytest.approx((route.head_s + fabric.route(here, (fabric.place(((1,),)),)).head_s) / 2)
    assert mean.name == "tile 0 > tiles 2 to 1"
