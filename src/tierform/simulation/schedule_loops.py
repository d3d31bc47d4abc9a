# mypy: ignore-errors
"""The compiled loops of the schedule: see :mod:`tierform.simulation.schedule_kernel`, which calls them by addresses.

They are compiled as C functions over pointers and numbers, and hold nothing but what they are given.
"""

from __future__ import annotations

BEFORE_INPUT = -2
PREVIOUS_INPUT = -3
# Places in `sizes`, the numbers that describe a structure.
LAYERS, MICRO_BATCHES, CHUNKS, MOST, WEIGHT, SPACING, SHARED, WAVE_STEPS, LATEST, EVENTS = range(10)
SIGNATURES = {
    "order": "i8(" + ", ".join(["CPointer(i8)"] * 12 + ["CPointer(i4)"] * 6 + ["CPointer(i8)"]) + ")",
    "play": "i8(" + ", ".join(["CPointer(i4)"] * 4 + ["CPointer(f8)"] * 6 + ["i8", "i8", "CPointer(f8)"]) + ")",
}


def order(
    sizes,
    kinds,
    start,
    step_at,
    step_level,
    step_once,
    step_shared,
    edge_at,
    edge_source,
    edge_whole,
    output,
    wave_of,
    place,
    event_step,
    event_resource,
    event_place,
    wait_at,
    waits,
    count,
):
    """Sort the events by virtual time and find what each waits for; all arrays are there and `count` is zero."""
    layers, micro_batches, chunks, most = sizes[0], sizes[1], sizes[2], sizes[3]
    weight, spacing, shared, wave_steps = sizes[4], sizes[5], sizes[6], sizes[7]
    latest, number = sizes[8], sizes[9]
    # A counting sort by virtual time, stable in (micro-batch, layer, step, chunk).
    for micro in range(micro_batches):
        for layer in range(layers):
            kind = kinds[layer]
            for step in range(step_at[kind], step_at[kind + 1]):
                early = layer > 0 and edge_source[edge_at[step]] == PREVIOUS_INPUT
                time = start[layer - early] + step_level[step] + micro * spacing
                for c in range(1 if step_once[step] else chunks):
                    count[time + c * weight + 1] += 1
    for time in range(latest):
        count[time + 1] += count[time]
    for where in range(micro_batches * layers * most * chunks):
        place[where] = -1
    for micro in range(micro_batches):
        for layer in range(layers):
            kind = kinds[layer]
            for step in range(step_at[kind], step_at[kind + 1]):
                early = layer > 0 and edge_source[edge_at[step]] == PREVIOUS_INPUT
                time = start[layer - early] + step_level[step] + micro * spacing
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
    at = 0
    for event in range(number):
        step = event_step[event] % wave_steps
        where = event_place[event]
        c = where % chunks
        row = where // (chunks * most)
        layer = row % layers
        micro = row // layers
        wait_at[event] = at
        for edge in range(edge_at[step], edge_at[step + 1]):
            source = edge_source[edge]
            when = chunks - 1 if edge_whole[edge] else c
            found = -1
            if source >= 0:
                giver = step_at[kinds[layer]] + source
                if step_once[giver]:
                    when = 0
                found = place[((micro * layers + layer) * most + source) * chunks + when]
            elif source <= PREVIOUS_INPUT:  # or EARLY_INPUT
                if layer > 1:
                    giver = output[kinds[layer - 2]]
                    when = 0 if step_once[step_at[kinds[layer - 2]] + giver] else c
                    found = place[((micro * layers + layer - 2) * most + giver) * chunks + when]
            elif layer > 0:
                giver = output[kinds[layer - 1]]
                back = 1
                if source == BEFORE_INPUT:
                    giver = edge_source[edge_at[step_at[kinds[layer - 1]] + giver]]
                    when = 0
                    if giver < 0 and layer > 1:  # the layer before begins with its output
                        back, giver = 2, output[kinds[layer - 2]]
                if giver >= 0:
                    if step_once[step_at[kinds[layer - back]] + giver]:
                        when = 0
                    found = place[((micro * layers + layer - back) * most + giver) * chunks + when]
            if found >= 0:
                waits[at] = found
                at += 1
    wait_at[number] = at
    return at


def play(event_step, event_resource, wait_at, waits, step_time, step_tail, free, done, begin, end, number, record, out):
    """Go through the events in their order; `out` gets the makespan, `begin` and `end` the times where recorded."""
    makespan = 0.0
    at = 0
    for event in range(number):
        ready = 0.0
        last = wait_at[event + 1]
        while at < last:
            given = done[waits[at]]
            if given > ready:
                ready = given
            at += 1
        step = event_step[event]
        time = step_time[step]
        if time > 0.0:
            resource = event_resource[event]
            if free[resource] > ready:
                ready = free[resource]
            free[resource] = ready + time
        if record:
            begin[event] = ready
            end[event] = ready + time
        finish = ready + time + step_tail[step]
        done[event] = finish
        if finish > makespan:
            makespan = finish
    out[0] = makespan
    return number
