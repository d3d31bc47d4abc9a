"""Data for the applications: public tables from a path the user gives, and made-up data of the same shape.

Two layouts are read.  A *series* is a wide CSV, one row per time and one column per station (with or without a header
and a first column of dates): wind speeds of Deep-Forecast, the ETT tables.  A *station table* is a long CSV with a
header, one row per time and station, with named feature columns and a target: the layout to which snow, weather and
county tables are brought (lines that begin with # are skipped, as the stations' exports have them).
Inputs and targets are scaled by the training rows' mean and deviation.  Limits: no missing values are made up; a table
with gaps is refused with the places of the first of them.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError, fail, nearest
from tierform.files import read_text
from tierform.workload.models import Model

MAX_TABLE_B = 2 * 2**30
MOST_PROBLEMS = 10
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs (samples, stations, features), targets (samples, outputs) and the scale of the targets, per output."""

    inputs: Floats
    targets: Floats
    scale: float
    unit: str = ""

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to learn from and samples to test on."""

    train: Samples
    test: Samples


def read_series(path: Path | str, columns: int | None = None) -> Floats:
    """A wide CSV as (times, stations); `columns` is the number of stations that must be there."""
    rows = _rows(path)
    first = rows[0][1]
    skip = 0 if _is_number(first[-1]) else 1
    dated = 1 if len(rows) > skip and not _is_number(rows[skip][1][0]) and len(rows[skip][1]) > 1 else 0
    return _numbers(path, rows[skip:], dated, len(first), columns)


def _rows(path: Path | str) -> list[tuple[int, list[str]]]:
    text = read_text(path, MAX_TABLE_B)
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    if not lines:
        fail("the table is empty", file=str(path))
    return [(number, row) for (number, _), row in zip(lines, csv.reader(line for _, line in lines), strict=True)]


def _numbers(
    path: Path | str, rows: Sequence[tuple[int, list[str]]], dated: int, width: int, columns: int | None
) -> Floats:
    problems: list[Problem] = []
    if columns is not None and width - dated != columns:
        problems.append(Problem(f"{columns} columns of values are needed", str(path), rows[0][0] if rows else None,
                                value=width - dated))  # fmt: skip
    values = np.empty((len(rows), width - dated), np.float32)
    for index, (line, row) in enumerate(rows):
        if len(row) != width:
            problems.append(Problem(f"the row has {len(row)} values, the first has {width}", str(path), line))
        else:
            for place, text in enumerate(row[dated:]):
                value = _number(text)
                if value is None:
                    what = "a value is missing or not a finite number"
                    problems.append(Problem(what, str(path), line, f"column {place + dated + 1}", text))
                else:
                    values[index, place] = value
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise TierformError(problems)
    if not len(values):
        fail("the table has no rows of values", file=str(path))
    return values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def series_samples(series: Floats, history: int, test: slice, horizon: int = 1, unit: str = "") -> Split:
    """Each sample's inputs are `history` values of every station, its targets all stations `horizon` rows later.

    Samples whose target row lies in `test` are tests; those whose rows touch both parts are left out of training.
    """
    span = history + horizon - 1
    first, last, _ = test.indices(len(series))
    if not 0 <= first < last or len(series) <= span or last - first <= span:
        fail("the test rows lie outside the table or are fewer than a sample needs", key="test",
             value=f"{test.start}..{test.stop}",
             fix=f"The table has {len(series)} rows, a sample spans {span + 1}.")  # fmt: skip
    rows = np.arange(len(series))
    inside = (rows >= first) & (rows < last)
    if inside.all():
        fail("no rows are left to learn from", key="test", value=f"{first}..{last}")
    mean, scale = float(series[~inside].mean()), float(series[~inside].std()) or 1.0
    scaled = ((series - mean) / scale).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(scaled, history, axis=0)
    ends = np.arange(span, len(series))  # row of each target
    starts = ends - span
    tests = inside[ends] & inside[starts]
    trains = ~inside[ends] & ~inside[starts] & ((ends < first) | (starts >= last))
    if not trains.any():
        fail("no sample lies wholly outside the test rows", key="test", value=f"{first}..{last}")

    def take(mask: NDArray[np.bool_]) -> Samples:
        return Samples(np.ascontiguousarray(windows[starts[mask]]), scaled[ends[mask]], scale, unit)

    return Split(take(trains), take(tests))


def read_stations(
    path: Path | str, model: Model, *, time: str = "date", station: str = "station", target: str = "target",
    features: Sequence[str] = (), test_times: Sequence[str] = (),
) -> Split:  # fmt: skip
    """A long CSV as samples of one time each; `test_times` are prefixes of times that are tests (such as years).

    `features` are the input columns, in order (all others when none are named): as many as the model's input size.
    Times at which a station is missing are refused.
    """
    rows = _rows(path)
    line, head = rows[0]
    named = list(features) or [name for name in head if name not in (time, station, target)]
    problems = [
        Problem("the table has no such column", str(path), line, name, nearest=nearest(name, head))
        for name in (time, station, target, *named) if name not in head
    ]  # fmt: skip
    if len(named) != model.input_size:
        problems.append(Problem(f"{model.name} needs {model.input_size} feature columns", str(path), line,
                                "features", len(named)))  # fmt: skip
    if problems:
        raise TierformError(problems)
    at = {name: head.index(name) for name in (time, station, target, *named)}
    order = [at[target], *(at[name] for name in named)]
    for number, row in rows[1:]:
        if len(row) != len(head):
            problems.append(Problem(f"the row has {len(row)} values, the header {len(head)}", str(path), number))
            if len(problems) >= MOST_PROBLEMS:
                break
    if problems:
        raise TierformError(problems)
    values = _numbers(path, [(number, [row[i] for i in order]) for number, row in rows[1:]], 0, len(order), None)
    stations = sorted({row[at[station]] for _, row in rows[1:]})
    if len(stations) != model.fixed_tokens:
        fail(f"{model.name} needs {model.fixed_tokens} stations", file=str(path), key=station, value=len(stations))
    times = sorted({row[at[time]] for _, row in rows[1:]})
    place = {name: index for index, name in enumerate(stations)}
    moment = {name: index for index, name in enumerate(times)}
    table = np.full((len(times), len(stations), len(order)), np.nan, np.float32)
    for (_, row), one in zip(rows[1:], values, strict=True):
        table[moment[row[at[time]]], place[row[at[station]]]] = one
    holes = np.argwhere(np.isnan(table[:, :, 0]))
    if len(holes):
        raise TierformError(
            Problem("no row for this station at this time", str(path), key=stations[s], value=times[t])
            for t, s in holes[:MOST_PROBLEMS]
        )
    tests = np.array([any(name.startswith(prefix) for prefix in test_times) for name in times])
    if tests.all() or not tests.any():
        fail("the test times leave no samples to learn from, or none to test on", key="test_times",
             value=list(test_times))  # fmt: skip
    return _scaled(table, tests)


def _scaled(table: Floats, tests: NDArray[np.bool_]) -> Split:
    mean, scale = table[~tests].mean((0, 1)), table[~tests].std((0, 1))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    scaled = (table - mean) / scale

    def take(mask: NDArray[np.bool_]) -> Samples:
        return Samples(np.ascontiguousarray(scaled[mask][:, :, 1:]), scaled[mask][:, :, 0], float(scale[0]))

    return Split(take(~tests), take(tests))


def synthetic(model: Model, samples: int = 256, tests: int = 64, seed: int = 0) -> Split:
    """Made-up samples of a model's shape: the target is a smooth function of a station and its neighbours, with noise.

    The inputs are a few slow waves over stations and features, so that a model can learn them.
    """
    rng = np.random.default_rng(seed)
    stations, features, outputs = model.fixed_tokens, model.input_size, model.decoder_widths[-1]
    count = samples + tests
    waves = rng.standard_normal((4, stations)) / 2
    shapes = rng.standard_normal((4, features)) / 2
    amounts = rng.standard_normal((count, 4))
    inputs = np.einsum("ck,ks,kf->csf", amounts, waves, shapes) + 0.1 * rng.standard_normal((count, stations, features))
    weights = rng.standard_normal(features) / math.sqrt(features)
    own = np.tanh(inputs @ weights)
    targets = (own + 0.5 * np.roll(own, 1, axis=1))[:, :outputs] + 0.05 * rng.standard_normal((count, outputs))
    deviation = targets[:samples].std() or 1.0
    inputs, targets = inputs.astype(np.float32), (targets / deviation).astype(np.float32)
    first = Samples(inputs[:samples], targets[:samples], float(deviation), "made up")
    return Split(first, Samples(inputs[samples:], targets[samples:], float(deviation), "made up"))
