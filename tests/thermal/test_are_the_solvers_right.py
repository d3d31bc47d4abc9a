"""Do all solvers give what a slow, plain assembly and dense elimination give?"""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.errors import MissingDependency, TierformError
from tierform.thermal import interposer_2_5d, planar_stack, stacked_3d
from tierform.thermal.builders import Die, Tier
from tierform.thermal.grid import GridModel
from tierform.thermal.materials import Material
from tierform.thermal.network import Network, build_network
from tierform.thermal.solvers import SOLVERS, choose, make_solver, matrix
from tierform.thermal.stack import Region, Stack, StackLayer, Surface

SILICON = Material.isotropic("silicon", 130.0, 1.6e6)
PASTE = Material.isotropic("paste", 2.0, 4e6)


def dense(network: Network) -> np.ndarray:
    """The conductance matrix, neighbour by neighbour."""
    layers, rows, columns = network.shape
    g = np.zeros((network.nodes, network.nodes))

    def number(k, i, j):
        return (k * rows + i) * columns + j

    def join(a, b, value):
        g[a, b] -= value
        g[b, a] -= value
        g[a, a] += value
        g[b, b] += value

    for k in range(layers):
        for i in range(rows):
            for j in range(columns):
                if j + 1 < columns:
                    join(number(k, i, j), number(k, i, j + 1), network.lateral_x[k, i, j])
                if i + 1 < rows:
                    join(number(k, i, j), number(k, i + 1, j), network.lateral_y[k, i, j])
                if k + 1 < layers:
                    join(number(k, i, j), number(k + 1, i, j), network.vertical[k, i, j])
    for a, b, value in zip(network.link_from, network.link_to, network.link, strict=True):
        join(a, b, value)
    for a in range(network.nodes):
        g[a, a] += network.ambient[a]
    for a, b, value in zip(network.carried_row, network.carried_column, network.carried, strict=True):
        g[a, b] += value
    return g


STACKS = {
    "planar": planar_stack(0.01, 0.008, rows=2, columns=3),
    "with board": planar_stack(0.01, 0.008, rows=2, columns=3, board=True),
    "stacked": stacked_3d(0.006, 0.006, [Tier("a", 2, 2), Tier("b", 1, 2)], via_fill=0.02),
    "interposer": interposer_2_5d([Die("a", 1e-3, 1e-3, 4e-3, 5e-3, 2, 2), Die("b", 6e-3, 1e-3, 3e-3, 5e-3)]),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "auto"])
@pytest.mark.parametrize("shift", [0.0, 250.0])
def test_solvers_agree_with_plain_elimination(name, solver, shift):
    network = build_network(STACKS[name], 7, 9)
    plain = dense(network) + shift * np.diag(network.capacity)
    sides = np.random.default_rng(5).random((network.nodes, 3))
    expected = np.linalg.solve(plain, sides)
    if solver == "multigrid":
        pytest.importorskip("pyamg")
    answer = make_solver(network, solver, shift_per_s=shift).solve(sides)
    assert answer.shape == sides.shape
    np.testing.assert_allclose(answer, expected, rtol=1e-7, atol=1e-9 * np.abs(expected).max())
    one = make_solver(network, solver, shift_per_s=shift).solve(sides[:, 0])
    np.testing.assert_allclose(one, expected[:, 0], rtol=1e-7, atol=1e-9 * np.abs(expected).max())


def test_sparse_matrix_is_the_plain_one():
    network = build_network(STACKS["with board"], 4, 5)
    np.testing.assert_allclose(matrix(network).toarray(), dense(network), rtol=1e-12, atol=1e-12)
    assert np.allclose(network.diagonal(), np.diag(dense(network)))


def test_uniform_layers_are_solved_without_iteration():
    model = GridModel(STACKS["with board"], 40, 40, solver="spectral")
    side = model.network.sources_W(model.power_map([1.0] * 6))
    first = model.solver._uniform(side)
    assert np.linalg.norm(model.solver._apply(first) - side) < 1e-9 * np.linalg.norm(side)


def test_the_choice_follows_size_and_kind():
    assert choose(build_network(STACKS["planar"], 16, 16)) == "blocks"
    assert choose(build_network(STACKS["planar"], 64, 64)) == "spectral"
    assert choose(build_network(STACKS["interposer"], 40, 40)) == "direct"
    assert choose(build_network(STACKS["interposer"], 80, 80)) in ("multigrid", "spectral")


