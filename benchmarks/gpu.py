"""What the GPU models cost in processor time, and their fit from a table of measured kernels.

    python benchmarks/gpu.py                    processor time per call
    python benchmarks/gpu.py fit a100 FILE.csv  fit the product parameters to a table (AIConfigurator's columns as CSV)

The fit prints the parameters of the component file's `products` section and the errors on fitted and held-out rows.
A whole table takes some minutes; `rounds` bounds the search.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tierform.chip.description import load_component
from tierform.chip.gpu import Gpu
from tierform.chip.gpu.fit import fit_products
from tierform.chip.gpu.fusion import find_fused
from tierform.chip.gpu.gemm import FITTED
from tierform.chip.gpu.samples import Sample, kept_apart
from tierform.simulation import simulate
from tierform.validation.gpu import FIT_LIMITS
from tierform.workload import FineTuning, Inference, LoRA, expand, load_model

# A benchmark turns through so many copies of a weight, so that small ones stay in the L2 and large ones do not.
BENCHMARK_COPIES = 6.0


def board(name: str) -> Gpu:
    part = load_component("gpu", 1, f"{name}-gpu")
    assert isinstance(part, Gpu)
    return part


def microseconds(work: Callable[[], object], least_s: float = 0.3) -> float:
    """Processor time of one call."""
    work()
    calls, start = 0, time.process_time()
    while time.process_time() - start < least_s:
        work()
        calls += 1
    return (time.process_time() - start) / calls * 1e6


def timings() -> None:
    gpu = board("a100")
    assert gpu.products and gpu.prefill and gpu.decode
    model = load_model("llama-3.1-8b")
    stage = expand(model, FineTuning(LoRA(16), batch=1, sequence=1024)).stages[0]
    block = next(block for block in stage.blocks if block.name.startswith("layer"))
    products = [operator for operator in block.operators if operator.k]
    shapes = np.random.default_rng(0).integers(1, 8192, (3, 1000)).astype(float)
    numbers = iter(range(1, 10**9))
    rows = {
        "a product of a new shape": microseconds(lambda: gpu.products.seconds(next(numbers) % 8000 + 1, 4096, 4096)),
        "a product met before (cost)": microseconds(lambda: gpu.cost(products[0])),
        "a product among 1000 (arrays)": microseconds(lambda: gpu.products.seconds(*shapes)) / 1000,
        "prefill attention": microseconds(lambda: gpu.prefill.seconds(4, 2048, 2048, 32, 8, 128)),
        "decode attention": microseconds(lambda: gpu.decode.seconds(4, 2048, 32, 8, 128)),
        "fusing a new layer": microseconds(lambda: find_fused(gpu, block.operators, False)),
        "fusing a layer met before": microseconds(lambda: gpu.fuse(block.operators)),
        "simulate: one decode run of Llama 3.1 8B": microseconds(
            lambda: simulate(model, Inference(batch=1, sequence=512, decode=8), "a100", thermal="none"), 1.0
        ),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value:12.1f} us of processor time")


def fit(chip: str, file: Path) -> None:
    gpu = board(chip)
    p = gpu.parameters.products
    assert p is not None
    with file.open() as lines:
        rows = [
            Sample(chip, "product", "bf16", (int(r["m"]), int(r["n"]), int(r["k"])), float(r["latency"]) * 1e-3)
            for r in csv.DictReader(lines)
            if r["gemm_dtype"] == "bfloat16"
        ]
    chosen, held = kept_apart(rows, FIT_LIMITS[chip, "product"])
    start = {name: float(getattr(p, name).value) for name in FITTED}
    result = fit_products(gpu.sheet, chosen, held, start, p.tiles, p.tile_step, copies=BENCHMARK_COPIES, rounds=8)
    for name in FITTED:
        print(f"  {name}: {result.parameters[name]:.4g}")
    for label, errors in (("fitted", result.fitted_errors), ("held out", result.held_out_errors)):
        median, most, bias = np.median(np.abs(errors)), np.quantile(np.abs(errors), 0.9), np.median(errors)
        print(f"{label}: {len(errors)} rows, median {median:.2%}, 90th percentile {most:.2%}, bias {bias:+.2%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["fit"]:
        fit(sys.argv[2], Path(sys.argv[3]))
    else:
        timings()
