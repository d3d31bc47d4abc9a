"""A tile on its own: area, power and peak rates by part, as data sheets and papers state them.

At full load every array is read in every cycle and every part works at its `rate` (or, without one, at the rate that
the array reads imply).  TOPS count two operations a multiply-accumulate on a completely filled tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from tierform.chip.crossbar.layout import CrossbarLayout
from tierform.chip.crossbar.parameters import CrossbarParameters, PartFile
from tierform.chip.crossbar.readout import cycle_s, read


def part_count(parameters: CrossbarParameters, part: PartFile) -> float:
    """How many of a part a tile has."""
    if part.per == "crossbar":
        return part.count * parameters.crossbars
    if part.per == "macro":
        return part.count * -(-parameters.crossbars // (parameters.crossbars_per_macro or parameters.crossbars))
    return part.count


def area_by_part(parameters: CrossbarParameters, *, beside: bool = True) -> dict[str, float]:
    """Square metres of a tile by part; `beside` includes what another engine counts (a share of a router)."""
    return {
        name: part_count(parameters, part) * part.area.value
        for name, part in parameters.parts.items()
        if part.area is not None and (beside or not part.beside_tile)
    }


def power_by_part(parameters: CrossbarParameters) -> dict[str, float]:
    """Watts of a tile at full load by part, leakage apart."""
    result = {}
    for name, part in parameters.parts.items():
        if part.energy is None:
            continue
        rate = part.rate.value if part.rate is not None else _implied_rate(parameters, part)
        result[name] = part_count(parameters, part) * part.energy.value * rate
    return result


def _implied_rate(parameters: CrossbarParameters, part: PartFile) -> float:
    """Actions a second of one part when every array is read in every cycle."""
    p = parameters
    each = {"read": 1.0, "row": float(p.rows), "column": float(p.columns), "conversion": float(p.columns)}
    if part.charge not in each:
        return 0.0
    return p.crossbars * each[part.charge] / cycle_s(p) / part_count(p, part)


@dataclass(frozen=True, slots=True)
class Peak:
    """A completely filled tile: operations a second, joules an operation, both at given precisions."""

    operations_per_s: float
    energy_per_operation_J: float

    @property
    def operations_per_J(self) -> float:
        """The inverse of the energy of an operation (TOPS/W is this over 1e12)."""
        return 1.0 / self.energy_per_operation_J


def weights_per_crossbar(parameters: CrossbarParameters, layout: CrossbarLayout) -> float:
    """Weights that fill one crossbar (a share of them where their slices are apart)."""
    return parameters.rows * layout.weights_per_row / layout.stacked


def peak(parameters: CrossbarParameters, weight_bits: int, input_bits: int, *, bytes_moved: bool = False) -> Peak:
    """Peak rate and energy of a filled tile from its parts' energies per action.

    `bytes_moved` adds what is charged by byte (buffers and buses) for one byte in per row and one out per weight column
    and vector at 8 bits, scaled with the bits.  Energy of reading alone is what macro papers state.
    """
    from tierform.chip.crossbar.component import CrossbarTiles

    p = parameters
    layout = CrossbarTiles("tile", 1, p).layout(weight_bits)
    reading = read(p, input_bits, p.rows)
    weights = weights_per_crossbar(p, layout)
    used = float(layout.weights_per_row * layout.columns_per_weight)
    counts = {
        "read": float(reading.cycles),
        "row": p.rows * reading.cycles,
        "column": used * reading.cycles,
        "conversion": used * reading.conversions,
        "step": used * reading.steps,
        "phase": used * reading.phases,
        "result": weights / p.rows,
    }
    if bytes_moved:
        into, out = p.rows * input_bits / 8, weights / p.rows * input_bits / 8
        counts |= {"input-byte": into, "output-byte": out, "byte": into + out}
    energy = fsum(
        counts.get(part.charge, 0.0) * part.energy.value for part in p.parts.values() if part.energy is not None
    )
    operations = 2.0 * weights
    return Peak(p.crossbars * operations / reading.seconds, energy / operations)


def mac_energy_at_full_load(parameters: CrossbarParameters, weight_bits: int, input_bits: int) -> float:
    """Joules a MAC when the tile draws its full-load power: power * time of a vector / MACs of all its arrays."""
    from tierform.chip.crossbar.component import CrossbarTiles

    layout = CrossbarTiles("tile", 1, parameters).layout(weight_bits)
    seconds = read(parameters, input_bits, parameters.rows).seconds
    macs = parameters.crossbars * weights_per_crossbar(parameters, layout)
    return fsum(power_by_part(parameters).values()) * seconds / macs
