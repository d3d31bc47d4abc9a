# mypy: ignore-errors
"""The compiled loop of the product model: see :mod:`tierform.chip.gpu.gemm`, which calls it by address.

It is compiled as a C function over pointers and numbers, and holds nothing but what it is given.
"""

from __future__ import annotations

from math import ceil, floor, sqrt

SPLITS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # of k; the same numbers of waves are tried, too
SHORTEST_K, K_STEP, MOST_RESIDENT = 128.0, 32.0, 4.0
ACCUMULATOR_B, OUTPUT_B, MOST_EFFICIENCY = 4.0, 2.0, 1.15
SIGNATURE = "i8(CPointer(f8), CPointer(f8), CPointer(f8), CPointer(f8), i8, i8)"


def seconds(values, tile_sizes, products, out, tile_count, product_count):
    """`out` gets the time of each product.

    `values`: the fitted parameters, then multiprocessors, clock, peak, memory bandwidth, L2, the steps in which a tile
    shrinks (0: it does not), and the most splits of k; `tile_sizes` rows and columns of each; `products` m, n, k,
    batch, copies, bytes of the two operands, and speed-up of each.
    """
    efficiency, memory, launch, prologue = values[0], values[1], values[2], values[3]
    operand_feed, reduction, overlap, step = values[4], values[5], values[6], values[7]
    reduction_share, l2_share, half, epilogue = values[8], values[9], values[10], values[11]
    outputs, half_2, reduction_2, reduction_share_2 = values[12], values[13], values[14], values[15]
    prologue_2, miss_latency, miss_step, miss_prologue = values[16], values[17], values[18], values[19]
    smallest, small_reduction, sustained, boost_time = values[20], values[21], values[22], values[23]
    sms, cycle, peak, bandwidth = values[24], 1.0 / values[25], values[26], values[27]
    l2 = values[28] * l2_share
    row_step, column_step, most_splits = values[29], values[30], values[31]
    per_sm = peak / sms / 2.0  # multiply-accumulates
    for product in range(product_count):
        at = 8 * product
        m, n, k, batch = products[at], products[at + 1], products[at + 2], products[at + 3]
        copies, input_B, weight_B, speedup = products[at + 4], products[at + 5], products[at + 6], products[at + 7]
        a, b, c = batch * m * k * input_B, batch * n * k * weight_B, batch * m * n * OUTPUT_B
        ratio = l2 / (copies * b + a + c)
        ratio *= ratio
        b_missed = 1.0 / (1.0 + ratio * ratio)
        ratio = l2 / (a + b + c)
        ratio *= ratio
        others_missed = 1.0 / (1.0 + ratio * ratio)
        ratio = l2 / (a + b)
        ratio *= ratio
        panels_missed = 1.0 / (1.0 + ratio * ratio)
        fed_step = step * cycle * (input_B / 2.0) * (1.0 + miss_step * b_missed)
        waiting = miss_prologue * cycle * b_missed
        forced = m > 16 and batch * m * n < smallest
        least, boosted = 0.0, 0.0
        for tile in range(tile_count):
            rows, columns = tile_sizes[2 * tile], tile_sizes[2 * tile + 1]
            down, across = ceil(m / rows), ceil(n / columns)
            tiles = batch * down * across
            if row_step > 0.0:
                rows = min(rows, ceil(m / down / row_step) * row_step)
                columns = min(columns, ceil(n / across / column_step) * column_step)
            area = rows * columns
            resident = min(max(float(floor(outputs / area)), 1.0), MOST_RESIDENT)
            slots = sms * resident
            fed = min(rows, m) * input_B + min(columns, n) * weight_B
            written = area * (OUTPUT_B * cycle / epilogue)
            for candidate in range(12):
                wanted = SPLITS[candidate] if candidate < 6 else float(floor(SPLITS[candidate - 6] * sms / tiles))
                split = min(max(min(wanted, float(floor(k / SHORTEST_K))), 1.0), most_splits)
                length = ceil(k / split / K_STEP) * K_STEP
                blocks = tiles * split
                full = float(floor(blocks / slots))
                last = float(ceil((blocks - full * slots) / sms))
                chain = length * fed_step
                arithmetic = length * area / (per_sm * speedup * min(efficiency, MOST_EFFICIENCY))
                feed = length * (fed / (operand_feed * 2.0 * per_sm))
                panels = 2.0 * sqrt(slots * area / split) * k * input_B * max(blocks / slots, 1.0)
                all_panels = tiles * (rows * input_B + columns * weight_B) * k
                streamed = min(max(panels, a + b), max(a + b, all_panels))
                moved = b * b_missed + (a + c) * others_missed + (streamed - a - b) * panels_missed
                traffic = moved / (bandwidth * memory) + miss_latency * cycle * b_missed
                partial = 0.0
                if split > 1.0:
                    partial = (2.0 * ACCUMULATOR_B * batch * split * m * n + c) / bandwidth
                elif forced:
                    partial = c / bandwidth
                # First as the library estimates it, then, where it would choose this candidate, as it takes.
                score = 0.0
                for timed in range(2):
                    side = half if timed else half_2
                    of_area = arithmetic * (side * side / area)
                    start = (prologue if timed else prologue_2) * cycle + waiting
                    whole = max(resident * arithmetic + of_area, resident * feed, chain)
                    busy = full * (whole + start + resident * written)
                    if last > 0.0:
                        rest = max(last * arithmetic + of_area, last * feed, chain)
                        busy += rest + start + last * written
                    most, fewest = max(busy, traffic), min(busy, traffic)
                    taken = most * (1.0 + (fewest / most) ** overlap) ** (1.0 / overlap)
                    reduce = reduction if timed else reduction_2
                    if split > 1.0:
                        taken += reduce * cycle
                    elif forced:
                        taken += reduce * small_reduction * cycle
                    taken += partial / (reduction_share if timed else reduction_share_2)
                    if timed:
                        least, boosted = score, launch * cycle + taken
                    else:
                        score = taken
                        if (tile > 0 or candidate > 0) and score >= least:
                            break
        throttled = batch * m * n * k / (sms * per_sm * speedup * sustained)
        if throttled > boosted:
            boosted += (throttled - boosted) * (boosted / (boosted + boost_time * cycle))
        out[product] = boosted
    return product_count
