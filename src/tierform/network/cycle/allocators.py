# mypy: disable-error-code="untyped-decorator, no-any-return"
"""Which requests win: separable, iterative, wavefront and maximum-size allocators, as compiled functions.

Requests are a list of (input, output, rank or channel, priority) in the scratch section of the memory.  Used by the
general router; the bitmask router has one iteration of iSLIP built in.  Dally and Towles, chapter 19; iSLIP: McKeown
1999; PIM: Anderson et al. 1993; lonely output allocator and wavefront (Tamir and Chi 1993) as in that book.

Each side of a request has a round-robin pointer: `grant` and `accept` are the addresses of the first output's and
input's.  PIM draws them anew, LOA moves them by one, and the wavefront and maximum-size allocators have one place to
start from for the whole router instead (`start`).
"""

from __future__ import annotations

import numpy as np

from tierform.arrays import Ints, Words
from tierform.jit import compiled, inlined
from tierform.network.cycle import state as s
from tierform.network.cycle.draws import below
from tierform.network.cycle.modes import INPUT_FIRST, ISLIP, LOA, MAX_SIZE, OUTPUT_FIRST, PIM, SELECT, WAVEFRONT

# A request is (input, output, rank that routing gave it or its channel, priority of its packet).
REQUEST = 4

# Addresses are made unsigned where they are used: a signed index would cost a test for "from the end".
U = np.uint64


@inlined
def distance(place: int, pointer: int, size: int) -> int:
    """How far after the pointer a place comes, round robin."""
    far = place - pointer
    return far + size if far < 0 else far


@inlined
def goes_first(m: Words, r: int, other: int, by_input: bool, ranked: bool, pointer: int, size: int) -> bool:
    """Whether request `r` beats `other` at their common input (or output): higher priority, then round robin."""
    word = 2 if by_input and ranked else 3
    if m[U(r + word)] != m[U(other + word)]:
        return m[U(r + word)] > m[U(other + word)]
    side = 1 if by_input else 0
    return distance(m[U(r + side)], pointer, size) < distance(m[U(other + side)], pointer, size)


@compiled
def allocate(
    m: Words,
    c: Ints,
    kind: int,
    iterations: int,
    requests: int,
    ranked: bool,
    inputs: int,
    outputs: int,
    grant: int,
    grant_step: int,
    accept: int,
    accept_step: int,
    start: int,
) -> None:
    """Match inputs to outputs; sets the granted word of each request that wins.  `ranked`: word 2 is a rank."""
    first, granted = m[s.AT_SCRATCH], m[s.AT_GRANTED]
    last = first + requests * REQUEST
    in_pick, out_pick = m[s.AT_BEST], m[s.AT_BEST] + m[s.SIDES]
    for k in range(requests):
        m[U(granted + k)] = 0
    for r in range(first, last, REQUEST):
        m[U(in_pick + m[U(r)])] = -1
        m[U(out_pick + m[U(r + 1)])] = -1
    if kind in (INPUT_FIRST, OUTPUT_FIRST):
        separable(m, kind == INPUT_FIRST, first, last, ranked, inputs, outputs, grant, grant_step, accept, accept_step)
    elif kind in (ISLIP, SELECT, PIM):
        for step in range(iterations):
            if kind == PIM:
                for r in range(first, last, REQUEST):
                    m[U(accept + m[U(r)] * accept_step)] = below(c, outputs)
                    m[U(grant + m[U(r + 1)] * grant_step)] = below(c, inputs)
            gained = iterate(
                m,
                kind == SELECT,
                step == 0 and kind != PIM,
                first,
                last,
                ranked,
                inputs,
                outputs,
                grant,
                grant_step,
                accept,
                accept_step,
            )
            if not gained and kind != PIM:
                break
    elif kind == LOA:
        lonely(m, first, last, inputs, outputs, grant, grant_step, accept, accept_step)
    elif kind == MAX_SIZE:
        maximum(m, first, last, inputs, outputs, start)
    else:
        wavefront(m, first, last, max(inputs, outputs), ranked, start, kind == WAVEFRONT)


