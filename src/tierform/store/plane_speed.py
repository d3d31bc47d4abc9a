"""How fast this machine multiplies straight from planes: measured for any matrices, and as a chip that foretells it.

A product of one token takes a fixed time and the time of its bytes: what is fitted, on shapes of a fixed grid, is the
`launch` and the bandwidth of a chip file (`tierform calibrate --planes`).  The products of a model whose matrices have
formats of their own are then timed one after the other, in the model's order, so that weights come from where a
decoding model finds them.  Each product counts with its least time of several, which other work disturbs least; what
else runs still fills caches and memory channels, so the load is told.

Limits: one thread, one token; integers of 2 to 8 bits in groups (a matrix of b bits is read at b planes).  Times do not
depend on values: matrices of random planes are multiplied.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import numpy as np

from tierform.arrays import Floats
from tierform.chip.gpu.measure import load_of_machine
from tierform.errors import fail
from tierform.store.matvec import multiply
from tierform.store.nested import LEAST_WORDS, PLANES, WORD, ChannelPlanes

REPEATS = 60
GROUP = 128
# Shapes (outputs, inputs) of no model in particular, at each of the planes.
GRID = ((256, 512), (512, 512), (1024, 512), (2048, 512), (512, 1024), (1024, 1024), (512, 2048), (8192, 512))
DEPTHS = (3, 4, 5, 6, 8)
_COPIES, _LEAST_B = 4, 48 * 2**20  # every shape several times, so that together they exceed caches


@dataclass(frozen=True, slots=True)
class PlaneProduct:
    """The product of one token with a matrix (outputs, inputs) of so many planes, with a scale for `group` inputs."""

    outputs: int
    inputs: int
    planes: int
    group: int = GROUP

    @property
    def size_B(self) -> float:
        """Bytes read: planes, and 16 bits of scale for each group."""
        return self.outputs * (self.inputs * self.planes / 8 + 2 * -(-self.inputs // self.group))


@dataclass(frozen=True, slots=True)
class PlaneChip:
    """What was fitted: seconds of a product without bytes, bytes a second; the median error of products held out."""

    launch_s: float
    bandwidth_B_per_s: float
    held_out_error: float
    products: int
    load: float

    def seconds(self, product: PlaneProduct) -> float:
        """The fitted time."""
        return self.launch_s + product.size_B / self.bandwidth_B_per_s


def random_planes(product: PlaneProduct, random: np.random.Generator) -> ChannelPlanes:
    """A matrix of random planes of a product's sizes."""
    groups = -(-product.inputs // product.group)
    words = max(LEAST_WORDS, -(-product.outputs // WORD))
    bits = random.integers(0, 2**63, (groups, PLANES, product.group, words), dtype=np.uint64)
    factors = np.ones((2, groups, words * WORD), np.float32)
    return ChannelPlanes(bits, factors[0], factors[1], product.group, product.outputs, product.inputs)


def least_times(products: Sequence[PlaneProduct], repeats: int = REPEATS) -> Floats:
    """The least time of each product in seconds, taken in their order, again and again."""
    random = np.random.default_rng(0)
    made = [random_planes(product, random) for product in products]
    given = [
        (matrix, random.standard_normal(one.inputs).astype(np.float32), np.full(one.inputs, one.planes, np.uint8))
        for matrix, one in zip(made, products, strict=True)
    ]
    least = np.full(len(products), np.inf)
    for _ in range(repeats):
        for number, (matrix, x, depths) in enumerate(given):
            begin = time.perf_counter()
            multiply(matrix, x, depths)
            least[number] = min(least[number], time.perf_counter() - begin)
    return least


def products_s(products: Sequence[PlaneProduct], repeats: int = REPEATS) -> float:
    """Seconds of all products of one token: the sum of their least times."""
    if any(not 2 <= one.planes <= PLANES for one in products):
        fail("matrices of 2 to 8 bits are read as planes", value=sorted({one.planes for one in products}))
    return fsum(least_times(products, repeats).tolist())


def fit_planes(products: Sequence[PlaneProduct], seconds: Floats) -> PlaneChip:
    """Launch and bandwidth with the least squares of relative errors; every third product is held out."""
    sizes = np.array([one.size_B for one in products])
    held = np.arange(len(products)) % 3 == 2
    rows = np.stack([np.ones_like(sizes), sizes], axis=1) / seconds[:, None]
    (launch, per_byte), *_ = np.linalg.lstsq(rows[~held], np.ones(int((~held).sum())), rcond=None)
    if launch <= 0 or per_byte <= 0:
        fail("these times are no launch and no bandwidth", value=(float(launch), float(per_byte)), fix="Measure again.")
    errors = np.abs((launch + per_byte * sizes[held]) / seconds[held] - 1)
    return PlaneChip(float(launch), float(1 / per_byte), float(np.median(errors)), len(products), load_of_machine())


def calibrate_planes(repeats: int = REPEATS) -> PlaneChip:
    """Measure the grid and fit it."""
    grid = [PlaneProduct(*shape, planes) for planes in DEPTHS for shape in GRID]
    return fit_planes(grid, least_times([*grid] * _COPIES, repeats).reshape(_COPIES, -1).mean(0))


def chip_texts(chip: PlaneChip, name: str) -> dict[str, str]:
    """The component's and the chip's file, by name."""
    note = f"{chip.products} products of planes; held out: median error {100 * chip.held_out_error:.1f} %"
    told = 'kind: assumed, note: "counts in nothing that is foretold of products"'
    component = f"""# This machine, multiplying straight from planes on one thread. {note}.
type: gpu
description: "one thread that multiplies straight from planes"
multiprocessors: {{value: 1, {told}}}
clock: {{value: 1 GHz, {told}}}
peak_rate:
  bf16: {{value: 1000 GFLOP/s, kind: assumed, note: "bytes take longer"}}
vector_rate: {{value: 10 GFLOP/s, {told}}}
memory_bandwidth: {{value: {chip.bandwidth_B_per_s / 1e9:.5g} GB/s, kind: measured, source: calibration}}
memory_capacity: {{value: 16 GB, {told}}}
l2_capacity: {{value: 1 MB, {told}}}
l2_partitions: {{value: 1, {told}}}
compute_efficiency: {{value: 1, kind: assumed, note: "the rate is no measured one"}}
memory_efficiency: {{value: 1, kind: assumed, note: "the bandwidth is a measured one"}}
launch: {{value: {chip.launch_s * 1e6:.5g} us, kind: measured, source: calibration}}
operation_energy:
  fp32: {{value: 10 pJ, kind: assumed, note: "not measured"}}
  bf16: {{value: 10 pJ, kind: assumed, note: "not measured"}}
memory_energy: {{value: 10 pJ/bit, kind: assumed, note: "not measured"}}
idle_power: {{value: 1 W, kind: assumed, note: "not measured"}}
board_power: {{value: 65 W, kind: assumed, note: "not measured"}}
die_area: {{value: 400 mm^2, kind: assumed, note: "not known"}}
held_out_error:
  product_median: {{value: {chip.held_out_error:.5g}, kind: measured, source: calibration}}
"""
    whole = f"""# One thread of this machine over planes, calibrated at a load of {chip.load:.1f}.
schema: tierform.chip/1
name: {name}
description: "one thread that multiplies straight from planes of 2 to 8 bits"
package:
  kind: planar
  dies:
    - {{name: gpu, grid: [1, 1], holds: {{gpu: 1}}}}
components:
  gpu: {{file: {name}-gpu.yaml}}
precision: {{weights: bf16, activations: bf16, kv_cache: bf16, gradients: bf16, adapters: bf16}}
notes:
  - "{note}; products of integers of 2 to 8 bits alone are foretold, not wider ones and not what is between them"
"""
    return {f"{name}-gpu.yaml": component, f"{name}.yaml": whole}


def write_chip(chip: PlaneChip, name: str, folder: Path) -> list[Path]:
    """Write both files."""
    from tierform.files import write_text

    files = []
    for file, text in chip_texts(chip, name).items():
        write_text(folder / file, text)
        files.append(folder / file)
    return files
