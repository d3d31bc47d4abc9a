"""The attention core as one kernel: scores and probabilities stay on the chip, forward and backward.

Which operators belong to a core is in their records (`Operator.attention`): operators with equal records and of the
same class (forward, recomputed, backward) run as one kernel.

- Forward, or recomputed with its weighted values: the fitted time of the prefill kernel, or of the decode kernel for
  one query.
- Backward: 2.5 times the forward's arithmetic, since it makes five products for the forward's two (T. Dao,
  FlashAttention-2, 2023).  The fifth is that of the scores, which are computed again.  Where the workload has them
  recomputed and nothing else than the backward reads them, they are members of this kernel; where it kept the
  probabilities instead, the kernel still makes the product and its energy is added.

Only what the mask lets through is computed: operations and energy are those of the visible pairs of query and key.
The kernel's time is shared by its members in proportion to what each needs at its unit's peak.  Products and vector
work overlap in the kernel; where both together need more than the kernel's time, the products have theirs and vector
work is hidden behind them.  The kernel is never faster than its products at the peak.  Memory sees queries, keys,
values and the result (and their gradients), each once.

Limits: the fitted kernels compute in 16 bits; a format with a lower peak is slower by the ratio of the peaks, one with
a higher peak is not faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from tierform.chip.component import Cost, FusedKernel
from tierform.workload.formats import format_of
from tierform.workload.operator import Attention, Kind, Operator, Origin, Phase, Role

if TYPE_CHECKING:
    from tierform.chip.gpu.device import Gpu

BACKWARD_ARITHMETIC = 2.5


class Class(StrEnum):
    """In which kernel of a core an operator runs."""

    FORWARD = "forward"
    RECOMPUTED = "recomputed"
    BACKWARD = "backward"


_NAMES = {
    Class.FORWARD: "flash attention",
    Class.RECOMPUTED: "flash attention",
    Class.BACKWARD: "flash attention backward",
}


@dataclass(frozen=True, slots=True)
class Core:
    """The members of one kernel by their positions; `again` are recomputed operators that a backward absorbs."""

    record: Attention
    kind: Class
    members: tuple[int, ...]
    again: frozenset[int] = frozenset()


def class_of(operator: Operator) -> Class:
    """The class of an operator of an attention core."""
    if operator.origin is Origin.RECOMPUTED:
        return Class.RECOMPUTED
    return Class.FORWARD if operator.phase is Phase.FORWARD else Class.BACKWARD


def visible_share(record: Attention) -> float:
    """The share of all pairs of query and key that the mask lets through."""
    return record.pairs / (record.queries * record.keys)


def find_cores(operators: Sequence[Operator]) -> list[Core]:
    """Every attention kernel among the operators of one block, in the order of their first members."""
    groups: dict[Attention, dict[Class, list[int]]] = {}
    for place, operator in enumerate(operators):
        if operator.attention is not None:
            groups.setdefault(operator.attention, {}).setdefault(class_of(operator), []).append(place)
    cores = [core for record, classes in groups.items() for core in _cores_of(record, classes, operators)]
    return sorted(cores, key=lambda core: core.members)


def _cores_of(record: Attention, classes: dict[Class, list[int]], operators: Sequence[Operator]) -> list[Core]:
    found = []
    again = classes.get(Class.RECOMPUTED, [])
    for kind in (Class.FORWARD, Class.RECOMPUTED):
        members = classes.get(kind, [])
        if _is_whole(operators, members):
            found.append(Core(record, kind, tuple(members)))
            again = [] if kind is Class.RECOMPUTED else again
    backward = classes.get(Class.BACKWARD, [])
    if any(operators[place].kind is Kind.MATMUL for place in backward):
        found.append(Core(record, Class.BACKWARD, tuple(sorted((*again, *backward))), frozenset(again)))
    return found


def _is_whole(operators: Sequence[Operator], members: Sequence[int]) -> bool:
    """Scores, softmax and weighted values are all there."""
    kinds = [operators[place].kind for place in members]
    return kinds.count(Kind.MATMUL) >= 2 and Kind.SOFTMAX in kinds


def kernel(gpu: Gpu, operators: Sequence[Operator], readers: Sequence[Sequence[int]], core: Core) -> FusedKernel:
    """The kernel of a core, its time, energy and traffic shared by its members."""
    members = [operators[place] for place in core.members]
    visible = visible_share(core.record)
    energy = [gpu.arithmetic_J(member) * visible for member in members]
    if core.kind is Class.BACKWARD and not core.again:
        energy = _with_scores_again(gpu, core.record, members, energy, visible)
    elif core.record.queries == 1:
        energy = _whole_tiles(gpu, core.record, members, energy)
    traffic = _traffic(operators, readers, core)
    needed_s = [_at_peak_s(gpu, member) * visible for member in members]
    products_s = math.fsum(s for s, member in zip(needed_s, members, strict=True) if member.kind is Kind.MATMUL)
    seconds = max(gpu.beside_fitted(lambda one: _fitted_s(one, core, members)), products_s)
    costs = [
        _cost(gpu, member, part_s, own_s, joules, moved, visible)
        for member, part_s, own_s, joules, moved in zip(
            members, _shared_s(members, needed_s, products_s, seconds), needed_s, energy, traffic, strict=True
        )
    ]
    generation = gpu.parameters.attention.generation if gpu.parameters.attention else 0
    return FusedKernel(_NAMES[core.kind], core.members, tuple(costs), generation)


def _at_peak_s(gpu: Gpu, operator: Operator) -> float:
    rate = gpu.rate(operator) if operator.kind is Kind.MATMUL else gpu.parameters.vector_rate.value
    return operator.operations / ((rate or math.inf) * gpu.units)


def _shared_s(members: Sequence[Operator], needed_s: Sequence[float], products_s: float, seconds: float) -> list[float]:
    """Each member's part of the kernel's time; see the module's text."""
    all_s = math.fsum(needed_s)
    if all_s <= 0:
        return [seconds / len(members)] * len(members)
    if all_s <= seconds:
        return [seconds * own / all_s for own in needed_s]
    beside = (seconds - products_s) / (all_s - products_s)
    return [own if member.kind is Kind.MATMUL else own * beside for member, own in zip(members, needed_s, strict=True)]


