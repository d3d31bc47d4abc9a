"""The compiled part of the schedule: the service order of a stage's events, and the times that follow from it.

An event is one chunk of one step of one layer and micro-batch.  :func:`order_events` lists the events in a service
order and finds what each waits for; that depends on no duration and is done once for each structure.  :func:`play`
goes through the list once and gives the times.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK_INPUT = -1
BEFORE_INPUT = -2  # what the step that makes the block's input waits for
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@njit(cache=True, nogil=True)
def order_events(  # type: ignore[no-untyped-def]
    kinds,
    start,
    micro_batches,
    chunks,
    step_at,
    step_level,
    step_once,
    step_shared,
    edge_at,
    edge_source,
    edge_whole,
    output,
    wave_of,
    wave_steps,
    weight,
    spacing,
    shared,
):
    """(step index, resource, first wait, waits, event number by place) of all events, sorted by virtual time.

    `kinds` (layers,) and `start` (layers,) give each layer's kind and virtual start; an event's virtual time is
    start + level of its step + chunk * weight + micro-batch * spacing.  Of equal ones the earlier micro-batch, layer
    and step come first.
    """
    layers = len(kinds)
    most = 0
    for kind in range(len(output)):
        most = max(most, step_at[kind + 1] - step_at[kind])
    number = 0
    latest = 0
    for layer in range(layers):
        kind = kinds[layer]
        for step in range(step_at[kind], step_at[kind + 1]):
            number += micro_batches * (1 if step_once[step] else chunks)
            latest = max(latest, start[layer] + step_level[step])
    latest += weight * (chunks - 1) + spacing * (micro_batches - 1) + 1
    # A counting sort by virtual time, stable in (micro-batch, layer, step, chunk).
    count = np.zeros(latest + 1, np.int64)
    for micro in range(micro_batches):
        for layer in range(layers):
            kind = kinds[layer]
            for step in range(step_at[kind], step_at[kind + 1]):
                time = start[layer] + step_level[step] + micro * spacing
                for c in range(1 if step_once[step] else chunks):
                    count[time + c * weight + 1] += 1
    for time in range(latest):
        count[time + 1] += count[time]
    place = np.full(micro_batches * layers * most * chunks, -1, np.int32)
    event_step = np.empty(number, np.int32)
    event_resource = np.empty(number, np.int32)
    event_place = np.empty(number, np.int64)
    for micro in range(micro_batches):
        for layer in range(layers):
            kind = kinds[layer]
            for step in range(step_at[kind], step_at[kind + 1]):
                time = start[layer] + step_level[step] + micro * spacing
                for c in range(1 if step_once[step] else chunks):
                    event = count[time + c * weight]
                    count[time + c * weight] += 1
                    inside = step - step_at[kind]
                    where = ((micro * layers + layer) * most + inside) * chunks + c
                    place[where] = event
                    event_place[event] = where
                    event_step[event] = wave_of[micro] * wave_steps + step
                    own = shared + layer * most + inside
                    event_resource[event] = step_shared[step] if step_shared[step] >= 0 else own
    wait_at = np.zeros(number + 1, np.int64)
    for event in range(number):
        step = event_step[event] % wave_steps
        wait_at[event + 1] = wait_at[event] + edge_at[step + 1] - edge_at[step]
    waits = np.empty(wait_at[number], np.int32)
    for event in range(number):
        step = event_step[event] % wave_steps
        where = event_place[event]
        c = where % chunks
        inside = (where // chunks) % most
        row = where // (chunks * most)
        layer = row % layers
        micro = row // layers
        at = wait_at[event]
        for edge in range(edge_at[step], edge_at[step + 1]):
            source = edge_source[edge]
            when = chunks - 1 if edge_whole[edge] else c
            found = -1
            if source >= 0:
                giver = step_at[kinds[layer]] + source
                if step_once[giver]:
                    when = 0
                found = place[((micro * layers + layer) * most + source) * chunks + when]
            elif layer > 0:
                giver = output[kinds[layer - 1]]
                if source == BEFORE_INPUT:
                    giver = edge_source[edge_at[step_at[kinds[layer - 1]] + giver]]
                    when = 0
                if giver >= 0:
                    found = place[((micro * layers + layer - 1) * most + giver) * chunks + when]
            waits[at] = found
            at += 1
    return event_step, event_resource, wait_at, waits, event_place


@njit(cache=True, nogil=True)
def play(event_step, event_resource, wait_at, waits, step_time, step_tail, resources, begin, end):  # type: ignore[no-untyped-def]
    """Makespan of the events in their order; fills `begin` and `end` of each event where they are not empty."""
    free = np.zeros(resources)
    done = np.empty(len(event_step))
    makespan = 0.0
    record = len(begin) > 0
    for event in range(len(event_step)):
        ready = 0.0
        for at in range(wait_at[event], wait_at[event + 1]):
            if waits[at] >= 0:
                ready = max(ready, done[waits[at]])
        time = step_time[event_step[event]]
        if time > 0.0:
            resource = event_resource[event]
            ready = max(ready, free[resource])
            free[resource] = ready + time
        if record:
            begin[event] = ready
            end[event] = ready + time
        finish = ready + time + step_tail[event_step[event]]
        done[event] = finish
        makespan = max(makespan, finish)
    return makespan
