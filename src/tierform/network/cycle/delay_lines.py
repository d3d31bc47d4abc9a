# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Delay lines: lists of what happens in each later cycle, and how a flit or a credit travels by them.

A delay line is (address, mask, stride): the list of cycle t stands at address + (t & mask) * stride, its length first.
A line is longer than any delay, so a list has been taken before its place comes round again.  A flit goes into the
receiver's buffer at once, and the receiving channel into the list of the cycle in which it counts there.

Timing observed on BookSim2: a link of latency d delivers d + 1 cycles after sending; a credit is usable
`credit_delay` cycles after its arrival; a source uses it at once.
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Words
from tierform.jit import inlined
from tierform.network.cycle import state as s

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64
DelayLine = tuple[int, int, int]


@inlined
def flit_line(m: Words, first: int) -> DelayLine:
    """The delay line of channels that get a flit; `first` is the address of that of routers or that of nodes."""
    return first, m[s.HORIZON] - 1, m[s.FLIT_EVENTS] + 1


@inlined
def credit_line(m: Words) -> DelayLine:
    """The delay line of out channels that get a credit."""
    return m[s.AT_CREDITS], m[s.HORIZON] - 1, m[s.CREDIT_EVENTS] + 1


@inlined
def request_line(m: Words) -> DelayLine:
    """The delay line of channels whose front packet asks for a virtual channel."""
    return m[s.AT_ASKS], m[s.ASK_HORIZON] - 1, m[s.ASK_EVENTS] + 1


@inlined
def due(line: DelayLine, now: int) -> int:
    """The address of the list of cycle `now`."""
    return line[0] + (now & line[1]) * line[2]


@inlined
def note(m: Words, line: DelayLine, when: int, entry: int, number: int) -> None:
    """Put `entry` on the list of cycle `when` if `number` is 1; with 0 it is overwritten, which saves a branch."""
    slot = due(line, when)
    count = m[U(slot)]
    m[U(slot + 1 + count)] = entry
    m[U(slot)] = count + number


@inlined
def post(m: Words, line: DelayLine, own: int, word: int, when: int, depth: int) -> None:
    """Send a flit over an out channel: it lies in the receiver's buffer at once, and counts from cycle `when` on."""
    place, target = m[U(own + s.W_PLACE)], m[U(own + s.W_TARGET)]
    m[U(target + s.C_FLITS + place)] = word
    m[U(own + s.W_PLACE)] = place + 1 if place + 1 < depth else 0
    note(m, line, when, target, 1)
