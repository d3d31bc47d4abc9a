"""Which neighbouring operators a GPU runs as one kernel, and what that kernel costs.

- Attention: scores, anything light on them (scale, mask, bias, dropout), softmax and weighted values become one flash
  attention kernel: scores never reach memory.  With one query it is the decode kernel.  Backward (the products around
  a softmax's gradient) becomes one kernel of five products for the forward's two, recomputing the scores.
- Chains of light operators (elementwise, activation, normalization, rotary): one kernel reads what comes from outside
  the chain and writes what is used outside it.

A fused kernel's time is divided among its members in proportion to what each would take alone, its traffic is charged
to the members that read or write it; arithmetic energy stays with each member.  Sources: T. Dao, FlashAttention-2
(2023), backward at 2.5 times the forward's products.  Limits: light operators are not fused into a product's epilogue;
attention with values of another size than keys (latent attention) is timed by its mean size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tierform.chip.component import Cost
from tierform.workload.operator import Kind, Operator, Phase

if TYPE_CHECKING:
    from tierform.chip.gpu.device import Gpu

_LIGHT = (Kind.ELEMENTWISE, Kind.ACTIVATION, Kind.NORMALIZATION, Kind.ROTARY)
_BACKWARD_PRODUCTS = 2.5


@dataclass(frozen=True, slots=True)
class FusedKernel:
    """Operators that run as one kernel: their positions among those given, and each one's part of the cost."""

    name: str
    members: tuple[int, ...]
    costs: tuple[Cost, ...]


def find_fused(gpu: Gpu, operators: Sequence[Operator], keeps_activations: bool) -> list[FusedKernel]:
    """All fused kernels among the operators of one layer; see the module's text."""
    readers = _readers(operators)
    kernels: list[FusedKernel] = []
    taken: set[int] = set()
    if gpu.prefill is not None and gpu.decode is not None:
        for place, operator in enumerate(operators):
            if operator.kind is not Kind.SOFTMAX:
                continue
            forward = operator.phase is Phase.FORWARD
            members = (_attention if forward else _attention_backward)(operators, readers, place)
            if members and not taken & set(members):
                seconds = _attention_seconds(gpu, operators, members, forward)
                if seconds is None:
                    continue
                name = "flash attention" if forward else "flash attention backward"
                kernels.append(_kernel(gpu, name, operators, members, readers, seconds, False))
                taken |= set(members)
    kernels += [
        _kernel(gpu, "fused elementwise", operators, members, readers, None, keeps_activations)
        for members in _chains(operators, readers, taken)
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


def _attention(operators: Sequence[Operator], readers: list[list[int]], softmax: int) -> tuple[int, ...]:
    """Positions of scores, ..., softmax, ..., weighted values around a softmax; empty when it is something else."""
    number = {operator.name: place for place, operator in enumerate(operators)}
    members = [softmax]
    while True:  # back to the product that made the scores
        before = [number[name] for name in operators[members[0]].after if name in number]
        known = [place for place in before if readers[place] == [members[0]]]
        known = [place for place in known if operators[place].kind in (Kind.MATMUL, *_LIGHT)]
        if len(known) != 1:
            return ()
        members.insert(0, known[0])
        if operators[known[0]].kind is Kind.MATMUL:
            break
    while True:  # on to the product with the values
        after = readers[members[-1]]
        if len(after) != 1 or operators[after[0]].kind not in (Kind.MATMUL, *_LIGHT):
            return ()
        members.append(after[0])
        if operators[after[0]].kind is Kind.MATMUL:
            break
    scores, values = operators[members[0]], operators[members[-1]]
    matching = (scores.batch, scores.m, scores.n) == (values.batch, values.m, values.k)
    return tuple(members) if matching else ()


def _attention_backward(operators: Sequence[Operator], readers: list[list[int]], softmax: int) -> tuple[int, ...]:
    """Positions of the four products around a softmax's gradient and of what is light between them."""
    number = {operator.name: place for place, operator in enumerate(operators)}
    members = {softmax}
    frontier = [softmax]
    while frontier:  # back to the product that made the gradient of the probabilities
        place = frontier.pop()
        for name in operators[place].after:
            before = number.get(name)
            if before is None or operators[before].phase is not Phase.BACKWARD or before in members:
                continue
            if operators[before].kind is Kind.MATMUL:
                members.add(before)
            elif operators[before].kind in _LIGHT:
                members.add(before)
                frontier.append(before)
    first = [place for place in members if operators[place].kind is Kind.MATMUL]
    if len(first) != 1:
        return ()
    frontier = [softmax]
    while frontier:  # on to the products with the gradient of the scores
        for after in readers[frontier.pop()]:
            if operators[after].kind is Kind.MATMUL:
                members.add(after)
            elif operators[after].kind in _LIGHT:
                members.add(after)
                frontier.append(after)
    scores = operators[softmax].outputs[0].shape
    for place, operator in enumerate(operators):  # the gradient of the values reads the probabilities
        beside = operator.kind is Kind.MATMUL and operator.after == operators[first[0]].after
        if beside and any(operand.shape == scores for operand in operator.inputs):
            members.add(place)
    products = [place for place in members if operators[place].kind is Kind.MATMUL]
    return tuple(sorted(members)) if len(products) == 4 else ()


def _attention_seconds(
    gpu: Gpu, operators: Sequence[Operator], members: tuple[int, ...], forward: bool
) -> float | None:
    products = [operators[place] for place in members if operators[place].kind is Kind.MATMUL]
    scores = products[0]
    probabilities = next(operators[place] for place in members if operators[place].kind is Kind.SOFTMAX).outputs[0]
    if len(probabilities.shape) != 4 or gpu.prefill is None or gpu.decode is None:
        return None
    batch, heads, queries, keys = probabilities.shape
    size = scores.k if forward else min(scores.k, scores.n)
    value_size = products[-1].n if forward else size
    if scores.count != 1 or gpu.units != 1 or batch * heads * queries * keys != scores.batch * scores.m * keys:
        return None
    shared = scores.inputs[1].elements / max(batch * keys * size, 1)
    kv_heads = int(min(max(round(shared), 1), heads))
    value_B = max(scores.inputs[1].size_B / max(scores.inputs[1].elements, 1), 0.5)
    if forward and queries == 1:
        return float(gpu.decode.seconds(batch, keys, heads, kv_heads, size, value_size=value_size, value_B=value_B))
    one = gpu.prefill.seconds(
        batch, queries, keys, heads, kv_heads, size, value_size=value_size, causal=scores.causal, value_B=value_B
    )
    if forward:
        return float(one)
    launch_s = gpu.prefill.values[0] / gpu.sheet.clock_Hz
    return launch_s + _BACKWARD_PRODUCTS * (float(one) - launch_s)


def _chains(operators: Sequence[Operator], readers: list[list[int]], taken: set[int]) -> list[tuple[int, ...]]:
    """Runs of light operators of two or more, each reading the one before it."""
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
                and _is_ready(operators, place, chain)
            ]
            if not following:
                break
            chain.append(following[0])
        if len(chain) > 1:
            used |= set(chain)
            chains.append(tuple(chain))
    return chains


