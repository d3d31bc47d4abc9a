# mypy: disable-error-code="untyped-decorator"
"""Which requests win: iSLIP of any number of iterations and separable round-robin allocators, as a compiled function.

Requests are a list of (input, output, priority) in the scratch section of the memory.  Used by the general router; the
bitmask router has one iteration of iSLIP built in.  Dally and Towles, chapter 19.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tierform.network.cycle import state as s

ISLIP, INPUT_FIRST, OUTPUT_FIRST = range(3)
# A request is (input, output, priority or channel).
REQUEST = 3

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@njit(cache=True, error_model="numpy", _nrt=False)
def allocate(
    m: Any,
    kind: int,
    iterations: int,
    requests: int,
    ranked: bool,
    inputs: int,
    outputs: int,
    sides: int,
    grant: int,
    grant_step: int,
    accept: int,
    accept_step: int,
) -> None:
    """Match inputs to outputs; sets the granted word of each request that wins.

    `grant` and `accept` are the addresses of the first output's and input's round-robin pointers.  iSLIP (McKeown
    1999): outputs grant, inputs accept, pointers move in the first iteration only, priorities are ignored.  Separable,
    input or output first: each side arbitrates once; pointers move past final winners.
    """
    first = m[s.AT_SCRATCH]
    granted = m[s.AT_GRANTED]
    out_best = m[s.AT_BEST]
    out_pick = out_best + sides
    in_best = out_pick + sides
    in_pick = in_best + sides
    last = first + requests * REQUEST
    for k in range(requests):
        m[U(granted + k)] = 0
    for r in range(first, last, REQUEST):
        m[U(in_pick + m[U(r)])] = -1
        m[U(out_pick + m[U(r + 1)])] = -1
    if kind == ISLIP:
        for step in range(iterations):
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] >= 0 and m[U(in_pick + m[U(out_pick + o)])] != o:
                    m[U(out_pick + o)] = -1
                m[U(in_best + i)] = -1
                m[U(out_best + o)] = -1
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(in_pick + i)] >= 0 or (m[U(out_pick + o)] >= 0 and m[U(out_best + o)] < 0):
                    continue
                far = i - m[U(grant + o * grant_step)]
                if far < 0:
                    far += inputs
                if m[U(out_best + o)] < 0 or far < m[U(out_best + o)]:
                    m[U(out_best + o)] = far
                    m[U(out_pick + o)] = i
            for r in range(first, last, REQUEST):
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] == i and m[U(in_pick + i)] < 0:
                    far = o - m[U(accept + i * accept_step)]
                    if far < 0:
                        far += outputs
                    if m[U(in_best + i)] < 0 or far < m[U(in_best + i)]:
                        m[U(in_best + i)] = far
            gained = False
            for k in range(requests):
                r = first + k * REQUEST
                i, o = m[U(r)], m[U(r + 1)]
                if m[U(out_pick + o)] == i and m[U(in_pick + i)] < 0:
                    far = o - m[U(accept + i * accept_step)]
                    if far < 0:
                        far += outputs
                    if far == m[U(in_best + i)]:
                        m[U(granted + k)] = 1
                        gained = True
                        m[U(in_pick + i)] = o
                        if step == 0:
                            m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
                            m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0
            if not gained:
                break
        return
    # Separable: the first side keeps its best request, the second chooses among those kept.
    for side in range(2):
        by_input = (kind == INPUT_FIRST) == (side == 0)
        for k in range(requests):
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            if side == 1 and m[U(granted + k)] == 0:
                continue
            rank = m[U(r + 2)] if ranked else 0
            if by_input:
                far = o - m[U(accept + i * accept_step)]
                far = (far + outputs if far < 0 else far) - rank * 1048576
                if m[U(in_pick + i)] < 0 or far < m[U(in_best + i)]:
                    m[U(in_best + i)] = far
                    m[U(in_pick + i)] = o
            else:
                far = i - m[U(grant + o * grant_step)]
                far = far + inputs if far < 0 else far
                if m[U(out_pick + o)] < 0 or far < m[U(out_best + o)]:
                    m[U(out_best + o)] = far
                    m[U(out_pick + o)] = i
        for k in range(requests):
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            kept = m[U(in_pick + i)] == o if by_input else m[U(out_pick + o)] == i
            m[U(granted + k)] = 1 if kept and (side == 0 or m[U(granted + k)] == 1) else 0
    for k in range(requests):
        if m[U(granted + k)]:
            r = first + k * REQUEST
            i, o = m[U(r)], m[U(r + 1)]
            m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
            m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0
