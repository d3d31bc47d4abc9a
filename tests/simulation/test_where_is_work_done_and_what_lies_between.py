"""On which tiles is work done, and what does the way between two places take, layer by layer, by hand?"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tierform
from tierform.simulation.fabric import MOST_TREES, Fabric, _layers_of, number_of, receivers

GOLDEN = Path(__file__).parent / "golden"


@cache
def fabric(name: str) -> Fabric:
    return Fabric(tierform.load_chip(GOLDEN / f"toy-{name}.yaml"))


def tiles() -> Fabric:
    """Four tiles of a die."""
    return fabric("tiles")


def stack() -> Fabric:
    """Two tiers of two tiles."""
    return fabric("stack")


def test_how_is_work_shared_by_tiles() -> None:
    assert tiles().place(((0, 1, 3),)).where.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    # Layers on tiles of their own: the mean over the layers.
    assert tiles().place(((0,), (1, 2))).where.tolist() == [0.5, 0.25, 0.25, 0.0]
    # One part of a component on tile 2, three on tile 3, in both of two layers.
    uneven = tiles().place(((2, 3), (2, 3)), units=(1, 3))
    assert uneven.where.tolist() == pytest.approx([0, 0, 0.25, 0.75])
    assert tiles().place(((2, 3),), units=(5, 5)).where.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert tiles().place(((2, 3),), units=(5, 5)) is tiles().place(((2, 3),)) is not tiles().place(((2, 3),), True)


def test_do_bytes_leave_their_tiles() -> None:
    here, there, both = (tiles().place(samples) for samples in (((0,),), ((1,),), ((0,), (1,))))
    assert tiles().apart(here, there) and tiles().apart(here, both) and tiles().apart(both, there)
    assert not tiles().apart(here, here) and not tiles().apart(tiles().place(((0,), (0,))), here)
    alone = Fabric(tierform.load_chip(GOLDEN / "toy-gpu.yaml"))
    assert not alone.apart(here, there)
    assert alone.leakage_W == alone.area_m2 == 0.0 and alone.link_B_per_s.tolist() == []
    assert alone.link_ends().source == alone.link_ends().kind == []


def figures(route: Any) -> list[float]:
    return [route.head_s, route.seconds_per_B, route.energy_J_per_B, *route.link_share]


def test_is_a_way_the_mean_over_its_layers() -> None:
    """Tile 0 to its neighbour 1 and to tile 2 above it; a layer that stays where it is takes nothing."""
    stay, side, up = (stack().place(samples) for samples in (((0,),), ((1,),), ((2,),)))
    one, other = stack().route(stay, (side,)), stack().route(stay, (up,))
    assert one.seconds_per_B == pytest.approx(1 / 32e9) and one.link_share.sum() == 1.0
    mixed = stack().route(stack().place(((0,), (0,), (0,))), (stack().place(((1,), (2,), (0,))),))
    expected = [(a + b) / 3 for a, b in zip(figures(one), figures(other), strict=True)]
    assert figures(mixed) == pytest.approx(expected)
    assert stack().route(stay, (side,)) is one
    # Its energy is spent at the router of the tile that drives the link.
    assert one.where.tolist() == [1.0, 0.0, 0.0, 0.0] and (one.own, mixed.own) == (False, False)


def test_is_the_energy_of_a_multicast_shared_by_its_targets() -> None:
    start, side, up = (stack().place(samples) for samples in (((0,),), ((1,),), ((2,),)))
    both = stack().route(start, (side, up))
    assert stack().network is not None
    nodes = [stack().nodes(tiles) for tiles in ((0,), (1,), (2,))]
    tree = stack().network.multicast_cost(nodes[0], nodes[1:])
    assert both.energy_J_per_B == pytest.approx(tree.energy_J_per_B / 2)
    assert both.link_share == pytest.approx(np.asarray(tree.link_share) / 2)
    assert (both.head_s, both.seconds_per_B) == pytest.approx((tree.head_latency_s, tree.seconds_per_B))
    assert both.name == "tile 0 > tile 1 + tile 2"


def test_has_a_way_between_weights_of_their_own_a_resource_of_its_own() -> None:
    free, own = stack().place(((0,),)), stack().place(((2,),), True)
    other = stack().place(((1,),))
    assert stack().route(own, (free,)).own and stack().route(free, (own,)).own
    assert not stack().route(free, (own, other)).own


def test_who_receives_something() -> None:
    """Places on the same tiles are one, and what is there already is not sent."""
    start = tiles().place(((0,), (1,)))
    goals = [tiles().place(samples) for samples in (((1,), (1,)), ((1,), (2,)), ((0,), (3,)))]
    assert receivers(start, goals, 0) == [(1,)]
    assert receivers(start, goals, 1) == [(2,), (3,)]


def test_which_layers_stand_for_all() -> None:
    """All of a way to one place; of a multicast to groups of tiles as many as the trees allow, at least four."""
    layers = 50
    many = tiles().place(tuple((n % 4,) for n in range(layers)))
    assert _layers_of(many, [tiles().place(((0,),))]) == list(range(layers))
    wide = tiles().place(((0, 1, 2, 3),))
    # Six groups of four tiles are 24 trees a layer, 400 trees 16 layers; of sixty groups four layers are taken.
    assert MOST_TREES == 400
    for groups, number in ((6, 16), (60, 4), (2, 50)):
        found = _layers_of(many, [wide] * groups)
        gaps = np.diff(found)
        assert (len(found), found[0], found[-1]) == (number, 0, layers - 1) and gaps.max() - gaps.min() <= 1
    assert _layers_of(tiles().place(((0,),)), [wide] * 60) == [0]


def test_how_is_a_place_named() -> None:
    assert number_of(tiles().place(((2,),))) == number_of(tiles().place(((2,), (2,)))) == "tile 2"
    assert number_of(tiles().place(((1, 2),))) == "tiles 1 to 2"
    assert number_of(tiles().place(((1,), (3,)))) == "tiles 1 to 3"
