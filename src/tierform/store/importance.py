"""How many bits each group of weights gets: importance estimates, budgets met exactly, and the trace of what was read.

A group is a slice of one matrix that lies together in the store: the rows of a matrix that make one attention head or
a few neurons, or the columns that take their outputs.  Reading a group at b bits changes the loss, to second order, by
about S * r * e(b): S its sensitivity from calibration, r its activity at this step relative to its mean, e(b) the
relative squared error of weights of b bits, which falls about fourfold a bit.  Bits go one by one where they lower that
sum most; along e's convex hull this is the best use of a budget (B. Fox, Discrete optimization via marginal analysis,
Management Science 13, 1966).  Limits: second order, groups independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tierform.errors import fail


@dataclass(frozen=True, slots=True)
class Group:
    """Part `index` of a matrix: `weights` of them, which belong to one head or one run of neurons."""

    layer: int
    matrix: str
    index: int
    weights: int


@dataclass(frozen=True, slots=True)
class PrecisionTrace:
    """What was read: `bits[step, group]`, of `planes` stored.  A static policy has one step, others one per token."""

    groups: tuple[Group, ...]
    bits: NDArray[np.uint8]
    planes: int

    @property
    def average_bits(self) -> float:
        """Bits per weight over all steps."""
        sizes = np.array([group.weights for group in self.groups], np.float64)
        return float((self.bits @ sizes).sum() / (sizes.sum() * len(self.bits)))

    def weights_by_bits(self) -> dict[int, float]:
        """Weights read per step at each precision, on average over the steps."""
        sizes = np.array([group.weights for group in self.groups], np.float64)
        found = {}
        for bits in np.unique(self.bits):
            found[int(bits)] = float(((self.bits == bits) @ sizes).mean())
        return found

    def rows(self) -> list[tuple[int, int, str, int, int]]:
        """(step, layer, matrix, group, bits), for a file."""
        return [
            (step, group.layer, group.matrix, group.index, int(bits))
            for step, line in enumerate(self.bits)
            for group, bits in zip(self.groups, line, strict=True)
        ]


def gains_per_bit(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each further bit lowers `error`, along its lower convex hull: falling, so that bits are taken in order.

    Measured errors are not quite convex: the step that completes an fp16 exponent gains more than the one before it.
    """
    hull = [0]
    for point in range(1, len(error)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (error[b] - error[a]) * (point - a) < (error[point] - error[a]) * (b - a):
                break
            hull.pop()
        hull.append(point)
    smooth = np.interp(np.arange(len(error)), hull, error[hull])
    return np.maximum(np.minimum.accumulate(-np.diff(smooth)), 0.0)  # equal steps stay equal to the last bit


def allocate(
    importance: NDArray[np.float64],
    sizes: Sequence[int] | NDArray[np.int64],
    error: NDArray[np.float64],
    lowest: int,
    average_bits: float,
) -> NDArray[np.uint8]:
    """Bits for each group: `lowest` to ``lowest + len(error) - 1``, at most `average_bits` per weight on average.

    `importance` and `sizes` have one number per group, ``error[i]`` is the relative squared error at ``lowest + i``
    bits.  The budget is met exactly when the sizes allow it: no group whose next bit still fits is left without.
    """
    sizes = np.asarray(sizes, np.int64)
    highest = lowest + len(error) - 1
    _check(importance, error, lowest, average_bits)
    total = int(np.floor(average_bits * int(sizes.sum()) + 1e-6))
    left = total - lowest * int(sizes.sum())
    gains = gains_per_bit(error)
    each = importance[:, None] * gains[None, :] / sizes[:, None]  # benefit per weight-bit
    steps = np.arange(len(gains))
    order = np.lexsort((np.broadcast_to(steps, each.shape).reshape(-1), -each.reshape(-1)))
    bits = np.full(len(sizes), lowest, np.int64)
    for choice in order.tolist():
        group, step = divmod(choice, len(gains))
        if bits[group] == lowest + step and sizes[group] <= left:
            bits[group] += 1
            left -= int(sizes[group])
    while left >= int(sizes.min()):  # what a passed-over step has left free
        open_groups = np.flatnonzero((bits < highest) & (sizes <= left))
        if not open_groups.size:
            break
        best = open_groups[np.argmax(each[open_groups, bits[open_groups] - lowest])]
        bits[best] += 1
        left -= int(sizes[best])
    return bits.astype(np.uint8)


def allocate_steps(
    importance: NDArray[np.float64], error: NDArray[np.float64], lowest: int, total_bits: int
) -> NDArray[np.uint8]:
    """Bits for groups of equal size at every step: each line of `importance` [step, group] adds up to `total_bits`."""
    steps, groups = importance.shape
    _check(importance.reshape(-1), error, lowest, total_bits / groups)
    gains = gains_per_bit(error)
    take = total_bits - lowest * groups
    bits = np.full((steps, groups), lowest, np.int64)
    if take == 0:
        return bits.astype(np.uint8)
    each = np.maximum(importance, 0.0)[:, :, None] * gains[None, None, :]
    # a group's steps are taken in order; groups without importance come last, evenly
    each = each + 1e-30 * (1.0 / (1 + np.arange(len(gains))))[None, None, :]
    flat = each.reshape(steps, -1)
    chosen = np.argpartition(-flat, take - 1, axis=1)[:, :take]
    counts = np.zeros((steps, groups), np.int64)
    np.add.at(counts, (np.arange(steps)[:, None], chosen // len(gains)), 1)
    return (bits + counts).astype(np.uint8)


def _check(importance: NDArray[np.float64], error: NDArray[np.float64], lowest: int, average_bits: float) -> None:
    highest = lowest + len(error) - 1
    if not lowest <= average_bits <= highest:
        fail(f"the budget must be {lowest} to {highest} bits a weight", key="average_bits", value=average_bits)
    if not (np.isfinite(importance).all() and (importance >= 0).all()):
        fail("importance is a finite number of at least 0 for each group", key="importance")


@dataclass(frozen=True, slots=True)
class Predictor:
    """A low-rank map from one layer's input to the activity of the next layer's groups (log of relative energy)."""

    mean_in: NDArray[np.float64]
    scale_in: NDArray[np.float64]
    down: NDArray[np.float64]
    up: NDArray[np.float64]
    mean_out: NDArray[np.float64]
    level: NDArray[np.float64]

    def __call__(self, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
        """Predicted relative energy, [step, group]."""
        centred = (inputs - self.mean_in) / self.scale_in
        logs: NDArray[np.float64] = centred @ self.down @ self.up + self.mean_out
        return np.exp(np.clip(logs, -20, 5)) * self.level


def fit_predictor(
    inputs: NDArray[np.floating], activity: NDArray[np.float64], rank: int, ridge: float = 1e-2
) -> tuple[Predictor, float]:
    """A rank-`rank` predictor of log `activity` [step, group] and its explained share of variance on held-out steps.

    Reduced-rank ridge regression: least squares, then the leading singular vectors of the fitted values.  The last
    tenth of the steps is held out.
    """
    logs = np.log(np.maximum(activity, 1e-6))
    split = max(1, len(inputs) * 9 // 10)
    x, y = inputs[:split].astype(np.float64), logs[:split]
    mean_in, scale_in, mean_out = x.mean(0), x.std(0) + 1e-9, y.mean(0)
    centred, target = (x - mean_in) / scale_in, y - mean_out
    gram = centred.T @ centred + ridge * len(x) * np.eye(x.shape[1])
    full = np.linalg.solve(gram, centred.T @ target)
    _, _, directions = np.linalg.svd(centred @ full, full_matrices=False)
    kept = directions[: min(rank, len(directions))].T
    down, up = full @ kept, kept.T
    plain = np.exp(np.clip(centred @ down @ up + mean_out, -20, 5))
    # the exponential of a mean log lies below the mean: each group is set right on average
    level = activity[:split].mean(0) / np.maximum(plain.mean(0), 1e-12)
    predictor = Predictor(mean_in, scale_in, down, up, mean_out, level)
    held = (inputs[split:] - mean_in) / scale_in @ predictor.down @ predictor.up + mean_out
    rest = logs[split:]
    explained = 1 - float(((rest - held) ** 2).sum() / max(((rest - rest.mean(0)) ** 2).sum(), 1e-30))
    return predictor, explained
