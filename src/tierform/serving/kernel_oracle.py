"""What a step takes, in compiled code: one function over a flat list of numbers, whichever oracle made them.

The list begins with its kind.  FORMULA: whole nanoseconds, a + b T + c D + d P // e, where T are the new tokens of the
step, D the contexts of entries with one new token (each with that token), and P the pairs that entries of n > 1 new
tokens attend: n * computed + n (n + 1) // 2.  TABLES: sums of tables, made by :mod:`tierform.serving.tables`.
"""

from __future__ import annotations

from numba import njit

FORMULA, TABLES, JOINT, OUTSIDE, BOARD = range(5)
# A step's features, as the scheduler hands them over.
F_TOKENS, F_SINGLES, F_CONTEXTS, F_PAIRS, F_SAMPLED, F_SEQUENCES, F_LONGEST, F_PREFILLS = range(8)
FEATURES = 8
H_KIND, H_COMPONENTS = 0, 1
HEADER = 2
LOWEST_CLOCK = 0.2


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def bracket(data, start, length, value):  # type: ignore[no-untyped-def]
    """(index of the grid interval, share of its upper end); linear beyond the last point, the first below the first."""
    if length == 1 or value <= data[start]:
        return 0, 0.0
    low, high = 0, length - 1
    while high - low > 1:
        middle = (low + high) >> 1
        if data[start + middle] <= value:
            low = middle
        else:
            high = middle
    return low, (value - data[start + low]) / (data[start + low + 1] - data[start + low])


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _line(data, at, value, columns, out):  # type: ignore[no-untyped-def]
    """Adds a table over one axis: (length, grid, values by point and column)."""
    length = int(data[at])
    low, share = bracket(data, at + 1, length, value)
    first = at + 1 + length + low * columns
    step = columns if length > 1 else 0
    for column in range(columns):
        below = data[first + column]
        out[column] += below + share * (data[first + step + column] - below)


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _plane(data, at, one, two, columns, times, out):  # type: ignore[no-untyped-def]
    """Adds `times` a table over two axes: (lengths, grids, values by point of both and column)."""
    length, width = int(data[at]), int(data[at + 1])
    row, upper = bracket(data, at + 2, length, one)
    column, right = bracket(data, at + 2 + length, width, two)
    base = at + 2 + length + width
    down = width * columns if length > 1 else 0
    aside = columns if width > 1 else 0
    corner = base + (row * width + column) * columns
    for number in range(columns):
        here = corner + number
        top = data[here] + right * (data[here + aside] - data[here])
        bottom = data[here + down] + right * (data[here + down + aside] - data[here + down])
        out[number] += times * (top + upper * (bottom - top))


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _size(data, at, columns):  # type: ignore[no-untyped-def]
    """Numbers of a table over two axes."""
    length, width = int(data[at]), int(data[at + 1])
    return 2 + length + width + length * width * columns


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _joint(data, at, chunk, past, singles, context):  # type: ignore[no-untyped-def]
    """A measured table over (chunk, past, decodes, their context), with four grids; seconds."""
    first, second, third, fourth = int(data[at]), int(data[at + 1]), int(data[at + 2]), int(data[at + 3])
    start = at + 4
    low_1, up_1 = bracket(data, start, first, chunk)
    low_2, up_2 = bracket(data, start + first, second, past)
    low_3, up_3 = bracket(data, start + first + second, third, singles)
    low_4, up_4 = bracket(data, start + first + second + third, fourth, context)
    start += first + second + third + fourth
    total = 0.0
    for one in range(2 if up_1 > 0.0 else 1):
        weight_1 = up_1 if one else 1.0 - up_1
        for two in range(2 if up_2 > 0.0 else 1):
            weight_2 = weight_1 * (up_2 if two else 1.0 - up_2)
            row = start + ((low_1 + one) * second + low_2 + two) * third * fourth
            for three in range(2 if up_3 > 0.0 else 1):
                place = row + (low_3 + three) * fourth + low_4
                value = data[place]
                if up_4 > 0.0:
                    value += up_4 * (data[place + 1] - value)
                total += weight_2 * (up_3 if three else 1.0 - up_3) * value
    return total


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _clock(seconds, clocked_s, operations_J, other_J, headroom_W):  # type: ignore[no-untyped-def]
    """The share of its clock at which a board keeps its power limit (`tierform.simulation.power_cap`)."""
    if operations_J + other_J <= headroom_W * seconds:
        return 1.0
    low, high = LOWEST_CLOCK, 1.0
    if low * low * operations_J + other_J > headroom_W * (seconds + clocked_s * (1 / low - 1)):
        return low
    for _ in range(40):
        middle = 0.5 * (low + high)
        if middle * middle * operations_J + other_J > headroom_W * (seconds + clocked_s * (1 / middle - 1)):
            high = middle
        else:
            low = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _board(data, at, features, chunk, part, out):  # type: ignore[no-untyped-def]
    """A step on a board: kernels one after the other, held to the power limit; `part` (4,) is scratch."""
    headroom_W, floor_W, static_W = data[at], data[at + 1], data[at + 2]
    sampling_s, sampling_W, waiting_s, boards = data[at + 3], data[at + 4], data[at + 5], data[at + 6]
    prompts_issue_s, issue_s = data[at + 7], data[at + 8]
    at += 9
    singles = features[F_SINGLES]
    for column in range(4):
        part[column] = 0.0
    for feature in (F_TOKENS, F_SAMPLED):
        if features[feature] > 0:
            _line(data, at, float(features[feature]), 4, part)
        at += 1 + int(data[at]) * 5
    if singles > 0:
        _plane(data, at, float(singles), features[F_CONTEXTS] / singles, 4, 1.0, part)
    at += _size(data, at, 4)
    for entry in range(features[F_PREFILLS]):
        if chunk[entry, 1] > 1:
            _plane(data, at, float(chunk[entry, 1]), float(chunk[entry, 2]), 4, 1.0, part)
            if chunk[entry, 2] == 0:  # a pass with a new prompt is not the captured one
                issue_s = prompts_issue_s
    clock = _clock(part[0], part[1], part[2], part[3], headroom_W)
    joules = clock * clock * part[2] + part[3]
    seconds = part[0] + part[1] * (1 / clock - 1)
    if clock < 1.0:
        seconds = max(seconds, joules / headroom_W)
    chosen_s = sampling_s * features[F_SAMPLED]
    gaps_s = max(0.0, issue_s - seconds)  # between kernels, in which the board stays at work
    total = seconds + chosen_s + waiting_s + gaps_s
    out[0] = total
    out[1] = (joules + floor_W * (seconds + gaps_s)) * boards + sampling_W * chosen_s + static_W * total


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def step_cost(data, at, features, chunk, part, out):  # type: ignore[no-untyped-def]
    """Nanoseconds of a step; `out` gets (seconds, joules of each component); `part` (4,) is scratch."""
    kind = int(data[at + H_KIND])
    columns = 1 + int(data[at + H_COMPONENTS])
    for column in range(columns):
        out[column] = 0.0
    tokens, singles = features[F_TOKENS], features[F_SINGLES]
    at += HEADER
    if kind == FORMULA:
        whole = int(data[at]) + int(data[at + 1]) * tokens + int(data[at + 2]) * features[F_CONTEXTS]
        whole += int(data[at + 3]) * features[F_PAIRS] // int(data[at + 4])
        out[0] = whole * 1e-9
        for column in range(1, columns):
            first = at + 5 + (column - 1) * 4
            out[column] = (
                data[first]
                + data[first + 1] * tokens
                + data[first + 2] * features[F_CONTEXTS]
                + data[first + 3] * features[F_PAIRS]
            )
        return whole
    if kind == BOARD:
        _board(data, at, features, chunk, part, out)
        return max(1, int(out[0] * 1e9 + 0.5))
    # (1) by tokens, (2) by sampled rows, (3) by sequences: lines; each begins with its number of points.
    for feature in (F_TOKENS, F_SAMPLED, F_SEQUENCES):
        _line(data, at, float(features[feature]), columns, out)
        at += 1 + int(data[at]) * (1 + columns)
    if kind == TABLES:
        if singles > 0:
            _plane(data, at, float(singles), features[F_CONTEXTS] / singles, columns, 1.0, out)
        at += _size(data, at, columns)
        for entry in range(features[F_PREFILLS]):
            if chunk[entry, 1] == 1:
                continue  # it counts among the entries with one new token
            _plane(data, at, float(chunk[entry, 1]), float(chunk[entry, 2]), columns, 1.0, out)
    else:
        layers = data[at]
        # The skew's two lines over decodes: of steps without chunks, and of steps with some.
        alone, beside = at + 1, at + 2 + 2 * int(data[at + 1])
        at = beside + 1 + 2 * int(data[beside])
        # Several chunks are as many equal ones of the mean size, and after the mean past, of their tokens.
        new, square, past = 0.0, 0.0, 0.0
        for entry in range(features[F_PREFILLS]):
            if chunk[entry, 1] == 1:
                continue
            size = float(chunk[entry, 1])
            new += size
            square += size * size
            past += size * chunk[entry, 2]
        size, often = 0.0, 0.0
        if new > 0.0:
            size, past, often = square / new, past / new, new * new / square
        context = features[F_CONTEXTS] / singles if singles > 0 else 0.0
        seconds = _joint(data, at, size, past, float(singles), context)
        if singles > 1:
            part[0] = 0.0
            _line(data, beside if new > 0.0 else alone, float(singles), 1, part)
            if part[0] > 0.0:
                longest = _joint(data, at, size, past, float(singles), float(features[F_LONGEST]))
                seconds += part[0] * max(longest - seconds, 0.0)
        if often > 1.0:
            more = _joint(data, at, size, past, 0.0, 0.0) - _joint(data, at, data[at + 5], 0.0, 0.0, 0.0)
            seconds += (often - 1.0) * max(more, 0.0)
        out[0] += layers * seconds
    return max(1, int(out[0] * 1e9 + 0.5))
