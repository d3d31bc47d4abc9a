"""Are the same bytes for several places sent once, and is each byte still delivered to every one of them?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierform import FineTuning, Inference, LoRA, load_chip, simulate
from tierform.network import flows as cycle_flows
from tierform.simulation.fabric import Fabric, Place, Route, receivers


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(load_chip("atleus"))


@pytest.fixture(scope="module")
def source(fabric: Fabric) -> Place:
    return fabric.place(((0, 1, 2, 3),))


@pytest.fixture(scope="module")
def targets(fabric: Fabric) -> tuple[Place, ...]:
    return (
        fabric.place(((20, 21), (30,))),
        fabric.place(((22,), (31, 32))),
        fabric.place(((23, 24, 25), (33,))),
    )


def test_several_targets_cost_what_a_tree_costs(fabric: Fabric, source: Place, targets: tuple[Place, ...]) -> None:
    together, alone = fabric.route(source, targets), [fabric.route(source, (target,)) for target in targets]
    network = fabric.network
    assert network is not None
    trees = [
        network.multicast_cost(fabric.nodes(source.at(n)), [fabric.nodes(p.at(n)) for p in targets]) for n in (0, 1)
    ]
    np.testing.assert_allclose(3 * together.link_share, sum(tree.link_share for tree in trees) / 2)
    assert 3 * together.energy_J_per_B == pytest.approx(sum(tree.energy_J_per_B for tree in trees) / 2)
    # Between the dearest of the transfers and all of them.
    assert max(r.energy_J_per_B for r in alone) < 3 * together.energy_J_per_B < sum(r.energy_J_per_B for r in alone)
    assert (3 * together.link_share <= sum(r.link_share for r in alone) + 1e-12).all()
    assert together.seconds_per_B >= max(r.seconds_per_B for r in alone) - 1e-18


def test_places_on_the_same_tiles_take_one_copy(fabric: Fabric, source: Place, targets: tuple[Place, ...]) -> None:
    first, second = targets[0], targets[1]
    twin = fabric.place(first.samples, own=True)
    one, two = fabric.route(source, (first,)), fabric.route(source, (first, twin))
    np.testing.assert_allclose(2 * two.link_share, one.link_share)
    assert 2 * two.energy_J_per_B == pytest.approx(one.energy_J_per_B)
    assert (two.head_s, two.seconds_per_B) == pytest.approx((one.head_s, one.seconds_per_B))
    assert receivers(source, (first, twin, source, second), 0) == [first.at(0), second.at(0)]
    assert fabric.apart(source, first) and not fabric.apart(source, source)


def test_is_an_equal_place_the_same_and_its_share_whole(fabric: Fabric, source: Place) -> None:
    assert fabric.place(((0, 1, 2, 3),)) is source
    uneven = fabric.place(((20, 21), (30,)))
    # Half of the work of two layers on tile 30, a quarter on each of 20 and 21.
    assert [float(uneven.where[tile]) for tile in (20, 21, 30)] == pytest.approx([0.25, 0.25, 0.5])
    assert float(uneven.where.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("chip", ["atleus", "atleus-2.5d", "retransformer"])
def test_q_k_and_v_get_their_input_together(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = FineTuning(LoRA(8), batch=2, sequence=128)
    route = Fabric.route
    together = simulate("bert-base", task, chip, thermal="none", micro_batches=2)
    assert together.mapping is not None
    tiles = {p.weight: p.tiles for p in together.mapping.placements if p.block == "layer[1..11]"}
    wanted = {tiles[f"attention.{letter}"] for letter in "qkv"}
    moves = {
        frozenset(target.samples for target in move.route.targets)
        for booked in together._run.ledger.booked  # type: ignore[union-attr]
        for move in booked.execution.moves
    }
    assert any(wanted <= targets for targets in moves)
    # Sent one by one, the same bytes arrive, over more links.
    monkeypatch.setattr(Fabric, "route", lambda self, source, targets: _one_by_one(self, route, source, targets))
    apart = simulate("bert-base", task, chip, thermal="none", micro_batches=2)
    assert together.network_B == apart.network_B
    assert sum(together.link_bytes) < 0.99 * sum(apart.link_bytes)
    # Trees of very wide groups are costed on some layers only: a link may get a little more than all layers give it.
    assert (np.array(together.link_bytes) <= np.array(apart.link_bytes) * (1 + 1e-3) + 1e-6).all()
    assert together.operations == apart.operations


def _one_by_one(fabric: Fabric, route: Any, source: Place, targets: Any) -> Route:
    routes = [route(fabric, source, (target,)) for target in targets]
    shares = sum(each.link_share for each in routes) / len(routes)
    return Route(
        name=routes[0].name,
        targets=tuple(targets),
        head_s=routes[0].head_s,
        seconds_per_B=routes[0].seconds_per_B,
        energy_J_per_B=sum(each.energy_J_per_B for each in routes) / len(routes),
        link_share=shares,
    )


@pytest.mark.slow
def test_the_cycle_engine_gets_multicasts_that_carry_all_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[Any]] = []
    run = cycle_flows.simulate_flows

    def noted(*arguments: Any) -> Any:
        given.append(arguments[4])
        return run(*arguments)

    monkeypatch.setattr(cycle_flows, "simulate_flows", noted)
    simulate("bert-base", Inference(batch=1, sequence=32), "atleus", fidelity="cycle", thermal="none")
    layers = [[flow for flow in flows if flow.multicast] for flows in given]
    assert any(layers)
    for trees in filter(None, layers):
        # A layer's input, 32 tokens of 768 features in 8 bits, to Q, K and V.
        assert sum(flow.size_B for flow in trees) == pytest.approx(32 * 768)
        assert {flow.after for flow in trees} == {()}
