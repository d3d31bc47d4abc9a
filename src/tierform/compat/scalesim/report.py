"""The columns of SCALE-Sim v3's reports, and one layer's figures under them."""

from __future__ import annotations

from dataclasses import dataclass

from tierform.compat.scalesim.files import Configuration, LayerShape

COMPUTE = (
    "Total Cycles (incl. prefetch)",
    "Total Cycles",
    "Stall Cycles",
    "Overall Util %",
    "Mapping Efficiency %",
    "Compute Util %",
)
BANDWIDTH = (
    "Avg IFMAP SRAM BW",
    "Avg FILTER SRAM BW",
    "Avg OFMAP SRAM BW",
    "Avg IFMAP DRAM BW",
    "Avg FILTER DRAM BW",
    "Avg OFMAP DRAM BW",
)
DETAIL = tuple(
    f"{level} {operand} {what}"
    for level in ("SRAM", "DRAM")
    for operand in ("IFMAP", "Filter", "OFMAP")
    for what in ("Start Cycle", "Stop Cycle", "Writes" if operand == "OFMAP" else "Reads")
)
SPARSE = (
    "Original Filter Storage",
    "New Storage (Filter+Metadata)",
    "Filter Metadata Storage",
    "Avg FILTER Metadata SRAM BW",
)


@dataclass(frozen=True, slots=True)
class Report:
    """One layer's figures by column name; `sram_words` and `macs` for an energy estimate."""

    layer: LayerShape
    figures: dict[str, float]
    macs: int

    @property
    def sram_words(self) -> float:
        """All SRAM reads and writes."""
        return sum(self.figures[name] for name in ("SRAM IFMAP Reads", "SRAM Filter Reads", "SRAM OFMAP Writes"))

    @property
    def dram_words(self) -> float:
        """All DRAM reads and writes."""
        return sum(self.figures[name] for name in ("DRAM IFMAP Reads", "DRAM Filter Reads", "DRAM OFMAP Writes"))


def figures_of(
    total: int,
    stall: int,
    macs: int,
    elements: int,
    mapped: float,
    streamed: float,
    sram: tuple[float, float, float],
    spans: list[tuple[int, int]],
    moved: list[tuple[int, int, int]],
) -> dict[str, float]:
    """Every column from cycles, work, utilizations, SRAM words with their spans, and DRAM (start, stop, words)."""
    values: list[float] = [
        moved[2][1] - min(moved[0][0], moved[1][0]),
        total,
        stall,
        100 * macs / (total * elements),
        100 * mapped,
        100 * mapped * streamed,
    ]
    figures = dict(zip(COMPUTE, values, strict=True))
    rates = [words / total for words in sram] + [words / (stop - start + 1) for start, stop, words in moved]
    figures |= dict(zip(BANDWIDTH, rates, strict=True))
    detail: list[float] = []
    for (first, last), words in zip(spans, sram, strict=True):
        detail += [first, last, words]
    for start, stop, words in moved:
        detail += [start, stop, words]
    return figures | dict(zip(DETAIL, detail, strict=True))


def storage_of(layer: LayerShape, configuration: Configuration, total: int) -> dict[str, float]:
    """The columns of the sparse report: words of the weights whole, packed with their metadata, and the metadata."""
    kept = layer.sparsity.depth(layer.k) * layer.n
    if configuration.representation == "csr":
        metadata: float = kept + layer.k + 1
    elif configuration.representation == "csc":
        metadata = kept + layer.n + 1
    else:
        metadata = kept * max(0, (layer.sparsity.block - 1).bit_length()) / 32
    return dict(zip(SPARSE, (layer.k * layer.n, kept + metadata, metadata, metadata / total), strict=True))
