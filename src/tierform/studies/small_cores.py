"""Few large or many small cores: the same arithmetic, SRAM and memory as n cores of 1/n size, each with its own port.

One core has a systolic array of 256 x 256 processing elements, 8 MiB of SRAM and a vector unit; n cores have arrays of
256 / sqrt(n) on a side, 1/n of the SRAM and of the lanes, and stand on a square mesh whose links keep their width.
What changes is how well matrices fill the arrays, how often operands are read again (a smaller buffer holds a smaller
part), and the traffic over the network.  Constants are those of the library's 10 nm array, scaled by area; the study
compares sizes and is no published machine.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from tempfile import TemporaryDirectory

from tierform.chip.description import Chip, load_chip
from tierform.errors import TierformError, fail
from tierform.files import write_text
from tierform.simulation.simulate import simulate
from tierform.studies.study import Cell, Check, Picture, StudyOptions, StudyResult, Table
from tierform.workload import Inference, PrecisionPlan

SIDE, SRAM_KiB, LANES, AREA_mm2, LEAKAGE_mW = 256, 8192, 2048, 32.0, 320.0
CORES = (1, 4, 16, 64)
INT8 = PrecisionPlan("int8", "int8", "int8", master_weights=None)
TASKS = {
    "prompt": Inference(8, 512, precision=INT8),
    "decode, batch 1": Inference(1, 512, 16, prefill=False, precision=INT8),
    "decode, batch 32": Inference(32, 512, 16, prefill=False, precision=INT8),
}


def run(options: StudyOptions) -> StudyResult:
    """The study."""
    options.check_settings(["model", "cores"])
    model = options.settings.get("model", "llama-3.2-1b")
    cores = options.whole_numbers("cores", CORES[:3] if options.quick else CORES)
    rows: list[tuple[Cell, ...]] = []
    for number in cores:
        chip = chip_of(number)
        for name, task in TASKS.items():
            options.say(f"{number} cores, {name}")
            try:
                found = simulate(model, task, chip, thermal="none")
            except TierformError as error:
                rows.append((number, name, None, None, None, None, None, error.problems[0].what))
                continue
            moved = sum(stage.memory_B for stage in found.stages)
            rate = 100 * found.operations / found.latency_s / (2 * SIDE * SIDE * 1e9)
            network = 1e3 * found.energy_J_by_component.get("network", 0.0)
            energy = 1e3 * found.energy_J
            rows.append((number, name, 1e3 * found.latency_s, energy, rate, moved / 1e9, network, ""))
    head = (
        "cores",
        "task",
        "time (ms)",
        "energy (mJ)",
        "of peak (%)",
        "memory (GB)",
        "network (mJ)",
        "not run because",
    )
    table = Table("The same arithmetic in n cores", head, tuple(rows), f"{model}, int8, HBM2 of two stacks.")
    ran = {name: [row for row in rows if row[1] == name and row[2] is not None] for name in TASKS}
    prompt, one, many = (ran[name] for name in TASKS)
    checks = (
        _ordered("small buffers read operands of a prompt more often", prompt, 5, "GB from memory"),
        _ordered("more ports spend more on the network", prompt, 6, "mJ on the network"),
        _ordered("small arrays are filled better by few rows", many, 4, "% of the peak at batch 32"),
        _ordered("and by one row", one, 4, "% of the peak at batch 1"),
    )
    return StudyResult(
        "small-cores",
        "Few large or many small cores",
        (table,),
        checks,
        ("The network keeps its links' width; its power grows with the number of routers.",),
        pictures=(Picture(table.title, "cores", ("time (ms)",), by="task", kind="line", log=True),),
    )


def _ordered(what: str, rows: list[tuple[Cell, ...]], column: int, unit: str) -> Check:
    """Whether the last of several sizes has more in a column than the first."""
    figures = [float(cell) for row in rows if isinstance(cell := row[column], (int, float))]
    listed = ", ".join(f"{row[0]} cores {figure:.3g}" for row, figure in zip(rows, figures, strict=True))
    return Check(what, len(figures) > 1 and figures[-1] > figures[0], f"{listed} {unit}")


def chip_of(cores: int) -> Chip:
    """A planar chip of so many cores (a square number)."""
    across = isqrt(cores)
    if across * across != cores or SIDE % across:
        fail("cores stand in a square, of a power of two", key="cores", value=cores, fix="For example 1, 4, 16 or 64.")
    text = f"""schema: tierform.chip/1
name: cores-{cores}
description: {cores} cores with the arithmetic and SRAM of one
package:
  kind: planar
  dies:
    - {{name: die, grid: [{across}, {across}], holds: {{systolic: 1, vector: 1}}}}
components:
  systolic:
    file: systolic-128x32-10nm
    set:
      rows: {SIDE // across}
      columns: {SIDE // across}
      sram_capacity: {{value: {SRAM_KiB // cores} KiB, kind: assumed, note: "an equal share"}}
      array_area: {{value: {AREA_mm2 / cores} mm^2, kind: assumed, note: "by the number of elements"}}
      leakage: {{value: {LEAKAGE_mW / cores} mW, kind: assumed, note: "by the number of elements"}}
  vector:
    file: vector-128-10nm
    set:
      lanes: {max(1, LANES // cores)}
network:
  clock: {{value: 1 GHz, kind: assumed, note: "as of Atleus"}}
  width: {{value: 256 bit, kind: assumed, note: "as of Atleus"}}
  router_cycles: 3
memory:
  - {{device: hbm2, count: 2, attached: systolic}}
precision: {{weights: int8, activations: int8, kv_cache: int8, gradients: bf16, adapters: bf16}}
"""
    with TemporaryDirectory(prefix="tierform-cores-") as folder:
        path = Path(folder) / "chip.yaml"
        write_text(path, text)
        return load_chip(path)
