"""Fit the parameters of a voltage-mode neuron to measured points.

Times are linear in what a reading counts: time of a vector = phases * `phase` + pulses * `pulse` + steps * `step`.
Energies of a multiply-accumulate are linear too: word lines and input pulses go with the magnitude bits, a neuron's
energy with phases, decision steps and magnitude bits.  A published energy split is scaled by one factor so that its sum
is what TOPS/W implies with two operations a multiply-accumulate.  Least squares; exact where there are as many points.
Source of the operation: Wan et al., Nature 608, 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tierform.chip.crossbar.readout import neuron_counts
from tierform.errors import fail


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """Throughput, efficiency and energy split (fJ a MAC) of a chip at one pair of output and input bits."""

    output_bits: int
    input_bits: int
    tops: float
    tops_per_w: float
    wordline_fJ: float
    pulse_fJ: float
    neuron_fJ: float
    one_phase: bool = False


@dataclass(frozen=True, slots=True)
class NeuronFit:
    """Seconds per phase, pulse and step; joules per action: rows for word lines and pulses, columns for neurons."""

    phase_s: float
    pulse_s: float
    step_s: float
    wordline_J: float
    pulse_J: float
    neuron_phase_J: float
    neuron_step_J: float
    neuron_bit_J: float


def fit_neuron(
    points: Sequence[MeasuredPoint], *, arrays: int, rows: int, weights_per_row: int, bits_per_phase: int
) -> NeuronFit:
    """The parameters for a chip of `arrays` arrays of `rows` rows that hold `weights_per_row` weights each."""
    if len(points) < 3:
        fail("three points at least are needed to fit three times", value=len(points))
    counts = np.array(
        [neuron_counts(p.input_bits, p.output_bits, bits_per_phase, p.one_phase) for p in points], dtype=float
    )
    bits, phases, pulses, steps = counts.T
    macs = rows * weights_per_row
    seconds = np.array([2 * arrays * macs / (p.tops * 1e12) for p in points])
    phase, pulse, step = np.linalg.lstsq(np.stack([phases, pulses, steps], axis=1), seconds, rcond=None)[0]
    split = np.array([(p.wordline_fJ, p.pulse_fJ, p.neuron_fJ) for p in points])
    implied = np.array([2e3 / p.tops_per_w for p in points])
    scale = float((implied / split.sum(axis=1)).mean())
    wordline, pulses_fJ = (float(bits @ split[:, part] / (bits @ bits)) for part in (0, 1))
    neuron = np.linalg.lstsq(np.stack([phases, steps, bits], axis=1), split[:, 2], rcond=None)[0]
    per_row = scale * 1e-15 * weights_per_row
    columns = 2 * weights_per_row  # a differential pair for each weight
    per_column = scale * 1e-15 * macs / columns
    return NeuronFit(
        float(phase),
        float(pulse),
        float(step),
        wordline * per_row,
        pulses_fJ * per_row,
        *(float(value) * per_column for value in neuron),
    )
