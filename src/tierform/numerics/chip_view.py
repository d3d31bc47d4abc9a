"""What the emulation needs to know of a chip, read in one place from its crossbar component.

Everything a chip file does not say has a default here, named in :func:`crossbar_format`: a change of the chip's
parameters costs a change in this module alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tierform.chip.component import WeightHolder
from tierform.chip.crossbar.layout import CrossbarLayout
from tierform.errors import fail
from tierform.provenance import Constant

if TYPE_CHECKING:
    from tierform.chip.description import Chip

Encoding = Literal["offset", "differential", "differential-digital"]
InputEncoding = Literal["twos-complement", "offset"]
ENCODINGS = ("offset", "differential", "differential-digital")
INPUT_ENCODINGS = ("twos-complement", "offset")
ADC_RANGES = ("granular", "maximum", "calibrated")


@dataclass(frozen=True, slots=True)
class CrossbarFormat:
    """How one weight matrix sits in crossbars and how its columns are read.

    `encoding`: ``offset`` stores w + 2^(bits-1) in one column per slice; ``differential`` stores the positive and the
    negative part in two columns whose currents are subtracted before the ADC; ``differential-digital`` converts both.
    `input_encoding`: ``twos-complement`` (the top digit counts negative) or ``offset`` (x + 2^(bits-1)).
    `adc_bits` 0 is an ideal ADC.  `adc_range`: ``granular`` (one code per level: exact until it clips), ``maximum``
    (the greatest possible sum), ``calibrated`` (the largest sum of the first batch, per slice) or a number, the
    greatest sum that the ADC represents.  `rows_active` rows are read at once (0: all of a crossbar).
    `inverted_columns` (offset only): a column whose levels sum to more than half of the most possible is stored
    inverted and taken off digitally, which saves an ADC bit (ISAAC).  `slice_layout`: a weight's cells side by side in
    one crossbar, or in as many crossbars; `guard_columns` columns beside each weight stay empty.
    """

    rows: int = 128
    columns: int = 128
    cell_bits: int = 2
    dac_bits: int = 1
    weight_bits: int = 8
    input_bits: int = 8
    encoding: Encoding = "offset"
    input_encoding: InputEncoding = "twos-complement"
    adc_bits: int = 8
    adc_range: str | float = "granular"
    rows_active: int = 0
    inverted_columns: bool = False
    slice_layout: Literal["columns", "crossbars"] = "columns"
    guard_columns: int = 0

    def __post_init__(self) -> None:
        for key in ("rows", "columns", "cell_bits", "dac_bits"):
            if getattr(self, key) < 1:
                fail("must be at least 1", key=key, value=getattr(self, key))
        for key in ("weight_bits", "input_bits"):
            if not 2 <= getattr(self, key) <= 8:
                fail("2 to 8 bits are emulated", key=key, value=getattr(self, key))
        if self.encoding not in ENCODINGS:
            fail("unknown weight encoding", value=self.encoding, choices=ENCODINGS)
        if self.input_encoding not in INPUT_ENCODINGS:
            fail("unknown input encoding", value=self.input_encoding, choices=INPUT_ENCODINGS)
        if not 0 <= self.adc_bits <= 16:
            fail("an ADC has 1 to 16 bits, or 0 for an ideal one", key="adc_bits", value=self.adc_bits)
        if self.rows_active < 0:
            fail("must not be negative", key="rows_active", value=self.rows_active)
        if isinstance(self.adc_range, str):
            if self.adc_range not in ADC_RANGES:
                fail(
                    "unknown ADC range",
                    value=self.adc_range,
                    choices=ADC_RANGES,
                    fix=f"Known: {', '.join(ADC_RANGES)}, or the greatest sum as a number.",
                )
        elif not self.adc_range > 0:
            fail("the ADC's range must be greater than zero", key="adc_range", value=self.adc_range)
        if self.inverted_columns and self.encoding != "offset":
            fail("only offset columns are stored inverted", key="inverted_columns", value=self.encoding)
        if self.weights_per_row < 1:
            fail(
                "one weight needs more cells than a row has",
                key="weight_bits",
                value=self.weight_bits,
                fix=f"It takes {self.cells_per_weight} cells; a row has {self.columns}.",
            )

    @property
    def slices(self) -> int:
        """Cells that hold one magnitude: the weight's bits, without the sign when columns are differential."""
        bits = self.weight_bits if self.encoding == "offset" else self.weight_bits - 1
        return -(-bits // self.cell_bits)

    @property
    def cells_per_weight(self) -> int:
        """All cells of one weight."""
        return self.slices if self.encoding == "offset" else 2 * self.slices

    @property
    def digits(self) -> int:
        """Input slices, one DAC value each."""
        return -(-self.input_bits // self.dac_bits)

    @property
    def block_rows(self) -> int:
        """Rows that are summed in one conversion."""
        return min(self.rows, self.rows_active or self.rows)

    @property
    def layout(self) -> CrossbarLayout:
        """How weights lie in the crossbars: the law of the chip's cost, too."""
        return CrossbarLayout(self.rows, self.columns, self.cells_per_weight, self.slice_layout, self.guard_columns)

    @property
    def weights_per_row(self) -> int:
        """Weights that one row of a crossbar holds."""
        return self.layout.weights_per_row

    def crossbars(self, outputs: int, inputs: int) -> int:
        """Crossbars of an (outputs, inputs) matrix."""
        return self.layout.crossbars(inputs, outputs)


def crossbar_component(chip: Chip) -> tuple[str, Any]:
    """The name and the component that holds weights in crossbars; TierformError when the chip has none."""
    for name, component in chip.components.items():
        if isinstance(component, WeightHolder):
            return name, component
    return fail(
        f"the chip {chip.name!r} has no crossbars to hold weights",
        key="chip",
        value=chip.name,
        fix="Choose a chip with a crossbar component, for example 'atleus'.",
    )


def crossbar_format(chip: Chip | str | Path, **changes: Any) -> CrossbarFormat:
    """The format that the chip's crossbars give, with single fields changed.

    Where the chip file is silent: offset columns, two's complement inputs, an 8-bit ADC, all rows at once; always a
    granular ADC range for 1-bit DACs and a calibrated one otherwise.
    """
    from tierform.chip.description import load_chip

    loaded = load_chip(chip) if isinstance(chip, (str, Path)) else chip
    _, component = crossbar_component(loaded)
    p = component.parameters
    encoding = str(getattr(p, "encoding", "offset"))
    if encoding not in ENCODINGS:
        encoding = "differential" if encoding.startswith("diff") else "offset"
    dac_bits = int(_plain(getattr(p, "dac_bits", 1)))
    ideal = getattr(p, "adc_kind", "sar") == "none" or getattr(p, "domain", "analog") == "digital"
    read = CrossbarFormat(
        rows=int(p.rows),
        columns=int(p.columns),
        cell_bits=int(_plain(p.cell_bits)),
        dac_bits=dac_bits,
        encoding=encoding,  # type: ignore[arg-type]
        adc_bits=0 if ideal else int(_plain(getattr(p, "adc_bits", 8))),
        adc_range="granular" if dac_bits == 1 else "calibrated",
        rows_active=int(_plain(getattr(p, "active_rows", None) or 0)),
        inverted_columns=encoding == "offset" and int(getattr(p, "adc_saved_bits", 0)) > 0,
        slice_layout=getattr(p, "slices", "columns"),
        guard_columns=int(getattr(p, "guard_columns", 0)),
    )
    if changes.get("encoding", "offset") != "offset":
        changes = {"inverted_columns": False, **changes}
    unknown = [name for name in changes if name not in CrossbarFormat.__dataclass_fields__]
    if unknown:
        fail("unknown option", value=unknown[0], choices=CrossbarFormat.__dataclass_fields__)
    return replace(read, **changes) if changes else read


def _plain(value: Any) -> float:
    return float(value.value if isinstance(value, Constant) else value)
