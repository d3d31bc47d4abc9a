"""What every capability must hold to: the part of `tierform.chip.contract` for what only some components can do.

Each function takes a component that has the capability and raises :class:`BrokenContract` with what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from tierform.chip.component import (
    BufferHolder,
    Component,
    Cost,
    Explainer,
    FormatConverter,
    FusedKernel,
    KernelIssuer,
    MemoryHolder,
    OperatorFuser,
    Remarker,
    Wearing,
    WeightHolder,
)
from tierform.chip.sample_operators import attention_core, elementwise, samples
from tierform.workload.operator import Attention, Kind, Operator, Phase


class BrokenContract(AssertionError):
    """A component does not hold to the interface of components."""


def broken(component: object, what: str) -> NoReturn:
    """Raise a BrokenContract that names the component."""
    name = component.name if isinstance(component, Component) else component
    raise BrokenContract(f"{name!r}: {what}")


def check_capabilities(component: Component) -> None:
    """Check every capability that the component has."""
    if isinstance(component, WeightHolder):
        check_weights(component, component)
    if isinstance(component, Wearing):
        check_wear(component)
    if isinstance(component, MemoryHolder) and component.memory_capacity_B < 1:
        broken(component, f"its memory holds {component.memory_capacity_B} bytes")
    if isinstance(component, BufferHolder):
        check_buffer(component, component)
    if isinstance(component, OperatorFuser):
        check_fusion(component, component)
    if isinstance(component, KernelIssuer) and component.issues_kernels:
        check_issuing(component)
    if isinstance(component, Explainer):
        check_reasons(component, component)
    if isinstance(component, FormatConverter):
        check_conversions(component, component)
    if isinstance(component, Remarker):
        check_remarks(component)


def check_weights(able: Component, component: WeightHolder) -> None:
    """Crossbars: a positive number, enough cells for the weight, programming that costs and wears in proportion."""
    if component.crossbars < 1:
        broken(component, f"it holds {component.crossbars} crossbars")
    operator = next((o for o in samples() if o.weight and able.supports(o)), None)
    if operator is None:
        broken(component, "it holds weights but supports no product with one")
    small, large = component.crossbars_for(operator), component.crossbars_for(replace(operator, count=2))
    if small < 1 or large != 2 * small:
        broken(component, f"one copy takes {small} crossbars, two groups of it {large}")
    one, two = component.programming_cost(1), component.programming_cost(2 * component.crossbars)
    for cost in (one, two):
        if not 0 < cost.occupancy_s <= cost.latency_s or not cost.total_energy_J > 0 or cost.cell_writes < 1:
            broken(
                component, f"programming takes {cost.latency_s} s, {cost.total_energy_J} J, {cost.cell_writes} writes"
            )
    if two.cell_writes != 2 * component.crossbars * one.cell_writes:
        broken(component, "cell writes do not grow with the crossbars written")
    if two.latency_s < one.latency_s or two.total_energy_J <= one.total_energy_J:
        broken(component, "writing more crossbars takes less")
    thrice = component.programming_cost(1, 3.0)
    if thrice.writes_per_cell != 3.0 or thrice.cell_writes != 3 * one.cell_writes:
        broken(component, "three writes per cell are not booked as three")


def check_wear(component: Wearing) -> None:
    """Cells and endurance are positive; programming a crossbar writes its cells; refreshes do not fall with time."""
    if component.endurance_writes <= 0 or component.cells_per_crossbar < 1:
        broken(
            component, f"{component.cells_per_crossbar} cells a crossbar survive {component.endurance_writes} writes"
        )
    if isinstance(component, WeightHolder):
        written = component.programming_cost(1).cell_writes
        if written != component.cells_per_crossbar:
            broken(component, f"a crossbar has {component.cells_per_crossbar} cells, programming it writes {written}")
    counts = [component.refreshes(seconds) for seconds in (0.0, 1.0, 1e6, 1e12)]
    if counts[0] != 0 or sorted(counts) != counts:
        broken(component, f"refreshes in 0, 1, 1e6 and 1e12 s: {counts}")


def check_buffer(able: Component, component: BufferHolder) -> None:
    """Every operand crosses at least once, results are written at least once, and no factor is undefined."""
    if not component.sram_capacity_B > 0:
        broken(component, f"its buffers hold {component.sram_capacity_B} bytes")
    for operator in samples():
        if not able.supports(operator):
            continue
        found = component.refetch(operator)
        if found != component.refetch(operator):
            broken(component, f"two answers of refetch for {operator.name} differ")
        if not (min(found.first, found.second, found.result_write) >= 1 and found.result_read >= 0):
            broken(component, f"{operator.name}: less than everything crosses to memory: {found}")
        if not math.isfinite(found.first + found.second + found.result_write + found.result_read):
            broken(component, f"{operator.name}: a factor is undefined: {found}")


def check_issuing(component: Component) -> None:
    """A view takes the host time in proportion to how many there are, and no energy, operation or byte."""
    one = Operator("view", Kind.ELEMENTWISE, "other", Phase.FORWARD, (), ())
    if not component.supports(one):
        broken(component, "it issues kernels, but not a view")
    cost, many = component.cost(one), component.cost(replace(one, count=10))
    if cost.occupancy_s <= 0 or not math.isclose(many.occupancy_s, 10 * cost.occupancy_s):
        broken(component, f"a view takes {cost.occupancy_s} s, ten take {many.occupancy_s} s")
    if cost.total_energy_J or cost.operations or cost.memory_read_B or cost.memory_write_B:
        broken(component, f"a view computes or moves something: {cost}")


def check_fusion(able: Component, component: OperatorFuser) -> None:
    """Kernels take each operator at most once, cost something, claim no more than was asked, and read no name."""
    record = Attention(0, sequences=2, queries=64, keys=64, heads=4, kv_heads=2, head_dim=32, value_dim=32, causal=True)
    chain = [replace(elementwise(kind, 4096), name=kind.value) for kind in (Kind.NORMALIZATION, Kind.ELEMENTWISE)]
    chain[1] = replace(chain[1], inputs=chain[0].outputs, outputs=(replace(chain[1].outputs[0], name="z"),))
    chain[1] = replace(chain[1], after=(chain[0].name,))
    for operators in (attention_core(record, "bf16"), tuple(chain)):
        if not all(able.supports(operator) for operator in operators):
            continue
        kernels = component.fuse(operators)
        _check_kernels(able, operators, kernels)
        names = {operator.name: f"part-{place}" for place, operator in enumerate(operators)}
        renamed = [
            replace(o, name=names[o.name], after=tuple(names[name] for name in o.after), attention=o.attention)
            for o in operators
        ]
        if [kernel.costs for kernel in component.fuse(renamed)] != [kernel.costs for kernel in kernels]:
            broken(component, "what is fused depends on the operators' names")


def _check_kernels(component: Component, operators: Sequence[Operator], kernels: Sequence[FusedKernel]) -> None:
    taken = [place for kernel in kernels for place in kernel.members]
    if len(set(taken)) < len(taken) or any(not 0 <= place < len(operators) for place in taken):
        broken(component, f"of {len(operators)} operators it fuses {taken}")
    for kernel in kernels:
        if len(kernel.costs) != len(kernel.members):
            broken(component, f"{kernel.name}: {len(kernel.costs)} costs for {len(kernel.members)} operators")
        if not math.fsum(cost.occupancy_s for cost in kernel.costs) > 0:
            broken(component, f"{kernel.name} takes no time")
        for place, cost in zip(kernel.members, kernel.costs, strict=True):
            _check_member(component, kernel.name, operators[place], cost)


def _check_member(component: Component, kernel: str, operator: Operator, cost: Cost) -> None:
    if not 0 <= cost.occupancy_s <= cost.latency_s or min(cost.energy_J.values(), default=0.0) < 0:
        broken(component, f"{kernel}: {operator.name} takes {cost.occupancy_s} s and {cost.energy_J} J")
    if cost.operations > operator.operations * (1 + 1e-9) or not 0 <= cost.utilization <= 1 + 1e-9:
        broken(component, f"{kernel}: {operator.name} does {cost.operations} operations, used {cost.utilization}")


def check_reasons(able: Component, component: Explainer) -> None:
    """A reason only where an operator is not supported."""
    for operator in samples():
        told = component.why_not(operator)
        if not isinstance(told, str):
            broken(component, f"why_not({operator.name}) gives {told!r}, not a sentence")
        if told and able.supports(operator):
            broken(component, f"it supports {operator.name} and tells why not: {told}")


def check_conversions(able: Component, component: FormatConverter) -> None:
    """A sentence or nothing, that names the component and not the operator."""
    for operator in samples():
        if not able.supports(operator):
            continue
        told = component.conversion(operator)
        if not isinstance(told, str) or (told and able.name not in told):
            broken(component, f"conversion({operator.name}) gives {told!r}, not a sentence that names the component")
        if told != component.conversion(replace(operator, name="renamed")):
            broken(component, f"what it says of the formats of {operator.name} depends on the name")


def check_remarks(component: Remarker) -> None:
    """A tuple of sentences."""
    if not isinstance(component.remarks, tuple) or not all(
        isinstance(told, str) and told for told in component.remarks
    ):
        broken(component, f"its remarks are no sentences: {component.remarks!r}")
