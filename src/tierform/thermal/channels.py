"""Coolant in microchannels: how fast it flows, and how it carries heat.

Each fluid cell of the pattern is a piece of rectangular duct.  Its hydraulic conductance for laminar flow is
(1 - 0.63·a/b)·a³·b / (12·µ·L) with sides a < b (0.42229·a⁴/(12·µ·L) for a square), as HotSpot 7 has it (source:
hotspot-7).  Pressures follow from continuity, with the pumping pressure at the inlets and none at the outlets.  A flow
q from cell i to cell j carries ρc·q·T.  With finite volumes (``centred``) T is that of the cell upstream, which keeps
temperatures free of oscillation; with HotSpot's conventions it is the mean of both.  Between wall and coolant the
heat-transfer coefficient stands in place of the coolant's half cell (``network.py``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail
from tierform.thermal.network import Array, Indices, Network
from tierform.thermal.stack import Channels, Stack, StackLayer


def duct_conductance(width_m: float, depth_m: float, length_m: float, viscosity_Pa_s: float) -> float:
    """Laminar volume flow per pressure (m³/(s·Pa)) of a rectangular duct."""
    short, long = min(width_m, depth_m), max(width_m, depth_m)
    if short == long:
        return 0.42229 * short**4 / (12 * viscosity_Pa_s * length_m)
    return (1 - 0.63 * short / long) * short**3 * long / (12 * viscosity_Pa_s * length_m)


def flows(channels: Channels, layer: StackLayer, stack: Stack) -> tuple[Indices, Indices, Array, Indices, Array]:
    """Flow between fluid cells and at inlets: (from, to, m³/s, inlet cells, m³/s into each).

    Cells are numbered row·columns + column in the layer.  TierformError where fluid is cut off from every outlet.
    """
    cells = np.array([[int(digit) for digit in row] for row in channels.cells])
    rows, columns = cells.shape
    wet = np.flatnonzero(cells.ravel())
    number = np.full(rows * columns, -1)
    number[wet] = np.arange(wet.size)
    grid = np.arange(rows * columns).reshape(rows, columns)
    fluid = cells > 0
    pairs = []
    for low, high in ((grid[:, :-1], grid[:, 1:]), (grid[:-1], grid[1:])):
        both = fluid.ravel()[low] & fluid.ravel()[high]
        pairs.append((low[both], high[both]))
    first = np.concatenate([pair[0] for pair in pairs])
    second = np.concatenate([pair[1] for pair in pairs])
    # One conductance for both directions, of a duct as wide as a column and as long as a row, as HotSpot has it.
    hydraulic = duct_conductance(
        stack.width_m / columns, layer.thickness_m, stack.height_m / rows, channels.coolant.viscosity_Pa_s
    )
    size = wet.size
    matrix = np.zeros((size, size))
    i, j = number[first], number[second]
    np.add.at(matrix, (i, i), hydraulic)
    np.add.at(matrix, (j, j), hydraulic)
    np.subtract.at(matrix, (i, j), hydraulic)
    np.subtract.at(matrix, (j, i), hydraulic)
    side = np.zeros(size)
    kind = cells.ravel()[wet]
    inlet, outlet = np.flatnonzero(kind == 2), np.flatnonzero(kind == 3)
    if channels.pump_resistance_Pa_s_per_m3 > 0:
        matrix[inlet, inlet] += 1.0 / channels.pump_resistance_Pa_s_per_m3
        side[inlet] = channels.pumping_pressure_Pa / channels.pump_resistance_Pa_s_per_m3
        held = outlet
    else:
        held = np.concatenate([inlet, outlet])
        side[inlet] = channels.pumping_pressure_Pa
    matrix[held] = 0.0
    matrix[held, held] = 1.0
    try:
        pressure = np.linalg.solve(matrix, side)
    except np.linalg.LinAlgError:
        fail("some fluid cells are connected to no inlet and no outlet", key=f"{layer.name}.channels.cells")
    flow = hydraulic * (pressure[i] - pressure[j])
    into = np.zeros(size)
    np.add.at(into, i, flow)
    np.subtract.at(into, j, flow)
    return first, second, np.asarray(flow), wet[inlet], np.asarray(into[inlet])


def with_coolant(network: Network, stack: Stack, rows: int, columns: int) -> Network:
    """The network with the coefficients of moving coolant and the heat that it brings in."""
    rows_of: list[NDArray[np.int64]] = []
    columns_of: list[NDArray[np.int64]] = []
    values: list[Array] = []
    inflow = network.inflow_W.copy()
    upwind = stack.convention == "centred"
    for place, source in enumerate(network.source_layer):
        layer = stack.layers[source] if source >= 0 else None
        if layer is None or layer.channels is None:
            continue
        if layer.slices != 1:
            fail("a layer with microchannels has one slice", key=f"{layer.name}.slices", value=layer.slices)
        channels = layer.channels
        base = place * rows * columns
        first, second, flow, inlets, entering = flows(channels, layer, stack)
        carry = channels.coolant.heat_capacity_J_per_m3K * flow
        first, second = np.asarray(first + base, dtype=np.int64), np.asarray(second + base, dtype=np.int64)
        # Heat carried from i to j is carry·T; it leaves row i and enters row j with the opposite sign.
        weight = (carry > 0).astype(float) if upwind else np.full(carry.size, 0.5)
        for node, sign in ((first, 1.0), (second, -1.0)):
            rows_of += [node, node]
            columns_of += [first, second]
            values += [sign * carry * weight, sign * carry * (1 - weight)]
        inflow[inlets + base] += channels.coolant.heat_capacity_J_per_m3K * entering * channels.inlet_temperature_K
        cells = np.array([[int(digit) for digit in row] for row in channels.cells]).ravel()
        outlets = np.asarray(np.flatnonzero(cells == 3) + base, dtype=np.int64)
        leaving = np.zeros(network.nodes)
        np.add.at(leaving, second, carry)
        np.subtract.at(leaving, first, carry)
        rows_of.append(outlets)
        columns_of.append(outlets)
        values.append(leaving[outlets])
    return replace(
        network,
        carried_row=np.concatenate(rows_of).astype(np.int64),
        carried_column=np.concatenate(columns_of).astype(np.int64),
        carried=np.concatenate(values),
        inflow_W=inflow,
    )
