"""Measured tables of one GPU and model as an oracle: times of layers by tokens, of attention by what it attends.

The tables are those that a profiler of serving kernels writes: ``dense.csv`` (layer, tokens, time_us),
``per_sequence.csv`` (layer, sequences, time_us), ``attention.csv`` (prefill_chunk, kv_prefill, n_decode, kv_decode,
time_us) and, where unequal contexts were measured, ``skew.csv``.  Between points everything is linear.  Attention of a
step with several chunks of prompts is that of as many equal chunks of their mean size; decodes of
unequal contexts take alpha of the way from the time at their mean to the time at the longest, with alpha by the number
of decodes fitted to ``skew.csv``; a profile whose ``meta.yaml`` turns its skew off (``skew_fit: {enabled: false}``) is
used without.  Limits: one chip; no energy is known.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError, fail
from tierform.files import read_text, read_yaml
from tierform.serving.kernel_oracle import JOINT
from tierform.serving.oracle import StepCost, StepShape, line, packed_cost

Floats = NDArray[np.float64]
# How often a layer's kernel runs in a block of the model; those of no block run once a step.
IN_BLOCK = {
    "layernorm": 2,
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
ONCE = ("embedding", "final_layernorm")
BETWEEN = 8  # points of the chunk for each that was measured
AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")


NO_SKEW = (np.zeros(1), np.zeros(1))


@dataclass(frozen=True)
class TableOracle:
    """Step times from measured tables; made by :func:`load_tables`."""

    layers: int
    tokens: tuple[Floats, Floats]  # grid, seconds of all layers that go by tokens
    sequences: tuple[Floats, Floats]
    grids: tuple[Floats, Floats, Floats, Floats]
    attention: Floats  # seconds of one layer over the four grids
    skew: tuple[tuple[Floats, Floats], tuple[Floats, Floats]] = (NO_SKEW, NO_SKEW)  # without chunks, with some
    step_s: float = 0.0
    components: tuple[str, ...] = ()

    def packed(self) -> Floats:
        """Its numbers for the compiled loop."""
        return np.concatenate(
            [
                [JOINT, 0],
                line(self.tokens[0], self.tokens[1] + self.step_s),
                line(*self.sequences),
                [self.layers],
                line(*self.skew[0]),
                line(*self.skew[1]),
                [len(grid) for grid in self.grids],
                *self.grids,
                self.attention.ravel(),
            ]
        )

    def cost(self, step: StepShape) -> StepCost:
        """Seconds of a step."""
        return packed_cost(self.packed(), step)


def load_tables(folder: str | Path, layers: int) -> TableOracle:
    """The oracle of a folder of measured tables, for a model of `layers` blocks."""
    folder = Path(folder)
    dense = _by_layer(folder / "dense.csv", "tokens")
    heads = _by_layer(folder / "per_sequence.csv", "sequences")
    unknown = sorted(set(dense) - {*IN_BLOCK, *ONCE})
    missing = sorted({*IN_BLOCK, *ONCE} - set(dense))
    if unknown or missing:
        what = f"layers {', '.join(unknown)} are not known" if unknown else f"layers {', '.join(missing)} are missing"
        fail(what, file=str(folder / "dense.csv"))
    grid = _one_grid(dense, folder / "dense.csv")
    times = {name: np.array([table[int(one)] for one in grid]) for name, table in dense.items()}
    by_tokens = np.zeros(len(grid))
    for name, often in IN_BLOCK.items():
        by_tokens += layers * often * times[name]
    for name in ONCE:
        by_tokens += times[name]
    rows = _one_grid(heads, folder / "per_sequence.csv")
    by_rows = sum((np.array([table[int(one)] for one in rows]) for table in heads.values()), np.zeros(len(rows)))
    grids, attention = _attention(folder / "attention.csv")
    skew = folder / "skew.csv"
    return TableOracle(
        layers=layers,
        tokens=(grid, by_tokens),
        sequences=(rows, by_rows),
        grids=grids,
        attention=attention,
        skew=fitted_skew(skew) if skew.is_file() and _skewed(folder / "meta.yaml") else (NO_SKEW, NO_SKEW),
    )


def _skewed(meta: Path) -> bool:
    """Whether the profile says that its skew is to be used; one that says nothing does not object."""
    if not meta.is_file():
        return True
    content = read_yaml(meta).content
    fit = content.get("skew_fit") if isinstance(content, dict) else None
    return not (isinstance(fit, dict) and fit.get("enabled") is False)


def fitted_skew(path: Path) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The alphas that bring decodes of unequal contexts nearest to what was measured, by the number of decodes.

    A line for steps of decodes alone and one for steps with chunks of prompts (least squares of times).  How many
    sequences a kernel's blocks share among the processors decides what an unequal one costs, so alpha goes by number.
    """
    rows = _rows(path, ("n", "pc", "t_mean_us", "t_max_us", "t_skew_us"))
    found = []
    for chosen in (rows[rows[:, 1] == 0], rows[rows[:, 1] > 0]):
        numbers = np.unique(chosen[:, 0])
        alphas = [_alpha(chosen[chosen[:, 0] == number]) for number in numbers]
        found.append((numbers, np.array(alphas)) if len(numbers) else NO_SKEW)
    return found[0], found[1]


