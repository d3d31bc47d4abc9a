"""How an array is read for one input vector: cycles, conversions and time.

Bit-serial: ceil(input bits / DAC bits) cycles for each group of rows that is active together; in each, every column is
sampled and converted once.  A cycle is no shorter than the conversions of the columns that share an ADC.

Integrating neuron (Wan et al., Nature 608, 2022): a signed n-bit input has n - 1 magnitude bits; bit i is integrated
2^i times, so p bits take 2^p - 1 pulses, and the charge is then converted step by step.  Inputs of more than
`bits_per_phase` magnitude bits go in two phases of about half the bits each; the second phase needs as many steps
fewer as the first had bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from tierform.chip.crossbar.parameters import CrossbarParameters, NeuronFile


@dataclass(frozen=True, slots=True)
class Reading:
    """Per input vector: array reads (cycles), conversions and decision steps per column, phases, and seconds."""

    cycles: int
    conversions: int
    steps: int
    phases: int
    seconds: float


def cycle_s(parameters: CrossbarParameters) -> float:
    """The time of one array read: as given, or what the shared ADC needs for its columns, whichever is longer."""
    p = parameters
    if p.adc_rate is None or p.adc_kind == "none":
        return p.cycle.value
    return max(p.cycle.value, (p.columns_per_adc or p.columns) / p.adc_rate.value)


def bit_serial(parameters: CrossbarParameters, input_bits: int, row_groups: int) -> Reading:
    """Reading of an array whose inputs come bit by bit (or DAC width by DAC width)."""
    cycles = -(-input_bits // parameters.dac_bits) * row_groups
    conversions = 0 if parameters.adc_kind == "none" else cycles
    return Reading(cycles, conversions, conversions * parameters.adc_bits, 1, cycles * cycle_s(parameters))


@lru_cache(maxsize=256)
def neuron_counts(input_bits: int, output_bits: int, bits_per_phase: int, one_phase: bool) -> tuple[int, int, int, int]:
    """(magnitude bits, phases, pulses, decision steps) of an integrating neuron."""
    magnitude = max(1, input_bits - 1)
    if one_phase or magnitude <= bits_per_phase:
        return magnitude, 1, 2**magnitude - 1, output_bits
    first = -(-magnitude // 2)
    second = magnitude - first
    return magnitude, 2, 2**first + 2**second - 2, output_bits + max(0, output_bits - first)


def integrating(neuron: NeuronFile, input_bits: int, output_bits: int, row_groups: int) -> Reading:
    """Reading of an array with voltage-mode neurons."""
    bits, phases, pulses, steps = neuron_counts(input_bits, output_bits, neuron.bits_per_phase, neuron.one_phase)
    seconds = phases * neuron.phase.value + pulses * neuron.pulse.value + steps * neuron.step.value
    return Reading(
        bits * row_groups, phases * row_groups, steps * row_groups, phases * row_groups, seconds * row_groups
    )


def read(parameters: CrossbarParameters, input_bits: int, rows_used: int) -> Reading:
    """The reading of one input vector through arrays of which `rows_used` rows hold weights."""
    active = parameters.active_rows or parameters.rows
    groups = -(-min(rows_used, parameters.rows) // active)
    if parameters.neuron is not None:
        return integrating(parameters.neuron, input_bits, parameters.adc_bits, groups)
    return bit_serial(parameters, input_bits, groups)


def needed_adc_bits(parameters: CrossbarParameters) -> int:
    """Bits that tell every possible sum of a column apart (less what the encoding of columns saves)."""
    p = parameters
    levels: int = (p.active_rows or p.rows) * (2**p.dac_bits - 1) * (2**p.cell_bits - 1)
    return max(1, levels.bit_length() - p.adc_saved_bits)
