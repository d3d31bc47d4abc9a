"""Cycle fidelity: transfers and memory streams simulated cycle by cycle instead of by formula.

All transfers of a layer go through the cycle-level network together, at their real sizes, flit by flit: a transfer
enters when its operator ends, an operator begins when all that it waits for has arrived.  The time that each transfer
took there, in the company of the others, replaces the analytic one in the schedule.  One layer of each kind is
simulated, on the tiles of its first sample layer.  Memory is charged the bandwidth that the cycle-level controller
reaches on a stream of the stage's mix of reads and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tierform.simulation.fabric import Fabric, Place
from tierform.simulation.schedule import BLOCK_INPUT, Edge, Step

if TYPE_CHECKING:
    from tierform.simulation.costing import Executed

STREAM_REQUESTS = 20_000


def with_measured_transfers(
    fabric: Fabric, executed: Sequence[Executed], steps: Sequence[Step], entry: Place
) -> tuple[Step, ...]:
    """The steps with every transfer's time as the cycle-level network gives it."""
    from tierform.network.flows import Flow, simulate_flows

    if fabric.network is None:
        return tuple(steps)
    flows: list[Flow] = []
    sent: dict[tuple[int, str], int] = {}  # (source, path) -> its flow
    done: list[int] = []  # operator -> the empty flow that stands for its end
    here = fabric.nodes(entry.at(0))
    for item, step in zip(executed, steps, strict=True):
        waits = []
        for edge in step.after:
            before = () if edge.source == BLOCK_INPUT else (done[edge.source],)
            if edge.path:
                key = (edge.source, edge.path)
                if key not in sent:
                    giver = entry if edge.source == BLOCK_INPUT else executed[edge.source].place
                    size_B = next(t.size_B for t in item.transfers if t.route.name == edge.path)
                    flows.append(Flow(fabric.nodes(giver.at(0)), fabric.nodes(item.place.at(0)), size_B, before))
                    sent[key] = len(flows) - 1
                waits.append(sent[key])
            else:
                waits += before
        flows.append(Flow(here[:1], here[:1], 0.0, tuple(waits), step.occupancy_s + step.tail_s))
        done.append(len(flows) - 1)
    network = fabric.network
    times = simulate_flows(network.topology, network.routing, network.router, network.clock_Hz, flows)
    took = {key: float(times.finished_s[number] - times.released_s[number]) for key, number in sent.items()}
    return tuple(replace(step, after=tuple(_measured(edge, took) for edge in step.after)) for step in steps)


def _measured(edge: Edge, took: dict[tuple[int, str], float]) -> Edge:
    if not edge.path:
        return edge
    seconds = took[(edge.source, edge.path)]
    head_s = min(edge.head_s, seconds)
    return replace(edge, head_s=head_s, transfer_s=seconds - head_s)


def stream_bandwidth_B_per_s(device: Any, read_fraction: float) -> float:
    """What the cycle-level controllers of a DRAM device reach on a stream; other devices have no cycle model."""
    if not hasattr(device, "spec"):
        return float(device.effective_bandwidth_B_per_s("stream", read_fraction))
    from tierform.memory.cycle import CycleMemory
    from tierform.memory.traffic import requests

    one = device.spec.with_channels(1)
    ran = CycleMemory(one).run(requests(one, "stream", STREAM_REQUESTS, read_fraction))
    return float(ran.bandwidth_B_per_s * device.channels)
