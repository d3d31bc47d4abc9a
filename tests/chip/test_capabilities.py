"""Does the contract of each capability notice a component that does not hold to it?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from test_contract import Plain

from tierform import library
from tierform.chip import contract
from tierform.chip.component import (
    WHOLE,
    BufferHolder,
    Cost,
    Explainer,
    FormatConverter,
    FusedKernel,
    MemoryHolder,
    OperatorFuser,
    Refetch,
    Remarker,
    Share,
    Wearing,
    WeightHolder,
)
from tierform.chip.description import load_component
from tierform.workload.operator import Kind, Operator

CAPABILITIES = (WeightHolder, Wearing, MemoryHolder, BufferHolder, OperatorFuser, Explainer, FormatConverter, Remarker)


@pytest.mark.parametrize(
    ("name", "able"),
    [
        ("isaac-tile-32nm", {WeightHolder, Wearing, Remarker, Explainer, FormatConverter}),
        ("systolic-128x32-10nm", {BufferHolder, FormatConverter}),
        ("vector-128-10nm", {BufferHolder}),
        ("a100-gpu", {MemoryHolder, OperatorFuser, Explainer}),
        ("haima-dram", {MemoryHolder}),
    ],
)
def test_who_can_do_what(name: str, able: set[type]) -> None:
    part = load_component(name, 1, name)
    assert {capability for capability in CAPABILITIES if isinstance(part, capability)} == able


def test_every_component_of_the_library_has_a_capability_or_is_plain_on_purpose() -> None:
    assert all(any(isinstance(load_component(n, 1, n), c) for c in CAPABILITIES) for n in library.names("components"))


class Crossbars(Plain):
    """Holds weights and wears; class attributes make it dishonest."""

    crossbars = 8
    cells_per_crossbar = 64
    endurance_writes = 1e6
    each = 1
    grows = 1.0
    forgets: tuple[int, ...] = (0, 0, 1, 1000000)

    def supports(self, operator: Operator) -> bool:
        return operator.kind is Kind.MATMUL

    def crossbars_for(self, operator: Operator) -> int:
        return self.each * operator.count

    def programming_cost(self, crossbars: int, writes_per_cell: float = 1.0) -> Cost:
        size = crossbars**self.grows * writes_per_cell
        return Cost(size, size, {"programming": size}, 0.0, 0.0, 0.0, int(64 * size), writes_per_cell)

    def refreshes(self, seconds: float) -> int:
        return self.forgets[(0.0, 1.0, 1e6, 1e12).index(seconds)]


class Buffered(Plain):
    sram_capacity_B = 1024.0
    answer = Refetch()

    def refetch(self, operator: Operator, share: Share = WHOLE) -> Refetch:
        return self.answer


class Fusing(Plain):
    """Fuses all operators into one kernel."""

    change: dict[str, Any] | None = None
    takes = staticmethod(lambda operators: tuple(range(len(operators))))
    spoils: dict[str, Any] = {}
    reads_names = False

    def supports(self, operator: Operator) -> bool:
        return operator.kind is not Kind.COLLECTIVE

    def cost(self, operator: Operator, share: Share = WHOLE) -> Cost:
        if not self.supports(operator):
            return super().cost(operator, share)
        seconds = operator.operations * 1e-12
        return Cost(seconds, seconds, {"mac": seconds}, operator.operations)

    @property
    def fuses_attention(self) -> bool:
        return False

    def fuse(self, operators: Sequence[Operator], keeps_activations: bool = False) -> list[FusedKernel]:
        costs = [replace(self.cost(operator), **self.spoils) for operator in operators]
        if self.reads_names and operators[0].name == "scores":
            costs[0] = replace(costs[0], latency_s=1.0)
        return [FusedKernel("all", self.takes(operators), tuple(costs))]


class Talking(Plain):
    told: Any = ""
    remarks: Any = ("plain: small",)

    said: Any = ""

    def why_not(self, operator: Operator) -> Any:
        return self.told

    def conversion(self, operator: Operator) -> Any:
        return self.said


def spoiled(kind: type, **changes: Any) -> Plain:
    made: Plain = type("Spoiled", (kind,), changes)()
    return made


@pytest.mark.parametrize("kind", [Crossbars, Buffered, Fusing, Talking])
def test_an_honest_one_passes(kind: type) -> None:
    assert contract.check(kind()) > 10


@pytest.mark.parametrize(
    ("component", "what"),
    [
        (spoiled(Crossbars, crossbars=0), "crossbars"),
        (spoiled(Crossbars, each=0), "one copy takes"),
        (spoiled(Crossbars, grows=0.5), "do not grow"),
        (spoiled(Crossbars, cells_per_crossbar=65), "programming it writes"),
        (spoiled(Crossbars, endurance_writes=0.0), "survive"),
        (spoiled(Crossbars, forgets=(0, 2, 1, 5)), "refreshes"),
        (spoiled(Crossbars, forgets=(1, 1, 1, 1)), "refreshes"),
        (spoiled(Plain, memory_capacity_B=0), "memory holds 0"),
        (spoiled(Buffered, sram_capacity_B=0.0), "buffers hold"),
        (spoiled(Buffered, answer=Refetch(first=0.5)), "less than everything"),
        (spoiled(Buffered, answer=Refetch(second=0.0)), "less than everything"),
        (spoiled(Buffered, answer=Refetch(result_write=0.5)), "less than everything"),
        (spoiled(Buffered, answer=Refetch(result_read=-1.0)), "less than everything"),
        (spoiled(Buffered, answer=Refetch(first=math.inf)), "undefined"),
        (spoiled(Fusing, takes=staticmethod(lambda operators: (0,) * len(operators))), "fuses"),
        (spoiled(Fusing, takes=staticmethod(lambda operators: (0,))), "costs for 1 operators"),
        (spoiled(Fusing, spoils={"occupancy_s": 0.0}), "no time"),
        (spoiled(Fusing, spoils={"occupancy_s": 2.0}), "takes 2.0 s"),
        (spoiled(Fusing, spoils={"energy_J": {"mac": -1.0}}), "-1.0"),
        (spoiled(Fusing, spoils={"operations": 1e30}), "operations"),
        (spoiled(Fusing, spoils={"utilization": 1.5}), "used 1.5"),
        (spoiled(Fusing, reads_names=True), "names"),
        (spoiled(Talking, told="It could not."), "tells why not"),
        (spoiled(Talking, told=None), "not a sentence"),
        (spoiled(Talking, said=3), "not a sentence"),
        (spoiled(Talking, said="as another format"), "names the component"),
        (spoiled(Talking, remarks=["a list"]), "remarks"),
    ],
)
def test_what_is_wrong_is_named(component: Plain, what: str) -> None:
    with pytest.raises(contract.BrokenContract, match=what):
        contract.check(component)
