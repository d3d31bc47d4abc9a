"""SCALE-Sim's read buffer of the stall-free mode, rebuilt from its observed rules, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from tierform.compat.scalesim.streams import asked_address, asking_ports


@njit(cache=True)
def estimate_reads(stream, folds, shape, space, set_size, bandwidth, stalls):  # type: ignore[no-untyped-def]
    """The stall-free read buffer: (reads, start cycle, stop cycle).

    A new element joins the current set of `set_size`; it is held while its set is in the window of 50 sets; when 50
    sets are full the window moves on.  `stalls` is the delay before each line, or empty.
    """
    last_set = np.full(space, -1, dtype=np.int32)
    current, filled, reads = 0, 0, 0
    window = 0
    done, seen = False, False
    first_cycle, end, start = 0, -1, 0
    lines = stream[6]
    for f in range(folds.shape[0]):
        fold = folds[f]
        for line in range(lines):
            low, high = asking_ports(stream, fold, line)
            if high <= low:
                continue
            position = f * lines + line
            cycle = position + (stalls[position] if stalls.size else 0)
            if not seen:
                seen, first_cycle = True, cycle
            for port in range(low, high):
                address = asked_address(stream, fold, line, port, shape)
                if address < 0 or last_set[address] >= window:
                    continue
                last_set[address] = current
                reads += 1
                filled += 1
                if filled < set_size:
                    continue
                filled = 0
                current += 1
                if current == window + 50:
                    if not done:
                        end = first_cycle - 2
                        start = end - -(-(50 * set_size) // bandwidth) + 2
                        done = True
                    window += 50
                    end = cycle
    if not done:
        sets = current + (1 if filled else 0)
        return reads, -sets * set_size // bandwidth, -1
    return reads, start, end + 1


@njit(cache=True)
def estimate_product_reads(stream, folds, tile_ports, once, set_size, bandwidth, stalls):  # type: ignore[no-untyped-def]
    """As :func:`estimate_reads` for an operand of a plain product, where addresses may be laid out freely.

    Every tile of `tile_ports` ports has a place of its own in which the elements of a line are neighbours.  With `once`
    no element is asked for in two folds, and nothing has to be remembered.
    """
    lines, height = stream[6], stream[4] + tile_ports - 1
    tiles = 0
    for f in range(folds.shape[0]):
        tiles = max(tiles, folds[f, 0] // tile_ports + 1)
    last_set = np.full(0 if once else tiles * height * tile_ports, -1, dtype=np.int32)
    current, filled, reads, window = 0, 0, 0, 0
    done, seen = False, False
    first_cycle, end, start = 0, -1, 0
    for f in range(folds.shape[0]):
        fold = folds[f]
        place = fold[0] // tile_ports * height
        for line in range(lines):
            low, high = asking_ports(stream, fold, line)
            if high <= low:
                continue
            position = f * lines + line
            cycle = position + (stalls[position] if stalls.size else 0)
            if not seen:
                seen, first_cycle = True, cycle
            at = (place + line - stream[3]) * tile_ports
            port = low
            while port < high:
                if once:
                    take = min(high - port, set_size - filled)
                    port += take
                    reads += take
                    filled += take
                else:
                    index = at + port
                    port += 1
                    if last_set[index] >= window:
                        continue
                    last_set[index] = current
                    reads += 1
                    filled += 1
                if filled < set_size:
                    continue
                filled = 0
                current += 1
                if current == window + 50:
                    if not done:
                        end = first_cycle - 2
                        start = end - -(-(50 * set_size) // bandwidth) + 2
                        done = True
                    window += 50
                    end = cycle
    if not done:
        sets = current + (1 if filled else 0)
        return reads, -sets * set_size // bandwidth, -1
    return reads, start, end + 1
