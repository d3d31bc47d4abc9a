"""How fast the thermal models are: CPU time and ratios, printed as a table.

Run as a script: ``python benchmarks/thermal.py [--hotspot PATH]``.  The stack of the first part is HotSpot's third
example in the ledger's own table; with the path of a HotSpot 7 binary it is run beside, on the same inputs.
CPU time is of this process (threads included), the best of three where a case is short.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tierform.cli.output import print_table
from tierform.thermal import Die, GridModel, InfluenceModel, Tier, interposer_2_5d, stacked_3d
from tierform.thermal.stack import Region, Stack
from tierform.validation.thermal import stacked_case

# CPU seconds of HotSpot 7 with SuperLU, 128 × 128, as given with the reference data (a quiet run on two cores).
HOTSPOT_DIRECT_S = 7.4


def cpu(work: Callable[[], object], repeat: int = 3) -> float:
    """Least CPU time of `repeat` runs."""
    best = float("inf")
    for _ in range(repeat):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best


def write_case(folder: Path) -> None:
    """The stacked case as HotSpot's files."""
    stack, powers, _ = stacked_case()

    def plan(name: str, regions: tuple[Region, ...]) -> None:
        rows = (f"{r.name}\t{r.width_m:.9f}\t{r.height_m:.9f}\t{r.x_m:.9f}\t{r.y_m:.9f}\n" for r in regions)
        (folder / name).write_text("".join(rows))

    plan("lower.flp", stack.layers[0].regions)
    plan("upper.flp", stack.layers[2].regions)
    layers = []
    for number, layer in enumerate(stack.layers):
        k, c = layer.material.conductivity_x_W_per_mK, layer.material.heat_capacity_J_per_m3K
        floor = "lower.flp" if number < 2 else "upper.flp"
        layers += [number, "Y", "Y" if layer.powered else "N", c, 1 / k, layer.thickness_m, floor]
    (folder / "stack.lcf").write_text("\n".join(map(str, layers)) + "\n")
    names = [tile.name for tile in stack.tiles]
    (folder / "chip.ptrace").write_text("\t".join(names) + "\n" + "\t".join(map(str, powers)) + "\n")
    (folder / "chip.config").write_text("-grid_map_mode avg\n-ambient 318.15\n")


def child_cpu(command: list[str], folder: Path) -> float:
    """CPU time of a child process."""
    before = os.times()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def solvers() -> None:
    stack, powers, _ = stacked_case()
    rows = []
    for cells in (32, 64, 128, 256):
        for solver in ("spectral", "direct", "multigrid"):
            if cells == 256 and solver != "spectral":
                continue
            model = GridModel(stack, cells, cells, solver=solver)  # type: ignore[arg-type]
            cold = cpu(lambda c=cells, s=solver: GridModel(stack, c, c, solver=s).steady(powers), 2)  # type: ignore[misc]
            model.steady(powers)
            again = cpu(lambda m=model: m.steady(powers))  # type: ignore[misc]
            ratios = [f"{HOTSPOT_DIRECT_S / value:.0f}" if cells == 128 else "" for value in (cold, again)]
            rows.append(
                [f"{cells} × {cells}", solver, f"{model.network.nodes:,}", f"{cold:.3f}", f"{again * 1e3:.1f}", *ratios]
            )
    head = ["grid", "solver", "unknowns", "cold s", "new power ms", f"cold: {HOTSPOT_DIRECT_S} s /", "new power: /"]
    print_table("stacked case: grid model (CPU time)", head, rows)


def against_hotspot(binary: Path) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder)
        for cells in (32, 64, 128):
            shared = ["-p", "chip.ptrace", "-c", "chip.config", "-grid_layer_file", "stack.lcf", "-model_type", "grid"]
            shared += ["-detailed_3D", "on", "-grid_rows", str(cells), "-grid_cols", str(cells)]
            theirs = child_cpu([str(binary.resolve()), *shared], folder)
            ours = min(child_cpu([sys.executable, "-m", "tierform", "thermal", *shared], folder) for _ in range(2))
            rows.append([f"{cells} × {cells}", f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.1f}"])
    print_table("whole processes on the same files (CPU time)", ["grid", "HotSpot s", "tierform s", "ratio"], rows)


def beside() -> Stack:
    """Two dies in mould on an interposer."""
    return interposer_2_5d([Die("a", 1e-3, 1e-3, 8e-3, 8e-3, 4, 4), Die("b", 0.01, 1e-3, 8e-3, 8e-3, 4, 4)])


def leakage(temperature_K: np.ndarray) -> np.ndarray:
    return np.asarray(0.01 * np.exp((temperature_K - 318) / 30))


def influence() -> None:
    rows = []
    for name, stack in (
        ("3D, 4 tiers of 4 × 4 tiles", stacked_3d(0.01, 0.01, [Tier(t, 4, 4) for t in "abcd"], via_fill=0.01)),
        ("3D, 4 tiers of 8 × 8 tiles", stacked_3d(0.01, 0.01, [Tier(t, 8, 8) for t in "abcd"], via_fill=0.01)),
        ("2.5D, 2 dies of 4 × 4", beside()),
    ):
        model = InfluenceModel(stack, cache=False)
        count = len(model.tiles)
        maps = np.random.default_rng(0).random((100_000, count))
        power = np.full(count, 0.3)
        build = cpu(partial(InfluenceModel, stack, cache=False))
        many = cpu(partial(model.temperatures_K, maps))
        fixed = cpu(partial(model.fixed_point, power, leakage))
        times = [f"{build:.3f}", f"{100_000 / many:,.0f}", f"{fixed * 1e3:.2f}"]
        rows.append([name, str(count), f"{model.rows} × {model.columns}", *times])
    head = ["stack", "tiles", "grid", "build s", "maps per CPU s", "fixed point ms"]
    print_table("influence model (CPU time)", head, rows)


def mixed() -> None:
    stack = beside()
    powers = np.ones(len(stack.tiles))
    rows = []
    for solver in ("spectral", "direct", "multigrid"):
        for grid in ((32, 64), (64, 128)):
            model = GridModel(stack, *grid, solver=solver)  # type: ignore[arg-type]
            cold = cpu(lambda g=grid, s=solver: GridModel(stack, *g, solver=s).steady(powers), 1)  # type: ignore[misc]
            model.steady(powers)
            again = cpu(lambda m=model: m.steady(powers), 1)  # type: ignore[misc]
            rows.append(
                [f"{grid[0]} × {grid[1]}", solver, f"{model.network.nodes:,}", f"{cold:.2f}", f"{again * 1e3:.0f}"]
            )
    print_table(
        "dies in mould on an interposer (CPU time)", ["grid", "solver", "unknowns", "cold s", "new power ms"], rows
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hotspot", type=Path, help="a HotSpot 7 binary to run beside")
    given = parser.parse_args()
    influence()
    solvers()
    mixed()
    if given.hotspot:
        against_hotspot(given.hotspot)
