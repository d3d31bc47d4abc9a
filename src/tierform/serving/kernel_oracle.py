"""What a step takes, in compiled code: one function over a flat list of numbers, whichever oracle made them.

The list begins with its kind.  FORMULA: whole nanoseconds, a + b T + c D + d P // e, where T are the new tokens of the
step, D the contexts of entries with one new token (each with that token), and P the pairs that entries of n > 1 new
tokens attend: n * computed + n (n + 1) // 2.  JOINT: measured tables.  BOARD: kernels one after
the other.  PARTS: parts of simulated passes along several paths (:mod:`tierform.serving.tables_parts`).
"""

from __future__ import annotations

from numba import njit

FORMULA, JOINT, OUTSIDE, BOARD, PARTS = range(5)
MOST_BUSY = 8  # components whose own time a part tells
TURNS = 6  # numbers of the turns of a group's attention: (wait, seconds) of scores, what is between, weighted values
SCRATCH = 160  # numbers of a step's parts while it is put together
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
def _ragged(data, at, one, two, columns, out):  # type: ignore[no-untyped-def]
    """Adds a table over two axes whose rows have points of their own.

    (its numbers in all, rows, their grid, where the points of each begin and the last end, points, values by column)
    """
    rows = int(data[at + 1])
    starts = at + 2 + rows
    points = int(data[starts + rows])
    grid = starts + rows + 1
    row, upper = bracket(data, at + 2, rows, one)
    for side in range(2):
        weight = upper if side else 1.0 - upper
        if weight == 0.0:
            continue
        first = int(data[starts + row + side])
        length = int(data[starts + row + side + 1]) - first
        column, right = bracket(data, grid + first, length, two)
        here = grid + points + (first + column) * columns
        aside = columns if length > 1 else 0
        for number in range(columns):
            value = data[here + number]
            out[number] += weight * (value + right * (data[here + aside + number] - value))


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
        _ragged(data, at, float(singles), features[F_CONTEXTS] / singles, 4, part)
    at += int(data[at])
    verify, verified, contexts = at + int(data[at]), 0, 0
    for entry in range(features[F_PREFILLS]):
        if chunk[entry, 3] > 0 and data[verify] > 0.0:
            verified += 1
            contexts += chunk[entry, 1] + chunk[entry, 2]
        elif chunk[entry, 1] > 1:
            _ragged(data, at, float(chunk[entry, 1]), float(chunk[entry, 2]), 4, part)
            if chunk[entry, 2] == 0:  # a pass with a new prompt is not the captured one
                issue_s = prompts_issue_s
    if verified > 0:
        _ragged(data, verify, float(verified), contexts / verified, 4, part)
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


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _group(data, at, one, two, share, busy, names, part):  # type: ignore[no-untyped-def]
    """Adds a group's attention to a step's parts; what is left over counts by the group's share of the tokens.

    `part`: (chain, memory, busy components, joules) of all groups; (left over, joules of it); the longest chain of a
    group; (end of the scores so far, of what is between, seconds of weighted values, their end if scores took nothing);
    a group's own row, which begins with seconds and joules of its pass.  Returns these seconds.
    """
    width = 2 + busy + names
    turns = width + names + 2
    own = turns + 4
    for column in range(own, own + width + 3 + names + TURNS):
        part[column] = 0.0
    _ragged(data, at, one, two, width + 3 + names + TURNS, part[own:])
    last = own + width + 3 + names
    part[turns] = max(part[turns], part[last]) + part[last + 1]
    part[turns + 1] = max(part[turns + 1], part[turns] + part[last + 2]) + part[last + 3]
    part[turns + 2] += part[last + 5]
    part[turns + 3] = max(part[turns + 3], part[turns + 1] + part[last + 4]) + part[last + 5]
    for column in range(1, width):
        part[column] += part[own + 2 + column]
    part[own - 1] = max(part[own - 1], part[own + 2])
    for column in range(1 + names):
        part[width + column] += share * part[own + 2 + width + column]
    return part[own]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False, inline="always")
