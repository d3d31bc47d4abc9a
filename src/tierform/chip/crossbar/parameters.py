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
Law = Literal["none", "array", "adc", "dac", "rows", "columns", "word", "registers", "buffer", "activation"]
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

    per: Literal["crossbar", "macro", "tile"] = Field(
        "crossbar", description="Of what the part is counted: per crossbar, macro or tile"
    )
    count: Annotated[float, Field(strict=True, ge=0, le=1e6)] = Field(
        1.0,
        description="Parts per crossbar, macro or tile; changes area and full-load power, not the energy of an action",
    )
    charge: Charge = Field(description="What an action of the part is, see the list of actions; none is never charged")
    energy: Annotated[Constant, quantity("J", minimum=0)] | None = Field(
        None, description="Energy of one action of the part; without it the part is free"
    )
    area: Annotated[Constant, quantity("m^2", minimum=0)] | None = Field(
        None, description="Area of one part; without it the part takes none"
    )
    rate: Annotated[Constant, quantity("1/s", minimum=0)] | None = Field(
        None,
        description="Actions a second of one part at full load; changes the full-load power on the data sheet only",
    )
    law: Law = Field(
        "none", description="How the part changes with the array when `set` or `vary` change that; see Laws"
    )
    capacity: Annotated[Constant, quantity("B", above=0)] | None = Field(
        None, description="Bytes of a buffer whose law is buffer; its energy and area follow when it is changed"
    )
    beside_tile: bool = Field(
        False, description="Whether another engine counts the area of the part already, such as a share of a router"
    )


class NeuronFile(FileModel):
    """A voltage-mode neuron: integrates 2^p - 1 pulses for p magnitude bits, then decides bit by bit.

    Inputs of more than `bits_per_phase` magnitude bits are split into two phases unless `one_phase`; the second phase
    needs as many decision steps fewer as the first had bits.  Time of a vector = phases * `phase` + pulses * `pulse`
    + steps * `step`.
    """

    bits_per_phase: Bits = Field(
        description="Magnitude bits of the input that are integrated in one phase; more are split into two"
    )
    one_phase: bool = Field(False, description="Whether wide inputs are integrated in one phase all the same")
    phase: _Time = Field(description="Time of a phase; a vector takes phases * phase + pulses * pulse + steps * step")
    pulse: _Time = Field(description="Time of one integration pulse; p bits take 2^p - 1 of them")
    step: _Time = Field(description="Time of one decision step of the conversion")


class CrossbarParameters(FileModel):
    """The data file of one compute-in-memory tile."""

    type: Literal["crossbar"] = Field(description="The kind of component; it decides which other keys there are")
    description: str = Field("", description="One line for people; changes no figure")
    technology: Literal["reram", "pcm", "fefet", "sram"] = Field(
        "reram", description="What the cells are; sram neither wears nor is counted as written"
    )
    domain: Literal["analog", "digital"] = Field(
        "analog", description="analog arrays are converted, digital ones are not"
    )
    crossbars: Count = Field(
        description="Arrays of one tile; changes what it holds and the waves of products of two activations"
    )
    crossbars_per_macro: Count | None = Field(
        None,
        description="Arrays that share a macro and its parts; all when left out; changes area and power",
    )
    rows: Count = Field(
        description="Rows of an array; changes how many arrays a weight takes, and cycles when not all are active"
    )
    columns: Count = Field(
        description="Columns of an array; changes how many arrays a weight takes and what an ADC serves"
    )
    cell_bits: Bits = Field(le=16, description="Bits of a cell; changes the cells of a weight")
    dac_bits: Bits = Field(1, description="Input bits applied in one cycle; changes the cycles of a vector")
    encoding: Literal["offset", "differential"] = Field(
        "offset",
        description="offset: w + 2^(bits-1), one column a slice; differential: two columns for a signed weight",
    )
    slices: Literal["columns", "crossbars"] = Field(
        "columns",
        description="Cells of a weight beside each other, or each in a crossbar; decides the cost of a transposed read",
    )
    guard_columns: Whole = Field(
        0,
        description="Empty columns beside each weight (carries of a digital array); changes arrays and energy",
    )
    active_rows: Count | None = Field(
        None, description="Rows that are read at once; all when left out; fewer take more cycles"
    )
    max_weight_bits: Bits | None = Field(
        None, description="Widest weight that is held; any when left out; wider ones are refused"
    )
    max_input_bits: Bits | None = Field(
        None, description="Widest input that is taken; any when left out; wider ones are refused"
    )
    adc_kind: Literal["sar", "flash", "integrating", "none"] = Field(
        "sar", description="Converter of the columns: sar, flash, integrating (needs neuron), or none"
    )
    adc_bits: Bits = Field(
        8,
        description="Bits of the converter; changes decision steps, the time of a neuron, and the values that come out",
    )
    adc_saved_bits: Whole = Field(
        0,
        description="Bits that the encoding saves the converter; changes remarks and values",
    )
    columns_per_adc: Count | None = Field(
        None, description="Columns that share a converter; all of an array when left out; more may stretch the cycle"
    )
    adc_rate: Annotated[Constant, quantity("1/s", above=0)] | None = Field(
        None,
        description="Conversions a second of one converter; bounds the cycle; unbounded when left out",
    )
    cycle: Annotated[Constant, quantity("s", above=0)] = Field(
        description="Time of one read of an array; changes every time"
    )
    pipeline_cycles: Whole = Field(0, description="Cycles between the last input and its output; changes latency only")
    neuron: NeuronFile | None = Field(
        None, description="The integrating converter; needed with adc_kind integrating, refused otherwise"
    )
    parts: dict[str, PartFile] = Field(description="Everything that has area or energy, by name")
    activation_rate: Annotated[Constant, quantity("1/s", above=0)] | None = Field(
        None,
        description="Values a second of the activation units of one tile; without it activations run elsewhere",
    )
    leakage: Annotated[Constant, quantity("W", minimum=0)] = Field(
        description="Static power of one tile at 300 K; doubles every 30 K"
    )
    idle_power: Annotated[Constant, quantity("W", minimum=0)] | None = Field(
        None, description="Power of clocks and biases of one tile, whatever the temperature; none when left out"
    )
    dynamic_operands: bool = Field(
        False, description="Whether products of two activations may run here, whose second operand is written first"
    )
    write_pulse: Annotated[Constant, quantity("s", above=0)] = Field(description="Time of one write pulse on a row")
    write_pulses: _Count = Field(
        description="Pulses until a cell has its value; changes time of writing and energy of verifying"
    )
    write_energy: Annotated[Constant, quantity("J", minimum=0)] = Field(description="Energy of writing a cell")
    verify_energy: Annotated[Constant, quantity("J", minimum=0)] | None = Field(
        None, description="Energy of reading a cell after each pulse; none when left out"
    )
    parallel_writes: _Count = Field(
        description="Arrays of a tile that are written at a time, a row of each; at least 1"
    )
    endurance: _Count = Field(description="Writes that a cell survives; changes the lifetime")
    retention: Annotated[Constant, quantity("s", above=0)] | None = Field(
        None,
        description="Time after which weights are written anew; never when left out; changes refreshes",
    )