@compiled
def separable(
    m: Words,
    input_first: bool,
    first: int,
    last: int,
    ranked: bool,
    inputs: int,
    outputs: int,
    grant: int,
    grant_step: int,
    accept: int,
    accept_step: int,
) -> None:
    """One side keeps its best request, the other chooses among those kept; pointers move past final winners."""
    granted = m[s.AT_GRANTED]
    in_pick, out_pick = m[s.AT_BEST], m[s.AT_BEST] + m[s.SIDES]
    for side in range(2):
        by_input = input_first == (side == 0)
        for r in range(first, last, REQUEST):
            if side == 1 and m[U(granted + (r - first) // REQUEST)] == 0:
                continue
            i, o = m[U(r)], m[U(r + 1)]
            pick = in_pick + i if by_input else out_pick + o
            pointer = m[U(accept + i * accept_step)] if by_input else m[U(grant + o * grant_step)]
            size = outputs if by_input else inputs
            if m[U(pick)] < 0 or goes_first(m, r, m[U(pick)], by_input, ranked, pointer, size):
                m[U(pick)] = r
        for r in range(first, last, REQUEST):
            k = granted + (r - first) // REQUEST
            kept = m[U(in_pick + m[U(r)])] == r if by_input else m[U(out_pick + m[U(r + 1)])] == r
            m[U(k)] = 1 if kept and (side == 0 or m[U(k)] == 1) else 0
    for r in range(first, last, REQUEST):
        if m[U(granted + (r - first) // REQUEST)]:
            i, o = m[U(r)], m[U(r + 1)]
            m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
            m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0


@compiled
def iterate(
    m: Words,
    by_priority: bool,
    move: bool,
    first: int,
    last: int,
    ranked: bool,
    inputs: int,
    outputs: int,
    grant: int,
    grant_step: int,
    accept: int,
    accept_step: int,
) -> bool:
    """One iteration: free outputs grant, free inputs accept; True if anything was matched.

    `move`: pointers move past what is matched; `by_priority`: it comes before round robin.
    """
    granted = m[s.AT_GRANTED]
    in_pick, out_pick = m[s.AT_BEST], m[s.AT_BEST] + m[s.SIDES]
    in_done, out_done = out_pick + m[s.SIDES], out_pick + 2 * m[s.SIDES]
    for r in range(first, last, REQUEST):
        m[U(in_done + m[U(r)])] = 0
        m[U(out_done + m[U(r + 1)])] = 0
        m[U(in_pick + m[U(r)])] = -1
        m[U(out_pick + m[U(r + 1)])] = -1
    for r in range(first, last, REQUEST):
        if m[U(granted + (r - first) // REQUEST)]:
            m[U(in_done + m[U(r)])] = 1
            m[U(out_done + m[U(r + 1)])] = 1
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        if m[U(in_done + i)] or m[U(out_done + o)]:
            continue
        best, pointer = m[U(out_pick + o)], m[U(grant + o * grant_step)]
        if best < 0:
            m[U(out_pick + o)] = r
        elif by_priority:
            if goes_first(m, r, best, False, ranked, pointer, inputs):
                m[U(out_pick + o)] = r
        elif distance(i, pointer, inputs) < distance(m[U(best)], pointer, inputs):
            m[U(out_pick + o)] = r
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        if m[U(out_pick + o)] != r:
            continue
        best, pointer = m[U(in_pick + i)], m[U(accept + i * accept_step)]
        if best < 0:
            m[U(in_pick + i)] = r
        elif by_priority:
            if goes_first(m, r, best, True, ranked, pointer, outputs):
                m[U(in_pick + i)] = r
        elif distance(o, pointer, outputs) < distance(m[U(best + 1)], pointer, outputs):
            m[U(in_pick + i)] = r
    gained = False
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        if m[U(in_pick + i)] == r:
            m[U(granted + (r - first) // REQUEST)] = 1
            gained = True
            if move:
                m[U(grant + o * grant_step)] = i + 1 if i + 1 < inputs else 0
                m[U(accept + i * accept_step)] = o + 1 if o + 1 < outputs else 0
    return gained


@compiled
def lonely(
    m: Words,
    first: int,
    last: int,
    inputs: int,
    outputs: int,
    grant: int,
    grant_step: int,
    accept: int,
    accept_step: int,
) -> None:
    """Each input asks the output that fewest ask; each output takes one, round robin."""
    granted = m[s.AT_GRANTED]
    in_pick, out_pick = m[s.AT_BEST], m[s.AT_BEST] + m[s.SIDES]
    count = out_pick + m[s.SIDES]
    for r in range(first, last, REQUEST):
        m[U(count + m[U(r + 1)])] = 0
    for r in range(first, last, REQUEST):
        m[U(count + m[U(r + 1)])] += 1
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        best, pointer = m[U(in_pick + i)], m[U(accept + i * accept_step)]
        if best >= 0:
            other = m[U(best + 1)]
            if m[U(count + o)] > m[U(count + other)]:
                continue
            same = m[U(count + o)] == m[U(count + other)]
            if same and distance(o, pointer, outputs) > distance(other, pointer, outputs):
                continue
        m[U(in_pick + i)] = r
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        if m[U(in_pick + i)] != r:
            continue
        best, pointer = m[U(out_pick + o)], m[U(grant + o * grant_step)]
        if best < 0 or distance(i, pointer, inputs) < distance(m[U(best)], pointer, inputs):
            m[U(out_pick + o)] = r
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        if m[U(out_pick + o)] == r:
            m[U(granted + (r - first) // REQUEST)] = 1
            m[U(accept + i * accept_step)] = (m[U(accept + i * accept_step)] + 1) % outputs
            m[U(grant + o * grant_step)] = (m[U(grant + o * grant_step)] + 1) % inputs


@compiled
def wavefront(m: Words, first: int, last: int, square: int, ranked: bool, start: int, steady: bool) -> None:
    """Diagonals of the request matrix, one after the other from `start` on; higher priorities before all others.

    The next allocation starts one diagonal later (`steady`), or after the first that won something.
    """
    granted = m[s.AT_GRANTED]
    in_done, out_done = m[s.AT_BEST], m[s.AT_BEST] + m[s.SIDES]
    begin, won = np.int64(m[U(start)]), np.int64(-1)
    while True:
        best, best_far = -1, 0
        for r in range(first, last, REQUEST):
            i, o = m[U(r)], m[U(r + 1)]
            if m[U(in_done + i)] >= 0 or m[U(out_done + o)] >= 0:
                continue
            far = (i + o - begin + square) % square
            if best >= 0:
                above = m[U(r + 3)] - m[U(best + 3)]
                if above == 0 and ranked:
                    above = m[U(r + 2)] - m[U(best + 2)]
                if above < 0 or (above == 0 and far >= best_far):
                    continue
            best, best_far = r, far
        if best < 0:
            break
        m[U(in_done + m[U(best)])] = 1
        m[U(out_done + m[U(best + 1)])] = 1
        m[U(granted + (best - first) // REQUEST)] = 1
        if won < 0:
            won = np.int64(m[U(best)] + m[U(best + 1)])
    m[U(start)] = ((begin if steady else won) + 1) % square


@compiled
def maximum(m: Words, first: int, last: int, inputs: int, outputs: int, start: int) -> None:
    """As many pairs as can be: shortest augmenting paths, from another input first each time."""
    granted, sides, dense = m[s.AT_GRANTED], m[s.SIDES], m[s.AT_DENSE]
    in_match, out_match = m[s.AT_BEST], m[s.AT_BEST] + sides
    came, queue = out_match + sides, out_match + 2 * sides
    for r in range(first, last, REQUEST):
        m[U(dense + m[U(r)] * outputs + m[U(r + 1)])] = 1
    for i in range(inputs):
        m[U(in_match + i)] = -1
    for o in range(outputs):
        m[U(out_match + o)] = -1
    while True:
        for o in range(outputs):
            m[U(came + o)] = -1
        head = tail = 0
        for k in range(inputs):
            i = (k + m[U(start)]) % inputs
            if m[U(in_match + i)] < 0:
                m[U(queue + tail)] = i
                tail += 1
        end = -1
        while head < tail and end < 0:
            i = m[U(queue + head)]
            head += 1
            for o in range(outputs):
                if m[U(dense + i * outputs + o)] and m[U(in_match + i)] != o and m[U(came + o)] < 0:
                    m[U(came + o)] = i
                    if m[U(out_match + o)] < 0:
                        end = o
                        break
                    m[U(queue + tail)] = m[U(out_match + o)]
                    tail += 1
        if end < 0:
            break
        while end >= 0:
            i = m[U(came + end)]
            before = m[U(in_match + i)]
            m[U(in_match + i)] = end
            m[U(out_match + end)] = i
            end = before
    m[U(start)] = (m[U(start)] + 1) % inputs
    for r in range(first, last, REQUEST):
        i, o = m[U(r)], m[U(r + 1)]
        m[U(dense + i * outputs + o)] = 0
        m[U(granted + (r - first) // REQUEST)] = 1 if m[U(in_match + i)] == o else 0
