"""How tiles talk: topologies, routing, traffic; an analytic and a cycle-level engine.

The cycle-level names (``simulate_traffic``, ``simulate_flows``, ``Flow``, ...) load the compiler when first used, as do
the analytic latency and saturation of steady traffic.
"""

from typing import TYPE_CHECKING, Any

from tierform.network.analytic import AnalyticNetwork, FlowCost, spread
from tierform.network.case import Injection, Sampling, TrafficCase
from tierform.network.parameters import EnergyParameters, RouterParameters, energy_choices, energy_parameters
from tierform.network.routing import ROUTINGS, Routing, choose_routing
from tierform.network.topologies import (
    chiplets,
    cmesh,
    concentrated_mesh,
    crossbar,
    fat_tree,
    from_graph,
    mesh,
    mesh_3d,
    ring,
    small_world,
    torus,
)
from tierform.network.topology import LINK_KINDS, Grid, Topology
from tierform.network.traffic import PATTERNS, Pattern, pattern

if TYPE_CHECKING:
    from tierform.network.cycle.engine import CycleNetwork, CycleResult, simulate_traffic
    from tierform.network.deadlock import virtual_channel_plan
    from tierform.network.flows import Flow, FlowTimes, simulate_flows
    from tierform.network.queueing import LatencyEstimate

_LATER = {
    "CycleNetwork": "cycle.engine",
    "CycleResult": "cycle.engine",
    "LatencyEstimate": "queueing",
    "simulate_traffic": "cycle.engine",
    "virtual_channel_plan": "deadlock",
    "Flow": "flows",
    "FlowTimes": "flows",
    "simulate_flows": "flows",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)


__all__ = [
    "LINK_KINDS",
    "ROUTINGS",
    "PATTERNS",
    "AnalyticNetwork",
    "CycleNetwork",
    "CycleResult",
    "EnergyParameters",
    "Flow",
    "FlowCost",
    "FlowTimes",
    "Grid",
    "Injection",
    "LatencyEstimate",
    "Pattern",
    "RouterParameters",
    "Routing",
    "Sampling",
    "Topology",
    "TrafficCase",
    "chiplets",
    "cmesh",
    "choose_routing",
    "concentrated_mesh",
    "crossbar",
    "energy_choices",
    "energy_parameters",
    "fat_tree",
    "from_graph",
    "mesh",
    "mesh_3d",
    "pattern",
    "ring",
    "simulate_flows",
    "simulate_traffic",
    "small_world",
    "spread",
    "torus",
    "virtual_channel_plan",
]