def _pass_s(data, at, one, two, columns, part):  # type: ignore[no-untyped-def]
    """Seconds of a pass of one group."""
    for column in range(columns):
        part[column] = 0.0
    _ragged(data, at, one, two, columns, part)
    return part[0]


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def _parts(data, at, names, features, chunk, part, out):  # type: ignore[no-untyped-def]
    """A step on any chip (:mod:`tierform.serving.tables_parts`)."""
    busy, pipelined = int(data[at]), data[at + 1] != 0.0
    small, large, in_turn = data[at + 2], data[at + 3], data[at + 4] != 0.0
    static = at + 5
    at = static + names
    width = 2 + busy + names
    longest = width + names + 1
    own = part[longest + 5 :]
    row = width + 3 + names + TURNS
    for column in range(longest + 5):
        part[column] = 0.0
    heads = at + 1 + int(data[at]) * (3 + width + names)
    decodes = heads + 1 + int(data[heads]) * (1 + width)
    prefills = decodes + int(data[decodes])
    beside = prefills + int(data[prefills])
    verify = beside + (int(data[beside]) if pipelined else 0)
    verified, checked, contexts = 0, 0, 0  # sequences whose drafts are verified, their tokens and contexts
    tokens, singles = float(features[F_TOKENS]), features[F_SINGLES]
    prompts, seconds = 0.0, 0.0
    context = features[F_CONTEXTS] / singles if singles > 0 else 0.0
    if singles > 0:
        whole = _group(data, decodes, float(singles), context, singles / tokens, busy, names, part)
        if pipelined:
            seconds = whole
    for entry in range(features[F_PREFILLS]):
        if chunk[entry, 3] > 0 and data[verify] > 0.0:
            verified += 1
            checked += chunk[entry, 1]
            contexts += chunk[entry, 1] + chunk[entry, 2]
        elif chunk[entry, 1] > 1:
            if prompts == 0.0:
                seconds = 0.0
            new, past = float(chunk[entry, 1]), float(chunk[entry, 2])
            whole = _group(data, prefills, new, past, new / tokens, busy, names, part)
            prompts += new
            if pipelined and past > 0.0:
                seconds += whole - _pass_s(data, prefills, new, 0.0, row, own)
    if verified > 0:
        if prompts == 0.0:
            seconds = 0.0
        new = float(checked)
        whole = _group(data, verify, float(verified), contexts / verified, new / tokens, busy, names, part)
        prompts += new
        if pipelined:
            seconds += whole - _pass_s(data, prefills, new, 0.0, row, own)
    if pipelined and prompts > 0.0 and singles > 0:
        own[0] = own[1] = own[2] = 0.0
        _ragged(data, beside, float(singles), context, 3, own)
        share = min(1.0, max(0.0, (prompts - small) / (large - small)))
        seconds += own[1] + share * (own[2] - own[1])
    attention = part[longest]
    for column in range(2, 2 + busy):
        attention = max(attention, part[column])
    if in_turn:
        attention = max(attention, part[longest + 4], part[longest + 1] + part[longest + 3])
    left, part[width] = part[width], 0.0  # of groups beyond as many tokens
    part[longest] = 0.0  # from here on what the chain of as many tokens takes beyond its operators
    _line(data, at, tokens, width + 2 + names, part)
    if features[F_SAMPLED] > 0:
        _line(data, heads, float(features[F_SAMPLED]), width, part)
    if pipelined:
        if prompts > 0.0:
            seconds += _pass_s(data, prefills, prompts, 0.0, row, own)
        seconds = max(seconds, part[1])
    else:
        seconds = max(part[1] + part[width], part[0] + attention + part[longest]) + left
    out[0] = seconds
    for column in range(names):
        out[1 + column] = part[2 + busy + column] + part[width + 1 + column] + data[static + column] * seconds


@njit(cache=True, nogil=True, error_model="numpy", _nrt=False)
def step_cost(data, at, features, chunk, part, out):  # type: ignore[no-untyped-def]
    """Nanoseconds of a step; `out` gets (seconds, joules of each component); `part` (SCRATCH,) is scratch."""
    kind = int(data[at + H_KIND])
    columns = 1 + int(data[at + H_COMPONENTS])
    for column in range(len(out)):  # replicas of other kinds may have more components
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
    if kind == PARTS:
        _parts(data, at, columns - 1, features, chunk, part, out)
        return max(1, int(out[0] * 1e9 + 0.5))
    if kind == BOARD:
        _board(data, at, features, chunk, part, out)
        return max(1, int(out[0] * 1e9 + 0.5))
    # (1) by tokens, (2) by sampled rows: lines; each begins with its number of points.
    for feature in (F_TOKENS, F_SAMPLED):
        _line(data, at, float(features[feature]), columns, out)
        at += 1 + int(data[at]) * (1 + columns)
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
