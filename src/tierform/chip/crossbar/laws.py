"""How the parts of a compute-in-memory tile change with its arrays: what each part's `law` says.

- ``array``: area goes with rows times columns, and so does the energy of a read, since every cell conducts; what is
  charged by row or by column goes with the cells of that line;
- ``adc``: energy and area by bits and rate, and as many converters as the columns need (`columns_per_adc`);
- ``dac``: one to a row; 2^N - 1 unit elements for N input bits; ``rows``: one to a row, with a line over all columns;
- ``columns``: one to a column, as sample-and-holds (energy and area of all columns where it is charged by the read);
- ``word``: adders and shifters, as many as there are columns, as wide as the converter's bits;
- ``registers``: what enters the rows and leaves the columns; ``buffer``: SRAM by `capacity`;
- ``activation``: as many units as `activation_rate` needs.

Static power goes with the silicon of the tile.  A read is never shorter than its wires settle.  Coefficients and their
ranges are the library's (:mod:`tierform.chip.laws`); everything is a ratio to what the data file gives.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import fsum

from tierform.chip.crossbar.parameters import CrossbarParameters, PartFile
from tierform.chip.crossbar.tile import area_by_part
from tierform.chip.laws import Scaled, Scaling, Steps, laws

_LEAKAGE = "static power goes with the silicon of the tile"


@dataclass(frozen=True, slots=True)
class Factors:
    """What a law does to a part: factors on its energy, area, number and rate, and why."""

    energy: float = 1.0
    area: float = 1.0
    count: float = 1.0
    rate: float = 1.0
    why: str = ""


def scaled(parameters: CrossbarParameters, given: CrossbarParameters, own: AbstractSet[Steps]) -> Scaled:
    """The parameters with parts, static power and read time scaled to their arrays; keys of `own` stay."""
    found = Scaling(own)
    for name, part in parameters.parts.items():
        if part.law == "none" or name not in given.parts:
            continue
        f = factors(parameters, given, part, given.parts[name])
        if f.energy == f.area == f.count == f.rate == 1.0:
            continue
        energy = found.constant(("parts", name, "energy"), part.energy, f.energy, f.why)
        area = found.constant(("parts", name, "area"), part.area, f.area, f.why)
        found.number(("parts", name, "count"), part.count, f.count)
        found.constant(("parts", name, "rate"), part.rate, f.rate, f.why)
        told = [f"energy x {f.energy:.3g}"] if energy else []
        told += [f"area x {f.area:.3g}"] if area else []
        told += [f"number x {f.count:.3g}"] if f.count != 1 and not found.is_own(("parts", name, "count")) else []
        if told:
            found.say(f"{name} {f.why}: {', '.join(told)}")
    _read_time(parameters, given, found)
    made = found.on(parameters)
    if made.parameters is given:
        return made
    assert isinstance(made.parameters, CrossbarParameters)
    grown = fsum(area_by_part(made.parameters).values()) / (fsum(area_by_part(given).values()) or 1.0)
    if grown == 1.0 or not found.constant(("leakage",), parameters.leakage, grown, _LEAKAGE):
        return made
    leakage = found.changes[("leakage",)]
    return Scaled(made.parameters.model_copy(update={"leakage": leakage}), made.remarks)


def _read_time(parameters: CrossbarParameters, given: CrossbarParameters, found: Scaling) -> None:
    if (parameters.rows, parameters.columns, parameters.adc_bits) == (given.rows, given.columns, given.adc_bits):
        return
    bits = parameters.adc_bits if parameters.adc_kind != "none" else 1
    settled = laws().wire.settling_s(max(parameters.rows, parameters.columns), bits)
    if settled > parameters.cycle.value:
        why = f"wires over {max(parameters.rows, parameters.columns)} cells settle in {settled * 1e9:.3g} ns"
        if found.constant(("cycle",), parameters.cycle, settled / parameters.cycle.value, why):
            found.say(f"the read waits until {why}")


def factors(p: CrossbarParameters, given: CrossbarParameters, part: PartFile, before: PartFile) -> Factors:
    """What the law of a part gives between the data file's arrays and these."""
    rows, columns = p.rows / given.rows, p.columns / given.columns
    per_macro = _arrays(p) / _arrays(given) if part.per == "macro" else 1.0
    if part.law == "array":
        energy = {"row": columns, "column": rows, "conversion": rows}.get(part.charge, rows * columns)
        return Factors(energy, rows * columns, 1.0, 1.0, _sizes(given, "rows x columns"))
    if part.law == "rows":
        return Factors(columns, 1.0, rows * per_macro, 1.0, _sizes(given, "rows and columns"))
    if part.law == "adc":
        return _adc(p, given, per_macro)
    if part.law == "dac":
        elements = (2.0**p.dac_bits - 1) / (2.0**given.dac_bits - 1)
        why = f"given for {given.rows} rows and {given.dac_bits}-bit inputs"
        if p.dac_bits > laws().dac.most_bits:
            why += f", the law ends at {laws().dac.most_bits} bits"
        return Factors(elements, elements, rows * per_macro, 1.0, why)
    if part.law == "columns":
        why = f"given for {given.columns} columns"
        if part.charge == "read":
            return Factors(columns, columns * per_macro, 1.0, 1.0, why)
        return Factors(1.0, 1.0, columns * per_macro, 1.0, why)
    if part.law == "word":
        wide = p.adc_bits / given.adc_bits
        why = f"given for {given.columns} columns and {given.adc_bits} bits"
        return Factors(wide, wide, columns * per_macro, 1.0, why)
    if part.law == "registers":
        share = laws().registers.rows.value
        held = share * rows * p.dac_bits / given.dac_bits + (1 - share) * columns
        return Factors(held, held * per_macro, 1.0, 1.0, _sizes(given, "rows and columns"))
    if part.law == "buffer" and part.capacity and before.capacity:
        law, size, old = laws().sram, part.capacity.value, before.capacity.value
        why = f"given for {old / 1024:.3g} KiB{law.beyond(size)}"
        return Factors(law.energy(size) / law.energy(old), law.size(size) / law.size(old), 1.0, 1.0, why)
    if part.law == "activation" and p.activation_rate and given.activation_rate:
        more = p.activation_rate.value / given.activation_rate.value
        return Factors(1.0, 1.0, more, 1.0, f"given for {given.activation_rate.value:.3g} values a second")
    return Factors()


