"""From measured products to a chip file: fit on part, hold the rest out, write both files with the held-out error.

The result is a component of type ``gpu`` (a CPU is described in the same terms: its threads stand for multiprocessors,
its last-level cache for the L2).  A processor's products of few rows have a term of their own
(:mod:`tierform.chip.gpu.few_rows`); where there are enough of both, the general model is fitted on the others.
Attention is left to separate products and softmax: its fused kernels are not measured here.  Energies come from a file
of ``benchmarks/device.py`` that has them; else they follow from a board power that the user gives or that is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tierform.chip.gpu.device_file import Energies
from tierform.chip.gpu.few_rows import MOST_ROWS, FewRows, fit_few_rows
from tierform.chip.gpu.fit import Array, Fit, fit_products
from tierform.chip.gpu.gemm import FITTED
from tierform.chip.gpu.measure import WIDTH, Device
from tierform.chip.gpu.parameters import Sheet
from tierform.chip.gpu.samples import Sample, kept_apart
from tierform.errors import fail
from tierform.files import write_text

FIT_LIMIT = 650  # rows in a thousand that are fitted
LEAST_ROWS = 32
LEAST_GENERAL = 20  # rows to fit the general model apart from few rows
MANY = 1e6  # operands in turn
SMALL_TILES = [(1, 16), (1, 64), (2, 32), (4, 32), (8, 32)]  # a processor's kernels for few rows
TILES = [(16, 32), (16, 128), (32, 64), (32, 128), (64, 64), (64, 128), (128, 128), (128, 256), (256, 128)]
# Where the search begins: a device without surprises.
START = {
    "tensor_efficiency": 1.0,
    "memory_efficiency": 0.8,
    "launch": 3000.0,
    "prologue": 1000.0,
    "operand_feed": 0.05,
    "reduction": 4000.0,
    "overlap": 4.0,
    "step": 1.0,
    "reduction_bandwidth": 2.0,
    "l2_share": 0.8,
    "half_tile": 20.0,
    "epilogue": 16.0,
    "resident_outputs": 16384.0,
    "chosen_half_tile": 20.0,
    "chosen_reduction": 4000.0,
    "chosen_reduction_bandwidth": 2.0,
    "chosen_prologue": 1000.0,
    "miss_latency": 500.0,
    "miss_step": 0.0,
    "miss_prologue": 0.0,
    "smallest_grid": 0.0,
    "small_grid_reduction": 0.0,
    "sustained_efficiency": 1.15,
    "boost_time": 500000.0,
}
LEAST_TRUST = 0.5  # held-out 90th percentile above which a calibration is not to be relied on


@dataclass(frozen=True)
class Calibration:
    """A device, its fitted parameters and the rows behind them; `few_rows` where these have a term of their own."""

    device: Device
    fit: Fit
    fitted_rows: int
    held_out_rows: int
    held_out_shapes: tuple[tuple[int, ...], ...] = ()
    energies: Energies | None = None
    few_rows: FewRows | None = None

    def evidence(self, parameter: str) -> str:
        """Kind and source of a parameter, as a file says them."""
        if parameter in self.fit.fitted:
            return "kind: fitted, source: calibration"
        return 'kind: assumed, note: "where the search began; too few rows to fit it"'

    @property
    def held_out_median(self) -> float:
        """Median |relative error| over the rows held out."""
        return float(np.median(np.abs(self.fit.held_out_errors)))

    @property
    def held_out_percentile_90(self) -> float:
        """90th percentile of |relative error| over the rows held out."""
        return float(np.quantile(np.abs(self.fit.held_out_errors), 0.9))

    @property
    def few_rows_median(self) -> float | None:
        """Median |relative error| over held-out products of one to eight rows; None where there are none."""
        few = np.array([shape[0] <= MOST_ROWS for shape in self.held_out_shapes], bool)
        return float(np.median(np.abs(self.fit.held_out_errors[few]))) if few.any() else None

    @property
    def warning(self) -> str:
        """Why the figures are not to be relied on; empty when they are."""
        if self.held_out_percentile_90 <= LEAST_TRUST:
            return ""
        device, told = self.device, ""
        if device.load > 0.5 * device.cores:
            told = f": {device.load:.1f} processes wanted {device.cores} cores before it began"
        what = f"a tenth of the held-out products miss by more than {self.held_out_percentile_90 * 100:.0f} %"
        return f"Do not rely on this calibration: {what}{told}. Measure again on an idle machine, with --threads 1."


def calibrate(
    device: Device,
    samples: Sequence[Sample],
    *,
    seed: int = 0,
    weights_in_turn: float | None = None,
    energies: Energies | None = None,
) -> Calibration:
    """Fit the product model to the device's samples; TierformError when they are too few.

    `weights_in_turn`: with how many the samples were timed; one on a GPU, more than caches hold on a processor when
    left out.
    """
    turning = weights_in_turn or (1.0 if device.kind == "cuda" else MANY)
    if len(samples) < LEAST_ROWS:
        fail(
            f"{len(samples)} measured products are too few to calibrate a device",
            fix=f"At least {LEAST_ROWS} shapes are needed, spread over small and large ones.",
        )
    fit_rows, held = kept_apart(samples, FIT_LIMIT)
    few = fit_few_rows(fit_rows) if device.kind != "cuda" else None
    many, many_held = ([row for row in rows if few is None or row.shape[0] > MOST_ROWS] for rows in (fit_rows, held))
    if len(many) < LEAST_GENERAL or len(many_held) < 4:
        many, many_held = list(fit_rows), list(held)
    sheet = Sheet(device.threads, device.clock_Hz, device.peak_per_s, device.bandwidth_B_per_s, device.cache_B)
    fit = fit_products(
        sheet,
        many,
        many_held,
        START,
        TILES if device.kind == "cuda" else SMALL_TILES + TILES,
        None,
        copies=turning,
        input_B=WIDTH.get(device.format, 2.0),
        starts=2,
        seed=seed,
    )
    if few is not None:
        fitted_errors = _with_few(few, fit_rows, many, fit.fitted_errors)
        held_errors = _with_few(few, held, many_held, fit.held_out_errors)
        fit = replace(fit, fitted_errors=fitted_errors, held_out_errors=held_errors)
    shapes = tuple(row.shape for row in held)
    return Calibration(device, fit, len(fit_rows), len(held), held_out_shapes=shapes, energies=energies, few_rows=few)


def _with_few(few: FewRows, rows: Sequence[Sample], general: Sequence[Sample], errors: Array) -> Array:
    """Relative errors of all rows in order: of few rows by their own term, of the others by the general model."""
    known = {row.shape: error for row, error in zip(general, errors.tolist(), strict=True)}
    own = few.seconds([row.shape[0] for row in rows], [row.shape[1] * row.shape[2] for row in rows])
    return np.array(
        [
            float(time) / row.seconds - 1 if row.shape[0] <= MOST_ROWS else known[row.shape]
            for row, time in zip(rows, own, strict=True)
        ]
    )


def write_files(
    calibration: Calibration,
    name: str,
    folder: Path,
    board_power_W: float | None = None,
    in_step: float | None = None,
    few_in_step: Sequence[float] = (),
) -> list[Path]:
    """The component file and the chip file, ``<name>-gpu.yaml`` and ``<name>.yaml``, in `folder`.

    `in_step` is the measured time of kernels in a step over that of kernels alone; `few_in_step` that of products of
    1, 2, ... rows in a step of decoding.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        fail("a name is made of small letters, digits, dots and dashes", key="--name", value=name)
    component, chip = folder / f"{name}-gpu.yaml", folder / f"{name}.yaml"
    write_text(component, component_text(calibration, board_power_W, in_step, few_in_step))
    write_text(chip, _chip_text(calibration, name, component.name))
    return [component, chip]


