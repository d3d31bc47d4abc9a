"""A plain simulation of every element and register of a systolic array, cycle by cycle: slow and easy to check.

Values really move: an activation one element to the right each cycle, a sum (or an output) one element down.  Folds
start when a controller says; a hazard (two values in one register, a weight not yet there) is an error.
"""

from __future__ import annotations

import numpy as np


class Hazard(AssertionError):
    """Two values met in one register, or one was used before it was there."""


def fold_sizes(spatial_rows: int, spatial_columns: int, rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """(first row, rows used, first column, columns used) of each fold: columns outside, rows inside."""
    return [
        (i, min(rows, spatial_rows - i), j, min(columns, spatial_columns - j))
        for j in range(0, spatial_columns, columns)
        for i in range(0, spatial_rows, rows)
    ]


def weight_stationary(
    a: np.ndarray, b: np.ndarray, rows: int, columns: int, overlap: str, hurry: int = 0
) -> tuple[np.ndarray, int]:
    """The product a @ b and the cycles it took; `hurry` starts each fold so many cycles too early."""
    steps, depth = a.shape
    width = b.shape[1]
    folds = fold_sizes(depth, width, rows, columns)
    loads, starts = _weight_schedule(folds, steps, rows, overlap, hurry)
    result = np.zeros((steps, width), dtype=int)
    shadow: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    weight: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    moving: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    sums: list[list[int]] = [[0] * columns for _ in range(rows)]
    last = -1
    for cycle in range(starts[-1] + steps + rows + columns + 5 + max(starts)):
        # 1. A fold's wavefront takes the shadow weights over, element by element.
        for f, start in enumerate(starts):
            for i in range(rows):
                j = cycle - start - i
                if 0 <= j < columns:
                    held = shadow[i][j]
                    used = i < folds[f][1] and j < folds[f][3]
                    if used and (held is None or held[:2] != (f, i)):
                        raise Hazard(f"weights of fold {f} are not at ({i}, {j})")
                    weight[i][j] = held if used else None
        # 2. Weights are handed down the shadow registers.
        arriving = [row[:] for row in shadow]
        for f, load in enumerate(loads):
            top, used, left, across = folds[f]
            for j in range(across):
                for i in range(used):
                    if load + i + j <= cycle < load + j + used:
                        if i == 0:
                            row = used - 1 - (cycle - load - j)
                            arriving[0][j] = (f, row, int(b[top + row, left + j]))
                        else:
                            arriving[i][j] = shadow[i - 1][j]
        shadow = arriving
        # 3. Activations move right, sums move down.
        entering: list[tuple[int, int, int] | None] = [None] * rows
        for f, start in enumerate(starts):
            for i in range(folds[f][1]):
                m = cycle - start - i
                if 0 <= m < steps:
                    if entering[i] is not None:
                        raise Hazard(f"two activations enter row {i} in cycle {cycle}")
                    entering[i] = (f, m, int(a[m, folds[f][0] + i]))
        moving = [[entering[i], *moving[i][:-1]] for i in range(rows)]
        above = [[0] * columns, *[row[:] for row in sums[:-1]]]
        for i in range(rows):
            for j in range(columns):
                sums[i][j] = above[i][j]
                token, held = moving[i][j], weight[i][j]
                if token is not None and held is not None:
                    if held[0] != token[0]:
                        raise Hazard(f"fold {token[0]} meets a weight of fold {held[0]}")
                    sums[i][j] += token[2] * held[2]
        # 4. Sums leave the bottom row.
        for f, start in enumerate(starts):
            for j in range(folds[f][3]):
                m = cycle - start - (rows - 1) - j
                if 0 <= m < steps:
                    result[m, folds[f][2] + j] += sums[rows - 1][j]
                    last = max(last, cycle)
    return result, last + 1


def _weight_schedule(
    folds: list[tuple[int, int, int, int]], steps: int, rows: int, overlap: str, hurry: int
) -> tuple[list[int], list[int]]:
    loads, starts = [0], [folds[0][1]]
    for f in range(1, len(folds)):
        end = starts[-1] + rows + folds[f - 1][3] + steps - 2
        used = folds[f][1]
        if overlap == "serial":
            loads.append(end - hurry)
            starts.append(end + used - hurry)
        elif overlap == "double-buffered":
            loads.append(starts[-1])
            starts.append(end - hurry)
        else:
            loads.append(starts[-1])
            starts.append(starts[-1] + max(steps, used) - hurry)
    return loads, starts


def output_stationary(a: np.ndarray, b: np.ndarray, rows: int, columns: int, overlap: str) -> tuple[np.ndarray, int]:
    """The product a @ b and the cycles until its last element has left the array."""
    height, depth = a.shape
    width = b.shape[1]
    folds = fold_sizes(height, width, rows, columns)
    starts = _output_schedule(folds, depth, rows, overlap)
    result = np.zeros((height, width), dtype=int)
    right: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    down: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    sums = [[0] * columns for _ in range(rows)]
    out: list[list[tuple[int, int, int] | None]] = [[None] * columns for _ in range(rows)]
    last = -1
    for cycle in range(starts[-1] + depth + 2 * rows + columns + 5):
        # 1. Finished outputs move down and out, those of a fold from when the last of their column is done.
        for f, start in enumerate(starts):
            _, used, _, across = folds[f]
            for j in range(across):
                begin = start + depth + used - 1 + j
                for i in range(rows - 1, -1, -1):
                    value = out[i][j]
                    if not begin <= cycle < begin + i + 1 or value is None:
                        continue
                    out[i][j] = None
                    if i == rows - 1:
                        if result[value[0], value[1]]:
                            raise Hazard("an output left twice")
                        result[value[0], value[1]] = value[2]
                        last = max(last, cycle)
                    elif out[i + 1][j] is not None:
                        raise Hazard(f"two outputs meet in row {i + 1}")
                    else:
                        out[i + 1][j] = value
        # 2. Operands move right and down; each element multiplies and adds.
        west: list[tuple[int, int, int] | None] = [None] * rows
        north: list[tuple[int, int, int] | None] = [None] * columns
        for f, start in enumerate(starts):
            top, used, left, across = folds[f]
            for i in range(used):
                if 0 <= (q := cycle - start - i) < depth:
                    if west[i] is not None:
                        raise Hazard("two operands enter one row")
                    west[i] = (f, q, int(a[top + i, q]))
            for j in range(across):
                if 0 <= (q := cycle - start - j) < depth:
                    north[j] = (f, q, int(b[q, left + j]))
        right = [[west[i], *right[i][:-1]] for i in range(rows)]
        down = [north, *[row[:] for row in down[:-1]]]
        for i in range(rows):
            for j in range(columns):
                x, y = right[i][j], down[i][j]
                if x is None or y is None:
                    continue
                if x[:2] != y[:2]:
                    raise Hazard(f"operands of different steps meet at ({i}, {j})")
                sums[i][j] = (sums[i][j] if x[1] else 0) + x[2] * y[2]
                if x[1] == depth - 1:
                    if out[i][j] is not None:
                        raise Hazard(f"an output is overwritten at ({i}, {j})")
                    out[i][j] = (folds[x[0]][0] + i, folds[x[0]][2] + j, sums[i][j])
    if any(value is not None for row in out for value in row):
        raise Hazard("an output did not leave")
    return result, last + 1


def _output_schedule(folds: list[tuple[int, int, int, int]], depth: int, rows: int, overlap: str) -> list[int]:
    starts = [0]
    for f in range(1, len(folds)):
        computed = starts[-1] + depth + folds[f - 1][1] + folds[f - 1][3] - 2
        if overlap == "serial":
            starts.append(computed + rows)
        elif overlap == "double-buffered":
            length = depth + folds[f][1] + folds[f][3] - 2
            starts.append(computed + max(length, rows) - length)
        else:
            starts.append(starts[-1] + max(depth, rows))
    return starts
