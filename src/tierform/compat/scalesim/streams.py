"""What a systolic array asks for in each cycle ("line"), as SCALE-Sim lays it out, compiled.

Nothing is stored per element of the demand: a stream is its kind (skewed along a wavefront, or preloaded row by row)
and its folds.  A `stream` is the integers (operand: 0 inputs, 1 weights; kind; ports are matrix rows?; lead; steps;
array rows; lines of a fold); `folds[f]` is (first port's place, ports used, first place of the preloaded rows, rows
preloaded).
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, inline="always")
def address_of(operand, row, column, shape):  # type: ignore[no-untyped-def]
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


@njit(cache=True, inline="always")
def asking_ports(stream, fold, line):  # type: ignore[no-untyped-def]
    """The ports that ask in a line of a fold: (first, last + 1); for skewed streams port p asks for line - lead - p."""
    if stream[1] == 1:
        row = stream[5] - 1 - line
        return (0, fold[1]) if 0 <= row < fold[3] else (0, 0)
    low = max(0, line - stream[3] - stream[4] + 1)
    return low, max(low, min(fold[1], line - stream[3] + 1))


@njit(cache=True, inline="always")
def asked_address(stream, fold, line, port, shape):  # type: ignore[no-untyped-def]
    """Address that a port asks for in a line."""
    x = fold[0] + port
    y = fold[2] + stream[5] - 1 - line if stream[1] == 1 else line - stream[3] - port
    return address_of(stream[0], x, y, shape) if stream[2] == 1 else address_of(stream[0], y, x, shape)


@njit(cache=True)
def line_asks(stream, fold, line, shape):  # type: ignore[no-untyped-def]
    """Whether a line asks for any element (a convolution's edge may be outside its input)."""
    low, high = asking_ports(stream, fold, line)
    if shape[1] == 0 or stream[0] == 1:
        return high > low
    for port in range(low, high):  # noqa: SIM110
        if asked_address(stream, fold, line, port, shape) >= 0:
            return True
    return False


@njit(cache=True)
def asking_lines(stream, folds, shape):  # type: ignore[no-untyped-def]
    """The first and the last line (from 0, over all folds) that ask for any element."""
    lines = stream[6]
    first, last = -1, -1
    for position in range(folds.shape[0] * lines):
        if line_asks(stream, folds[position // lines], position % lines, shape):
            first = position
            break
    for position in range(folds.shape[0] * lines - 1, -1, -1):
        if line_asks(stream, folds[position // lines], position % lines, shape):
            last = position
            break
    return first, last
