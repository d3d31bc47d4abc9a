"""Where a runtime acts: on the time of kernels, on products that it merges, and on the time of a pass.

- A kernel's time is multiplied by the factor of its class; what it moves and computes stays.
- Products of one input with weights of their own (query, key and value; gate and up) run as one product, whose cost is
  shared by their output features.
- A pass is at least as long as the host needs to issue its operators (an operator of a fused kernel is issued once
  with it; collectives have their launch in their own time), unless the pass is captured in a graph; the host's time of
  a step is added, and in inference the choice of the next tokens.

Limits: projections are merged in the forward pass alone; the host issues operators at an even rate; nothing overlaps
with the choice of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tierform.chip.component import Cost
from tierform.simulation.runtime import Runtime
from tierform.workload.formats import element
from tierform.workload.graph import Stage, StageKind, Workload
from tierform.workload.operator import Kind, Operator, Phase, Role
from tierform.workload.precision import bits
from tierform.workload.task import Step

if TYPE_CHECKING:
    from tierform.simulation.execution import Execution, Segment


@dataclass(frozen=True, slots=True)
class Added:
    """What a runtime adds to one pass of a stage: time of choosing tokens on the chip, time of waiting for the host.

    `gaps_s` of the waiting is spread between kernels, in gaps of microseconds; `issue_s` is what the host needs for all
    kernels.
    """

    sampling_s: float = 0.0
    waiting_s: float = 0.0
    gaps_s: float = 0.0
    issue_s: float = 0.0


class Software:
    """The runtime's effect on costs and passes."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._products, self._weight_only = dict(runtime.product_time), dict(runtime.weight_only_time)
        factors = (*self._products.values(), *self._weight_only.values())
        times = (runtime.light_time, runtime.experts_time, runtime.optimizer_time, runtime.collective_time, *factors)
        self._plain = all(time == 1.0 for time in times) and not runtime.composes_operators

    # -- kernels ----------------------------------------------------------------------------------------------
    def alone(self, operator: Operator, cost: Cost) -> Cost:
        """The cost of an operator as a kernel of its own."""
        if self._plain:
            return cost
        if self.runtime.composes_operators and operator.composed != 1.0:
            cost = _composed(cost, operator.composed)
        return _slower(cost, self._factor(operator))

    def fused(self, members: Sequence[Operator], costs: Sequence[Cost], generation: int = 0) -> list[Cost]:
        """The costs of the members of a fused kernel; of attention the generation whose times they are."""
        cores = [member for member in members if member.attention is not None]
        if not cores:
            return [_slower(cost, self.runtime.light_time) for cost in costs]
        again = self._read_again(cores)
        factor = self._attention_factor(cores, generation) * again
        return [_slower(_with_reads(cost, again), factor) for cost in costs]

    def _attention_factor(self, cores: Sequence[Operator], generation: int) -> float:
        backward, runtime = any(member.phase is Phase.BACKWARD for member in cores), self.runtime
        factor = runtime.attention_backward_time if backward else runtime.attention_time
        if 0 < runtime.attention_generation < generation:
            factor *= runtime.older_attention_backward_time if backward else runtime.older_attention_time
        return factor

    def _read_again(self, cores: Sequence[Operator]) -> float:
        """How often, by its time, an old kernel reads each key that several heads of one new token share."""
        record = cores[0].attention
        assert record is not None
        if record.queries != 1 or any(member.phase is Phase.BACKWARD for member in cores):
            return 1.0
        return 1.0 + self.runtime.grouped_decode_share * (record.heads / record.kv_heads - 1.0)

    def _factor(self, operator: Operator) -> float:
        if operator.kind is Kind.MATMUL:
            experts = self.runtime.experts_time if operator.count > 1 and operator.weight_B else 1.0
            if self._weight_only and operator.weight_B:
                first, second = operator.inputs[0], operator.inputs[1]
                if bits(second.precision) < bits(first.precision):
                    return experts * self._weight_only.get(element(second.precision), 1.0)
            return experts * self._products.get(operator.widest, 1.0) if self._products else experts
        if operator.kind is Kind.COLLECTIVE:
            return self.runtime.collective_time
        return self.runtime.optimizer_time if operator.kind is Kind.OPTIMIZER else self.runtime.light_time

    def merged(self, operators: Sequence[Operator]) -> list[tuple[int, ...]]:
        """The places of operators that run as one product, two or more each."""
        if not self.runtime.merges_projections:
            return []
        groups: dict[tuple[object, ...], list[int]] = {}
        for place, operator in enumerate(operators):
            if operator.part in self.runtime.merges_projections and _is_projection(operator):
                first, second = operator.inputs[0], operator.inputs[1]
                key = (first.name, second.precision, operator.m, operator.k, operator.batch, operator.count)
                groups.setdefault(key, []).append(place)
        return [tuple(places) for places in groups.values() if len(places) > 1]

    # -- passes -----------------------------------------------------------------------------------------------
    def pass_of(self, stage: Stage, waves: Sequence[Sequence[Segment]], workload: Workload, seconds: float) -> Added:
        """What is added to a pass that takes `seconds` on the chip."""
        runtime = self.runtime
        sampling_s = 0.0
        if stage.kind in (StageKind.PREFILL, StageKind.DECODE, StageKind.DRAFT, StageKind.VERIFY):
            sequences = workload.task.batch / workload.parallelism.data
            sampling_s = runtime.sampling_s * sequences * workload.model.vocabulary
        issue_s = 0.0
        if (runtime.kernel_s or runtime.dequantized_s) and _phase(stage) not in runtime.captured:
            for wave, segments in zip(stage.waves, waves, strict=True):
                for segment in segments:
                    one_s = self._issue_s(segment.executions, isinstance(workload.task, Step))
                    issue_s += one_s * segment.count * wave.micro_batches
        waiting_s = gaps_s = max(0.0, issue_s / workload.parallelism.pipeline - seconds)
        if stage.kind is not StageKind.BACKWARD and stage.kind is not StageKind.UPDATE:
            waiting_s += runtime.step_s
        return Added(sampling_s, waiting_s, gaps_s, issue_s / workload.parallelism.pipeline)

    def _issue_s(self, executions: Sequence[Execution], together: bool) -> float:
        """The host's time for these operators; `together`: one attention kernel serves all sequence groups.

        Groups of experts with unequal rows are one grouped kernel.
        """
        runtime, before, grouped = self.runtime, "", set[tuple[object, ...]]()
        seconds = 0.0
        cores = [item.operator.attention.number for item in executions if item.operator.attention is not None]
        served = min(cores, default=0)
        for item in executions:
            operator = item.operator
            if operator.kind is Kind.COLLECTIVE:  # its own time has the launch in it
                continue
            if together and operator.attention is not None and operator.attention.number != served:
                continue
            if operator.together:
                kernel = (operator.together, operator.kind, operator.origin, operator.transposed)
                if kernel in grouped:
                    continue
                grouped.add(kernel)
            if not item.kernel or item.kernel != before:
                seconds += runtime.kernel_s
            before = item.kernel
            if operator.kind is Kind.MATMUL and operator.weight_B:
                first, second = operator.inputs[0], operator.inputs[1]
                seconds += runtime.dequantized_s if bits(second.precision) < bits(first.precision) else 0.0
        return seconds