def component_text(
    calibration: Calibration,
    board_power_W: float | None = None,
    in_step: float | None = None,
    few_in_step: Sequence[float] = (),
) -> str:
    """The component file's text."""
    device, form = calibration.device, calibration.device.format
    parameters = {name: calibration.fit.parameters[name] for name in FITTED}
    tiles = TILES if device.kind == "cuda" else SMALL_TILES + TILES
    told = f'kind: assumed, note: "as the system reports for {device.kind}"'
    lines = [
        f"# {_plain(device.name)}, calibrated: {calibration.fitted_rows} products fitted, "
        f"{calibration.held_out_rows} held out.",
        f"# Held out: median error {calibration.held_out_median * 100:.2f} %, "
        f"90th percentile {calibration.held_out_percentile_90 * 100:.2f} %.",
        "type: gpu",
        f'description: "{_plain(device.name)}, calibrated with {form} products"',
        f"multiprocessors: {{value: {device.threads}, {told}}}",
        f"clock: {{value: {device.clock_Hz / 1e9:.4g} GHz, {told}}}",
        *_peaks(calibration),
        f"memory_bandwidth: {_measured(f'{device.bandwidth_B_per_s / 1e9:.5g} GB/s')}",
        f"memory_capacity: {{value: {device.memory_B / 1e9:.5g} GB, {told}}}",
        f"l2_capacity: {{value: {device.cache_B / 1e6:.5g} MB, {told}}}",
        'l2_partitions: {value: 1, kind: assumed, note: "one cache"}',
        'compute_efficiency: {value: 0.8, kind: assumed, note: "vector kernels; not measured"}',
        'memory_efficiency: {value: 1, kind: assumed, note: "the bandwidth is a measured one"}',
        f"launch: {_measured(f'{0 if device.issue_s else device.launch_s * 1e6:.4g} us')}",
        *_own_kernels(device),
        *([] if in_step is None else [f"in_step_time: {_measured(f'{in_step:.5g}')}"]),
        *_powers(calibration, board_power_W),
        'die_area: {value: 400 mm^2, kind: assumed, note: "not known"}',
        "products:",
        *(f"  {name}: {{value: {value:.6g}, {calibration.evidence(name)}}}" for name, value in parameters.items()),
        f"  tiles: [{', '.join(f'[{rows}, {columns}]' for rows, columns in tiles)}]",
        *_few_rows(calibration.few_rows, few_in_step),
        "held_out_error:",
        f"  product_median: {_measured(f'{calibration.held_out_median:.5g}')}",
        f"  product_90: {_measured(f'{calibration.held_out_percentile_90:.5g}')}",
    ]
    return "\n".join(lines) + "\n"


