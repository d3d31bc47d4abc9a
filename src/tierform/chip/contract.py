"""What every component must hold to, as functions that any implementation can be run through.

For plug-in authors as for this project: build your component, call :func:`check` in a test.  Each function takes a
component (and operators) and raises :class:`BrokenContract` with what is wrong; none of them needs a test framework.
A component's capabilities are checked, too: see :mod:`tierform.chip.capability_contract`.

    from tierform.chip import contract
    def test_my_component():
        contract.check(load_component("mine", 4, "my-file.yaml"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tierform.chip.capability_contract import BrokenContract, broken, check_capabilities
from tierform.chip.component import Component, Cost
from tierform.chip.sample_operators import samples
from tierform.errors import TierformError
from tierform.provenance import KINDS
from tierform.workload.operator import Kind, Operand, Operator, Role


def check(component: Component, operators: Iterable[Operator] | None = None) -> int:
    """Run everything; how many operators the component supports.  BrokenContract names the first thing wrong."""
    check_description(component)
    check_leakage(component)
    supported = 0
    for operator in samples() if operators is None else operators:
        if check_supports(component, operator):
            supported += 1
            check_cost(component, operator)
            check_more_work(component, operator)
    if not supported:
        broken(component, "it supports none of the operators")
    check_capabilities(component)
    return supported


def check_description(component: Component) -> None:
    """Name, units, area; constants with sources and kinds."""
    if not isinstance(component, Component):
        raise BrokenContract(f"{component!r} lacks a method of the interface of components")
    if not component.name or component.units < 1:
        broken(component, f"needs a name and at least one unit, has {component.name!r} and {component.units}")
    if not component.area_m2 > 0 or not math.isfinite(component.area_m2):
        broken(component, f"its area is {component.area_m2} m2")
    lines = component.assumptions()
    if not lines:
        broken(component, "it gives no evidence for its constants")
    for line in lines:
        if line.kind not in KINDS:
            broken(component, f"{line.subject} is of the unknown kind {line.kind!r}")
        if not line.source and not line.note:
            broken(component, f"{line.subject} has neither source nor note")
        if line.kind != "assumed" and not line.source:
            broken(component, f"{line.subject} is {line.kind} without a source")


def check_leakage(component: Component) -> None:
    """Static power is finite, not negative, does not fall with temperature, and takes arrays of temperatures."""
    powers = [component.leakage_W(kelvin) for kelvin in (300.0, 330.0, 360.0)]
    if any(not math.isfinite(power) or power < 0 for power in powers):
        broken(component, f"its static power is {powers} W at 300, 330, 360 K")
    if not np.allclose(component.leakage_W(np.array([300.0, 330.0, 360.0])), powers):
        broken(component, "its static power at an array of temperatures differs from that at each of them")
    if sorted(powers) != powers:
        broken(component, f"its static power falls with temperature: {powers} W")


def check_supports(component: Component, operator: Operator) -> bool:
    """`supports` gives a bool, and `cost` refuses with a TierformError exactly what is not supported."""
    able = component.supports(operator)
    if not isinstance(able, bool):
        broken(component, f"supports({operator.name}) gives {able!r}, not a bool")
    try:
        component.cost(operator)
    except TierformError:
        if able:
            broken(component, f"cost refuses {_shape(operator)}, which it says it supports")
        return False
    if not able:
        broken(component, f"cost accepts {_shape(operator)}, which it says it does not support")
    return True


def check_cost(component: Component, operator: Operator) -> Cost:
    """Times positive, latency at least occupancy, energy parts not negative and summing up, counts in range."""
    cost = component.cost(operator)
    if cost != component.cost(operator):
        broken(component, f"two costs of {_shape(operator)} differ")
    numbers = {
        "latency_s": cost.latency_s,
        "occupancy_s": cost.occupancy_s,
        "operations": cost.operations,
        "memory_read_B": cost.memory_read_B,
        "memory_write_B": cost.memory_write_B,
        "cell_writes": cost.cell_writes,
        "writes_per_cell": cost.writes_per_cell,
        "utilization": cost.utilization,
        **cost.energy_J,
    }
    for name, value in numbers.items():
        if not math.isfinite(value) or value < 0:
            broken(component, f"{name} of {_shape(operator)} is {value}")
    if not 0 < cost.occupancy_s <= cost.latency_s:
        broken(component, f"{_shape(operator)}: occupancy {cost.occupancy_s} s, latency {cost.latency_s} s")
    if not cost.total_energy_J > 0 or not math.isclose(cost.total_energy_J, math.fsum(cost.energy_J.values())):
        broken(component, f"{_shape(operator)}: the energy {cost.total_energy_J} J is not the sum of its parts")
    if not math.isclose(cost.operations, operator.operations):
        broken(component, f"{_shape(operator)}: {cost.operations} operations, the operator has {operator.operations}")
    if cost.utilization > 1 + 1e-9:
        broken(component, f"{_shape(operator)}: utilization is {cost.utilization}")
    return cost


def check_more_work(component: Component, operator: Operator) -> None:
    """Twice the rows (or values) takes no less energy and at most 2.5 times as much, and no less time.

    Time may fall by a fifth: a scheduler may choose a better kernel for the larger product, as GPUs do.
    """
    more = _doubled(operator)
    if not component.supports(more):
        return
    one, two = component.cost(operator), component.cost(more)
    for name, slack in (("occupancy_s", 0.2), ("total_energy_J", 1e-9)):
        less, most = getattr(one, name), getattr(two, name)
        if most < less * (1 - slack):
            broken(component, f"{name} falls from {less} to {most} when {_shape(operator)} is doubled")
    if two.total_energy_J > 2.5 * one.total_energy_J:
        broken(component, f"the energy of {_shape(operator)} grows {two.total_energy_J / one.total_energy_J:.2f}-fold")


def _doubled(operator: Operator) -> Operator:
    def grown(operand: Operand) -> Operand:
        if operand.role is Role.WEIGHT or not operand.shape or (operator.kind is Kind.MATMUL and operand.name == "w"):
            return operand
        return replace(operand, shape=(2 * operand.shape[0], *operand.shape[1:]))

    inputs, outputs = tuple(map(grown, operator.inputs)), tuple(map(grown, operator.outputs))
    return replace(operator, inputs=inputs, outputs=outputs, m=2 * operator.m)


def _shape(operator: Operator) -> str:
    if operator.kind is not Kind.MATMUL:
        return f"{operator.kind.value} of {operator.inputs[0].elements}"
    formats = "/".join(operand.precision for operand in operator.inputs)
    return f"product {operator.m} x {operator.n} x {operator.k} ({formats}, weight {operator.weight})"
