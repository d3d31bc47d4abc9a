"""Are wrong stacks refused with the reason, and do the builders make what they say?"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierform.errors import TierformError
from tierform.thermal import (
    Die,
    GridModel,
    Material,
    Plate,
    Region,
    Sink,
    Stack,
    StackLayer,
    Surface,
    Tier,
    default_board,
    default_sink,
    interposer_2_5d,
    material,
    planar_stack,
    stacked_3d,
    tile_grid,
    with_columns,
)
from tierform.thermal.materials import at_temperature, evidence
from tierform.thermal.stack import Channels, region_problems

SILICON = Material.isotropic("silicon", 130.0, 1.6e6)
AIRY = Surface(1e4)
HALF = (Region("a", 0, 0, 5e-3, 1e-2), Region("b", 5e-3, 0, 5e-3, 1e-2))


def refuse(match: str, **change):
    good = Stack(1e-2, 1e-2, (StackLayer("die", 1e-4, SILICON, HALF, powered=True),), AIRY)
    with pytest.raises(TierformError, match=match):
        replace(good, **change)


def layer(*regions: Region, **change) -> tuple[StackLayer, ...]:
    return (replace(StackLayer("die", 1e-4, SILICON, tuple(regions), powered=True), **change),)


def test_bad_stacks_are_refused():
    refuse("no path leads", top=None)
    refuse("at least one layer", layers=())
    refuse("positive and finite", width_m=0.0)
    refuse("positive and finite", height_m=math.nan)
    refuse("die.thickness_m", layers=layer(*HALF, thickness_m=0.0))
    refuse("die.thickness_m", layers=layer(*HALF, thickness_m=-1e-4))
    refuse("at least one slice", layers=layer(*HALF, slices=0))
    refuse("two layers", layers=layer(*HALF) * 2)
    refuse("needs regions", layers=layer())
    refuse("overlaps 'a' by", layers=layer(HALF[0], Region("c", 4e-3, 0, 5e-3, 1e-2)))
    refuse("stands twice", layers=layer(HALF[0], replace(HALF[1], name="a")))
    refuse("outside the die", layers=layer(Region("c", 6e-3, 0, 5e-3, 1e-2)))
    refuse("width and height", layers=layer(Region("c", 0, 0, -1e-3, 1e-2)))
    refuse("heat_transfer", top=Surface(0.0))
    sink = default_sink(1e-2, 1e-2)
    refuse("smaller than what it carries", top=replace(sink, spreader=replace(sink.spreader, side_m=9e-3)))
    refuse("smaller than what it carries", top=replace(sink, plate=replace(sink.plate, side_m=2e-2)))
    refuse("resistance_K_per_W", top=replace(sink, resistance_K_per_W=0.0))
    board = default_board(1e-2, 1e-2)
    refuse("board.solder", bottom=replace(board, solder=replace(board.solder, thickness_m=0.0)))


def test_all_mistakes_are_told_at_once():
    with pytest.raises(TierformError) as caught:
        Stack(1e-2, 1e-2, layer(Region("c", 0, 0, -1e-3, 1e-2), thickness_m=0.0), None)
    assert len(caught.value.problems) == 3


def test_gaps_are_told_where_cover_is_needed():
    found = list(region_problems((HALF[0],), 1e-2, 1e-2, where="plan", cover=True))
    assert "uncovered" in str(found[0])
    assert "50.00%" in str(found[0])
    assert not list(region_problems(HALF, 1e-2, 1e-2, where="plan", cover=True))
    assert not list(region_problems((HALF[0],), 1e-2, 1e-2, where="plan"))


def test_of_a_thousand_blocks_on_one_place_some_are_told():
    found = list(
        region_problems(tuple(Region(str(n), 0.0, 0.0, 1.0, 1.0) for n in range(1000)), 1.0, 1.0, where="plan")
    )
    assert len(found) == 51 and "more than 50 pairs" in str(found[-1])


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(1, 3), st.integers(1, 3)), max_size=6))
def test_overlaps_are_found_as_by_counting_cells(boxes):
    regions = tuple(Region(str(n), x * 1.0, y * 1.0, w * 1.0, h * 1.0) for n, (x, y, w, h) in enumerate(boxes))
    count = np.zeros((10, 10))
    for x, y, w, h in boxes:
        count[y : y + h, x : x + w] += 1
    problems = list(region_problems(regions, 10.0, 10.0, where="plan"))
    assert bool((count > 1).any()) == any("overlaps" in str(problem) for problem in problems)


def test_next_to_no_path_is_refused_when_solving():
    sink = default_sink(1e-2, 1e-2, resistance_K_per_W=1e20)
    stack = planar_stack(1e-2, 1e-2, top=sink)
    with pytest.raises(TierformError, match="ambient"):
        GridModel(stack, 6, 6).steady([1.0])


def test_bad_grids_and_powers_are_refused():
    stack = planar_stack(1e-2, 1e-2, rows=1, columns=2)
    for rows, columns in ((0, 4), (4, -1)):
        with pytest.raises(TierformError, match="at least one cell"):
            GridModel(stack, rows, columns)
    model = GridModel(stack, 3, 5)
    with pytest.raises(TierformError, match="does not have"):
        model.steady({"die[0,0]": 1.0, "dye": 2.0})
    with pytest.raises(TierformError, match="one power per tile"):
        model.steady([1.0])
    with pytest.raises(TierformError, match="not finite"):
        model.steady([1.0, math.inf])
    with pytest.raises(TierformError, match="cell powers of shape"):
        model.steady(cell_power_W=np.zeros((1, 2, 3)))
    with pytest.raises(TierformError, match="no such layer"):
        model.steady([1.0, 1.0]).layer_K("spreder")


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (3, 5), (17, 13), (64, 48)])
def test_grids_of_any_size_conserve_energy(rows, columns):
    stack = interposer_2_5d([Die("a", 1e-3, 1e-3, 3e-3, 4e-3, 2, 2), Die("b", 5e-3, 1e-3, 2e-3, 4e-3)])
    field = GridModel(stack, rows, columns).steady([1.0, 2.0, 3.0, 4.0, 5.0])
    assert field.heat_out_W == pytest.approx(15.0, rel=1e-9)


def test_a_stack_that_is_farther_from_the_sink_is_hotter():
    model = GridModel(stacked_3d(8e-3, 8e-3, [Tier(name, 2, 2) for name in "abcd"]), 8, 8)
    tiers = model.steady(np.full(16, 2.0)).tiles_K().reshape(4, 4).mean(axis=1)
    assert list(tiers) == sorted(tiers, reverse=True)


def test_vias_cool_the_lower_tiers():
    tiers = [Tier("a", 2, 2), Tier("b", 2, 2)]
    peaks = [
        GridModel(stacked_3d(8e-3, 8e-3, tiers, via_fill=fill), 8, 8).steady(np.full(8, 4.0)).peak_K
        for fill in (0, 0.1)
    ]
    assert peaks[1] < peaks[0]


def test_the_same_dies_side_by_side_are_cooler_than_stacked():
    stacked = GridModel(stacked_3d(8e-3, 8e-3, [Tier("a", 2, 2), Tier("b", 2, 2)]), 16, 16).steady(np.full(8, 5.0))
    dies = [Die("a", 1e-3, 1e-3, 8e-3, 8e-3, 2, 2), Die("b", 1e-2, 1e-3, 8e-3, 8e-3, 2, 2)]
    beside = GridModel(interposer_2_5d(dies, board=False), 20, 38).steady(np.full(8, 5.0))
    assert beside.peak_K < stacked.peak_K


def test_a_board_takes_some_of_the_heat():
    with_board = GridModel(planar_stack(1e-2, 1e-2, board=True), 8, 8).steady([30.0])
    without = GridModel(planar_stack(1e-2, 1e-2), 8, 8).steady([30.0])
    assert with_board.peak_K < without.peak_K
    assert with_board.heat_out_W == pytest.approx(30.0, rel=1e-9)
    assert set(with_board.package_K) >= {"sink outer north", "board outer west", "substrate east"}


def test_plates_flush_with_the_die_are_allowed():
    sink = Sink(Plate(1e-2, 1e-3, SILICON), Plate(1e-2, 2e-3, SILICON), 0.5, 10.0)
    field = GridModel(planar_stack(1e-2, 1e-2, top=sink), 6, 6).steady([10.0])
    assert field.heat_out_W == pytest.approx(10.0, rel=1e-9)
    # Convection, and half of the plate below its middle.
    assert field.layer_K("sink").mean() == pytest.approx(318.15 + 10.0 * (0.5 + 1e-3 / (130.0 * 1e-4)), abs=1e-6)


def test_tile_grids_fill_their_rectangle():
    tiles = tile_grid(3, 2, 6e-3, 9e-3, x_m=1e-3, prefix="t")
    assert [tile.name for tile in tiles][:3] == ["t[0,0]", "t[0,1]", "t[1,0]"]
    assert sum(tile.area_m2 for tile in tiles) == pytest.approx(54e-6)
    with pytest.raises(TierformError, match="row"):
        tile_grid(0, 2, 1e-3, 1e-3)
    for build in (lambda: stacked_3d(1e-2, 1e-2, []), lambda: interposer_2_5d([])):
        with pytest.raises(TierformError, match="at least one"):
            build()


@given(st.floats(0.0, 1.0), st.floats(0.1, 500.0), st.floats(0.1, 500.0))
def test_mixtures_lie_between_their_parts(fraction, outer, inner):
    mix = with_columns(Material.isotropic("m", outer, 1e6), Material.isotropic("i", inner, 3e6), fraction)
    low, high = min(outer, inner) * (1 - 1e-9), max(outer, inner) * (1 + 1e-9)
    assert low <= mix.conductivity_x_W_per_mK <= high
    assert low <= mix.conductivity_z_W_per_mK <= high
    # Columns conduct best along themselves (Wiener's upper bound).
    assert mix.conductivity_x_W_per_mK <= mix.conductivity_z_W_per_mK * (1 + 1e-9)
    assert mix.heat_capacity_J_per_m3K == pytest.approx(1e6 + 2e6 * fraction)


def test_materials_of_the_library_have_sources():
    from tierform.library import citation

    lines = evidence({"silicon", "copper", "underfill", "not a library material"})
    assert {line.subject.split(":")[0] for line in lines} == {"silicon", "copper", "underfill"}
    for line in lines:
        assert line.kind == "assumed" or citation(line.source)
    with pytest.raises(TierformError, match="silicon"):
        material("silicn")
    with pytest.raises(TierformError, match="between 0 and 1"):
        with_columns(SILICON, SILICON, 1.5)
    with pytest.raises(TierformError, match="positive"):
        Material.isotropic("bad", -1.0, 1e6)


def test_silicon_conducts_worse_when_hot():
    silicon = material("silicon")
    assert at_temperature(silicon, 300.0) == silicon
    hot = at_temperature(silicon, 400.0).conductivity_x_W_per_mK
    # Glassbrenner and Slack measured 98.9 W/(m·K) at 400 K.
    assert hot == pytest.approx(98.9, rel=0.05)


def test_temperature_dependent_conduction_settles_and_conserves():
    stack = replace(planar_stack(1e-2, 1e-2, rows=1, columns=2), conductivity_temperature_K=330.0)
    model = GridModel(stack, 8, 8)
    linear = model.steady([90.0, 0.0])
    field = model.steady([90.0, 0.0], nonlinear=True)
    assert field.peak_K > 340.0
    assert field.peak_K != pytest.approx(linear.peak_K, abs=1e-3)
    # A slab with k = k0·(T/T0)^n under a fixed face: Kirchhoff's transform gives its temperature exactly.
    kind = Material("k(T)", 148.0, 148.0, 148.0, 1.6e6, -1.3)
    thick, power, side = 5e-3, 60.0, 5e-3
    slab = StackLayer("slab", thick, kind, (), slices=40)
    heater = StackLayer("heater", 1e-7, kind, (Region("all", 0, 0, side, side),), powered=True)
    hot = GridModel(Stack(side, side, (heater, slab), Surface(math.inf), ambient_K=300.0), 1, 1, solver="direct")
    found = hot.steady([power], nonlinear=True).tiles_K()[0]
    exact = 300.0 * (1 - 0.3 * power / side**2 * thick / (148.0 * 300.0)) ** (1 / -0.3)
    assert found == pytest.approx(exact, abs=0.05)
    assert found > hot.steady([power]).tiles_K()[0] - 60.0


def channels(**change) -> Channels:
    water = material("water")
    return replace(Channels(("000", "213", "000"), water, 2e4, 300.0, 3e4), **change)


def test_bad_channels_are_refused():
    for match, change in (
        ("one length", {"cells": ("00", "213")}),
        ("0, 1, 2 or 3", {"cells": ("000", "214")}),
        ("no inlet", {"cells": ("000", "113")}),
        ("no outlet", {"cells": ("000", "211")}),
        ("pumping_pressure", {"pumping_pressure_Pa": 0.0}),
        ("viscosity", {"coolant": SILICON}),
    ):
        with pytest.raises(TierformError, match=match):
            Stack(1e-2, 1e-2, (StackLayer("c", 1e-4, SILICON, channels=channels(**change)),), None)
