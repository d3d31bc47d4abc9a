"""Is the influence model the grid model, is its fixed point one, and is runaway told from a hot chip?"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tierform.errors import TierformError
from tierform.thermal import influence as module
from tierform.thermal import planar_stack, stacked_3d
from tierform.thermal.builders import Tier
from tierform.thermal.grid import GridModel
from tierform.thermal.influence import InfluenceModel, cache_folder, default_grid

STACK = stacked_3d(0.008, 0.008, [Tier("a", 2, 2), Tier("b", 3, 3)], via_fill=0.01)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TIERFORM_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def model():
    return InfluenceModel(STACK, cache=False)


def test_it_gives_what_the_grid_model_gives(model):
    powers = np.random.default_rng(1).random((4, 13)) * 5
    grid = GridModel(STACK, model.rows, model.columns)
    for one, batch in zip(powers, model.temperatures_K(powers), strict=True):
        np.testing.assert_allclose(batch, grid.steady(one).tiles_K(), rtol=1e-10)
        np.testing.assert_allclose(model.temperatures_K(one), batch, rtol=1e-14)
    np.testing.assert_allclose(model.peaks_K(powers), model.temperatures_K(powers).max(axis=1))


def test_no_power_means_ambient(model):
    np.testing.assert_allclose(model.temperatures_K(np.zeros(13)), STACK.ambient_K, rtol=1e-12)


def test_the_coarse_default_is_close_to_a_fine_grid(model):
    powers = np.full(13, 2.0)
    fine = GridModel(STACK, 48, 48).steady(powers).tiles_K()
    rise = fine - STACK.ambient_K
    assert np.abs(model.temperatures_K(powers) - fine).max() < 0.01 * rise.max()


def test_the_default_grid_divides_tiles():
    assert default_grid(planar_stack(0.01, 0.01, rows=5, columns=4)) == (15, 12)
    assert default_grid(planar_stack(0.01, 0.01, rows=20, columns=1)) == (20, 12)
    rows, columns = default_grid(planar_stack(0.01, 0.01, rows=100, columns=100))
    assert rows == columns <= 48


def test_power_by_name(model):
    by_name = model.powers({"a[0,1]": 2.0, "b/b[2,2]": 3.0})
    assert by_name[1] == 2.0
    assert by_name[12] == 3.0
    assert by_name.sum() == 5.0
    with pytest.raises(TierformError, match=r"a\[0,1\]"):
        model.powers({"a[0.1]": 1.0})
    with pytest.raises(TierformError, match="13"):
        model.temperatures_K(np.zeros(12))
    with pytest.raises(TierformError, match="not finite"):
        model.powers([float("nan")] * 13)


def one_tile():
    model = InfluenceModel(planar_stack(0.01, 0.01), cache=False)
    return model, float(model.matrix_K_per_W[0, 0])


@pytest.mark.parametrize(("gain", "runs_away"), [(0.5, False), (0.99, False), (1.01, True), (3.0, True)])
def test_runaway_begins_at_a_loop_gain_of_one(gain, runs_away):
    model, resistance = one_tile()
    slope = gain / resistance
    found = model.fixed_point([10.0], lambda t: 1.0 + slope * (t - 318.15), limit_K=1e6)
    assert found.runaway is runs_away
    assert found.loop_gain == pytest.approx(gain, rel=1e-6)
    if not runs_away:
        exact = 318.15 + resistance * 11.0 / (1 - gain)
        assert found.temperatures_K[0] == pytest.approx(exact, rel=1e-9)


def test_the_fixed_point_is_one(model):
    def leakage(t):
        return 0.3 * np.exp((t - 318.15) / 25.0)

    dynamic = np.full(13, 3.0)
    found = model.fixed_point(dynamic, leakage, tolerance_K=1e-6)
    assert not found.runaway
    again = model.temperatures_K(dynamic + leakage(found.temperatures_K))
    np.testing.assert_allclose(found.temperatures_K, again, atol=1e-5)
    np.testing.assert_allclose(found.leakage_W, leakage(found.temperatures_K))
    # Plain substitution from below rises to the same point.
    temperature = np.full(13, 318.15)
    for _ in range(400):
        temperature = model.temperatures_K(dynamic + leakage(temperature))
    np.testing.assert_allclose(found.temperatures_K, temperature, atol=1e-5)
    assert found.peak_K == found.temperatures_K.max()


def test_exponential_leakage_runs_away_beyond_its_last_fixed_point():
    model, resistance = one_tile()

    def point(scale):
        return model.fixed_point([0.0], lambda t: scale * np.exp((t - 318.15) / 20.0))

    # x = c·exp(x) has a solution up to c = 1/e, with x = R·L/20 K.
    last = 20.0 / resistance / np.e
    assert not point(0.98 * last).runaway
    assert point(1.02 * last).runaway


def test_a_temperature_beyond_the_limit_counts_as_runaway(model):
    assert model.fixed_point(np.full(13, 5.0), lambda t: 0 * t, limit_K=320.0).runaway


def test_leakage_that_does_not_depend_on_temperature_settles_at_once(model):
    found = model.fixed_point(np.ones(13), lambda t: np.full(13, 0.5))
    np.testing.assert_allclose(found.temperatures_K, model.temperatures_K(np.full(13, 1.5)), rtol=1e-12)
    assert found.loop_gain == 0.0


def test_the_cache_is_used_and_can_be_turned_off(tmp_path, monkeypatch):
    first = InfluenceModel(STACK)
    files = list((tmp_path / "thermal").glob("*.npy"))
    assert len(files) == 1

    def never(*_, **__):
        raise AssertionError("the matrix was computed again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "GridModel", never)
        again = InfluenceModel(STACK)
        np.testing.assert_array_equal(first.matrix_K_per_W, again.matrix_K_per_W)
        with pytest.raises(AssertionError):
            InfluenceModel(STACK, cache=False)
        with pytest.raises(AssertionError):
            InfluenceModel(STACK, 9, 9)
    monkeypatch.setenv("TIERFORM_CACHE", "off")
    assert cache_folder() is None
    InfluenceModel(STACK, 6, 6)
    assert len(list((tmp_path / "thermal").glob("*.npy"))) == 1


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x93NUMPY\x01\x00"])
def test_a_broken_cache_file_is_made_anew(tmp_path, content):
    first = InfluenceModel(STACK)
    file = next((tmp_path / "thermal").glob("*.npy"))
    file.write_bytes(content)
    np.testing.assert_array_equal(InfluenceModel(STACK).matrix_K_per_W, first.matrix_K_per_W)
    assert np.load(file).shape == (13, 14)


def test_a_cache_that_cannot_be_written_does_not_stop_us(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TIERFORM_CACHE", str(blocked))
    assert InfluenceModel(STACK, 6, 6).matrix_K_per_W.shape == (13, 13)


def test_stacks_without_tiles_are_refused():
    from tierform.thermal import Stack, StackLayer, Surface, material

    bare = Stack(0.01, 0.01, (StackLayer("l", 1e-3, material("silicon")),), Surface(1e4))
    with pytest.raises(TierformError, match="no powered layer"):
        InfluenceModel(bare)


def test_a_coarse_model_needs_no_scipy_and_no_numba():
    code = (
        "import sys; from tierform.thermal import InfluenceModel, stacked_3d, Tier;"
        "InfluenceModel(stacked_3d(0.008, 0.008, [Tier('a', 4, 4), Tier('b', 4, 4)]), cache=False);"
        "assert not {'scipy', 'numba', 'pyamg', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_room_imports_nothing_heavy():
    code = "import sys, tierform.thermal; assert not {'numpy', 'scipy', 'numba', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
