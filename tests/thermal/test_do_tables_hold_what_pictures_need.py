"""Do the tables behind heat map, cross-section and course over time have the right numbers?"""

from __future__ import annotations

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.thermal import GridModel, InfluenceModel, Tier, planar_stack, stacked_3d
from tierform.thermal.tables import cross_section, heat_maps, over_time, tile_maps

STACK = stacked_3d(8e-3, 6e-3, [Tier("a", 2, 2), Tier("b", 2, 2)], board=True)
POWERS = np.array([0.0, 8.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def field():
    return GridModel(STACK, 6, 8).steady(POWERS)


def test_heat_maps_show_where_it_is_hot(field):
    maps = heat_maps(field)
    assert [found.layer for found in maps] == ["a", "b"]
    assert maps[0].temperature_K.shape == (6, 8)
    x, y, peak = maps[0].peak
    assert 4e-3 < x < 8e-3
    assert 0 < y < 3e-3
    assert peak == field.layer_K("a").max()


def test_the_cross_section_runs_from_board_to_sink(field):
    cut = cross_section(field)
    assert cut.names[0] == "board"
    assert cut.names[-1] == "sink"
    assert cut.temperature_K.shape == (len(cut.names), 8)
    assert len(cut.thickness_m) == len(cut.names)
    assert cut.temperature_K.max() == field.peak_K
    assert cut.temperature_K[-1].mean() < cut.temperature_K[cut.names.index("a")].mean()
    assert cross_section(field, 0.0).y_m == pytest.approx(0.5e-3)
    assert cross_section(field, 6e-3).y_m == pytest.approx(5.5e-3)
    with pytest.raises(TierformError, match="reaches"):
        cross_section(field, 7e-3)


def test_tile_maps_split_tiles_by_tier():
    model = InfluenceModel(STACK, cache=False)
    values = model.temperatures_K(POWERS)
    maps = tile_maps(model, values)
    np.testing.assert_array_equal(np.concatenate([found.temperature_K for found in maps]), values)
    assert maps[1].regions[0].name == "b[0,0]"
    with pytest.raises(TierformError, match="one temperature per tile"):
        tile_maps(model, values[:3])


def test_courses_are_sorted_by_their_peak():
    model = GridModel(planar_stack(8e-3, 8e-3, rows=1, columns=3), 6, 6)
    course = over_time(model.transient([[1.0, 5.0, 3.0]] * 4, 0.01), hottest=2)
    assert course.names == ("die/die[0,1]", "die/die[0,2]")
    assert course.temperature_K.shape == (2, 4)
    assert course.time_s[-1] == pytest.approx(0.04)
