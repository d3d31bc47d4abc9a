"""The figures of a Result as pure functions of a finished run: its Ledger, its stages, and what they were made from.

Everything is for the whole task on all its chips.  What was booked is that of one chip of each pipeline group; `scale`
counts the chips that do the same, and the steps.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import fsum
from typing import Any

from tierform.mapping.plan import INTERCONNECT
from tierform.simulation.communication import exposed_s
from tierform.simulation.ledger import Booked
from tierform.simulation.power_cap import slowed
from tierform.simulation.records import OperatorResult, StageResult
from tierform.simulation.run import Run
from tierform.simulation.views_evidence import assumptions, citations, crossbars, placed, versions, wear
from tierform.simulation.views_timeline import bars, slots
from tierform.workload.graph import StageKind
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Origin, Phase
from tierform.workload.task import FineTuning, Inference, describe

IDLE = "idle and leakage"


# -- energy and operations ---------------------------------------------------------------------------------------
def latency_s(run: Run) -> float:
    """Seconds of the whole task."""
    return run.pass_s * run.steps


def energy_J(run: Run) -> float:
    """Joules of the whole task."""
    return fsum((run.ledger.energy_J, *run.static_J.values())) * run.scale


def energy_by_component(run: Run) -> dict[str, float]:
    """Joules by component; network, links between chips and memory devices stand beside the components."""
    return _with_static(run, run.ledger.energy_by(0), run.static_J)


def energy_by_operator(run: Run) -> dict[str, float]:
    """Joules by operator class."""
    static = dict(run.static_J)
    background = static.pop("memory", 0.0)
    found = run.ledger.energy_by(1)
    return _with_static(run, found, {IDLE: fsum(static.values()) + background})


def energy_by_part(run: Run) -> dict[str, float]:
    """Joules by component and part."""
    static = {f"{name}: {'background' if name == 'memory' else IDLE}": energy for name, energy in run.static_J.items()}
    return _with_static(run, run.ledger.energy_by(2), static)


def _with_static(run: Run, booked: dict[str, float], static: dict[str, float]) -> dict[str, float]:
    names = [*booked, *(name for name in static if name not in booked)]
    total = {name: (booked.get(name, 0.0) + static.get(name, 0.0)) * run.scale for name in names}
    return {name: energy for name, energy in total.items() if energy}


def energy_by_tile(run: Run) -> list[float]:
    """Joules that each tile of a chip dissipates over the whole task, leakage and idling left out; mean over groups."""
    total = sum(entry.tile_J for entry in run.ledger.stages)
    return [float(value) * run.steps / run.pipeline for value in total]  # type: ignore[union-attr]


def operations(run: Run) -> float:
    """Arithmetic operations of all chips."""
    return fsum(run.ledger.operations.values()) * run.scale


def operations_by(run: Run, place: int) -> dict[str, float]:
    """Operations by component (0) or operator class (1)."""
    return {name: value * run.scale for name, value in run.ledger.operations_by(place).items()}


# -- time --------------------------------------------------------------------------------------------------------
def busy_s(run: Run) -> dict[str, float]:
    """Seconds that each resource works, of one chip; of crossbars the mean over all of a component's crossbars."""
    return {name: value * run.steps / run.pipeline for name, value in _busy(run).items()}


def _busy(run: Run) -> dict[str, float]:
    busy = dict(run.ledger.busy_s)
    for name, seconds in run.ledger.crossbar_s.items():
        busy[name] = busy.get(name, 0.0) + seconds / run.chip.can.holders[name].crossbars
    if run.ledger.memory_busy_s:
        busy["memory"] = run.ledger.memory_busy_s
    return busy


def utilization(run: Run) -> dict[str, float]:
    """Fraction of the task's time that each component works; for crossbars, of the time of all its crossbars."""
    if not run.pass_s:
        return {}
    busy = _busy(run)
    names = [*run.chip.components, *(["memory"] if "memory" in busy else [])]
    return {name: busy.get(name, 0.0) / run.pass_s / run.pipeline for name in names}


def stages(run: Run) -> tuple[StageResult, ...]:
    """Each stage: repetitions, time and energy in all, tokens."""
    static_W = fsum(run.static_J.values()) / run.pass_s if run.pass_s else 0.0
    data = run.workload.parallelism.copies
    return tuple(
        StageResult(
            name=entry.stage.name,
            repeat=entry.stage.repeat,
            latency_s=entry.seconds * run.steps,
            energy_J=(entry.energy_J + static_W * entry.seconds) * run.scale,
            tokens=entry.stage.tokens * entry.stage.repeat * run.steps * data,
            memory_B=entry.memory_B * run.scale,
            network_B=entry.network_B * run.scale,
            kind=entry.stage.kind.value,
        )
        for entry in run.ledger.stages
    )


