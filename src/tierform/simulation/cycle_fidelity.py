"""Cycle fidelity: transfers and memory streams simulated cycle by cycle instead of by formula.

All transfers of a layer go through the cycle-level network together, at their real sizes, flit by flit: a transfer
enters when its operator ends, an operator begins when all that it waits for has arrived; what goes to several places is
one multicast for each part of the bytes that goes to the same tiles.  The time that each transfer took there, in the
company of the others, replaces the analytic one in the schedule.  Of each kind of layer the first, the middle and the
last one are simulated, on their own tiles, and the mean is taken.  Memory is charged the bandwidth that the cycle-level
controller reaches on a stream of the stage's mix of reads and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tierform.network import spread
from tierform.simulation.fabric import Fabric, Place, receivers
from tierform.simulation.schedule_layers import Edge, ScheduledOperator

if TYPE_CHECKING:
    from tierform.network import Flow
    from tierform.simulation.execution import Execution, Move

STREAM_REQUESTS = 20_000
PLAYED = 3


def with_measured_transfers(
    fabric: Fabric, executed: Sequence[Execution], steps: Sequence[ScheduledOperator], entry: Place
) -> tuple[ScheduledOperator, ...]:
    """The steps with every transfer's time as the cycle-level network gives it, mean over the layers played."""
    if fabric.network is None:
        return tuple(steps)
    layers = max(len(place.samples) for place in (entry, *(item.place for item in executed)))
    played = sorted({0, layers // 2, layers - 1})[:PLAYED]
    took: dict[tuple[int, str], float] = {}
    for layer in played:
        for key, seconds in _play(fabric, executed, steps, entry, layer).items():
            took[key] = took.get(key, 0.0) + seconds / len(played)
    return tuple(replace(step, after=tuple(_measured(edge, took) for edge in step.after)) for step in steps)


def _play(
    fabric: Fabric, executed: Sequence[Execution], steps: Sequence[ScheduledOperator], entry: Place, layer: int
) -> dict[tuple[int, str], float]:
    """Seconds of every (source, path) of one layer, all its transfers together on the network."""
    from tierform.network.flows import Flow, simulate_flows

    network = fabric.network
    assert network is not None
    flows: list[Flow] = []
    sent: dict[tuple[int, str], tuple[int, ...]] = {}  # (source, path) -> its flows
    done: list[int] = []  # operator -> the empty flow that stands for its end
    here = fabric.nodes(entry.at(layer))
    for item, step in zip(executed, steps, strict=True):
        waits: list[int] = []
        for edge in step.after:
            before = () if edge.source < 0 else (done[edge.source],)
            if edge.path:
                key = (edge.source, edge.path)
                if key not in sent:
                    transfer = item.arriving[edge.source]
                    giver = entry if edge.source < 0 else executed[edge.source].place
                    new = _flows(fabric, giver, transfer, before, layer)
                    sent[key] = tuple(range(len(flows), len(flows) + len(new)))
                    flows += new
                waits += sent[key]
            else:
                waits += before
        flows.append(Flow(here[:1], here[:1], 0.0, tuple(waits), step.occupancy_s + step.tail_s))
        done.append(len(flows) - 1)
    times = simulate_flows(network.topology, network.routing, network.router, network.clock_Hz, flows)
    return {
        key: float(max(times.finished_s[number] for number in numbers) - times.released_s[numbers[0]])
        for key, numbers in sent.items()
    }


def _flows(fabric: Fabric, giver: Place, transfer: Move, before: tuple[int, ...], layer: int) -> list[Flow]:
    """A transfer in a layer: one flow, or a multicast for each part of the bytes."""
    from tierform.network.flows import Flow

    start, targets = fabric.nodes(giver.at(layer)), transfer.route.targets
    groups = [fabric.nodes(group) for group in receivers(giver, targets, layer)]
    if len(groups) < 2:
        return [Flow(start, groups[0] if groups else start, transfer.size_B, before)]
    return [Flow(start, nodes, part * transfer.size_B, before, multicast=True) for part, nodes in spread(groups)]


def _measured(edge: Edge, took: dict[tuple[int, str], float]) -> Edge:
    if not edge.path:
        return edge
    seconds = took[(edge.source, edge.path)]
    head_s = min(edge.head_s, seconds)
    return replace(edge, head_s=head_s, transfer_s=seconds - head_s)


def stream_bandwidth_B_per_s(device: Any, read_fraction: float) -> float:
    """What the cycle-level controllers of a DRAM device reach on a stream; other devices have no cycle model."""
    from tierform.memory.device import MemoryDevice

    if not isinstance(device, MemoryDevice):
        return float(device.effective_bandwidth_B_per_s("stream", read_fraction))
    from tierform.memory.cycle import CycleMemory
    from tierform.memory.traffic import requests

    one = device.spec.with_channels(1)
    ran = CycleMemory(one).run(requests(one, "stream", STREAM_REQUESTS, read_fraction))
    return float(ran.bandwidth_B_per_s * device.channels * device.speed)
