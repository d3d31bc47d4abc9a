"""From the running sums to the Result: idle power, wear, utilization, shares, throughput, evidence."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import tierform
from tierform import library
from tierform.chip.crossbar.wear import WearLedger
from tierform.chip.description import Chip
from tierform.errors import TierformError
from tierform.mapping import Mapping
from tierform.provenance import Assumption, Citation, assumptions_first
from tierform.simulation.account import Account, Finished
from tierform.simulation.costing import Executed, Segment
from tierform.simulation.result import OperatorResult, Result, StageResult, Wear
from tierform.workload import Model, Task
from tierform.workload.graph import Stage, StageKind
from tierform.workload.operator import Kind, Phase
from tierform.workload.task import Inference, describe

STATIC_TEMPERATURE_K = 330.0
IDLE = "idle and leakage"


def summarize(done: Finished, fidelity: str) -> Result:
    """The Result of one task, `steps` optimizer steps of it."""
    task, chip, account, stages, executed = done.task, done.chip, done.account, done.stages, done.executed
    workload, plan, fabric, offchip = done.workload, done.plan, done.fabric, done.offchip
    steps = 1 if isinstance(task, Inference) else task.steps
    latency_s = sum(seconds for _, seconds, _ in stages)
    split = done.parallelism
    scale = steps * split.tensor * split.data
    if done.heat is None:
        static_W = {name: part.leakage_W(STATIC_TEMPERATURE_K) for name, part in chip.components.items()}
    else:
        static_W = dict(done.heat.leakage_W)
    static_W["network"] = fabric.leakage_W
    # What was booked is that of one chip of each pipeline group; all of them idle and refresh.
    for name, power in static_W.items():
        account.add_energy(name, IDLE, IDLE, power * latency_s * split.pipeline)
    busy_s = account.memory_busy_s / split.pipeline
    account.add_energy("memory", IDLE, "background", offchip.background_J(latency_s, busy_s) * split.pipeline)
    total_static_W = (account.energy_by_operator[IDLE]) / latency_s if latency_s else 0.0
    return Result(
        model=done.model.name,
        chip=chip.name,
        task=json.loads(json.dumps(describe(task))),
        fidelity=fidelity,
        latency_s=latency_s * steps,
        energy_J=account.energy_J * scale,
        area_m2=(chip.area_m2 + fabric.area_m2) * split.chips,
        chips=split.chips,
        parallelism={name: getattr(split, name) for name in ("tensor", "pipeline", "data")},
        parameters=workload.parameters,
        trainable_parameters=workload.trainable_parameters,
        operations=sum(account.operations_by_component.values()) * scale,
        operations_by_component=_times(account.operations_by_component, scale),
        operations_by_operator=_times(account.operations_by_operator, scale),
        energy_J_by_component=_times(_nonzero(account.energy_by_component), scale),
        energy_J_by_operator=_times(_nonzero(account.energy_by_operator), scale),
        energy_J_by_part=_times(_nonzero(account.energy_by_part), scale),
        busy_s_by_resource=_times(_busy(account, chip), steps / split.pipeline),
        utilization=_times(_utilization(account, chip, latency_s), 1 / split.pipeline),
        stages=tuple(
            StageResult(
                stage.name,
                stage.repeat,
                seconds * steps,
                (energy + total_static_W * seconds) * scale,
                stage.tokens * stage.repeat * steps * split.data,
            )
            for stage, seconds, energy in stages
        ),
        operators=tuple(_operator(stage, segment, item, times * scale) for stage, segment, item, times in executed),
        wear=_wear(account, chip, plan, latency_s, steps, scale),
        memory_footprint_B=workload.footprint.parts(),
        memory_placement_B=_placed(done.placement),
        memory_read_B=account.memory_read_B * scale,
        memory_write_B=account.memory_write_B * scale,
        memory_spill_B=_times(dict(account.spill_B), scale),
        network_B=account.network_B * scale,
        link_bytes=tuple(float(value) * scale for value in account.link_B),
        crossbars=_crossbars(chip, plan),
        operation_share=operation_share(executed, chip),
        throughput=_throughput(task, stages, latency_s),
        roofline=_roofline(chip, executed),
        assumptions=(evidence := tuple(assumptions_first(_assumptions(done)))),
        citations=_citations(evidence, done.model),
        notes=(*chip.notes, *workload.notes, *plan.notes),
        versions={
            "tierform": tierform.__version__,
            "chip_sha256": chip.fingerprint,
            "inputs_sha256": _hash(done.model, task),
        },
        thermal=None if done.heat is None else done.heat.figures,
        mapping=plan,
        timeline=tuple(done.bars),
    )


def operation_share(executed: list[tuple[Stage, Segment, Executed, int]], chip: Chip) -> dict[str, float]:
    """Share of forward matmul operations of the layers by component, counted as published for Atleus.

    Products of attention count the useful (causal) half, and each adapter pair counts once (2 n d r for two adapted
    matrices): 12 n d^2 / (12 n d^2 + n^2 d + 2 n d r).  Embeddings, head and normalization are left out.  This holds
    for causal and for bidirectional models, as the published figure has one attention term n^2 d.
    """
    macs: dict[str, float] = {}
    for _, segment, item, times in executed:
        operator = item.operator
        outside = segment.block.startswith(("embedding", "head"))
        if operator.phase is not Phase.FORWARD or operator.kind is not Kind.MATMUL or outside:
            continue
        half = operator.part == "adapter" or operator.weight is None
        macs[item.component] = macs.get(item.component, 0.0) + operator.macs * times * (0.5 if half else 1.0)
    total = sum(macs.values())
    return {name: value / total for name, value in macs.items()} if total else {}


def _operator(stage: Stage, segment: Segment, item: Executed, times: int) -> OperatorResult:
    cost = item.cost
    return OperatorResult(
        stage.name,
        segment.block,
        item.operator.name,
        item.operator.kind.value,
        item.component,
        times,
        cost.occupancy_s * times,
        cost.total_energy_J * times,
        cost.operations * times,
        (item.traffic.read_B + item.traffic.write_B + cost.memory_read_B + cost.memory_write_B) * times,
        sum(transfer.size_B for transfer in item.transfers) * times,
        cost.utilization,
        item.kernel,
    )


def _wear(account: Account, chip: Chip, plan: Mapping, latency_s: float, steps: int, scale: int) -> Wear:
    holder: Any = next((part for part in chip.components.values() if hasattr(part, "endurance_writes")), None)
    endurance = float(holder.endurance_writes) if holder else 0.0
    if not account.cell_writes or holder is None:
        return Wear(0, 0.0, endurance, None, None)
    ledger = WearLedger.of(holder)
    learning = sum(p.total_crossbars for p in plan.placements if p.trainable and p.resident)
    resident = sum(p.total_crossbars for p in plan.placements)
    ledger.write(0, min(learning, ledger.crossbars))
    # Streamed weights take turns in what is left; operands written for each product in all of them if nothing is.
    first = resident if resident < ledger.crossbars else 0
    ledger.rotate(first, ledger.crossbars - first, account.cell_writes / ledger.cells_each - learning)
    most = ledger.most
    tasks = endurance / (most * steps)
    return Wear(account.cell_writes * scale, most * steps, endurance, tasks, tasks * latency_s * steps)


def _utilization(account: Account, chip: Chip, latency_s: float) -> dict[str, float]:
    """Fraction of the task's time that each component works; for crossbars, of the time of all its crossbars."""
    result = {}
    for name, part in chip.components.items():
        if not latency_s:
            continue
        busy = account.busy_s.get(name, 0.0)
        if name in account.crossbar_seconds:
            busy = account.crossbar_seconds[name] / float(getattr(part, "crossbars"))
        result[name] = busy / latency_s
    if account.memory_busy_s:
        result["memory"] = account.memory_busy_s / latency_s
    return result


