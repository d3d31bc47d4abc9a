"""What every component must hold to, as functions that any implementation can be run through.

For plug-in authors as for this project: build your component, call :func:`check` in a test.  Each function takes a
component (and operators) and raises :class:`BrokenContract` with what is wrong; none of them needs a test framework.

    from tierform.chip import contract
    def test_my_component():
        contract.check(load_component("mine", 4, "my-file.yaml"))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from tierform.chip.component import Component, Cost, WeightHolder
from tierform.errors import TierformError
from tierform.provenance import KINDS
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role


class BrokenContract(AssertionError):
    """A component does not hold to the interface of components."""


def product(
    m: int,
    n: int,
    k: int,
    *,
    held: bool = True,
    precision: str = "int8",
    weight_precision: str | None = None,
    batch: int = 1,
    count: int = 1,
    transposed: bool = False,
) -> Operator:
    """A matmul of (m, k) by (k, n); `held` makes the second operand a static weight."""
    role = Role.WEIGHT if held else Role.ACTIVATION
    second = Operand("w", (n, k) if transposed else (k, n), weight_precision or precision, role, static=held)
    operands = (Operand("x", (batch * m, k), precision, Role.ACTIVATION), second)
    result = Operand("y", (batch * m, n), precision, Role.ACTIVATION)
    return Operator(
        "product",
        Kind.MATMUL,
        "ffn",
        Phase.FORWARD,
        operands,
        (result,),
        batch=batch,
        m=m,
        n=n,
        k=k,
        count=count,
        weight="w" if held else None,
        transposed=transposed,
    )


def elementwise(kind: Kind, elements: int, *, precision: str = "int8", operations: float = 4.0) -> Operator:
    """An operator of another kind over so many values."""
    operands = (Operand("x", (elements,), precision, Role.ACTIVATION),)
    result = Operand("y", (elements,), precision, Role.ACTIVATION)
    return Operator(kind.value, kind, "other", Phase.FORWARD, operands, (result,), operations_per_element=operations)


def samples() -> list[Operator]:
    """Operators of every kind, of several sizes and number formats."""
    found = [
        product(m, n, k, held=held, precision=precision)
        for m, n, k in ((1, 64, 64), (512, 768, 768), (100, 257, 130))
        for held in (True, False)
        for precision in ("int4", "int8", "bf16")
    ]
    found += [product(64, 96, 128, transposed=True), product(64, 96, 128, batch=3, count=2)]
    found += [product(64, 128, 128, weight_precision=f"int{width}") for width in (1, 2, 6, 16)]
    found += [elementwise(kind, 4096, precision="bf16") for kind in Kind if kind is not Kind.MATMUL]
    return found


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
        _broken(component, "it supports none of the operators")
    if isinstance(component, WeightHolder):
        check_weights(component)
    return supported


def check_description(component: Component) -> None:
    """Name, units, area; constants with sources and kinds."""
    if not isinstance(component, Component):
        raise BrokenContract(f"{component!r} lacks a method of the interface of components")
    if not component.name or component.units < 1:
        _broken(component, f"needs a name and at least one unit, has {component.name!r} and {component.units}")
    if not component.area_m2 > 0 or not math.isfinite(component.area_m2):
        _broken(component, f"its area is {component.area_m2} m2")
    lines = component.assumptions()
    if not lines:
        _broken(component, "it gives no evidence for its constants")
    for line in lines:
        if line.kind not in KINDS:
            _broken(component, f"{line.subject} is of the unknown kind {line.kind!r}")
        if not line.source and not line.note:
            _broken(component, f"{line.subject} has neither source nor note")
        if line.kind != "assumed" and not line.source:
            _broken(component, f"{line.subject} is {line.kind} without a source")


def check_leakage(component: Component) -> None:
    """Static power is finite, not negative, does not fall with temperature, and takes arrays of temperatures."""
    powers = [component.leakage_W(kelvin) for kelvin in (300.0, 330.0, 360.0)]
    if any(not math.isfinite(power) or power < 0 for power in powers):
        _broken(component, f"its static power is {powers} W at 300, 330, 360 K")
    if not np.allclose(component.leakage_W(np.array([300.0, 330.0, 360.0])), powers):
        _broken(component, "its static power at an array of temperatures differs from that at each of them")
    if sorted(powers) != powers:
        _broken(component, f"its static power falls with temperature: {powers} W")


def check_supports(component: Component, operator: Operator) -> bool:
    """`supports` gives a bool, and `cost` refuses with a TierformError exactly what is not supported."""
    able = component.supports(operator)
    if not isinstance(able, bool):
        _broken(component, f"supports({operator.name}) gives {able!r}, not a bool")
    try:
        component.cost(operator)
    except TierformError:
        if able:
            _broken(component, f"cost refuses {_shape(operator)}, which it says it supports")
        return False
    if not able:
        _broken(component, f"cost accepts {_shape(operator)}, which it says it does not support")
    return True


def check_cost(component: Component, operator: Operator) -> Cost:
    """Times positive, latency at least occupancy, energy parts not negative and summing up, counts in range."""
    cost = component.cost(operator)
    if cost != component.cost(operator):
        _broken(component, f"two costs of {_shape(operator)} differ")
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
            _broken(component, f"{name} of {_shape(operator)} is {value}")
    if not 0 < cost.occupancy_s <= cost.latency_s:
        _broken(component, f"{_shape(operator)}: occupancy {cost.occupancy_s} s, latency {cost.latency_s} s")
    if not cost.total_energy_J > 0 or not math.isclose(cost.total_energy_J, math.fsum(cost.energy_J.values())):
        _broken(component, f"{_shape(operator)}: the energy {cost.total_energy_J} J is not the sum of its parts")
    if not math.isclose(cost.operations, operator.operations):
        _broken(component, f"{_shape(operator)}: {cost.operations} operations, the operator has {operator.operations}")
    if cost.utilization > 1 + 1e-9:
        _broken(component, f"{_shape(operator)}: utilization is {cost.utilization}")
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
            _broken(component, f"{name} falls from {less} to {most} when {_shape(operator)} is doubled")
    if two.total_energy_J > 2.5 * one.total_energy_J:
        _broken(component, f"the energy of {_shape(operator)} grows {two.total_energy_J / one.total_energy_J:.2f}-fold")


def check_weights(component: Any) -> None:
    """Crossbars: a positive number, enough cells for the weight, programming that costs and wears in proportion."""
    if component.crossbars < 1:
        _broken(component, f"it holds {component.crossbars} crossbars")
    operator = next((o for o in samples() if o.weight and component.supports(o)), None)
    if operator is None:
        _broken(component, "it holds weights but supports no product with one")
    small, large = component.crossbars_for(operator), component.crossbars_for(replace(operator, count=2))
    if small < 1 or large != 2 * small:
        _broken(component, f"one copy takes {small} crossbars, two groups of it {large}")
    one, two = component.programming_cost(1), component.programming_cost(2 * component.crossbars)
    for cost in (one, two):
        if not 0 < cost.occupancy_s <= cost.latency_s or not cost.total_energy_J > 0 or cost.cell_writes < 1:
            _broken(
                component, f"programming takes {cost.latency_s} s, {cost.total_energy_J} J, {cost.cell_writes} writes"
            )
    if two.cell_writes != 2 * component.crossbars * one.cell_writes:
        _broken(component, "cell writes do not grow with the crossbars written")
    if two.latency_s < one.latency_s or two.total_energy_J <= one.total_energy_J:
        _broken(component, "writing more crossbars takes less")
    thrice = component.programming_cost(1, 3.0)
    if thrice.writes_per_cell != 3.0 or thrice.cell_writes != 3 * one.cell_writes:
        _broken(component, "three writes per cell are not booked as three")


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


def _broken(component: Any, what: str) -> NoReturn:
    raise BrokenContract(f"{getattr(component, 'name', component)!r}: {what}")
