"""GPUs against measured kernels: products, fused attention, collectives; fitted and held-out rows apart.

Built in is a selection of public measurements (AIConfigurator's tables; products of another laboratory from the
LLMCompass artifact), chosen by their shapes' hash alone.  With a folder, its ``*_gemm.csv``, ``*_attention.csv``,
``*_nccl.csv`` and ``*_operators.csv`` are used; the column `device` picks the chip of the library.

Products and attention are operators of a chip of the library and cost what `simulate` charges for them, with as many
weights in turn as the benchmark had; attention is fused.  No operator may use more than its unit's peak.  Collectives
are the fitted model's.

Single kernels are shown for information; what passes or fails is the median and the 90th percentile over the held-out
rows of each chip and operator.  For chips that were never fitted (L40S with the A100's parameters, fp8 of the H100 with
the H200's) every row is held out.  A plain roofline's error on the same rows stands beside ours.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from tierform.chip.description import Chip, load_chip
from tierform.chip.gpu.device import Gpu
from tierform.chip.gpu.samples import Sample, SampleKind, read_samples
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text
from tierform.validation.kernels import charged, collective_seconds, roofline, seconds_of
from tierform.validation.ledger import EngineLedger, Point, Tolerance

_TABLE = Path(__file__).parent / "tables" / "gpu_kernels.csv"
DEVICES = {
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA B200": "b200",
    "NVIDIA L40S": "l40s",
    "NVIDIA GB200": "gb200",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtx-pro-6000",
    "NVIDIA A100 80GB PCIe": "a100-pcie",
    "Tesla T4": "t4",
    "NVIDIA L4": "l4",
    "AMD Instinct MI210": "mi210",
}
# Rows in a thousand that belong to the fit of a chip's parameters (see `Sample.in_fit_set`).
FIT_LIMITS: dict[tuple[str, str], int] = {
    ("a100", "product"): 100,
    ("h200", "product"): 26,
    ("h100", "product"): 26,
    ("b200", "product"): 26,
    ("a100", "prefill"): 150,
    ("a100", "decode"): 150,
    ("h200", "prefill"): 80,
    ("h200", "decode"): 80,
    ("a100", "collective"): 500,
    ("h100", "collective"): 500,
    ("b200", "collective"): 500,
}
# The same for the 8-bit products of a chip.
NARROW_FIT_LIMITS = {"h200": 26, "b200": 26, "rtx-pro-6000": 26}
WIDE_FIT_LIMIT = 500  # the same for fp32 products, of every chip that has their kernels
# (median, 90th percentile) of |relative error| that held-out rows may have; None: shown only.
BARS: dict[tuple[str, str], tuple[float, float | None]] = {
    ("a100", "product"): (0.05, 0.18),
    ("h200", "product"): (0.07, None),
    ("h100", "product"): (0.07, None),
    ("b200", "product"): (0.10, None),
    ("l40s", "product"): (0.15, None),
    ("a100", "prefill"): (0.05, None),
    ("a100", "decode"): (0.05, None),
    ("h100", "prefill"): (0.06, None),
    ("h100", "decode"): (0.06, None),
    ("a100", "collective"): (0.10, None),
    ("h100", "collective"): (0.12, None),
    ("h200", "collective"): (0.12, None),
    ("b200", "collective"): (0.15, None),
}
# Of 8-bit products: over all rows, and for each size class of the chips that were fitted.
NARROW_BARS = {"h200": 0.12, "b200": 0.12, "rtx-pro-6000": 0.12, "h100": 0.20, "gb200": 0.20, "l40s": 0.20}
NARROW_CLASS_BARS = {"h200": 0.18, "b200": 0.18, "rtx-pro-6000": 0.18}
# Of fp32 products.
WIDE_BARS = {"a100-pcie": 0.06, "h100": 0.06, "t4": 0.08, "l4": 0.10, "mi210": 0.10}
_SIZES = ((16, "m 1-16"), (64, "m 17-64"), (256, "m 65-256"), (1024, "m 257-1024"), (10**9, "m over 1024"))
_WEIGHTS_IN_TURN = 6.0  # AIConfigurator's benchmark: small weights stay in the L2, large ones do not
_OTHER_LABORATORY = "NVIDIA A100 (LLMCompass)"


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    samples = _built_in() if folder is None else _folder(folder)
    groups: dict[tuple[str, str, str, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.device, sample.kind, sample.format, _found(sample)), []).append(sample)
    points: list[Point] = []
    bars: list[Point] = []
    for (device, *_), members in groups.items():
        single, verdicts = _compared(_chip_of(device), device, members)
        points += single
        bars += verdicts
    return EngineLedger("gpu", [*points, *bars], _REMARKS)


_REMARKS = (
    "Products and attention: vLLM in CUDA graphs, six weights in turn; attention includes the append to a paged cache.",
    "fp8 products (vLLM's, one scale for the tensor) include the kernel that narrows their input; where the scale is "
    "found on the run, as in tables before vLLM 0.18, two kernels more.  Block-scaled fp8 is another kernel.",
    "L40S products use the A100's parameters: only data-sheet figures are exchanged; fp8 of H100 and L40S uses the "
    "H200's, with the tiles of their own kernels.",
    "Large fp8 products of the B200 reach 1.0 to 1.8 of 4.5 PFLOP/s, no more than its bf16 ones.",
    "fp32 products (TF32 off; NeuSight's, one weight) of at least 10 GFLOP; some 20 to 40 us of starting are in them.",
    "Rows of the other laboratory (LLMCompass) include about 20 us of launch in small shapes.",
)


def _compared(chip: str, device: str, samples: list[Sample]) -> tuple[list[Point], list[Point]]:
    kind, form = samples[0].kind, samples[0].format
    other = device == _OTHER_LABORATORY
    wide = form == "fp32"  # NeuSight's: one weight, again and again
    loaded = _turning(_chip(chip), 1.0 if other or wide else _WEIGHTS_IN_TURN)
    gpu = _gpu(loaded)
    limit = _fit_limit(chip, kind, form) if not other else 0
    costs = [] if kind == "collective" else charged(loaded, samples)
    ours = [seconds_of(kernels) for kernels in costs] if costs else collective_seconds(gpu, samples).tolist()
    source = "llmcompass-2024" if other else "neusight-2025" if wide else "aiconfigurator"
    label = f"{'A100 elsewhere' if other else chip.upper()} {kind} {form}"
    label += f", {_found(samples[0])}" if _found(samples[0]) else ""
    points = []
    for sample, seconds in zip(samples, ours, strict=True):
        name = "x".join(str(number) for number in sample.shape)
        points.append(
            Point(
                case=f"{chip} {sample.operation or kind} {name}",
                quantity=f"{label}, {_size_class(sample)}",
                unit="us",
                reference=sample.seconds * 1e6,
                ours=seconds * 1e6,
                tolerance=None,
                source=source,
                evidence="measured",
                fitted=sample.in_fit_set(limit),
            )
        )
    verdicts = list(_verdicts(gpu, chip, label, samples, points, source))
    if costs:
        most = 100 * max(cost.utilization for kernels in costs for cost in kernels)
        every = f"{label}: {len(samples)} rows"
        verdicts.append(
            Point(
                case=every,
                quantity="highest utilization",
                unit="%",
                reference=0.0,
                ours=most,
                tolerance=Tolerance(absolute=100),
                source=source,
                evidence="measured",
            )
        )
    return points, verdicts


def _verdicts(
    gpu: Gpu, chip: str, label: str, samples: list[Sample], points: list[Point], source: str
) -> Iterator[Point]:
    """Median and 90th percentile over the held-out rows, and a plain roofline's beside them."""
    kind, form = samples[0].kind, samples[0].format
    for fitted in (True, False):
        places = [place for place, point in enumerate(points) if point.fitted is fitted]
        if not places:
            continue
        errors = np.array([points[place].relative_error for place in places])
        bar = None if fitted or "elsewhere" in label else _bar(chip, kind, form)
        rows = f"{label}: {len(places)} rows {'of the fit' if fitted else 'held out'}"

        def verdict(what: str, value: float, most: float | None, rows: str = rows, fitted: bool = fitted) -> Point:
            tolerance = Tolerance(absolute=most * 100) if most is not None else None
            return Point(
                case=rows,
                quantity=what,
                unit="%",
                reference=0.0,
                ours=value * 100,
                tolerance=tolerance,
                source=source,
                evidence="measured",
                fitted=fitted,
            )

        median = float(np.median(np.abs(errors)))
        yield verdict("median |error|", median, bar[0] if bar else None)
        yield verdict("90th percentile |error|", float(np.quantile(np.abs(errors), 0.9)), bar[1] if bar else None)
        yield verdict("bias", float(np.median(errors)), None)
        if form == "fp8" and kind == "product" and chip in NARROW_CLASS_BARS and not fitted:
            for _, size in _SIZES:
                inside = [points[place].relative_error for place in places if _size_class(samples[place]) == size]
                if inside:
                    rows = f"{label}, {size}: {len(inside)} rows held out"
                    yield verdict("median |error|", float(np.median(np.abs(inside))), NARROW_CLASS_BARS[chip], rows)
        if kind == "collective" or fitted:
            continue
        measured = np.array([samples[place].seconds for place in places])
        chosen = [samples[place] for place in places]
        for what, efficiency, launch_s in (
            ("median |error| of a plain roofline", 1.0, 0.0),
            ("median |error| of a roofline at 80 % with 4 us", 0.8, 4e-6),
        ):
            naive = np.abs(roofline(gpu, chosen, efficiency, launch_s) / measured - 1)
            yield verdict(what, float(np.median(naive)), None)