def _busy(account: Account, chip: Chip) -> dict[str, float]:
    busy = dict(account.busy_s)
    for name, seconds in account.crossbar_seconds.items():
        busy[name] = seconds / float(getattr(chip.components[name], "crossbars"))
    if account.memory_busy_s:
        busy["memory"] = account.memory_busy_s
    return busy


def _crossbars(chip: Chip, plan: Mapping) -> dict[str, int]:
    result = {}
    for name, part in chip.components.items():
        if hasattr(part, "crossbars"):
            result = {"available": int(getattr(part, "crossbars")), "used": plan.crossbars_used(name)}
            result["streamed"] = sum(p.crossbars * p.layers for p in plan.placements if not p.resident)
            first_copies = sum(p.crossbars * p.layers for p in plan.placements if p.resident)
            result["first_copies"] = first_copies
    return result


def _placed(placement: Any) -> dict[str, dict[str, int]]:
    if placement is None:
        return {}
    return {
        part: {share.tier_name: share.size_B for share in shares if share.size_B}
        for part, shares in placement.shares.items()
        if any(share.size_B for share in shares)
    }


def _throughput(task: Task, stages: list[tuple[Stage, float, float]], latency_s: float) -> dict[str, float]:
    if not latency_s:
        return {}
    if isinstance(task, Inference):
        result = {}
        prefill = sum(seconds for stage, seconds, _ in stages if stage.kind is StageKind.PREFILL)
        decode = sum(seconds for stage, seconds, _ in stages if stage.kind is StageKind.DECODE)
        if prefill:
            result["time_to_first_token_s"] = prefill
            result["prefill_tokens_per_s"] = task.batch * task.sequence / prefill
        if decode and task.decode:
            result["time_per_output_token_s"] = decode / task.decode
            result["decode_tokens_per_s"] = task.batch * task.decode / decode
        return result
    tokens = task.batch * task.sequence * task.gradient_accumulation
    return {"training_tokens_per_s": tokens / latency_s, "steps_per_s": 1 / latency_s}


