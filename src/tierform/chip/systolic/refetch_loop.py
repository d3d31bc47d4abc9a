# mypy: ignore-errors
"""The search over tilings of :mod:`tierform.chip.systolic.refetch`, compiled as a C function."""

from __future__ import annotations

SIGNATURE = "i8(i8, i8, i8, i8, i8, f8, f8, f8, f8, i8, f8, CPointer(f8))"
_MARGIN = 1 - 1e-12  # a choice must be better by more than rounding, so that the first of equals is taken


def best(x, y, t, rows, columns, room_B, width_xy, width_tx, width_ty, result, final, out):
    """Write the crossings of (x, y), (t, x), (t, y) in the best tiling; `result` is one of them by its number."""
    folds_x, folds_y = -(-x // rows), -(-y // columns)
    least_B, best_xy, best_tx, best_ty = -1.0, 1.0, 1.0, 1.0
    wide_x = 1
    while True:
        rounds_x = -(-folds_x // wide_x)
        tile_x = min(x, -(-folds_x // rounds_x) * rows)
        wide_y = 1
        while True:
            rounds_y = -(-folds_y // wide_y)
            tile_y = min(y, -(-folds_y // rounds_y) * columns)
            held_B = tile_x * tile_y * width_xy
            if tile_x <= rows and tile_y <= columns:
                held_B = 0.0
            for kept in range(8):
                room = room_B - (held_B if kept & 1 else 0.0)
                each_B = (tile_x * width_tx if kept & 2 else 0.0) + (tile_y * width_ty if kept & 4 else 0.0)
                if room < each_B:
                    continue
                tile_t = t if each_B == 0.0 else min(t, int(room / each_B))
                rounds_t = -(-t // tile_t)
                many_x, many_y, many_t = rounds_x > 1, rounds_y > 1, rounds_t > 1
                for order in range(6):
                    # Loops from the outside in: xyt, xty, yxt, ytx, txy, tyx.
                    xy, tx, ty = float(rounds_t), float(folds_y), float(folds_x)
                    if kept & 1:
                        inner = (order == 1 and many_y) or (order == 3 and many_x) or (order > 3 and (many_x or many_y))
                        xy = float(rounds_t) if inner else 1.0
                    if kept & 2:
                        inner = (order == 0 and many_t) or (order == 5 and many_x)
                        inner = inner or ((order == 2 or order == 3) and (many_x or many_t))
                        tx = float(rounds_y) if inner else 1.0
                    if kept & 4:
                        inner = (order == 2 and many_t) or (order == 4 and many_y)
                        inner = inner or (order < 2 and (many_y or many_t))
                        ty = float(rounds_x) if inner else 1.0
                    moved = 1.0 * x * y * width_xy * (xy if result != 0 else 2 * (xy - 1))
                    moved += 1.0 * t * x * width_tx * tx
                    moved += 1.0 * t * y * width_ty * (ty if result != 2 else 2 * (ty - 1))
                    moved += final * (1.0 * x * y if result == 0 else 1.0 * t * y)
                    if least_B < 0 or moved < least_B * _MARGIN:
                        least_B, best_xy, best_tx, best_ty = moved, xy, tx, ty
                    if kept == 0:
                        break
            if wide_y >= folds_y:
                break
            # The next width that gives fewer rounds.
            wide_y = -(-folds_y // (rounds_y - 1))
        if wide_x >= folds_x:
            break
        wide_x = -(-folds_x // (rounds_x - 1))
    out[0], out[1], out[2] = best_xy, best_tx, best_ty
    return 0
