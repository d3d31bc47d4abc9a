"""The main job: a model's task on a chip.

expand -> map -> cost each distinct operator once -> transfers and memory traffic -> schedule -> sum up.
Latency is the schedule's.  Where the traffic of a stage needs longer than its schedule on the busiest link or on the
memory, the stage takes that long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.errors import Problem, TierformError
from tierform.mapping import Mapping, default_mapping, load_mapping
from tierform.simulation.account import Account, Finished
from tierform.simulation.cluster import part_of_batch, require_cluster, schedule_groups, send_cost, side_by_side
from tierform.simulation.costing import Costing, Executed, Segment
from tierform.simulation.fabric import Fabric
from tierform.simulation.heat import Heat, HeatMap
from tierform.simulation.offchip import OffChip, Traffic
from tierform.simulation.schedule import schedule_stage
from tierform.workload import Model, Task, Workload, expand, is_training, load_model
from tierform.workload.graph import Stage, StageKind
from tierform.workload.operator import Kind
from tierform.workload.parallel import Parallelism, share_of_one
from tierform.workload.task import FineTuning, Inference

if TYPE_CHECKING:
    from tierform.simulation.result import Bar, Result

Fidelity = Literal["analytic", "cycle"]
Thermal = Literal["none", "steady", "transient"]
MAX_MICRO_BATCHES = 16
ALONE = Parallelism()


def inputs(
    model: Callable[[], Model], chip: Callable[[], Chip], task: Callable[[Chip | None], Task]
) -> tuple[Model, Chip, Task]:
    """Load model and chip and make the task; TierformError with the problems of all three at once."""
    problems: list[Problem] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except TierformError as error:
            problems.extend(error.problems)
            return None

    loaded_model, loaded_chip = attempt(model), attempt(chip)
    made_task = attempt(lambda: task(loaded_chip))
    if problems:
        raise TierformError(problems)
    return loaded_model, loaded_chip, made_task


def simulate(
    model: Model | str | Path,
    task: Task,
    chip: Chip | str | Path,
    *,
    fidelity: Fidelity = "analytic",
    mapping: Mapping | str | Path | None = None,
    overflow: Literal["stream", "refuse"] = "stream",
    micro_batches: int | None = None,
    thermal: Thermal = "steady",
    parallelism: Parallelism = ALONE,
    timeline: bool = False,
) -> Result:
    """What the task costs on the chip.

    `mapping` replaces the default one (a file is checked against chip and workload).  `overflow` says whether weights
    that do not fit in crossbars are streamed or refused.  A task whose precision was left at its default takes the
    chip's own.  `thermal` closes the loop of power, temperature and leakage.  `parallelism` spreads the task over
    several of these chips (all figures are then for all of them together; temperatures and memory for one).  `timeline`
    keeps every bar of the schedule.  Raises TierformError with all problems found.
    """
    from tierform.simulation.summary import summarize

    if not isinstance(model, Model):
        model = load_model(str(model))
    if not isinstance(chip, Chip):
        chip = load_chip(chip)
    task = _with_precision(task, chip)
    if parallelism.chips > 1:
        require_cluster(chip, parallelism.chips)
    workload, plan = _plan(model, task, chip, mapping, overflow, micro_batches, parallelism)
    cycle = fidelity == "cycle"
    fabric, offchip = Fabric(chip), OffChip(chip, cycle)
    costing = Costing(chip, plan, fabric, offchip, float(workload.footprint.adapters), cycle)
    account = Account(link_B=np.zeros(len(fabric.link_B_per_s)))
    heat_map = HeatMap(chip)
    held_B = _held_B(workload, plan)
    placement = offchip.place(workload.footprint, held_B)
    stages: list[tuple[Stage, float, float]] = []
    executed: list[tuple[Stage, Segment, Executed, int]] = []
    bars: list[Bar] = []
    clock_s = 0.0
    for stage in workload.stages:
        micro = stage.micro_batches
        before_J, before_network_J = account.energy_J, account.energy_by_component["network"]
        segments = costing.segments(stage)
        chunks = 1 if stage.kind is StageKind.UPDATE else plan.chunks
        layers = [(segment.layer, segment.count) for segment in segments]
        if parallelism.pipeline > 1 and stage.kind is StageKind.UPDATE:
            run = side_by_side(layers, parallelism.pipeline)
        elif parallelism.pipeline > 1:
            run = schedule_groups(layers, micro, chunks, parallelism.pipeline, send_cost(chip, _handed_on_B(segments)))
        else:
            run = schedule_stage(layers, micro, chunks, record=timeline)
        seconds = _book_stage(
            stage, segments, micro, run.makespan_s, parallelism.pipeline, workload, fabric, offchip, account
        )
        if stage.kind is StageKind.UPDATE:
            seconds += _book_rewriting(plan, chip, account, heat_map)
        for segment in segments:
            for item in segment.executed:
                times = stage.repeat * segment.count * micro
                executed.append((stage, segment, item, times))
                heat_map.add(item, times, segment.count)
        heat_map.add_everywhere(account.energy_by_component["network"] - before_network_J)
        heat_map.end_stage(stage.name, seconds * stage.repeat)
        if timeline:
            bars += _bars(stage, run.slices, clock_s)
        clock_s += seconds * stage.repeat
        stages.append((stage, seconds * stage.repeat, account.energy_J - before_J))
    heat: Heat | None = None
    if thermal != "none" and clock_s > 0:
        heat = heat_map.steady(clock_s, fabric.leakage_W, parallelism.pipeline)
        if timeline:
            heat.figures["cross_section"] = heat_map.cross_section(heat)
        if thermal == "transient":
            heat.figures["transient"] = heat_map.transient(heat, clock_s, fabric.leakage_W, parallelism.pipeline)
    return summarize(
        Finished(
            model,
            task,
            chip,
            workload,
            plan,
            fabric,
            offchip,
            account,
            stages,
            executed,
            placement,
            bars,
            heat,
            parallelism,
        ),
        fidelity,
    )


def _with_precision(task: Task, chip: Chip) -> Task:
    default = (Inference() if isinstance(task, Inference) else FineTuning()).precision
    if chip.precision is None or task.precision != default:
        return task
    master = None if isinstance(task, Inference) else chip.precision.master_weights
    return replace(task, precision=replace(chip.precision, master_weights=master))


def _plan(
    model: Model,
    task: Task,
    chip: Chip,
    mapping: Mapping | str | Path | None,
    overflow: Literal["stream", "refuse"],
    micro_batches: int | None,
    parallelism: Parallelism,
) -> tuple[Workload, Mapping]:
    task = part_of_batch(task, parallelism.data)

    def expanded(parts: int) -> Workload:
        whole = expand(model, task, micro_batches=parts)
        return share_of_one(whole, parallelism) if parallelism.chips > 1 else whole

    if micro_batches is None:
        micro_batches = _default_micro_batches(task.batch) if chip.pipelined or parallelism.pipeline > 1 else 1
    accumulation = getattr(task, "gradient_accumulation", 1)  # a workload's micro-batches are those of all its parts
    if isinstance(mapping, Mapping):
        return expanded(mapping.micro_batches // accumulation), mapping
    workload = expanded(micro_batches)
    if mapping is not None:
        plan = load_mapping(mapping, chip, workload)
        same = plan.micro_batches == workload.stages[0].micro_batches
        return (workload if same else expanded(plan.micro_batches // accumulation)), plan
    plan = default_mapping(chip, workload, overflow=overflow)
    if micro_batches > 1 and any(not placement.resident for placement in plan.placements):
        # A layer's weights are written once for the whole batch, not once for every part of it.
        workload = expanded(1)
        plan = default_mapping(chip, workload, overflow=overflow)
    return workload, plan


def _default_micro_batches(batch: int) -> int:
    return max(size for size in range(1, min(batch, MAX_MICRO_BATCHES) + 1) if batch % size == 0)


def _held_B(workload: Workload, plan: Mapping) -> int:
    """Bytes of weights that sit in crossbars and need no memory."""
    resident = {(item.block, item.weight): item.layers for item in plan.placements if item.resident}
    seen: dict[tuple[str, str], int] = {}
    for _, block, operator, _ in workload.occurrences():
        if operator.weight is not None and (block.name, operator.weight) in resident and operator.kind is Kind.MATMUL:
            layers = resident[(block.name, operator.weight)]
            seen.setdefault((block.name, operator.weight), operator.weight_B * layers)
    return sum(seen.values())


def _book_stage(
    stage: Stage,
    segments: list[Segment],
    micro: int,
    makespan_s: float,
    groups: int,
    workload: Workload,
    fabric: Fabric,
    offchip: OffChip,
    account: Account,
) -> float:
    """Book energies, operations, traffic and wear of all repetitions; the time of one pass.

    With several pipeline `groups` the traffic of all layers is spread over as many chips.
    """
    link_B = np.zeros_like(account.link_B)
    read_B = write_B = 0.0
    spills: dict[int, Traffic] = {}
    for segment in segments:
        times = segment.count * micro
        for item in segment.executed:
            _book(item, times * stage.repeat, account)
            read_B += item.traffic.read_B * times
            write_B += item.traffic.write_B * times
            for tier, moved in offchip.spilled(item.operator).items():
                _add(spills, tier, moved.read_B * times, moved.write_B * times)
            for transfer in item.transfers:
                sent_B = transfer.size_B * times
                link_B += transfer.route.link_share * sent_B
                account.network_B += sent_B * stage.repeat
                energy = sent_B * stage.repeat * transfer.route.energy_J_per_B
                account.add_energy("network", "network", "routers and links", energy)
    kept_B = float(workload.footprint.activations) if is_training(workload.task) else 0.0
    forward, backward = stage.kind is StageKind.FORWARD, stage.kind is StageKind.BACKWARD
    if offchip.nearest is not None:
        write_B += kept_B * forward
        read_B += kept_B * backward
    for tier, away_B in offchip.spilled_activations(kept_B).items():
        _add(spills, tier, away_B * backward, away_B * forward)
    if offchip.nearest is not None:
        read_B -= min(read_B, sum(moved.read_B for moved in spills.values()))
        write_B -= min(write_B, sum(moved.write_B for moved in spills.values()))
    spill_s = 0.0
    for tier, moved in spills.items():
        name, seconds, energy = offchip.spill_cost(tier, moved)
        spill_s = max(spill_s, seconds)
        account.spill_B[name] += (moved.read_B + moved.write_B) * stage.repeat
        account.add_energy(name, "memory", "transfers", energy * stage.repeat)
    busy_s = offchip.busy_s(read_B, write_B)
    account.memory_read_B += read_B * stage.repeat
    account.memory_write_B += write_B * stage.repeat
    account.memory_busy_s += busy_s * stage.repeat
    account.add_energy("memory", "memory", "transfers", offchip.energy_J(read_B, write_B) * stage.repeat)
    account.link_B += link_B * stage.repeat
    link_s = float((link_B / fabric.link_B_per_s).max()) if link_B.size else 0.0
    return max(makespan_s, busy_s / groups, link_s / groups, spill_s / groups)


def _add(spills: dict[int, Traffic], tier: int, read_B: float, write_B: float) -> None:
    before = spills.get(tier, Traffic())
    spills[tier] = Traffic(before.read_B + read_B, before.write_B + write_B)


def _book(item: Executed, times: int, account: Account) -> None:
    operator, cost = item.operator, item.cost
    account.operations_by_component[item.component] += cost.operations * times
    account.operations_by_operator[operator.kind.value] += cost.operations * times
    for part, energy in cost.energy_J.items():
        account.add_energy(item.component, operator.kind.value, part, energy * times)
    if item.placement is not None and item.placement.resident:
        busy = cost.occupancy_s * times * item.placement.crossbars * item.placement.replicas
        account.crossbar_seconds[item.component] += busy
    else:
        account.busy_s[item.component] += cost.occupancy_s * times
    account.memory_read_B += cost.memory_read_B * times
    account.memory_write_B += cost.memory_write_B * times
    account.cell_writes += cost.cell_writes * times
    if item.programming is not None:
        for part, energy in item.programming.energy_J.items():
            account.add_energy(item.component, "programming", part, energy * times)
        account.cell_writes += item.programming.cell_writes * times


def _book_rewriting(plan: Mapping, chip: Chip, account: Account, heat_map: HeatMap) -> float:
    """Weights that learn and sit in crossbars are written anew by the update; returns the time it takes."""
    seconds = 0.0
    for name in chip.components:
        crossbars = sum(
            p.total_crossbars for p in plan.placements if p.trainable and p.resident and p.component == name
        )
        if crossbars:
            component: Any = chip.components[name]
            cost = component.programming_cost(crossbars)
            for part, energy in cost.energy_J.items():
                account.add_energy(name, "programming", part, energy)
            account.cell_writes += cost.cell_writes
            heat_map.add_component(name, cost.total_energy_J)
            seconds += cost.latency_s
    return seconds


def _handed_on_B(segments: list[Segment]) -> int:
    """Bytes that a layer hands to the next."""
    longest = max(segments, key=lambda segment: segment.count)
    return longest.executed[longest.layer.output].operator.output_B


def _bars(stage: Stage, slices: list[Any], start_s: float) -> list[Bar]:
    from tierform.simulation.result import Bar

    return [
        Bar(stage.name, s.resource, s.name, s.layer, s.micro_batch, start_s + s.start_s, start_s + s.end_s, s.repeats)
        for s in slices
    ]