def operators(run: Run) -> tuple[OperatorResult, ...]:
    """Each distinct operator: where it ran, how often, and what it took in all."""
    return tuple(_operator(booked, run.scale) for booked in run.ledger.booked)


def _operator(booked: Booked, scale: int) -> OperatorResult:
    item, times = booked.execution, booked.times * scale
    cost = item.cost
    return OperatorResult(
        stage=booked.stage.name,
        block=booked.block.name,
        name=item.operator.name,
        kind=item.operator.kind.value,
        component=item.component,
        times=int(times),
        busy_s=cost.occupancy_s * times,
        energy_J=(cost.total_energy_J + item.floor_J) * times,
        operations=cost.operations * times,
        memory_B=(item.traffic.total_B + cost.memory_read_B + cost.memory_write_B) * times,
        network_B=fsum(move.size_B for move in item.moves) * times,
        utilization=cost.utilization,
        kernel=item.kernel,
    )


def operation_share(run: Run) -> dict[str, float]:
    """Share of forward matmul operations of the layers by component, counted as published for Atleus.

    Products of attention count the useful (causal) half, and each adapter pair counts once (2 n d r for two adapted
    matrices): 12 n d^2 / (12 n d^2 + n^2 d + 2 n d r).  Embeddings, head and normalization are left out.  This holds
    for causal and for bidirectional models, as the published figure has one attention term n^2 d.
    """
    macs: dict[str, float] = {}
    for booked in run.ledger.booked:
        operator = booked.execution.operator
        inside = booked.block.kind is BlockKind.LAYER
        if operator.phase is not Phase.FORWARD or operator.kind is not Kind.MATMUL or not inside:
            continue
        half = operator.part == "adapter" or operator.weight is None
        name = booked.execution.component
        macs[name] = macs.get(name, 0.0) + operator.macs * booked.times * (0.5 if half else 1.0)
    total = fsum(macs.values())
    return {name: value / total for name, value in macs.items()} if total else {}


def throughput(run: Run) -> dict[str, float]:
    """Tokens and steps a second, times to the first and for each further token."""
    task, entries = run.workload.task, run.ledger.stages
    if not run.pass_s:
        return {}
    copies = run.workload.parallelism.copies

    def of(kind: StageKind) -> tuple[float, int, int]:
        found = [entry for entry in entries if entry.stage.kind is kind]
        tokens = sum(entry.stage.tokens * entry.stage.repeat for entry in found)
        return fsum(entry.seconds for entry in found), tokens * copies, sum(entry.stage.repeat for entry in found)

    result: dict[str, float] = {}
    if isinstance(task, FineTuning):
        tokens = of(StageKind.FORWARD)[1]
        return {"training_tokens_per_s": tokens / run.pass_s, "steps_per_s": 1 / run.pass_s}
    seconds, tokens, steps = of(StageKind.PREFILL)
    if seconds:
        result["time_to_first_token_s"] = seconds / steps
        result["prefill_tokens_per_s"] = tokens / seconds
    seconds, tokens, steps = of(StageKind.DECODE)
    if isinstance(task, Inference) and task.decoding is not None:
        seconds = of(StageKind.DRAFT)[0] + of(StageKind.VERIFY)[0]
        tokens, steps = task.batch * task.decode, task.decode
    if seconds and steps:
        result["time_per_output_token_s"] = seconds / steps
        result["decode_tokens_per_s"] = tokens / seconds
    return result


def roofline(run: Run) -> dict[str, object]:
    """Peak rates and memory bandwidth where a component tells them, and each distinct operator's intensity and rate."""
    points: dict[str, list[float]] = {}
    for booked in run.ledger.booked:
        item, cost = booked.execution, booked.execution.cost
        moved = cost.memory_read_B + cost.memory_write_B + item.traffic.total_B
        moved += fsum(move.size_B for move in item.moves)
        if moved > 0 and cost.occupancy_s > 0 and cost.operations > 0:
            points[f"{item.component}: {item.operator.name}"] = [
                cost.operations / moved,
                cost.operations / cost.occupancy_s,
            ]
    result: dict[str, object] = {"operations_per_B_and_per_s": points}
    for part in run.chip.can.roofed.values():
        roof = part.roof()
        result |= {"peak_per_s": roof.peak_per_s, "bandwidth_B_per_s": roof.bandwidth_B_per_s}
    return result