def _cost(
    gpu: Gpu,
    operator: Operator,
    seconds: float,
    needed_s: float,
    arithmetic_J: float,
    moved_B: tuple[float, float],
    visible: float,
) -> Cost:
    return Cost(
        latency_s=seconds,
        occupancy_s=seconds,
        energy_J={"arithmetic": arithmetic_J, "memory": sum(moved_B) * gpu.parameters.memory_energy.value},
        operations=operator.operations * visible,
        memory_read_B=moved_B[0],
        memory_write_B=moved_B[1],
        utilization=min(1.0, needed_s / seconds) if seconds > 0 else float(needed_s > 0),
    )


def _with_scores_again(
    gpu: Gpu, record: Attention, members: Sequence[Operator], energy: Sequence[float], visible: float
) -> list[float]:
    """Energies with that of the scores' product added to the other products, in proportion to their operations."""
    products = [member for member in members if member.kind is Kind.MATMUL]
    pairs = float(record.sequences * record.heads * record.queries * record.keys)
    all_operations = math.fsum(member.operations for member in products)
    again = 2.0 * pairs * record.head_dim / all_operations if all_operations else 0.0
    return [
        joules + gpu.arithmetic_J(member) * visible * again if member.kind is Kind.MATMUL else joules
        for member, joules in zip(members, energy, strict=True)
    ]