def _found(sample: Sample) -> str:
    """What a product's measurement held beside it."""
    return sample.operation if sample.kind == "product" else ""


def _fit_limit(chip: str, kind: str, form: str) -> int:
    if form == "fp8":
        return NARROW_FIT_LIMITS.get(chip, 0) if kind == "product" else 0
    if form == "fp32":
        return WIDE_FIT_LIMIT if chip in WIDE_BARS else 0
    return FIT_LIMITS.get((chip, kind), 0)


def _bar(chip: str, kind: str, form: str) -> tuple[float, float | None] | None:
    if form == "fp8":
        return (NARROW_BARS[chip], None) if kind == "product" and chip in NARROW_BARS else None
    if form == "fp32":
        return (WIDE_BARS[chip], None) if chip in WIDE_BARS else None
    return BARS.get((chip, kind))


def _size_class(sample: Sample) -> str:
    if sample.kind == "product":
        return next(text for most, text in _SIZES if sample.shape[0] <= most)
    if sample.kind == "collective":
        return sample.operation
    tokens = sample.shape[1] + sample.shape[2]
    return "up to 512 keys" if tokens <= 512 else "up to 4096 keys" if tokens <= 4096 else "over 4096 keys"


def _chip_of(device: str) -> str:
    if device == _OTHER_LABORATORY:
        return "a100"
    if device not in DEVICES:
        known = ", ".join(DEVICES)
        fail(
            "no chip of the library is this device", key="device", value=device, choices=DEVICES, fix=f"Known: {known}."
        )
    return DEVICES[device]