def _phase(stage: Stage) -> str:
    """What a runtime file calls a pass."""
    drafting = dict.fromkeys((StageKind.DECODE, StageKind.DRAFT, StageKind.VERIFY), "decode")
    return {StageKind.PREFILL: "prefill", **drafting}.get(stage.kind, "training")


def _is_projection(operator: Operator) -> bool:
    return (
        operator.kind is Kind.MATMUL
        and operator.phase is Phase.FORWARD
        and operator.weight is not None
        and operator.inputs[1].role is Role.WEIGHT
    )


def joined(operators: Sequence[Operator]) -> Operator:
    """One product with the output features of all: the first one's input, weights and biases as wide."""
    first = operators[0]
    features = sum(operator.n for operator in operators)
    weight, result = first.inputs[1], first.outputs[0]
    wide = replace(weight, shape=(features, first.k))
    made = replace(result, shape=(*result.shape[:-1], features))
    biases = [operator.inputs[2] for operator in operators if len(operator.inputs) > 2]
    added = [replace(biases[0], shape=(sum(bias.elements for bias in biases),))] if biases else []
    return replace(first, n=features, inputs=(first.inputs[0], wide, *added), outputs=(made,))


def shares_of(cost: Cost, operators: Sequence[Operator]) -> list[Cost]:
    """The cost of a joined product divided among its members by their output features."""
    features = sum(operator.n for operator in operators)
    return [share_of(cost, operator.n / features) for operator in operators]


def share_of(cost: Cost, share: float) -> Cost:
    """A share of a kernel's cost."""
    return replace(
        cost,
        latency_s=cost.latency_s * share,
        occupancy_s=cost.occupancy_s * share,
        energy_J={part: energy * share for part, energy in cost.energy_J.items()},
        operations=cost.operations * share,
        memory_read_B=cost.memory_read_B * share,
        memory_write_B=cost.memory_write_B * share,
    )


def _with_reads(cost: Cost, again: float) -> Cost:
    """The cost with the energy of its bytes for so many readings; the memory's traffic stays (caches hold most)."""
    if again == 1.0:
        return cost
    return replace(
        cost, energy_J={part: energy * (again if part == "memory" else 1.0) for part, energy in cost.energy_J.items()}
    )


def _composed(cost: Cost, times: float) -> Cost:
    """The cost of kernels that move so many times what one kernel would."""
    energy_J = {part: energy * (times if part == "memory" else 1.0) for part, energy in cost.energy_J.items()}
    return replace(
        cost,
        latency_s=cost.latency_s * times,
        occupancy_s=cost.occupancy_s * times,
        energy_J=energy_J,
        memory_read_B=cost.memory_read_B * times,
        memory_write_B=cost.memory_write_B * times,
        utilization=cost.utilization / times,
    )


def _slower(cost: Cost, factor: float) -> Cost:
    if factor == 1.0:
        return cost
    return replace(
        cost,
        latency_s=cost.latency_s * factor,
        occupancy_s=cost.occupancy_s * factor,
        utilization=min(1.0, cost.utilization / factor),
    )