def _whole_tiles(gpu: Gpu, record: Attention, members: Sequence[Operator], energy: Sequence[float]) -> list[float]:
    """One new token: products compute whole tiles of queries, of which heads that share keys fill a part."""
    attention = gpu.parameters.attention
    assert attention is not None
    rows, together = attention.tile[0], max(1, record.heads // record.kv_heads)
    computed = math.ceil(together / rows) * rows / together
    return [
        joules * computed if member.kind is Kind.MATMUL else joules
        for member, joules in zip(members, energy, strict=True)
    ]


def _fitted_s(gpu: Gpu, core: Core, members: Sequence[Operator]) -> float:
    """The fitted model's time of the kernel."""
    prefill, decode, record = gpu.prefill, gpu.decode, core.record
    assert prefill is not None and decode is not None
    sequences, heads, kv_heads = _on_one_gpu(record, gpu.units)
    products = [member for member in members if member.kind is Kind.MATMUL]
    keys = products[0].inputs[-1]
    rate = min((gpu.rate(product) or math.inf) for product in products)
    slower = min(1.0, rate / gpu.sheet.peak_per_s)
    if slower < 1.0:
        prefill = replace(prefill, sheet=replace(prefill.sheet, peak_per_s=prefill.sheet.peak_per_s * slower))
    shape = (heads, kv_heads, record.head_dim)
    value_B = format_of(keys.precision).bits_per_number(record.head_dim) / 8

    if record.queries == 1 and core.kind is not Class.BACKWARD:
        # In latent attention values are a part of what was read as keys.
        last = 0 if products[-1].inputs[-1].name == keys.name else record.value_dim
        return float(decode.seconds(sequences, record.keys, *shape, value_size=last, value_B=value_B))
    seconds = float(
        prefill.seconds(
            sequences,
            record.queries,
            record.keys,
            *shape,
            value_size=record.value_dim,
            causal=record.causal,
            value_B=value_B,
            writes_cache=keys.role is Role.KV_CACHE and core.kind is Class.FORWARD,
        )
    )
    if core.kind is not Class.BACKWARD:
        return seconds
    launch_s = prefill.values[0] / gpu.sheet.clock_Hz
    return launch_s + BACKWARD_ARITHMETIC * (seconds - launch_s)


def _on_one_gpu(record: Attention, units: int) -> tuple[int, int, int]:
    """Sequences, heads and heads of keys on the busiest of so many GPUs side by side."""
    if units == 1:
        return record.sequences, record.heads, record.kv_heads
    across = min(units, record.sequences)
    beside = units // across
    heads = -(-record.heads // beside)
    return -(-record.sequences // across), heads, min(heads, -(-record.kv_heads // beside))


def _traffic(operators: Sequence[Operator], readers: Sequence[Sequence[int]], core: Core) -> list[tuple[float, float]]:
    """Bytes that each member reads from and writes to memory: each tensor once, nothing that stays on the chip."""
    made = {operand.name for place in core.members for operand in operators[place].outputs}
    inside, fetched, found = set(core.members), set(made), []
    for place in core.members:
        operator = operators[place]
        consumed = any(reader in inside for reader in readers[place])
        leaves = not readers[place] or any(reader not in inside for reader in readers[place])
        backward = core.kind is Class.BACKWARD and place not in core.again
        read = 0
        for operand in operator.inputs:
            if operand.name not in fetched and not (backward and _recomputed(operator, operand.role, consumed, made)):
                fetched.add(operand.name)
                read += operand.size_B
        written = leaves if backward else operator.kind is Kind.MATMUL and not consumed and place not in core.again
        found.append((float(operator.count * read), float(operator.output_B) if written else 0.0))
    return found


def _recomputed(operator: Operator, role: Role, consumed: bool, made: set[str]) -> bool:
    """Whether a backward's member takes this operand from the scores that the kernel computes again.

    Light members take probabilities and masks; the product that makes the gradient of the values takes probabilities.
    It is the one that reads a gradient from outside and whose result leaves the kernel.
    """
    if role is Role.GRADIENT:
        return False
    if operator.kind is not Kind.MATMUL:
        return True
    from_outside = any(o.role is Role.GRADIENT and o.name not in made for o in operator.inputs)
    return from_outside and not consumed
