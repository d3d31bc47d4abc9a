"""Inference techniques against published figures: checkpoint sizes, speed of quantized decoding, skipping.

- Footprints: the bytes of a model's weights in a format against the sizes of published checkpoint files.
- Speed-ups: decoding with quantized weights over decoding with 16 bits; each row is two simulations of one job that
  differ in the format (and in the runtime, where other kernels run).  Rows in which a constant of the runtime was
  fitted stand apart.  What passes or fails is the median error of the ratio over the held-out rows, and in how many of
  them the simulation says rightly whether decoding becomes faster or slower.
- Skipping: speed-ups of whole generations without some sublayers or layers against published ones, each of two
  simulations of one job; and how many attention sublayers of Llama-2 7B must be left out for the published speed-up of
  one-token generation.  Their weights are 17 of 32 sublayers' worth of it; attention itself only adds to that, so that
  more than 17 would be wrong.

With a folder, its ``techniques_footprints.csv``, ``techniques_speedups.csv`` and ``techniques_skipping.csv`` (where it
has one) take the place of the built-in ones.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

from tierform.errors import fail
from tierform.files import read_text
from tierform.simulation import simulate
from tierform.validation.ledger import EngineLedger, Point, Tolerance
from tierform.workload import Inference, Model, Parallelism, PrecisionPlan, expand, load_model
from tierform.workload.reduced import without

_TABLES = Path(__file__).parent / "tables"
_FOOTPRINT = Tolerance(relative=0.01)
_RATIO_BAR, _SIGN_BAR, _SKIPPING_BAR = 0.08, 0.95, 0.05
BY_BYTES, SKIP_SPEEDUP = 17, 1.21  # derived in docs/techniques.md; published (Tyukin, 2024)


def ledger(folder: Path | None = None) -> EngineLedger:
    """Every point computed anew; see the module's text."""
    where = folder or _TABLES
    points = [*_footprints(where), *_speedups(where)]
    if (where / "techniques_skipping.csv").exists():
        points += _skipping(where)
    if folder is None:
        points.append(_one_token())
    return EngineLedger("techniques", points, _REMARKS)