def _adc(p: CrossbarParameters, given: CrossbarParameters, per_macro: float) -> Factors:
    law = laws().adc
    rate = old_rate = 1.0
    speed = faster = 1.0
    if p.adc_rate is not None and given.adc_rate is not None:
        rate, old_rate = p.adc_rate.value, given.adc_rate.value
        speed, faster = law.speed(rate) / law.speed(old_rate), rate / old_rate
    shared = (p.columns_per_adc or p.columns), (given.columns_per_adc or given.columns)
    number = _converters(p.columns, shared[0]) / _converters(given.columns, shared[1])
    why = f"given at {given.adc_bits} bits"
    if faster != 1:
        why += f" and {old_rate:.3g} conversions a second"
    if not law.least_bits <= p.adc_bits <= law.most_bits and p.adc_bits != given.adc_bits:
        why += f", the law was fitted at {law.least_bits} to {law.most_bits} bits"
    return Factors(
        energy=law.energy(p.adc_bits, p.adc_kind) / law.energy(given.adc_bits, given.adc_kind) * speed,
        area=law.area(p.adc_bits, p.adc_kind) / law.area(given.adc_bits, given.adc_kind) * speed,
        count=number * per_macro,
        rate=faster,
        why=why,
    )


def _converters(columns: int, shared: int) -> float:
    """Converters of an array: whole ones, or a share of one that serves several arrays."""
    return columns / shared if shared > columns else float(-(-columns // shared))


def _arrays(p: CrossbarParameters) -> int:
    """Arrays that share a macro."""
    return min(p.crossbars_per_macro or p.crossbars, p.crossbars)


def _sizes(given: CrossbarParameters, what: str) -> str:
    return f"given for {given.rows} x {given.columns} ({what})"