def _few_rows(found: FewRows | None, in_step: Sequence[float]) -> list[str]:
    """The section of products of few rows."""
    if found is None:
        return []
    times = {"start": found.start_s, "first": found.first_s, "stream": found.stream_s, "row": found.row_s}
    lines = [
        f"  {name}: {{value: {1e12 * value:.6g} ps, kind: fitted, source: calibration}}"
        for name, value in times.items()
    ]
    if in_step:
        lines += ["  in_step:", *(f"    - {_measured(f'{factor:.4g}')}" for factor in in_step)]
    return ["few_rows:", f"  most: {MOST_ROWS}", *lines]


def _measured(value: str) -> str:
    return f"{{value: {value}, kind: measured, source: calibration}}"


def _peaks(calibration: Calibration) -> list[str]:
    """Rates of products by format and of vector units; formats that were not measured run as the main one."""
    device, form = calibration.device, calibration.device.format
    rates = dict(calibration.energies.rates) if calibration.energies is not None else {}
    rates[form] = device.peak_per_s
    lines = ["peak_rate:", *(f"  {name}: {_measured(f'{rate / 1e9:.6g} GFLOP/s')}" for name, rate in rates.items())]
    if form == "fp32":  # narrower formats are widened on a device without units for them
        lines += [
            f'  {wide}: {{value: {device.peak_per_s / 1e9:.6g} GFLOP/s, kind: assumed, note: "as fp32"}}'
            for wide in ("bf16", "fp16", "int8")
            if wide not in rates
        ]
    if "fp32" in rates:
        vector = f'{{value: {rates["fp32"] / 1e9:.6g} GFLOP/s, kind: assumed, note: "as products in fp32"}}'
    else:
        note = "not measured; as products in fp32, an eighth of products in 16 bits"
        vector = f'{{value: {device.peak_per_s / 8e9:.6g} GFLOP/s, kind: assumed, note: "{note}"}}'
    return [*lines, f"vector_rate: {vector}"]


