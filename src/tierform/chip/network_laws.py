"""How a network's constants follow from a chip file: routers by width, ports and buffers, vertical links by geometry,
interposer links by their drivers.

The library's constants of a router hold at `router_width`, for the ports of a mesh (five, in a stack seven) and for the
default buffers; those of a vertical link for the via whose name they have.  Laws give ratios to these sizes.  The
energy of an interposer link holds for a channel as long as its drivers reach: what the wire takes of it goes with the
length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

import numpy as np

from tierform.chip.chip_file import BUFFER_FLITS, VERTICAL_VIA, VIRTUAL_CHANNELS, NetworkFile
from tierform.chip.laws import Lengths, laws
from tierform.network import EnergyParameters, energy_parameters
from tierform.provenance import Assumption


def scaled_energy(spec: NetworkFile, radix: Sequence[int], usual: int, energy: EnergyParameters) -> EnergyParameters:
    """The constants at the sizes of the file; `radix` has the ports of every router, `usual` those of the constants."""
    return _interposer(spec, _vertical(spec, _routers(spec, radix, usual, energy)))


def interposer_cycles(spec: NetworkFile, length_m: Lengths) -> Lengths:
    """Cycles on interposer links of such lengths: as the file says, or as their drivers and lengths take."""
    link = spec.interposer
    assert link is not None
    if link.driver is None or "latency_cycles" in link.model_fields_set:
        return np.full(len(length_m), float(link.latency_cycles))
    reach = energy_parameters(**spec.parameters).interposer_reach_m
    cycles: Lengths = np.ceil(laws().interposer.latency_s(length_m, reach) * spec.clock.value - 1e-9)
    return np.maximum(cycles, 1.0)


def _routers(spec: NetworkFile, radix: Sequence[int], usual: int, energy: EnergyParameters) -> EnergyParameters:
    width = spec.width.value
    given = width if spec.router_width is None else spec.router_width.value
    flits, before = spec.virtual_channels * spec.buffer_flits, VIRTUAL_CHANNELS * BUFFER_FLITS
    ports = [max(number, usual) for number in radix]
    if width == given and flits == before and all(number == usual for number in ports):
        return energy
    law, kinds = laws().router, {number: ports.count(number) / len(ports) for number in ports}
    per_bit = fsum(share * law.energy_per_bit(width, more, flits) for more, share in kinds.items())
    leakage = fsum(share * law.leakage(width, more, flits) for more, share in kinds.items())
    size = fsum(share * law.size(width, more, flits) for more, share in kinds.items())
    per_bit /= law.energy_per_bit(given, usual, before)
    leakage /= law.leakage(given, usual, before)
    size /= law.size(given, usual, before)
    told = [f"network.width given for {given:.4g} bit"] if width != given else []
    told += [f"buffers of {flits} flits given for {before}"] if flits != before else []
    told += [f"up to {max(ports)} ports of {usual}"]
    text = (
        f"{'; '.join(told)}: energy of a bit x {per_bit:.3g}, leakage x {leakage:.3g}, area x {size:.3g}"
        f"{law.beyond(width, max(ports), flits)}"
    )
    return replace(
        energy,
        router_J_per_bit=energy.router_J_per_bit * per_bit,
        router_leakage_W=energy.router_leakage_W * leakage,
        router_area_m2=energy.router_area_m2 * size,
        assumptions=(*energy.assumptions, Assumption("network router: scaled", text, "fitted", "cacti-7")),
    )


def _vertical(spec: NetworkFile, energy: EnergyParameters) -> EnergyParameters:
    via = spec.vertical.via if spec.vertical is not None else None
    if via is None:
        return energy
    law = laws().tsv
    name = spec.parameters.get("vertical", VERTICAL_VIA)
    known = law.given[name]
    diameter = via.diameter.value if via.diameter else known.diameter.value
    length = via.length.value if via.length else known.length.value
    liner = via.liner.value if via.liner else known.liner.value
    pitch = via.pitch.value if via.pitch else known.pitch.value
    before = law.capacitance_F(known.diameter.value, known.length.value, known.liner.value)
    energy_ratio = law.capacitance_F(diameter, length, liner) / before
    area_ratio = (pitch / known.pitch.value) ** 2
    text = (
        f"{diameter * 1e6:.3g} um wide, {length * 1e6:.3g} um long, liner {liner * 1e6:.3g} um, "
        f"pitch {pitch * 1e6:.3g} um; {name}: energy of a bit x {energy_ratio:.3g}, area x {area_ratio:.3g}"
    )
    return replace(
        energy,
        vertical_J_per_bit=energy.vertical_J_per_bit * energy_ratio,
        vertical_area_m2_per_bit=energy.vertical_area_m2_per_bit * area_ratio,
        assumptions=(*energy.assumptions, Assumption("network vertical: scaled", text, "fitted", "cacti-tsv")),
    )


def _interposer(spec: NetworkFile, energy: EnergyParameters) -> EnergyParameters:
    driver = spec.interposer.driver if spec.interposer is not None else None
    if driver is None:
        return energy
    law = laws().interposer
    rate = driver.rate.value if driver.rate else law.rate.value
    pitch = driver.pitch.value if driver.pitch else law.pitch.value
    # The given energy covers a channel of the whole reach.
    ends = max(energy.interposer_J_per_bit - law.wire.value * energy.interposer_reach_m, 0.0) * law.speed(rate)
    area = law.area_m2(spec.clock.value, rate, pitch)
    text = (
        f"{rate / 1e9:.3g} Gb/s a wire, bumps of {pitch * 1e6:.3g} um: {ends * 1e12:.3g} pJ/bit and "
        f"{law.wire.value * 1e9:.3g} pJ/(bit mm) within {energy.interposer_reach_m * 1e3:.3g} mm, "
        f"{area * 1e12:.3g} um2 a bit of width{law.beyond(rate, pitch)}"
    )
    return replace(
        energy,
        interposer_J_per_bit=ends,
        interposer_wire_J_per_bit_m=energy.interposer_wire_J_per_bit_m + law.wire.value,
        interposer_area_m2_per_bit=area,
        assumptions=(*energy.assumptions, Assumption("network interposer: scaled", text, "fitted", "dickson-2012")),
    )
