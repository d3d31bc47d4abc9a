"""How fast the systolic model is: SCALE-Sim's rows against SCALE-Sim's own time, and millions of products at once.

Run: python benchmarks/systolic.py
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import tierform.validation.systolic as ledger
from tierform.chip.contract import product
from tierform.chip.description import load_component
from tierform.chip.systolic.batch import gemm_costs, product_costs
from tierform.compat.scalesim.accounting import scale_sim

TABLE = Path(ledger.__file__).parent / "tables" / "systolic_scale_sim.csv"
ROWS = 1_000_000


def cpu_s(action: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call: the least of five batches of calls."""
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        for _ in range(repeats):
            action()
        best = min(best, (time.process_time() - begin) / repeats)
    return best


def rows() -> list[tuple[str, float, float]]:
    """Every row of the table: case, SCALE-Sim's seconds, ours."""
    found = []
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for row in csv.DictReader(lines):
        layer = ledger._layer(row["case"], row["layer"], row["sparsity"])
        sram = tuple(int(part) * 1024 for part in row["sram_kB"].split("/"))
        words = row["words_per_cycle"]
        configuration = ledger._configuration(
            int(row["rows"]),
            int(row["columns"]),
            row["dataflow"],
            not words,
            int(words or 10),
            (sram[0], sram[1], sram[2]),
            bool(row["sparsity"]),
        )
        scale_sim(layer, configuration)
        seconds = cpu_s(lambda layer=layer, configuration=configuration: scale_sim(layer, configuration), 3)  # type: ignore[misc]
        found.append((row["case"], float(row["scale_sim_s"]), seconds))
    return found


def main() -> None:
    print(f"{'case':28} {'SCALE-Sim s':>12} {'ours ms':>9} {'times faster':>13}")
    found = rows()
    for case, theirs, ours in found:
        print(f"{case:28} {theirs:12.3f} {ours * 1e3:9.3f} {theirs / ours:13,.0f}")
    bert = [theirs / ours for case, theirs, ours in found if case.startswith("bert")]
    print(f"\nBERT rows: {min(bert):,.0f} to {max(bert):,.0f} times faster")
    rng = np.random.default_rng(0)
    m, n, k = (rng.integers(1, 8192, ROWS) for _ in range(3))
    gemm_costs(m[:8], n[:8], k[:8], 128, 32)
    for flow in ("ws", "best"):
        seconds = cpu_s(lambda flow=flow: gemm_costs(m, n, k, 128, 32, flow), 1)  # type: ignore[misc]
        print(f"vectorized, dataflow {flow}: {ROWS / seconds / 1e6:.1f} million distinct products a CPU second")
    array = load_component("systolic-128x32-10nm", 1, "systolic-128x32-10nm")
    seconds = cpu_s(lambda: product_costs(array, m, n, k), 1)
    print(f"vectorized, seconds and joules, best dataflow: {ROWS / seconds / 1e6:.1f} million a CPU second")
    for name in ("systolic-128x32-10nm", "atleus-tile-32nm"):
        component = load_component(name, 16, name)
        operator = product(512, 1024, 1024)
        print(f"one cost() of {name}: {cpu_s(lambda c=component, o=operator: c.cost(o), 500) * 1e6:.1f} us")  # type: ignore[misc]


if __name__ == "__main__":
    main()