def _is_ready(operators: Sequence[Operator], place: int, chain: list[int]) -> bool:
    """Whether everything else that the operator waits for comes before the chain begins or belongs to it."""
    number = {operators[i].name: i for i in range(place)}
    own = set(chain)
    return all(number[name] in own or number[name] < chain[0] for name in operators[place].after if name in number)


def _kernel(
    gpu: Gpu,
    name: str,
    operators: Sequence[Operator],
    members: tuple[int, ...],
    readers: list[list[int]],
    seconds: float | None,
    keeps: bool,
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
    if name.startswith("flash"):
        kept = next(operators[place] for place in members if operators[place].kind is Kind.SOFTMAX).outputs[0].shape
        traffic = [
            _attention_traffic(operators[place], part, kept) for place, part in zip(members, traffic, strict=True)
        ]
    together_s = sum(cost.occupancy_s for cost in alone)
    if seconds is None:
        launch_s = gpu.parameters.launch.value
        moved = sum(read + written for read, written in traffic)
        arithmetic_s = sum(operators[place].operations for place in members) / (
            gpu.parameters.vector_rate.value * gpu.parameters.compute_efficiency.value * gpu.units
        )
        seconds = launch_s + max(gpu.memory_s(moved), arithmetic_s)
    seconds = min(seconds, together_s)
    costs = [
        gpu.kernel_cost(operators[place], 0.0, cost.energy_J["arithmetic"], read_B, write_B)
        for place, cost, (read_B, write_B) in zip(members, alone, traffic, strict=True)
    ]
    least_s = sum(cost.occupancy_s for cost in costs)  # what the board's power allows
    seconds = max(seconds, least_s)
    return FusedKernel(
        name,
        members,
        tuple(
            _timed(gpu, operators[place], cost, seconds * one.occupancy_s / together_s)
            for place, cost, one in zip(members, costs, alone, strict=True)
        ),
    )


def _attention_traffic(operator: Operator, part: tuple[float, float], scores: tuple[int, ...]) -> tuple[float, float]:
    """Without the matrices of the scores' shape, which stay on chip."""
    read_B = float(operator.count * sum(o.size_B for o in operator.inputs if o.shape != scores))
    write_B = float(operator.count * sum(o.size_B for o in operator.outputs if o.shape != scores))
    return min(read_B, part[0]), min(write_B, part[1])


def _timed(gpu: Gpu, operator: Operator, cost: Cost, seconds: float) -> Cost:
    rate = gpu.rate(operator) if operator.kind is Kind.MATMUL else gpu.parameters.vector_rate.value
    used = operator.operations / ((rate or 1.0) * gpu.units * seconds) if seconds > 0 else 0.0
    return replace(cost, latency_s=seconds, occupancy_s=seconds, utilization=used)
