"""Does every component of the library hold to the interface, and does the contract notice one that does not?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from tierform import library
from tierform.chip import contract
from tierform.chip.component import WHOLE, Cost, Share, WeightHolder
from tierform.chip.description import load_component
from tierform.chip.sample_operators import elementwise
from tierform.errors import TierformError
from tierform.provenance import Assumption
from tierform.workload.operator import Kind, Operator


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("name", library.names("components"))
def test_every_component_of_the_library_holds_to_the_contract(name: str, units: int) -> None:
    assert contract.check(load_component(name, units, name)) >= 1


@pytest.mark.parametrize("name", library.names("components"))
def test_units_add_up_in_area_and_static_power(name: str) -> None:
    one, three = (load_component(name, units, name) for units in (1, 3))
    assert three.area_m2 == pytest.approx(3 * one.area_m2)
    assert three.leakage_W(330.0) == pytest.approx(3 * one.leakage_W(330.0))
    if isinstance(one, WeightHolder) and isinstance(three, WeightHolder):
        assert three.crossbars == 3 * one.crossbars


@dataclass
class Plain:
    """A small honest component, and by its fields a dishonest one."""

    name: str = "plain"
    units: int = 1
    area: float = 1e-6
    source: str = "somebody-2024"
    kind: Any = "published"
    change: dict[str, Any] | None = None
    refuses: bool = False
    leaks: float = 1e-3
    wanders: bool = False
    calls: int = 0

    def supports(self, operator: Operator) -> bool:
        return operator.kind is Kind.MATMUL

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        if not self.supports(operator) or self.refuses:
            raise TierformError([])
        self.calls += 1
        seconds = operator.macs * 1e-12 * (1 + self.calls * self.wanders)
        cost = Cost(seconds, seconds, {"mac": operator.macs * 1e-13}, operator.operations)
        return replace(cost, **self.change) if self.change else cost

    @property
    def area_m2(self) -> float:
        return self.area

    def leakage_W(self, temperature_K: float) -> float:
        return self.leaks * temperature_K

    def assumptions(self) -> tuple[Assumption, ...]:
        return (Assumption("plain.rate", "1 T/s", self.kind, self.source),)


def test_an_honest_component_passes() -> None:
    assert contract.check(Plain()) > 10


@pytest.mark.parametrize(
    ("component", "what"),
    [
        (Plain(area=0.0), "area"),
        (Plain(units=0), "unit"),
        (Plain(source=""), "neither source nor note"),
        (Plain(kind="guessed"), "unknown kind"),
        (Plain(leaks=-1.0), "static power"),
        (Plain(refuses=True), "says it supports"),
        (Plain(wanders=True), "differ"),
        (Plain(change={"latency_s": 0.0}), "latency"),
        (Plain(change={"occupancy_s": 1.0}), "latency"),
        (Plain(change={"energy_J": {"mac": 1.0, "sram": -0.5}}), "sram"),
        (Plain(change={"energy_J": {}}), "energy"),
        (Plain(change={"operations": 1.0}), "operations"),
        (Plain(change={"utilization": 1.5}), "utilization"),
        (Plain(change={"memory_read_B": float("nan")}), "memory_read_B"),
    ],
)
def test_what_is_wrong_is_named(component: Plain, what: str) -> None:
    with pytest.raises(contract.BrokenContract, match=what):
        contract.check(component)


def test_work_that_gets_cheaper_is_noticed() -> None:
    class Odd(Plain):
        def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
            if not self.supports(operator):
                raise TierformError([])
            seconds = 1.0 / operator.macs
            return Cost(seconds, seconds, {"mac": 1.0}, operator.operations)

    with pytest.raises(contract.BrokenContract, match="falls"):
        contract.check(Odd())


def test_supporting_silently_more_than_said_is_noticed() -> None:
    class Eager(Plain):
        def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
            return Cost(1.0, 1.0, {"mac": 1.0}, operator.operations)

    with pytest.raises(contract.BrokenContract, match="does not support"):
        contract.check(Eager(), [elementwise(Kind.SOFTMAX, 10)])
