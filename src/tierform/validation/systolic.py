"""Systolic arrays against SCALE-Sim v3: cycles, stalls, utilization, SRAM and DRAM words, row by row.

Built in is a table of SCALE-Sim's results: products of BERT and smaller ones on three array sizes and dataflows in its
stall-free mode, products and convolutions behind a bandwidth, small SRAMs, and sparse weights.  Every figure must be
equal by its accounting (`scale_sim`).  What the hardware's accounting gives for the same layer is shown beside it, for
information.  With a folder, its ``scale-sim-v3.csv`` is used: columns ``gemm, M, N, K, array, dataflow, mode, bw`` and
SCALE-Sim's own report columns, for SRAM of 512, 512 and 256 KiB.  Agreement with a simulator is not truth; the tests
hold the hardware's accounting against a simulation of every element.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from tierform.chip.description import load_component
from tierform.chip.sample_operators import product
from tierform.chip.systolic import SystolicArrays
from tierform.chip.systolic.folds import DENSE, Sparsity
from tierform.compat.scalesim.accounting import scale_sim
from tierform.compat.scalesim.files import Configuration, LayerShape
from tierform.compat.scalesim.hardware import hardware
from tierform.errors import Problem, TierformError, fail
from tierform.files import read_text
from tierform.simulation import charge
from tierform.validation.charged import chip_of
from tierform.validation.ledger import EngineLedger, Point, Tolerance

_SOURCE = "scale-sim-v3"
_EQUAL = Tolerance()
_ROUNDING = Tolerance(relative=1e-12)  # percentages: the same fraction, summed fold by fold or in one step
_TABLE = Path(__file__).parent / "tables" / "systolic_scale_sim.csv"
_FIGURES = {
    "cycles": ("Total Cycles", "cycle"),
    "stalls": ("Stall Cycles", "cycle"),
    "overall_util": ("Overall Util %", "%"),
    "mapping_efficiency": ("Mapping Efficiency %", "%"),
    "compute_util": ("Compute Util %", "%"),
    "sram_input_reads": ("SRAM IFMAP Reads", "word"),
    "sram_weight_reads": ("SRAM Filter Reads", "word"),
    "sram_output_writes": ("SRAM OFMAP Writes", "word"),
    "dram_input_reads": ("DRAM IFMAP Reads", "word"),
    "dram_weight_reads": ("DRAM Filter Reads", "word"),
    "dram_output_writes": ("DRAM OFMAP Writes", "word"),
}
_CONVOLUTION = re.compile(r"conv (\d+)x(\d+) (\d+)x(\d+) (\d+) to (\d+) stride (\d+)")


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    points = list(_built_in() if folder is None else _folder(folder / "scale-sim-v3.csv"))
    remarks = (
        "'hardware cycles' is what an array with double-buffered stationary registers takes: no load between folds, "
        "and output-stationary results leave through the array, which SCALE-Sim does not charge.",
        "'cycles as charged' and 'DRAM reads as charged': a chip's component with the same array, behind one "
        "buffer of all three sizes, with the best tiling: memory's own time is charged apart.",
        "SCALE-Sim numbers the last cycle, so its total is one less than a count of cycles.",
        "Its output-stationary SRAM writes count one row and one column of the array extra for every fold, and a "
        "half-filled line that leaves its write buffer early counts as a whole one (589,951 words for 589,824).",
        "Its overall utilization counts the operations of the dense layer when weights are sparse: it may pass 100 %.",
    )
    return EngineLedger("systolic", points, remarks)


def _built_in() -> Iterator[Point]:
    lines = [line for line in read_text(_TABLE).splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        layer = _layer(row["case"], row["layer"], row["sparsity"])
        words = int(row["words_per_cycle"] or 10)
        sram = tuple(int(part) * 1024 for part in row["sram_kB"].split("/"))
        configuration = _configuration(
            int(row["rows"]),
            int(row["columns"]),
            row["dataflow"],
            not row["words_per_cycle"],
            words,
            (sram[0], sram[1], sram[2]),
            bool(row["sparsity"]),
        )
        yield from _compared(row["case"], layer, configuration, {name: float(row[name]) for name in _FIGURES})


def _configuration(
    rows: int, columns: int, dataflow: str, free: bool, words: int, sram: tuple[int, int, int], sparse: bool = False
) -> Configuration:
    return Configuration(
        name="validation",
        rows=rows,
        columns=columns,
        ifmap_words=sram[0],
        filter_words=sram[1],
        ofmap_words=sram[2],
        dataflow=dataflow,
        calculate_bandwidth=free,
        ifmap_bandwidth=words,
        filter_bandwidth=words,
        ofmap_bandwidth=words,
        sparse=sparse,
        representation="ellpack_block",
        without_effect=(),
    )


def _layer(name: str, text: str, sparsity: str) -> LayerShape:
    kept, _, block = sparsity.partition(":")
    ratio = Sparsity(int(kept), int(block)) if sparsity else DENSE
    match = _CONVOLUTION.fullmatch(text)
    if not match:
        m, n, k = (int(part) for part in text.split("x"))
        return LayerShape(name, m, n, k, sparsity=ratio)
    height, width, high, wide, channels, filters, stride = (int(part) for part in match.groups())
    out_h, out_w = -(-(height - high + stride) // stride), -(-(width - wide + stride) // stride)
    return LayerShape(
        name=name,
        m=out_h * out_w,
        n=filters,
        k=high * wide * channels,
        count=1,
        sparsity=ratio,
        ifmap=(height, width, channels),
        window=(high, wide),
        stride=(stride, stride),
        ofmap=(out_h, out_w),
    )


def _compared(
    case: str, layer: LayerShape, configuration: Configuration, reference: dict[str, float]
) -> Iterator[Point]:
    ours = scale_sim(layer, configuration).figures
    for name, value in reference.items():
        column, unit = _FIGURES[name]
        tolerance = _ROUNDING if unit == "%" else _EQUAL
        yield Point(
            case=case,
            quantity=column,
            unit=unit,
            reference=value,
            ours=ours[column],
            tolerance=tolerance,
            source=_SOURCE,
            evidence="simulator",
        )
    real = hardware(layer, configuration).figures
    yield Point(
        case=case,
        quantity="hardware cycles",
        unit="cycle",
        reference=reference["cycles"],
        ours=real["Total Cycles"],
        tolerance=None,
        source=_SOURCE,
        evidence="simulator",
    )
    yield from _as_charged(case, layer, configuration, reference)


def _as_charged(
    case: str, layer: LayerShape, configuration: Configuration, reference: dict[str, float]
) -> Iterator[Point]:
    """Cycles and memory words of the layer as a product on a component of one array, for information."""
    c, sparse = configuration, layer.sparsity != DENSE
    changes: dict[str, object] = {
        "rows": c.rows,
        "columns": c.columns,
        "dataflow": c.dataflow,
        "sram_capacity": f"{c.ifmap_words + c.filter_words + c.ofmap_words} B",
    }
    if sparse:
        changes["weight_sparsity"] = {"kept": layer.sparsity.kept, "block": layer.sparsity.block}
    array = cast(SystolicArrays, load_component("array", 1, "systolic-128x32-10nm", changes))
    operator = product(layer.m, layer.n, layer.k)
    (cost,) = charge(chip_of(array), (operator,))
    cycles = cost.occupancy_s * array.parameters.clock.value
    yield Point(
        case=case,
        quantity="cycles as charged",
        unit="cycle",
        reference=reference["cycles"],
        ours=cycles,
        tolerance=None,
        source=_SOURCE,
        evidence="simulator",
    )
    if sparse or layer.window is not None:
        return
    found = array.refetch(operator)
    words = layer.m * layer.k * found.first + layer.k * layer.n * found.second
    theirs = reference["dram_input_reads"] + reference["dram_weight_reads"]
    yield Point(
        case=case,
        quantity="DRAM reads as charged",
        unit="word",
        reference=theirs,
        ours=words,
        tolerance=None,
        source=_SOURCE,
        evidence="simulator",
    )


def _folder(path: Path) -> Iterator[Point]:
    rows = list(csv.DictReader(read_text(path).splitlines()))
    needed = ["gemm", "M", "N", "K", "array", "dataflow", "mode", "bw", *(column for column, _ in _FIGURES.values())]
    missing = [name for name in needed if not rows or name not in rows[0]]
    if missing:
        fail("these columns are missing, or there are no rows", file=str(path), value=", ".join(missing))
    problems: list[Problem] = []
    points: list[Point] = []
    for number, row in enumerate(rows, 2):
        try:
            layer = LayerShape(row["gemm"], int(row["M"]), int(row["N"]), int(row["K"]))
            size, words = int(row["array"]), int(row["bw"] or 10)
            if row["dataflow"] not in ("ws", "os", "is"):
                raise ValueError(f"unknown dataflow {row['dataflow']!r}")
            configuration = _configuration(
                size, size, row["dataflow"], row["mode"] != "USER", words, (512 * 1024, 512 * 1024, 256 * 1024)
            )
            reference = {name: float(row[column]) for name, (column, _) in _FIGURES.items()}
        except (ValueError, TypeError) as error:
            problems.append(Problem(str(error), str(path), number))
            continue
        points += _compared(f"{row['gemm']}-{size}-{row['dataflow']}", layer, configuration, reference)
    if problems:
        raise TierformError(problems)
    yield from points
