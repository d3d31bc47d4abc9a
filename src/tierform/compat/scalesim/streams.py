# mypy: allow-untyped-defs, allow-untyped-calls, allow-untyped-decorators
"""What a systolic array asks for in each cycle ("line"), as SCALE-Sim lays it out, compiled.

Nothing is stored per element of the demand: a stream is its kind (skewed along a wavefront, or preloaded row by row)
and its folds.  A `stream` is the integers (operand: 0 inputs, 1 weights; kind; ports are matrix rows?; lead; steps;
array rows; lines of a fold); a fold, which begins at place `fold` of `folds`, is (first port's place, ports used, first
place of the preloaded rows, rows preloaded).
"""

from __future__ import annotations

from tierform.jit import inlined

FOLD = 4  # numbers of a fold


@inlined
def address_of(operand, row, column, shape):
    """Address of element (row, column) of an operand; -1 outside a convolution's input.

    `shape` = (columns of the matrix, convolution?, input height, width, channels, window width, stride h, w, output
    width, kept, block); for N:M sparse products `column` of the inputs counts kept places only.
    """
    if operand == 1:
        return row * shape[0] + column
    if shape[9] < shape[10]:
        column = column // shape[9] * shape[10] + column % shape[9]
    if shape[1] == 0:
        return row * shape[0] + column
    i_row, i_column = row // shape[8] * shape[6], row % shape[8] * shape[7]
    c_row, rest = column // (shape[5] * shape[4]), column % (shape[5] * shape[4])
    c_column, channel = rest // shape[4], rest % shape[4]
    if i_row + c_row >= shape[2] or i_column + c_column >= shape[3]:
        return -1
    return ((i_row + c_row) * shape[3] + i_column + c_column) * shape[4] + channel


@inlined
def asking_ports(stream, folds, fold, line):
    """The ports that ask in a line of a fold: (first, last + 1); for skewed streams port p asks for line - lead - p."""
    if stream[1] == 1:
        row = stream[5] - 1 - line
        return (0, folds[fold + 1]) if 0 <= row < folds[fold + 3] else (0, 0)
    low = max(0, line - stream[3] - stream[4] + 1)
    return low, max(low, min(folds[fold + 1], line - stream[3] + 1))


@inlined
def asked_address(stream, folds, fold, line, port, shape):
    """Address that a port asks for in a line."""
    x = folds[fold] + port
    y = folds[fold + 2] + stream[5] - 1 - line if stream[1] == 1 else line - stream[3] - port
    return address_of(stream[0], x, y, shape) if stream[2] == 1 else address_of(stream[0], y, x, shape)


@inlined
def line_asks(stream, folds, fold, line, shape):
    """Whether a line asks for any element (a convolution's edge may be outside its input)."""
    low, high = asking_ports(stream, folds, fold, line)
    if shape[1] == 0 or stream[0] == 1:
        return high > low
    for port in range(low, high):  # noqa: SIM110
        if asked_address(stream, folds, fold, line, port, shape) >= 0:
            return True
    return False


def asking_lines(p, _):
    """Write the first and the last line (from 0, over all folds) that ask for any element.

    `p` = (found (2,), (number of folds,), stream, folds, shape).
    """
    found, stream, folds, shape = p[0], p[2], p[3], p[4]
    lines = stream[6]
    total = p[1][0] * lines
    found[0], found[1] = -1, -1
    for position in range(total):
        if line_asks(stream, folds, position // lines * FOLD, position % lines, shape):
            found[0] = position
            break
    for back in range(total):
        position = total - 1 - back
        if line_asks(stream, folds, position // lines * FOLD, position % lines, shape):
            found[1] = position
            break
    return 0
