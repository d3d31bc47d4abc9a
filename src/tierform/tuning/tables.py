"""Samples for the applications: from records that a user brings, and made up in the same shape.

A sample of a *series* is some past values of every station and, as targets, all stations' values some rows later.  A
sample of *station records* is, for every station, named columns at the target's time and past values of the target.
Inputs and targets are scaled by the training rows' mean and deviation.  Gaps are refused unless the user says how they
are to be met: times at which any station lacks a value are left out, or a station's last value is carried forward.
Limits: no sample spans a time that was left out; the split is by time only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tierform.arrays import Singles
from tierform.errors import Problem, TierformError, fail, nearest
from tierform.tuning.records import MOST_PROBLEMS, Records, read_records, read_series
from tierform.workload.models import Model

Gaps = Literal["refuse", "drop", "carry"]


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs (samples, stations, features), targets (samples, outputs) and the scale of the targets, per output."""

    inputs: Singles
    targets: Singles
    scale: float
    unit: str = ""

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, slots=True)
class Split:
    """Samples to learn from and samples to test on."""

    train: Samples
    test: Samples


def series_samples(series: Singles, history: int, test: slice, horizon: int = 1, unit: str = "") -> Split:
    """Each sample's inputs are `history` values of every station, its targets all stations `horizon` rows later.

    Samples whose target row lies in `test` are tests; those whose rows touch both parts are left out of training.
    """
    span = history + horizon - 1
    first, last, _ = test.indices(len(series))
    if not 0 <= first < last or len(series) <= span or last - first <= span:
        fail(
            "the test rows lie outside the table or are fewer than a sample needs",
            key="test",
            value=f"{test.start}..{test.stop}",
            fix=f"The table has {len(series)} rows, a sample spans {span + 1}.",
        )
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
    path: Path | str,
    model: Model,
    *,
    time: str = "date",
    station: str = "station",
    target: str = "target",
    features: Sequence[str] = (),
    test_times: Sequence[str] = (),
    history: int = 0,
    only: Sequence[str] = (),
    choose: bool = False,
    gaps: Gaps = "refuse",
    marks: Collection[str] = (),
    difference: bool = False,
) -> Split:
    """Samples of a model from :func:`tierform.tuning.records.read_records`; `test_times` are prefixes of test times.

    Inputs are the `features` at a time (without `history`, all other columns when none are named) and the target's
    `history` values before it: together as many as the model's input size.  `only` names the stations, `choose` takes
    those with the fewest gaps.  `marks` are further texts of missing values.  `difference` takes the target's change
    from the time before (counts that only grow).
    """
    asked = [target, *features] if features or history else []
    allowed = None if gaps == "refuse" else marks
    records = read_records(path, asked, time=time, station=station, needed=[target], gaps=allowed)
    if target not in records.columns:
        near = nearest(target, records.columns)
        fail(
            "the table has no such column",
            file=str(path),
            key=target,
            fix=f"Did you mean {near!r}?" if near else f"It has {', '.join(records.columns)}.",
        )
    named = list(features) or ([] if history else [one for one in records.columns if one != target])
    if len(named) + history != model.input_size:
        fail(
            f"{model.name} needs {model.input_size} inputs of each station",
            file=str(path),
            key="features",
            value=len(named) + history,
            fix="Name feature columns, or take past values with history.",
        )
    order = [records.columns.index(name) for name in (target, *named)]
    kept = _stations(records, model, path, only, choose)
    table = records.values[:, kept, :][:, :, order]
    if gaps == "carry":
        for row in range(1, len(table)):
            table[row] = np.where(np.isnan(table[row]), table[row - 1], table[row])
    if difference:
        table[1:, :, 0] -= table[:-1, :, 0].copy()
        table[0, :, 0] = np.nan
    whole = np.asarray(np.isfinite(table).all(axis=(1, 2)), np.bool_)
    if gaps == "refuse" and not whole[1 if difference else 0 :].all():
        holes = np.argwhere(np.isnan(records.values[:, kept]).any(2))[:MOST_PROBLEMS]
        raise TierformError(
            Problem(
                "no row for this station at this time",
                str(path),
                key=records.stations[kept[s]],
                value=records.times[t],
                fix="Set gaps to drop or carry.",
            )
            for t, s in holes
        )
    return _station_samples(table, whole, records.times, test_times, history)


def _stations(records: Records, model: Model, path: Path | str, only: Sequence[str], choose: bool) -> list[int]:
    if only:
        problems = [
            Problem(
                "the table has no such station",
                str(path),
                key="only",
                value=name,
                nearest=nearest(name, records.stations),
            )
            for name in only
            if name not in records.stations
        ]
        if problems:
            raise TierformError(problems[:MOST_PROBLEMS])
        found = [records.stations.index(name) for name in only]
    else:
        found = list(range(len(records.stations)))
        if choose:
            missing = np.isnan(records.values).any(2).sum(0)
            found = sorted(int(one) for one in np.argsort(missing, kind="stable")[: model.fixed_tokens])
    if len(found) != model.fixed_tokens:
        fail(
            f"{model.name} needs {model.fixed_tokens} stations",
            file=str(path),
            key="station",
            value=len(found),
            fix="Name them with only, or let choose take those with the fewest gaps.",
        )
    return found


def _station_samples(
    table: Singles, whole: NDArray[np.bool_], times: Sequence[str], test_times: Sequence[str], history: int
) -> Split:
    is_test = np.array([any(name.startswith(prefix) for prefix in test_times) for name in times])
    ends = np.arange(history, len(times))
    spans = ends[:, None] + np.arange(-history, 1)
    good = whole[spans].all(1)
    tests, trains = good & is_test[spans].all(1), good & ~is_test[spans].any(1)
    if not tests.any() or not trains.any():
        fail(
            "the test times leave no samples to learn from, or none to test on",
            key="test_times",
            value=list(test_times),
        )
    learned = table[whole & ~is_test]
    mean, scale = learned.mean((0, 1)), learned.std((0, 1))
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    scaled = (table - mean) / scale

    def take(mask: NDArray[np.bool_]) -> Samples:
        rows = ends[mask]
        past = scaled[rows[:, None] + np.arange(-history, 0), :, 0].transpose(0, 2, 1)
        inputs = np.concatenate((scaled[rows][:, :, 1:], past), axis=2)
        return Samples(np.ascontiguousarray(inputs, np.float32), scaled[rows][:, :, 0], float(scale[0]))

    return Split(take(trains), take(tests))


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


__all__ = ["Gaps", "Samples", "Split", "read_series", "read_stations", "series_samples", "synthetic"]