def _alpha(rows: Floats) -> float:
    mean, longest, unequal = rows[:, 2:].T
    spread = ((longest - mean) ** 2).sum()
    return float(max(0.0, ((unequal - mean) * (longest - mean)).sum() / spread)) if spread else 0.0


def _rows(path: Path, columns: tuple[str, ...]) -> Floats:
    """Numbers of a CSV file; a bad line is refused with its number."""
    reader = csv.reader(read_text(path, 256 * 2**20).splitlines())
    head = next(reader, [])
    problems = [Problem("this column is missing", str(path), 1, name) for name in columns if name not in head]
    if problems:
        raise TierformError(problems)
    places = [head.index(name) for name in columns]
    found = []
    for number, cells in enumerate(reader, 2):
        try:
            found.append([float(cells[place]) for place in places])
        except (ValueError, IndexError):
            problems.append(Problem(f"numbers are needed: {', '.join(columns)}", str(path), number))
    if problems:
        raise TierformError(problems[:20])
    return np.array(found).reshape(-1, len(columns))


def _by_layer(path: Path, axis: str) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = defaultdict(dict)
    rows = _rows(path, (axis, "time_us"))
    reader = csv.DictReader(read_text(path).splitlines())
    for line_, (place, microseconds) in zip(reader, rows, strict=True):
        found[line_["layer"]][int(place)] = microseconds * 1e-6
    return found


def _one_grid(tables: dict[str, dict[int, float]], path: Path) -> Floats:
    grids = {tuple(sorted(table)) for table in tables.values()}
    if len(grids) != 1:
        fail("every layer needs the same points", file=str(path))
    return np.array(grids.pop(), float)


def _attention(path: Path) -> tuple[tuple[Floats, Floats, Floats, Floats], Floats]:
    rows = _rows(path, (*AXES, "time_us"))
    grids = tuple(np.unique(rows[:, axis]) for axis in range(4))
    places = [np.searchsorted(grid, rows[:, axis]) for axis, grid in enumerate(grids)]
    table = np.full([len(grid) for grid in grids], np.nan)
    table[tuple(places)] = rows[:, 4] * 1e-6
    table = _filled(table)
    chunks, table = _finer(grids[0], table)
    return (chunks, grids[1], grids[2], grids[3]), table


def _finer(chunks: Floats, table: Floats) -> tuple[Floats, Floats]:
    """More points of the chunk: attention of c tokens after p grows as c (a + b (p + c / 2)), not linearly.

    Between two measured chunks, the time above that of the smallest one, divided by the chunk, is linear.
    """
    floor = table[1]
    slope = np.zeros_like(table)
    slope[2:] = (table[2:] - floor) / chunks[2:, None, None, None]
    found, rows = [chunks[0], chunks[1]], [table[0], table[1]]
    for place in range(1, len(chunks) - 1):
        low, high = chunks[place], chunks[place + 1]
        for part in range(1, BETWEEN + 1):
            share = part / BETWEEN
            chunk = low + share * (high - low)
            found.append(chunk)
            rows.append(floor + chunk * (slope[place] + share * (slope[place + 1] - slope[place])))
        rows[-1] = table[place + 1]
    return np.array(found), np.stack(rows)


def _filled(table: Floats) -> Floats:
    """Points that cannot be (no decodes, or no chunk, with a context) are those of no context."""
    nothing = np.isnan(table)
    table[0, 1:] = np.where(np.isnan(table[0, 1:]), table[0, :1], table[0, 1:])
    table[:, :, 0, 1:] = np.where(np.isnan(table[:, :, 0, 1:]), table[:, :, 0, :1], table[:, :, 0, 1:])
    table[:, :, 1:, 0] = np.where(np.isnan(table[:, :, 1:, 0]), table[:, :, 1:, 1], table[:, :, 1:, 0])
    if np.isnan(table[0, 0, 0, 0]):
        table[0, :, 0, :] = 0.0
    # What was not measured for want of memory goes on as it began: the ratio of the two points before.
    for axis in (3, 2, 1, 0):
        moved = np.moveaxis(table, axis, 0)
        for place in range(2, len(moved)):
            gap = np.isnan(moved[place])
            moved[place][gap] = (moved[place - 1] + (moved[place - 1] - moved[place - 2]) * 2)[gap]
    if np.isnan(table).any():
        raise TierformError([Problem(f"{int(np.isnan(table).sum())} of {int(nothing.sum())} points are missing")])
    return table
