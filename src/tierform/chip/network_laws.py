"""How a network's constants follow from a chip file: routers by width, ports and buffers, vertical links by geometry.

The library's constants of a router hold at `router_width`, for the ports of a mesh (five, in a stack seven) and for the
default buffers; those of a vertical link for the via whose name they have.  Laws give ratios to these sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import fsum

from tierform.chip.chip_file import BUFFER_FLITS, VERTICAL_VIA, VIRTUAL_CHANNELS, NetworkFile
from tierform.chip.laws import laws
from tierform.network import EnergyParameters
from tierform.provenance import Assumption


def scaled_energy(spec: NetworkFile, radix: Sequence[int], usual: int, energy: EnergyParameters) -> EnergyParameters:
    """The constants at the sizes of the file; `radix` has the ports of every router, `usual` those of the constants."""
    return _vertical(spec, _routers(spec, radix, usual, energy))


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
