"""How tiles talk: topologies, routing, traffic; an analytic and a cycle-level engine."""

from tierform.network.analytic import AnalyticNetwork, FlowCost
from tierform.network.parameters import EnergyParameters, RouterParameters, energy_choices, energy_parameters
from tierform.network.routing import ROUTINGS, Routing, choose_routing
from tierform.network.shapes import (
    chiplets,
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

__all__ = [
    "LINK_KINDS",
    "ROUTINGS",
    "AnalyticNetwork",
    "EnergyParameters",
    "FlowCost",
    "Grid",
    "RouterParameters",
    "Routing",
    "Topology",
    "chiplets",
    "choose_routing",
    "concentrated_mesh",
    "crossbar",
    "energy_choices",
    "energy_parameters",
    "fat_tree",
    "from_graph",
    "mesh",
    "mesh_3d",
    "ring",
    "small_world",
    "torus",
]
