"""How a systolic array changes with its size, clock and node: area, energies and static power as ratios.

- Area: elements and SRAM, weighed as a process file weighs them (:mod:`tierform.chip.process`).
- A byte of SRAM by capacity and banks, as CACTI has it; the accumulator's adder by its bits, in integer formats.
- A clock needs its supply (alpha-power law): energy goes with its square, static power with it and with the area.
- `node`: energies as published chips scale from node to node, areas as Stillmaker and Baas (2017) have it.

Coefficients and ranges are the library's (:mod:`tierform.chip.laws`); all are ratios to what the data file gives.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from tierform.chip.laws import Scaled, Scaling, Steps, laws
from tierform.chip.process import load_process, node_ratios
from tierform.chip.systolic.component import SystolicParameters

_MULTIPLIER_J = 0.2e-12  # of the int8 multiply-accumulate to which `adder_bit` belongs


def scaled(parameters: SystolicParameters, given: SystolicParameters, own: AbstractSet[Steps]) -> Scaled:
    """The parameters scaled from the data file's array to this one; keys of `own` stay."""
    p, found = parameters, Scaling(own)
    area, energy, why_node = node_ratios(given.node, p.node)
    supply = found.supply(p.clock, given.clock)
    dynamic = energy * supply**2
    grown = area * _area(p) / _area(given)
    told = f"given for {given.rows} x {given.columns} with {given.sram_capacity.value / 1024:.4g} KiB"
    if found.constant(("array_area",), p.array_area, grown, told + why_node):
        found.say(f"area {told}{why_node}: x {grown:.3g}")
    found.constant(("leakage",), p.leakage, grown * supply, "static power goes with area and supply")
    elements = p.rows * p.columns / (given.rows * given.columns)
    if p.idle_power is not None and given.idle_power is not None:
        clock = p.clock.value / given.clock.value
        found.constant(("idle_power",), p.idle_power, elements * clock * dynamic, "a clock tree over its elements")
    _energies(p, given, found, dynamic, why_node)
    return found.on(parameters)


def _area(p: SystolicParameters) -> float:
    """Relative area of elements, and of SRAM with its banks and ports."""
    law, base = laws().sram, load_process("45nm")
    size = p.sram_capacity.value
    ports = law.size(size, p.sram_banks, p.sram_width) / law.size(size)
    elements = base.array_area_m2(p.rows * p.columns, 0.0)
    return elements + ports * (base.array_area_m2(p.rows * p.columns, size) - elements)


def _energies(p: SystolicParameters, given: SystolicParameters, found: Scaling, dynamic: float, why_node: str) -> None:
    adder = laws().adder_bit.value
    wide = (_MULTIPLIER_J + adder * p.accumulator_bits) / (_MULTIPLIER_J + adder * given.accumulator_bits)
    for form, energy in p.mac_energy.items():
        factor = dynamic * (wide if form.startswith("int") else 1.0)
        found.constant(("mac_energy", form), energy, factor, f"supply, accumulator{why_node}")
    if wide != 1.0:
        found.say(f"integer MACs given with {given.accumulator_bits}-bit accumulators: x {wide:.3g}")
    sram = laws().sram
    size, old = p.sram_capacity.value, given.sram_capacity.value
    ratio = sram.energy(size, p.sram_banks, p.sram_width) / sram.energy(old, given.sram_banks, given.sram_width)
    bank = "1 bank" if given.sram_banks == 1 else f"{given.sram_banks} banks"
    told = f"given for {old / 1024:.4g} KiB in {bank}, {given.sram_width} bytes wide{sram.beyond(size)}"
    if found.constant(("sram_energy",), p.sram_energy, ratio * dynamic, told + why_node) and ratio != 1.0:
        found.say(f"SRAM energy {told}: x {ratio:.3g}")
