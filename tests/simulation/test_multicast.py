"""Are the same bytes for several places sent once, and is each byte still delivered to every one of them?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tierform import FineTuning, Inference, LoRA, load_chip, simulate
from tierform.network import flows as cycle_flows
from tierform.simulation import costing
from tierform.simulation.fabric import Fabric, Place, receivers


def place(name: str, *samples: tuple[int, ...], own: bool = False) -> Place:
    return Place(name, samples, own)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(load_chip("atleus"))


SOURCE = place("source", (0, 1, 2, 3))
Q, K, V = place("q", (20, 21), (30,)), place("k", (22,), (31, 32)), place("v", (23, 24, 25), (33,))


def test_several_targets_cost_what_a_tree_costs(fabric: Fabric) -> None:
    together, alone = fabric.route(SOURCE, (Q, K, V)), [fabric.route(SOURCE, (target,)) for target in (Q, K, V)]
    network = fabric.network
    assert network is not None
    trees = [
        network.multicast_cost(fabric.nodes(SOURCE.at(n)), [fabric.nodes(p.at(n)) for p in (Q, K, V)]) for n in (0, 1)
    ]
    np.testing.assert_allclose(3 * together.link_share, sum(tree.link_share for tree in trees) / 2)
    assert 3 * together.energy_J_per_B == pytest.approx(sum(tree.energy_J_per_B for tree in trees) / 2)
    # Between the dearest of the transfers and all of them.
    assert max(r.energy_J_per_B for r in alone) < 3 * together.energy_J_per_B < sum(r.energy_J_per_B for r in alone)
    assert (3 * together.link_share <= sum(r.link_share for r in alone) + 1e-12).all()
    assert together.seconds_per_B >= max(r.seconds_per_B for r in alone) - 1e-18


def test_places_on_the_same_tiles_take_one_copy(fabric: Fabric) -> None:
    twin = place("twin", *Q.samples)
    one, two = fabric.route(SOURCE, (Q,)), fabric.route(SOURCE, (Q, twin))
    np.testing.assert_allclose(2 * two.link_share, one.link_share)
    assert 2 * two.energy_J_per_B == pytest.approx(one.energy_J_per_B)
    assert (two.head_s, two.seconds_per_B) == pytest.approx((one.head_s, one.seconds_per_B))
    assert receivers(SOURCE, (Q, twin, SOURCE, K), 0) == [Q.at(0), K.at(0)]
    assert fabric.apart(SOURCE, Q) and not fabric.apart(SOURCE, SOURCE)


@pytest.mark.parametrize("chip", ["atleus", "atleus-2.5d", "retransformer"])
def test_q_k_and_v_get_their_input_together(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = FineTuning(LoRA(8), batch=2, sequence=128)
    asked: list[tuple[str, ...]] = []
    route = Fabric.route

    def noted(self: Fabric, source: Place, targets: Any) -> Any:
        asked.append(tuple(target.name for target in targets))
        return route(self, source, targets)

    monkeypatch.setattr(Fabric, "route", noted)
    together = simulate("bert-base", task, chip, thermal="none")
    wanted = {f"attention.{letter}" for letter in "qkv"}
    assert any(wanted <= {name.split("/")[-1] for name in names} for names in asked)
    # Sent one by one, the same bytes arrive, over more links.
    monkeypatch.setattr(Fabric, "route", lambda self, source, targets: _one_by_one(self, route, source, targets))
    apart = simulate("bert-base", task, chip, thermal="none")
    assert together.network_B == apart.network_B
    assert sum(together.link_bytes) < 0.99 * sum(apart.link_bytes)
    assert (np.array(together.link_bytes) <= np.array(apart.link_bytes) * (1 + 1e-9)).all()
    assert together.operations == apart.operations


def _one_by_one(fabric: Fabric, route: Any, source: Place, targets: Any) -> costing.Route:
    routes = [route(fabric, source, (target,)) for target in targets]
    shares = sum(each.link_share for each in routes) / len(routes)
    return costing.Route(
        routes[0].name,
        tuple(targets),
        routes[0].head_s,
        routes[0].seconds_per_B,
        sum(each.energy_J_per_B for each in routes) / len(routes),
        shares,
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
