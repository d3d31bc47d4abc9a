"""Which neighbouring operators a GPU runs as one kernel, and what that kernel costs.

- Attention cores: :mod:`tierform.chip.gpu.flash`.
- Chains of light operators (elementwise, activation, normalization, rotary): one kernel reads what comes from outside
  the chain and writes what is used outside it.  Its time is divided among its members in proportion to what each would
  take alone; operations and arithmetic energy stay with each member.

Limits: light operators are not fused into a product's epilogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tierform.chip.component import Cost, FusedKernel
from tierform.chip.gpu import flash
from tierform.workload.operator import Kind, Operator

if TYPE_CHECKING:
    from tierform.chip.gpu.device import Gpu

_LIGHT = (Kind.ELEMENTWISE, Kind.ACTIVATION, Kind.NORMALIZATION, Kind.ROTARY)


def find_fused(gpu: Gpu, operators: Sequence[Operator], keeps_activations: bool) -> list[FusedKernel]:
    """All fused kernels among the operators of one block; see the module's text."""
    readers = _readers(operators)
    kernels: list[FusedKernel] = []
    if gpu.prefill is not None:
        kernels = [flash.kernel(gpu, operators, readers, core) for core in flash.find_cores(operators)]
    taken = {place for kernel in kernels for place in kernel.members}
    kernels += [
        _chain(gpu, operators, members, readers, keeps_activations) for members in _chains(operators, readers, taken)
    ]
    return sorted(kernels, key=lambda kernel: kernel.members)


def _readers(operators: Sequence[Operator]) -> list[list[int]]:
    number = {operator.name: place for place, operator in enumerate(operators)}
    readers: list[list[int]] = [[] for _ in operators]
    for place, operator in enumerate(operators):
        for name in operator.after:
            if name in number:
                readers[number[name]].append(place)
    return readers


def _chains(operators: Sequence[Operator], readers: list[list[int]], taken: set[int]) -> list[tuple[int, ...]]:
    """Runs of light operators of two or more, each reading the one before it."""
    number = {operator.name: place for place, operator in enumerate(operators)}
    before = [[number[name] for name in operator.after if name in number] for operator in operators]
    chains = []
    used = set(taken)
    for start, operator in enumerate(operators):
        if start in used or operator.kind not in _LIGHT:
            continue
        chain = [start]
        while True:
            last = operators[chain[-1]]
            following = [
                place
                for place in readers[chain[-1]]
                if place not in used
                and operators[place].kind in _LIGHT
                and operators[place].phase is last.phase
                and operators[place].count == last.count
                and all(other in chain or other < chain[0] for other in before[place])
            ]
            if not following:
                break
            chain.append(following[0])
        if len(chain) > 1:
            used |= set(chain)
            chains.append(tuple(chain))
    return chains


def _chain(
    gpu: Gpu, operators: Sequence[Operator], members: tuple[int, ...], readers: list[list[int]], keeps: bool
) -> FusedKernel:
    inside = set(members)
    alone = [gpu.cost(operators[place]) for place in members]
    traffic = []
    for place in members:
        operator = operators[place]
        given = [operators[other] for other in members if operators[other].name in operator.after]
        made = [operand.name for giver in given for operand in giver.outputs]
        read_B = float(operator.input_B)
        for operand in operator.inputs:
            if operand.name in made:
                made.remove(operand.name)
                read_B -= operator.count * operand.size_B
        used_outside = place == members[-1] or not readers[place] or any(r not in inside for r in readers[place])
        traffic.append((read_B, float(operator.output_B) if used_outside or keeps else 0.0))
    moved = math.fsum(read + written for read, written in traffic)
    arithmetic_s = math.fsum(operators[place].operations for place in members) / (
        gpu.parameters.vector_rate.value * gpu.parameters.compute_efficiency.value * gpu.units
    )
    costs = [
        gpu.kernel_cost(operators[place], cost.occupancy_s, cost.energy_J["arithmetic"], read_B, write_B)
        for place, cost, (read_B, write_B) in zip(members, alone, traffic, strict=True)
    ]
    together_s = math.fsum(cost.occupancy_s for cost in alone)
    fused_s = gpu.parameters.launch.value + max(gpu.memory_s(moved), arithmetic_s)
    seconds = min(fused_s, together_s)
    shared = [
        _timed(gpu, operators[place], cost, seconds * one.occupancy_s / together_s)
        for place, cost, one in zip(members, costs, alone, strict=True)
    ]
    return FusedKernel("fused elementwise", members, tuple(shared))


def _timed(gpu: Gpu, operator: Operator, cost: Cost, seconds: float) -> Cost:
    used = operator.operations / (gpu.parameters.vector_rate.value * gpu.units * seconds)
    return replace(cost, latency_s=seconds, occupancy_s=seconds, utilization=min(1.0, used))