_REMARKS = (
    "Files hold metadata and a tokenizer beside weights; GPTQ files also an index of groups.",
    "Two published versions of one benchmark (torchao 0.2 and 0.5) differ by 11 % in the speed-up of int8.",
    "The rows of H100 were measured on a variant with 96 GB of HBM3, whose memory is faster than that of `h100`.",
    "Rows of TensorRT-LLM count the prompt's pass, as its benchmark does.",
    "Skipping was measured on an RTX 6000 Ada, of the L40S' die with a ninth more bandwidth; its batches are not told "
    "but for the largest that fit: here those that fit 48 GB.",
)


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    lines = [line for line in read_text(path).splitlines() if line and not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        fail(f"columns are missing: {', '.join(missing)}", file=str(path))
    return rows


def _number(row: dict[str, str], key: str, path: Path) -> float:
    try:
        return float(row[key])
    except (TypeError, ValueError):
        fail("a number is needed in this column", file=str(path), key=key, value=row.get(key))


def _plan(form: str, inputs: str = "") -> PrecisionPlan:
    plan = PrecisionPlan(master_weights=None)
    plan = plan.with_weights(form) if form else plan
    return replace(plan, matmul_inputs=inputs) if inputs else plan


def _footprints(folder: Path) -> Iterator[Point]:
    path = folder / "techniques_footprints.csv"
    for row in _rows(path, ("model", "format", "size_B", "source")):
        work = expand(load_model(row["model"]), Inference(precision=_plan(row["format"])))
        yield Point(
            case=f"{row['model']} {row['format']}",
            quantity="size of a checkpoint",
            unit="GB",
            reference=_number(row, "size_B", path) / 1e9,
            ours=work.footprint.weights / 1e9,
            tolerance=_FOOTPRINT,
            source=row["source"],
            evidence="published",
        )


_COLUMNS = ("model", "chip", "tensor", "batch", "sequence", "decode", "format", "runtime", "before", "after", "source")


def _speedups(folder: Path) -> Iterator[Point]:
    path = folder / "techniques_speedups.csv"
    found = []
    for row in _rows(path, _COLUMNS):
        numbers = tuple(int(_number(row, key, path)) for key in ("tensor", "batch", "sequence", "decode"))
        after = row.get("runtime_after") or row["runtime"]
        prompt = bool(row.get("prompt"))
        before_s = _token_s(row["model"], row["chip"], numbers, _plan(""), row["runtime"], prompt)
        plan = _plan(row["format"], row.get("inputs", ""))
        after_s = _token_s(row["model"], row["chip"], numbers, plan, after, prompt)
        found.append(
            Point(
                case=f"{row['case']}, {row['model']} on {row['chip']}, batch {row['batch']}",
                quantity="speed-up of quantized decoding",
                unit="ratio",
                reference=_number(row, "after", path) / _number(row, "before", path),
                ours=before_s / after_s,
                tolerance=None,
                source=row["source"],
                evidence="measured",
                fitted=bool(row.get("fitted")),
            )
        )
    yield from found
    held = [point for point in found if not point.fitted] or found
    errors = [abs(point.relative_error) for point in held]
    right = sum((point.ours > 1) == (point.reference > 1) for point in held) / len(held)
    for quantity, value, bar in (
        ("median |error| of a speed-up", median(errors), _RATIO_BAR),
        ("share of speed-ups of the wrong sign", 1 - right, 1 - _SIGN_BAR),
    ):
        yield Point(
            case=f"{len(held)} rows held out",
            quantity=quantity,
            unit="%",
            reference=0.0,
            ours=100 * value,
            tolerance=Tolerance(absolute=100 * bar),
            source="techniques_speedups.csv",
            evidence="measured",
        )


@cache
def _token_s(model: str, chip: str, numbers: tuple[int, ...], plan: PrecisionPlan, runtime: str, prompt: bool) -> float:
    """Seconds of a generated token in the mean, with the prompt's pass where it counts."""
    tensor, batch, sequence, decode = numbers
    task = Inference(batch=batch, sequence=sequence, decode=decode, prefill=prompt, precision=plan)
    result = simulate(model, task, chip, thermal="none", runtime=runtime, parallelism=Parallelism(tensor=tensor))
    return result.latency_s / decode


_SKIPPED = ("model", "chip", "batch", "sequence", "decode", "format", "kind", "skipped", "speedup", "source")


def _skipping(folder: Path) -> Iterator[Point]:
    """Whole generations without the last sublayers or layers of a kind."""
    path = folder / "techniques_skipping.csv"
    errors = []
    for row in _rows(path, _SKIPPED):
        batch, sequence, decode, number = (
            int(_number(row, key, path)) for key in ("batch", "sequence", "decode", "skipped")
        )
        model = load_model(row["model"])
        reduced = without(model, **{row["kind"]: f"{model.layers - number}-{model.layers - 1}"})
        task = Inference(batch=batch, sequence=sequence, decode=decode, precision=_plan(row["format"]))
        whole_s, reduced_s = (_whole_s(one, task, row["chip"]) for one in (model, reduced))
        yield (
            point := Point(
                case=f"{row['model']} without {number} {row['kind']}, batch {batch}",
                quantity="speed-up of skipping",
                unit="ratio",
                reference=_number(row, "speedup", path),
                ours=whole_s / reduced_s,
                tolerance=None,
                source=row["source"],
                evidence="measured",
            )
        )
        errors.append(abs(point.relative_error))
    yield Point(
        case=f"{len(errors)} rows held out",
        quantity="median |error| of a speed-up of skipping",
        unit="%",
        reference=0.0,
        ours=100 * median(errors),
        tolerance=Tolerance(absolute=100 * _SKIPPING_BAR),
        source="techniques_skipping.csv",
        evidence="measured",
    )


@cache
def _whole_s(model: Model, task: Inference, chip: str) -> float:
    return simulate(model, task, chip, thermal="none").latency_s


def _one_token() -> Point:
    """The number of attention sublayers of Llama-2 7B without which a token takes 1 / 1.21 of the time on an A100."""
    model = load_model("llama-2-7b")
    task = Inference(batch=1, sequence=128, decode=1, prefill=False, precision=_plan(""))

    def seconds(skipped: int) -> float:
        last = model.layers - 1
        reduced = without(model, attention=f"{last - skipped + 1}-{last}") if skipped else model
        return _whole_s(reduced, task, "a100")

    needed = next(number for number in range(1, model.layers) if seconds(0) / seconds(number) >= SKIP_SPEEDUP)
    return Point(
        case="llama-2-7b on a100, one token, without its last attention sublayers",
        quantity="sublayers for +21 % beyond those that bytes alone need",
        unit="sublayers",
        reference=0.0,
        ours=float(max(0, needed - BY_BYTES)),
        tolerance=Tolerance(absolute=0.5),
        source="tyukin-2024",
        evidence="closed form",
        note=f"needed are {needed}; bytes alone need {BY_BYTES}; the thesis' list of layers was not published",
    )