def test_a_missing_multigrid_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(MissingDependency, match=r"tierform\[thermal\]"):
        make_solver(build_network(STACKS["planar"], 4, 4), "multigrid")


def test_an_unknown_solver_names_the_nearest():
    with pytest.raises(TierformError, match="spectral"):
        make_solver(build_network(STACKS["planar"], 4, 4), "spektral")  # type: ignore[arg-type]


@st.composite
def stacks(draw):
    width, height = draw(st.floats(1e-3, 2e-2)), draw(st.floats(1e-3, 2e-2))
    count = draw(st.integers(1, 4))
    layers = []
    for number in range(count):
        k = draw(st.floats(0.1, 500.0))
        cut = draw(st.floats(0.2, 0.8)) * width
        other = Material.isotropic("other", draw(st.floats(0.1, 500.0)), 2e6)
        floor = (Region("w", 0, 0, cut, height), Region("e", cut, 0, width - cut, height, other))
        kind = Material("m", k, k * draw(st.floats(0.5, 2.0)), k * draw(st.floats(0.5, 2.0)), 1.6e6)
        thickness = draw(st.floats(1e-5, 1e-3))
        layers.append(StackLayer(f"l{number}", thickness, kind, floor, powered=True, slices=draw(st.integers(1, 2))))
    top = Surface(draw(st.sampled_from([1e3, 1e5, math.inf])))
    bottom = draw(st.sampled_from([None, Surface(50.0)]))
    return Stack(width, height, tuple(layers), top, bottom, ambient_K=300.0)


@settings(max_examples=40, deadline=None)
@given(stacks(), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_conservation_reciprocity_and_bounds_hold_for_any_stack(stack, rows, columns, seed):
    model = GridModel(stack, rows, columns)
    powers = np.random.default_rng(seed).random(len(stack.tiles)) * 20
    field = model.steady(powers)
    assert field.heat_out_W == pytest.approx(powers.sum(), rel=1e-9)
    # Without sinks of heat nothing is colder than the ambient.
    assert field.cells_K.min() >= 300.0 - 1e-9
    matrix_K_per_W, base = model.influence()
    np.testing.assert_allclose(matrix_K_per_W, matrix_K_per_W.T, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(base, 300.0, rtol=1e-9)
    np.testing.assert_allclose(base + matrix_K_per_W @ powers, field.tiles_K(), rtol=1e-9)


def test_the_mirror_of_a_stack_has_mirrored_temperatures():
    floor = (Region("a", 0, 0, 2e-3, 6e-3), Region("b", 2e-3, 0, 4e-3, 6e-3, PASTE))
    turned = (Region("a", 4e-3, 0, 2e-3, 6e-3), Region("b", 0, 0, 4e-3, 6e-3, PASTE))
    first, second = (
        GridModel(Stack(6e-3, 6e-3, (StackLayer("l", 1e-4, SILICON, f, powered=True),), Surface(1e4)), 9, 9).steady(
            [3.0, 1.0]
        )
        for f in (floor, turned)
    )
    np.testing.assert_allclose(first.cells_K, second.cells_K[:, :, ::-1], rtol=1e-10)


def test_x_and_y_are_treated_alike_on_cells_that_are_not_square():
    wide = planar_stack(0.012, 0.006, rows=1, columns=2)
    high = planar_stack(0.006, 0.012, rows=2, columns=1)
    first = GridModel(wide, 10, 30).steady([8.0, 2.0])
    second = GridModel(high, 30, 10).steady([8.0, 2.0])
    np.testing.assert_allclose(first.cells_K, second.cells_K.transpose(0, 2, 1), rtol=1e-9)


def test_refining_the_grid_converges():
    stack = stacked_3d(0.008, 0.008, [Tier("a", 2, 2), Tier("b", 2, 2)])
    powers = [6.0, 1.0, 1.0, 0.0, 2.0, 0.0, 0.0, 0.0]
    means = [GridModel(stack, n, n).steady(powers).tiles_K()[0] for n in (8, 16, 32, 64)]
    steps = np.abs(np.diff(means))
    assert steps[1] < 0.5 * steps[0]
    assert steps[2] < 0.5 * steps[1]