def notes(run: Run) -> tuple[str, ...]:
    """What a reader should know of chip, workload, mapping and run."""
    return (*run.chip.notes, *run.workload.notes, *run.mapping.notes, *run.notes, *slowed(run.timed))


def communication(run: Run) -> dict[str, float]:
    """Of several chips: seconds that one chip's links work, and those of them that nothing hides, of the whole task."""
    if run.workload.parallelism.chips == 1:
        return {}
    busy = run.ledger.busy_s.get(INTERCONNECT, 0.0)
    busy += fsum(made.send_s[0] * made.sends * made.stage.repeat for made in run.timed)
    exposed = fsum(exposed_s(run.stages, made) * made.stage.repeat for made in run.timed)
    return {"busy_s": busy * run.steps / run.pipeline, "exposed_s": exposed * run.steps}


def flops_utilization(run: Run) -> dict[str, float]:
    """Time of the matrix products at the peak of their formats over the time of the task; empty without a peak.

    `model` counts those of the model's forward and backward pass (MFU), `hardware` those run again, too (HFU;
    Korthikanti et al., 2022).  Scores of causal attention count whole (Chowdhery et al., PaLM, 2022).
    """
    peaks: dict[tuple[str, str], float | None] = {}
    model = hardware = 0.0
    for booked in run.ledger.booked:
        item = booked.execution
        if item.operator.kind is not Kind.MATMUL:
            continue
        key = (item.component, item.operator.widest)
        if key not in peaks:
            part = run.chip.can.roofed.get(key[0])
            peaks[key] = part.roof().peak_of(key[1]) if part is not None else None
        peak = peaks[key]
        if not peak:
            return {}
        seconds = 2.0 * item.operator.macs * booked.times / peak
        hardware += seconds
        model += 0.0 if item.operator.origin is Origin.RECOMPUTED else seconds
    whole = run.pass_s * run.pipeline
    return {"model": model / whole, "hardware": hardware / whole} if whole and hardware else {}


def task(run: Run) -> dict[str, object]:
    """The task as plain data."""
    found: dict[str, object] = json.loads(json.dumps(describe(run.workload.task)))
    return found


def parallelism(run: Run) -> dict[str, object]:
    """The split as plain data."""
    return dict(run.workload.parallelism.content())


VIEWS: dict[str, Callable[[Run], Any]] = {
    "model": lambda run: run.workload.model.name,
    "chip": lambda run: run.chip.name,
    "task": task,
    "fidelity": lambda run: run.fidelity,
    "runtime": lambda run: run.runtime.name,
    "latency_s": latency_s,
    "energy_J": energy_J,
    "area_m2": lambda run: (run.chip.area_m2 + run.fabric.area_m2) * run.workload.parallelism.chips,
    "chips": lambda run: run.workload.parallelism.chips,
    "parallelism": parallelism,
    "parameters": lambda run: run.workload.parameters,
    "trainable_parameters": lambda run: run.workload.trainable_parameters,
    "operations": operations,
    "operations_by_component": lambda run: operations_by(run, 0),
    "operations_by_operator": lambda run: operations_by(run, 1),
    "energy_J_by_component": energy_by_component,
    "energy_J_by_operator": energy_by_operator,
    "energy_J_by_part": energy_by_part,
    "energy_J_by_tile": energy_by_tile,
    "busy_s_by_resource": busy_s,
    "utilization": utilization,
    "stages": stages,
    "operators": operators,
    "wear": wear,
    "memory_footprint_B": lambda run: run.footprint,
    "memory_placement_B": placed,
    "memory_read_B": lambda run: run.ledger.memory.read_B * run.scale,
    "memory_write_B": lambda run: run.ledger.memory.write_B * run.scale,
    "memory_spill_B": lambda run: {name: value * run.scale for name, value in run.ledger.spill_B.items()},
    "network_B": lambda run: run.ledger.network_B * run.scale,
    "link_bytes": lambda run: tuple(float(value) * run.scale for value in run.ledger.link_B),
    "crossbars": crossbars,
    "operation_share": operation_share,
    "throughput": throughput,
    "communication": communication,
    "flops_utilization": flops_utilization,
    "roofline": roofline,
    "assumptions": assumptions,
    "citations": lambda run: citations(run, assumptions(run)),
    "notes": notes,
    "versions": versions,
    "thermal": lambda run: None if run.heat is None else run.heat.figures,
    "mapping": lambda run: run.mapping,
    "timeline": bars,
    "slots": slots,
}