def _powers(calibration: Calibration, board_power_W: float | None) -> list[str]:
    """Energies of operations and bytes, idle power, floor and limit: measured where the device's file has them."""
    device, found = calibration.device, calibration.energies or Energies()
    power = board_power_W or found.limit_W or (300.0 if device.kind == "cuda" else 65.0)
    evidence = "given by the user" if board_power_W else "not measured; typical of the class"
    spent = 0.8 * power / device.peak_per_s
    fitted = 'kind: fitted, source: calibration, note: "powers of kernels, least squares"'
    lines = ["operation_energy:"]
    given = dict(found.operation_J)
    for form in dict.fromkeys(("fp32", "bf16", *given)):
        if given.get(form):
            lines.append(f"  {form}: {{value: {given[form] * 1e12:.4g} pJ, {fitted}}}")
        else:
            lines.append(
                f'  {form}: {{value: {spent * 1e12:.4g} pJ, kind: assumed, note: "power at the peak rate: {evidence}"}}'
            )
    if found.byte_J:
        lines.append(f"memory_energy: {{value: {found.byte_J * 1e12:.4g} pJ/B, {fitted}}}")
    else:
        lines.append('memory_energy: {value: 10 pJ/bit, kind: assumed, note: "not measured"}')
    if found.idle_W is not None:
        lines.append(f"idle_power: {_measured(f'{found.idle_W:.4g} W')}")
    else:
        lines.append(f'idle_power: {{value: {0.15 * power:.4g} W, kind: assumed, note: "not measured"}}')
    if found.floor_W is not None:
        lines.append(f"active_power: {{value: {found.floor_W:.4g} W, {fitted}}}")
    if found.limit_W and not board_power_W:
        return [*lines, f"board_power: {_measured(f'{found.limit_W:.4g} W')}"]
    return [*lines, f'board_power: {{value: {power:.4g} W, kind: assumed, note: "{evidence}"}}']


def _own_kernels(device: Device) -> list[str]:
    """What a processor that issues its own kernels has: time of the host, times of light kernels, nothing fused."""
    if not device.issue_s:
        return []
    host = [
        f"{key}: {_measured(f'{s * 1e6:.4g} us')}" for key, s in (("issue", device.issue_s), ("view", device.view_s))
    ]
    lines = ["fusion: false", *host, "light_time:"]
    return lines + [f"  {name}: {_measured(f'{seconds * 1e9:.4g} ns')}" for name, seconds in device.light_s]


def _chip_text(calibration: Calibration, name: str, component: str) -> str:
    form = calibration.device.format
    plan = ", ".join(f"{part}: {form}" for part in ("weights", "activations", "kv_cache", "gradients", "adapters"))
    return "\n".join(
        [
            f"# {_plain(calibration.device.name)}, calibrated.",
            "schema: tierform.chip/1",
            f"name: {name}",
            f'description: "{_plain(calibration.device.name)}, calibrated"',
            "package:",
            "  kind: planar",
            "  dies:",
            "    - {name: gpu, grid: [1, 1], holds: {gpu: 1}}",
            "components:",
            f"  gpu: {{file: {component}}}",
            f"precision: {{{plan}}}",
            "notes:",
            f'  - "calibrated on {calibration.fitted_rows} products; on {calibration.held_out_rows} held out the '
            f"median error is {calibration.held_out_median * 100:.1f} %, the 90th percentile "
            f'{calibration.held_out_percentile_90 * 100:.1f} %"',
            *([f'  - "{calibration.warning}"'] if calibration.warning else []),
            "",
        ]
    )


def _plain(text: str) -> str:
    return re.sub(r"[\"\\\n\r:#{}\[\]]", " ", text).strip()
