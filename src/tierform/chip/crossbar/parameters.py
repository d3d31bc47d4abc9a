"""The data file of a compute-in-memory tile: its arrays, its readout, its parts, how it is written.

A tile holds `crossbars` arrays, `crossbars_per_macro` of them in each macro.  Every part (ADC, DAC, eDRAM, ...) says
how many there are `per` array, macro or tile, its area, its `rate` at full load, and its energy per action.  `charge`
says what an action is:

- ``read``: an array is read once; ``row``: a row is driven once; ``column``: a column is sampled once;
- ``conversion``: a column's sum is converted; ``step``: one decision step of an integrating converter;
  ``phase``: a column takes part in one group of input bits;
- ``result``: a finished sum of one array (all input bits, all slices): where a scale per crossbar is applied;
- ``input-byte``, ``output-byte``, ``byte``: a byte of the input, the output, or either passes;
- ``element``: an activation function of one value; ``none``: never charged here (another engine does, or it idles).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tierform.provenance import Constant
from tierform.schema import Bits, Count, FileModel, Whole, quantity

Charge = Literal[
    "read",
    "row",
    "column",
    "conversion",
    "step",
    "phase",
    "result",
    "input-byte",
    "output-byte",
    "byte",
    "element",
    "none",
]
CHARGES: tuple[str, ...] = (
    "read",
    "row",
    "column",
    "conversion",
    "step",
    "phase",
    "result",
    "input-byte",
    "output-byte",
    "byte",
    "element",
    "none",
)
_Time = Annotated[Constant, quantity("s", minimum=0)]
_Count = Annotated[Constant, quantity("1", above=0)]


class PartFile(FileModel):
    """One kind of part; see the module's text.  `beside_tile` marks what another engine's area already counts."""

    per: Literal["crossbar", "macro", "tile"] = "crossbar"
    count: Annotated[float, Field(strict=True, ge=0, le=1e6)] = 1.0
    charge: Charge
    energy: Annotated[Constant, quantity("J", minimum=0)] | None = None
    area: Annotated[Constant, quantity("m^2", minimum=0)] | None = None
    rate: Annotated[Constant, quantity("1/s", minimum=0)] | None = None
    beside_tile: bool = False


class NeuronFile(FileModel):
    """A voltage-mode neuron: integrates 2^p - 1 pulses for p magnitude bits, then decides bit by bit.

    Inputs of more than `bits_per_phase` magnitude bits are split into two phases unless `one_phase`; the second phase
    needs as many decision steps fewer as the first had bits.  Time of a vector = phases * `phase` + pulses * `pulse`
    + steps * `step`.
    """

    bits_per_phase: Bits
    one_phase: bool = False
    phase: _Time
    pulse: _Time
    step: _Time


class CrossbarParameters(FileModel):
    """The data file of one compute-in-memory tile."""

    type: Literal["crossbar"]
    description: str = ""
    technology: Literal["reram", "pcm", "fefet", "sram"] = "reram"
    domain: Literal["analog", "digital"] = "analog"
    crossbars: Count
    crossbars_per_macro: Count | None = None
    rows: Count
    columns: Count
    cell_bits: Annotated[Bits, Field(le=16)]
    dac_bits: Bits = 1
    encoding: Literal["offset", "differential"] = "offset"
    slices: Literal["columns", "crossbars"] = "columns"
    guard_columns: Whole = 0
    active_rows: Count | None = None
    max_weight_bits: Bits | None = None
    max_input_bits: Bits | None = None
    adc_kind: Literal["sar", "flash", "integrating", "none"] = "sar"
    adc_bits: Bits = 8
    adc_saved_bits: Whole = 0
    columns_per_adc: Count | None = None
    adc_rate: Annotated[Constant, quantity("1/s", above=0)] | None = None
    cycle: Annotated[Constant, quantity("s", above=0)]
    pipeline_cycles: Whole = 0
    neuron: NeuronFile | None = None
    parts: dict[str, PartFile]
    activation_rate: Annotated[Constant, quantity("1/s", above=0)] | None = None
    leakage: Annotated[Constant, quantity("W", minimum=0)]
    idle_power: Annotated[Constant, quantity("W", minimum=0)] | None = None
    dynamic_operands: bool = False
    write_pulse: Annotated[Constant, quantity("s", above=0)]
    write_pulses: _Count
    write_energy: Annotated[Constant, quantity("J", minimum=0)]
    verify_energy: Annotated[Constant, quantity("J", minimum=0)] | None = None
    parallel_writes: _Count
    endurance: _Count
    retention: Annotated[Constant, quantity("s", above=0)] | None = None
