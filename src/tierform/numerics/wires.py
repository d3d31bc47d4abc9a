"""IR drop: what cells seem to conduct when wires have resistance.

Word lines are driven at column 0, bit lines are sensed below the last row, and every wire segment between two cells has
the same resistance r.  Cells are linear, so a crossbar is a linear map from voltages to currents; its entries T[i, j]
replace G[i, j].  Cell (i, j) sees its input less the drop of the currents that cross its word line,
r sum_j' min(j, j') T[i, j'] (segments counted from the driver), and the rise of the bit line,
r sum_i' min(distance to the sense amplifier) T[i', j]; the equations are solved by damped iteration.  The rise is
counted with every row's current as its own input drives it, which is exact to first order in r.  Exact nodal analysis
of small crossbars is the check (tests).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.numerics.chip_view import CrossbarFormat

if TYPE_CHECKING:
    from torch import Tensor

_ITERATIONS = 60
_BATCH = 256


def line_drops(conductance: Tensor, resistance_ohm: float) -> Tensor:
    """Apparent conductances of crossbars (count, rows, columns) with wires of `resistance_ohm` a segment."""
    import torch

    _, rows, columns = conductance.shape
    at = torch.arange(columns, device=conductance.device)
    along = torch.minimum(at[:, None], at[None, :]).to(conductance.dtype) + 1
    down = torch.arange(rows, device=conductance.device)
    below = rows - torch.maximum(down[:, None], down[None, :]).to(conductance.dtype)
    apparent = conductance
    for _ in range(_ITERATIONS):
        word_drop = resistance_ohm * (apparent @ along)
        # The bit line's rise under one row's own current, seen by all cells that hang on it.
        bit_drop = resistance_ohm * (below @ apparent)
        update = conductance * (1 - word_drop).clamp(min=0) / (1 + bit_drop)
        apparent = 0.5 * apparent + 0.5 * update
    return apparent


def effective_conductance(conductance: Tensor, form: CrossbarFormat, resistance_ohm: float) -> Tensor:
    """Apparent conductances (columns, outputs, inputs) of a layer laid out on crossbars of `form`.

    A weight's cells stand side by side; a crossbar holds `form.weights_per_row` outputs.
    """
    import torch
    from torch.nn.functional import pad

    if resistance_ohm == 0:
        return conductance
    cells, outputs, inputs = conductance.shape
    wide, tall = form.weights_per_row, form.rows
    padded = pad(conductance, (0, -inputs % tall, 0, -outputs % wide))
    groups, blocks = padded.shape[1] // wide, padded.shape[2] // tall
    shaped = padded.reshape(cells, groups, wide, blocks, tall).permute(1, 3, 4, 2, 0)
    flat = shaped.reshape(groups * blocks, tall, wide * cells)
    solved = torch.cat([line_drops(flat[at : at + _BATCH], resistance_ohm) for at in range(0, len(flat), _BATCH)])
    back = solved.reshape(groups, blocks, tall, wide, cells).permute(4, 0, 3, 1, 2)
    return back.reshape(cells, groups * wide, blocks * tall)[:, :outputs, :inputs].contiguous()