def _roofline(chip: Chip, executed: list[tuple[Stage, Segment, Executed, int]]) -> dict[str, Any]:
    """Peak rate and memory bandwidth of a GPU, and each distinct operator's intensity and rate."""
    gpu: Any = next(iter(chip.of_type("gpu")), None)
    points: dict[str, list[float]] = {}
    for _, _, item, _ in executed:
        cost = item.cost
        moved = cost.memory_read_B + cost.memory_write_B + item.traffic.read_B + item.traffic.write_B
        moved += sum(transfer.size_B for transfer in item.transfers)
        if moved > 0 and cost.occupancy_s > 0 and cost.operations > 0:
            points[f"{item.component}: {item.operator.name}"] = [
                cost.operations / moved,
                cost.operations / cost.occupancy_s,
            ]
    result: dict[str, Any] = {"operations_per_B_and_per_s": points}
    if gpu is not None:
        rates = {name: constant.value for name, constant in gpu.parameters.peak_rate.items()}
        result |= {"peak_per_s": rates, "bandwidth_B_per_s": gpu.parameters.memory_bandwidth.value}
    return result


def _assumptions(done: Finished) -> list[Assumption]:
    lines = [*done.chip.assumptions(), *done.fabric.assumptions(), *done.offchip.assumptions()]
    if done.heat is None:
        note = "mean die temperature while no thermal model is asked for"
        lines.append(Assumption("static power", f"at {STATIC_TEMPERATURE_K:g} K", "assumed", "", note))
    return lines


def _citations(evidence: tuple[Assumption, ...], model: Model) -> tuple[Citation, ...]:
    keys = sorted({line.source for line in evidence if line.source} | {getattr(model, "source", "")} - {""})
    found = []
    for key in keys:
        try:
            found.append(library.citation(key))
        except TierformError:
            found.append(Citation(key, key))
    return tuple(found)


def _hash(model: Model, task: Task) -> str:
    return hashlib.sha256(f"{model!r}|{describe(task)!r}".encode()).hexdigest()


def _times(values: dict[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in values.items()}


def _nonzero(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value}