@cache
def _chip(name: str) -> Chip:
    return load_chip(name)


def _turning(chip: Chip, weights: float) -> Chip:
    """The chip in a benchmark that uses so many weights in turn."""
    parts = {n: replace(p, weights_in_turn=weights) if isinstance(p, Gpu) else p for n, p in chip.components.items()}
    return replace(chip, components=parts)


def _gpu(chip: Chip) -> Gpu:
    return next(part for part in chip.components.values() if isinstance(part, Gpu))


def _built_in() -> Iterator[Sample]:
    lines = [line for line in read_text(_TABLE).splitlines() if not line.startswith("#")]
    names = {chip: device for device, chip in DEVICES.items()} | {"a100-llmcompass": _OTHER_LABORATORY}
    kinds: dict[str, SampleKind] = {
        "product": "product",
        "prefill": "prefill",
        "decode": "decode",
        "collective": "collective",
    }
    for row in csv.DictReader(lines):
        shape = tuple(int(number) for number in row["shape"].split())
        yield Sample(
            names[row["chip"]],
            kinds[row["kind"]],
            row["format"],
            shape,
            float(row["latency_us"]) * 1e-6,
            row["operation"],
        )


def _folder(folder: Path) -> list[Sample]:
    files = sorted(folder.glob("*.csv"))
    if not files:
        fail("no CSV files of measured kernels here", file=str(folder), fix="For example a100_gemm.csv.")
    samples: list[Sample] = []
    problems: list[Problem] = []
    for file in files:
        default = _OTHER_LABORATORY if file.name.endswith("_operators.csv") else ""
        try:
            found = read_samples(file, default, repeats=True)
        except TierformError as error:
            problems += error.problems
            continue
        problems += _unknown(file, found)
        samples += found
    if problems:
        raise TierformError(problems)
    return samples


def _unknown(file: Path, samples: Iterable[Sample]) -> list[Problem]:
    wrong = sorted({s.device for s in samples} - {*DEVICES, _OTHER_LABORATORY})
    return [
        Problem(
            what="no chip of the library is this device",
            file=str(file),
            line=None,
            key="device",
            value=name,
            nearest=nearest(name, DEVICES),
            fix=f"Known: {', '.join(DEVICES)}.",
        )
        for name in wrong
    ]
