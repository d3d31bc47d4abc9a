"""Do transients have the right course: exact in the block model, second order in the grid model?"""

from __future__ import annotations

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.thermal import planar_stack, stacked_3d
from tierform.thermal.block import BlockModel
from tierform.thermal.builders import Tier
from tierform.thermal.grid import GridModel
from tierform.validation import thermal
from tierform.validation.thermal_closed_forms import composite_rise


def expm_reference(model: BlockModel, powers, interval, start):
    """Slow reference: ten thousand implicit Euler steps, extrapolated from two step lengths."""

    def march(count):
        g, c = model.conductance_W_per_K, model.capacity_J_per_K
        step = interval / count
        inverse = np.linalg.inv(np.diag(c / step) + g)
        nodes = start.copy()
        side = model.power_vector(powers) + model.ambient_W_per_K * model.stack.ambient_K
        for _ in range(count):
            nodes = inverse @ (c / step * nodes + side)
        return nodes

    return 2 * march(4000) - march(2000)


def test_block_transients_match_a_slow_integration():
    stack, powers, _, _ = thermal.transient_case()
    model = BlockModel(stack)
    start = np.full(model.ambient_W_per_K.size, 330.0)
    _, _, end = model.transient(powers[:1], 5e-3, start=330.0)
    np.testing.assert_allclose(end.nodes_K, expm_reference(model, powers[0], 5e-3, start), atol=2e-4)


def test_block_transients_do_not_depend_on_how_time_is_cut():
    stack, powers, _, _ = thermal.transient_case()
    model = BlockModel(stack)
    _, once, _ = model.transient([powers[0]], 0.02)
    _, often, _ = model.transient([powers[0]] * 10, 0.002)
    np.testing.assert_allclose(once[-1], often[-1], atol=1e-8)


def test_the_grid_integrator_is_of_second_order():
    model = GridModel(planar_stack(0.01, 0.01, rows=2, columns=2), 8, 8)
    powers = [[20.0, 0.0, 5.0, 0.0]]
    reference = model.transient(powers, 0.02, steps_per_interval=512).tiles_K[-1]
    errors = [
        np.abs(model.transient(powers, 0.02, steps_per_interval=n).tiles_K[-1] - reference).max() for n in (8, 16, 32)
    ]
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.3)
    assert errors[0] > errors[1] > errors[2]


def test_a_long_transient_ends_at_the_steady_state():
    model = GridModel(stacked_3d(0.008, 0.008, [Tier("a", 2, 2), Tier("b", 2, 2)]), 8, 8)
    powers = np.arange(8.0)
    end = model.transient([powers] * 6, 400.0, steps_per_interval=8).tiles_K[-1]
    np.testing.assert_allclose(end, model.steady(powers).tiles_K(), atol=1e-3)


def test_a_steady_start_stays():
    model = GridModel(planar_stack(0.01, 0.01, rows=2, columns=2, board=True), 8, 8)
    field = model.steady([5.0, 1.0, 0.0, 2.0])
    after = model.transient([[5.0, 1.0, 0.0, 2.0]] * 3, 1e-3, start=field)
    np.testing.assert_allclose(after.tiles_K, np.tile(field.tiles_K(), (3, 1)), atol=1e-7)


def test_heat_that_is_not_carried_away_is_stored():
    model = GridModel(planar_stack(0.01, 0.01), 4, 4)
    power, span = 10.0, 1e-4
    end = model.transient([[power]], span, steps_per_interval=16).end
    stored = float(model.network.capacity @ (end.nodes_K - model.stack.ambient_K))
    assert stored == pytest.approx(power * span, rel=1e-3)
    assert stored <= power * span


def test_the_closed_form_of_two_layers_starts_cold_and_ends_steady():
    assert composite_rise(5e-4, 5e-4, 1e9, 1e-7, modes=400) == pytest.approx(1e9 * 1e-7 / 1.63e6, rel=2e-2)
    steady = 1e9 * (5e-4**2 / (3 * 130.0) + 5e-4 * 5e-4 / 4.0)
    assert composite_rise(5e-4, 5e-4, 1e9, 100.0) == pytest.approx(steady, rel=1e-12)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("inf"), float("nan")])
def test_a_bad_interval_is_refused(interval):
    model = GridModel(planar_stack(0.01, 0.01), 4, 4)
    with pytest.raises(TierformError, match="interval"):
        model.transient([[1.0]], interval)
    with pytest.raises(TierformError, match="interval"):
        BlockModel(thermal.transient_case()[0]).transient([np.ones(6)], interval)


def test_the_block_model_refuses_what_it_cannot_hold():
    with pytest.raises(TierformError, match="grid model"):
        BlockModel(stacked_3d(0.008, 0.008, [Tier("a"), Tier("b")]))
    with pytest.raises(TierformError, match="nothing below"):
        BlockModel(planar_stack(0.008, 0.008, board=True))
