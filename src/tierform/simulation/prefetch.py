"""How far ahead operands are fetched: as far as the buffers of the chip have room for them.

A step's operands may come while the steps before it work, as long as they and all that is fetched for the steps between
fit in the buffers together.  The step whose end frees that room is found by counting back from the step through its
layer.  Where all of the layer up to the step fits, its fetch may begin at the end of the layer before; where the whole
layer before fits, too, at that layer's start.  One step ahead is always allowed: half of a buffer is filled while the
other half is used (double-buffered weights: Jouppi et al., ISCA 2017).

Operands stream: a buffer is a ring of pieces, of which the first lets a step begin and the last is worked on when it
has come.  A step with more operands than a piece overlaps with its own fetch.

Limits: what is fetched leaves when its step ends, not piece by piece; layers before are taken to be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, fsum

LAYER_END, LAYER_START = -1, -2  # of the layer before
PIECES = 8  # of a buffer; assumed


def freed_by(read_B: Sequence[float], room_B: float) -> list[int | None]:
    """For each step the step whose end lets its fetch begin; None: one step ahead, as without a buffer.

    `read_B` are the bytes that the steps of a layer fetch.
    """
    whole_B = fsum(read_B)
    found: list[int | None] = []
    before_B = 0.0
    for step, own_B in enumerate(read_B):
        before_B += own_B
        if own_B <= 0 or own_B > room_B:
            found.append(None)
        elif before_B <= room_B:
            found.append(LAYER_START if before_B + whole_B <= room_B else LAYER_END)
        else:
            first, held_B = step, own_B
            while held_B + read_B[first - 1] <= room_B:
                first -= 1
                held_B += read_B[first]
            found.append(first - 1 if first < step else None)
    return found


def pieces(size_B: float, room_B: float) -> int:
    """In how many pieces a step's operands come."""
    return max(1, ceil(size_B * PIECES / room_B))
