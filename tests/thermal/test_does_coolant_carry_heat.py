"""Does coolant flow as ducts say, and carry away the heat that it should?"""

from __future__ import annotations

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.thermal import Channels, GridModel, Material, Region, Stack, StackLayer, material
from tierform.thermal.channels import duct_conductance, flows

SILICON = Material.isotropic("silicon", 130.0, 1.6e6)


def cooled(pattern: tuple[str, ...], **change: float) -> Stack:
    water = material("water")
    channels = Channels(pattern, water, change.get("pressure", 2e4), 300.0, 3e4, change.get("pump", 0.0))
    die = (Region("all", 0, 0, 8e-3, 8e-3),)
    layers = (StackLayer("cold", 1e-4, SILICON, channels=channels), StackLayer("die", 2e-4, SILICON, die, powered=True))
    return Stack(8e-3, 8e-3, layers, None, ambient_K=300.0)


STRAIGHT = ("0" * 8, "2" + "1" * 6 + "3") * 4
BEND = ("00000000", "21111100", "00000100", "00000100", "00000100", "00000113", "00000000", "00000000")


def volume_flow(stack: Stack) -> tuple[float, float]:
    layer = stack.layers[0]
    first, second, flow, inlets, entering = flows(layer.channels, layer, stack)
    cells = np.zeros(64)
    np.add.at(cells, first, flow)
    np.subtract.at(cells, second, flow)
    inside = [n for n, digit in enumerate("".join(layer.channels.cells)) if digit == "1"]
    np.testing.assert_allclose(cells[inside], 0.0, atol=1e-9 * np.abs(flow).max())
    assert set(inlets) == {n for n, digit in enumerate("".join(layer.channels.cells)) if digit == "2"}
    return float(entering.sum()), float(np.abs(flow).max())


def test_flow_follows_the_ducts_in_series():
    stack = cooled(STRAIGHT)
    total, largest = volume_flow(stack)
    one = duct_conductance(1e-3, 1e-4, 1e-3, 8.89e-4)
    assert largest == pytest.approx(2e4 * one / 7)
    assert total == pytest.approx(4 * largest)
    assert volume_flow(cooled(STRAIGHT, pressure=4e4))[0] == pytest.approx(2 * total)
    assert volume_flow(cooled(BEND))[0] == pytest.approx(2e4 * one / 11)


def test_a_pump_with_resistance_delivers_less():
    total, _ = volume_flow(cooled(BEND))
    resistance = 2e4 / total
    assert volume_flow(cooled(BEND, pump=resistance))[0] == pytest.approx(total / 2)


def test_ducts_of_either_orientation_conduct_alike():
    assert duct_conductance(1e-4, 3e-4, 1e-3, 1e-3) == duct_conductance(3e-4, 1e-4, 1e-3, 1e-3)
    # Between parallel plates: b·a³/(12·µ·L).
    wide = duct_conductance(1.0, 1e-4, 1e-3, 1e-3)
    assert wide == pytest.approx(1e-12 / (12 * 1e-3 * 1e-3), rel=1e-3)


@pytest.mark.parametrize("pattern", [STRAIGHT, BEND])
@pytest.mark.parametrize("solver", ["blocks", "direct"])
def test_coolant_leaves_with_the_heat(pattern, solver):
    stack = cooled(pattern)
    power = 4.0
    field = GridModel(stack, 8, 8, solver=solver).steady([power])
    assert field.heat_out_W == pytest.approx(power, rel=1e-9)
    total, _ = volume_flow(stack)
    outlets = [n for n, digit in enumerate("".join(pattern)) if digit == "3"]
    layer = stack.layers[0]
    leaving = field.layer_K("cold").ravel()[outlets].mean()
    assert leaving - 300.0 == pytest.approx(power / (layer.channels.coolant.heat_capacity_J_per_m3K * total), rel=1e-6)


def test_coolant_warms_steadily_on_its_way():
    along = GridModel(cooled(STRAIGHT), 8, 8).steady([10.0]).layer_K("cold")[1]
    assert np.all(np.diff(along) > 0)
    assert along[0] > 300.0


def test_more_pressure_cools_better():
    peaks = [GridModel(cooled(STRAIGHT, pressure=p), 8, 8).steady([20.0]).peak_K for p in (1e4, 4e4)]
    assert peaks[1] < peaks[0]


def test_fluid_without_a_way_out_is_refused():
    pattern = ("00000000", "21111113", "00000000", "00111000", "00000000", "00000000", "00000000", "00000000")
    with pytest.raises(TierformError, match="no inlet and no outlet"):
        GridModel(cooled(pattern), 8, 8)


def test_iterations_for_symmetric_systems_are_refused():
    model = GridModel(cooled(STRAIGHT), 8, 8, solver="spectral")
    with pytest.raises(TierformError, match="symmetric"):
        model.steady([1.0])


def test_transients_with_coolant_end_steady():
    model = GridModel(cooled(STRAIGHT), 8, 8)
    end = model.transient([[10.0]] * 4, 1.0, steps_per_interval=8).tiles_K[-1]
    np.testing.assert_allclose(end, model.steady([10.0]).tiles_K(), atol=1e-4)
