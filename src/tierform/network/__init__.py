"""How tiles talk: topologies, routing, traffic; an analytic and a cycle-level engine.

Names load their module when first used; those of the cycle-level engine (``simulate_traffic``, ``simulate_flows``, ...)
load compiled code, as do the analytic latency and saturation of steady traffic.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tierform.network.analytic import AnalyticNetwork, FlowCost, spread
    from tierform.network.case import Injection, Sampling, TrafficCase, TrafficClass
    from tierform.network.cycle.engine import CycleNetwork
    from tierform.network.cycle.result import ClassResult, CycleResult
    from tierform.network.cycle.sampling import simulate_batches, simulate_case, simulate_traffic
    from tierform.network.cycle.traces import PacketTrace, TraceTimes, simulate_trace
    from tierform.network.deadlock import virtual_channel_plan
    from tierform.network.flows import Flow, FlowTimes, simulate_flows
    from tierform.network.graphs import (
        butterfly,
        crossbar,
        dragonfly,
        express_cmesh,
        fat_tree,
        flattened_butterfly,
        from_graph,
        small_world,
        tapered_tree,
    )
    from tierform.network.parameters import EnergyParameters, RouterParameters, energy_choices, energy_parameters
    from tierform.network.queueing import LatencyEstimate
    from tierform.network.routing import ROUTINGS, Routing, choose_routing
    from tierform.network.topologies import chiplets, cmesh, concentrated_mesh, mesh, mesh_3d, ring, torus
    from tierform.network.topology import LINK_KINDS, Grid, Topology
    from tierform.network.traffic import PATTERNS, Pattern, pattern

_MODULES = {
    "analytic": ("AnalyticNetwork", "FlowCost", "spread"),
    "case": ("Injection", "Sampling", "TrafficCase", "TrafficClass"),
    "cycle.engine": ("CycleNetwork",),
    "cycle.result": ("ClassResult", "CycleResult"),
    "cycle.sampling": ("simulate_batches", "simulate_case", "simulate_traffic"),
    "cycle.traces": ("PacketTrace", "TraceTimes", "simulate_trace"),
    "deadlock": ("virtual_channel_plan",),
    "flows": ("Flow", "FlowTimes", "simulate_flows"),
    "graphs": (
        "butterfly",
        "crossbar",
        "dragonfly",
        "express_cmesh",
        "fat_tree",
        "flattened_butterfly",
        "from_graph",
        "small_world",
        "tapered_tree",
    ),
    "parameters": ("EnergyParameters", "RouterParameters", "energy_choices", "energy_parameters"),
    "queueing": ("LatencyEstimate",),
    "routing": ("ROUTINGS", "Routing", "choose_routing"),
    "topologies": ("chiplets", "cmesh", "concentrated_mesh", "mesh", "mesh_3d", "ring", "torus"),
    "topology": ("LINK_KINDS", "Grid", "Topology"),
    "traffic": ("PATTERNS", "Pattern", "pattern"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


__all__ = [
    "LINK_KINDS",
    "PATTERNS",
    "ROUTINGS",
    "AnalyticNetwork",
    "ClassResult",
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
    "PacketTrace",
    "TraceTimes",
    "TrafficCase",
    "TrafficClass",
    "butterfly",
    "chiplets",
    "choose_routing",
    "cmesh",
    "concentrated_mesh",
    "crossbar",
    "dragonfly",
    "energy_choices",
    "energy_parameters",
    "express_cmesh",
    "fat_tree",
    "flattened_butterfly",
    "from_graph",
    "mesh",
    "mesh_3d",
    "pattern",
    "ring",
    "simulate_batches",
    "simulate_case",
    "simulate_flows",
    "simulate_trace",
    "simulate_traffic",
    "small_world",
    "spread",
    "tapered_tree",
    "torus",
    "virtual_channel_plan",
]
