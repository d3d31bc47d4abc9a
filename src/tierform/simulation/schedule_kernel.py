"""The service order of a stage's events, and the times that follow from it: what the schedule computes in loops.

An event is one chunk of one step of one layer and micro-batch.  :func:`order_events` lists the events in a service
order and finds what each waits for; that depends on no duration and is done once for each structure.  :func:`play`
goes through the list once and gives the times.  Their loops are in :mod:`tierform.simulation.schedule_loops`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tierform.machine_code import load_loop, pointer

Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]
Floats = NDArray[np.float64]
_NOTHING = np.zeros(1)


@dataclass(frozen=True, slots=True)
class Structure:
    """The events' structure, as arrays of whole numbers.

    `kinds` (layers,) and `start` (layers,) give each layer's kind and virtual start, `step_at` where the steps of a
    kind begin, `edge_at` where the edges of a step begin; `output` (kinds,) is the step that the next layer takes from;
    `wave_of` (micro-batches,) the wave of each.  `step_shared` is the number of a shared resource, -1 for an own one;
    `step_once` says that a step works once and not chunk by chunk; `edge_whole` that it waits for all chunks.
    """

    kinds: Ints
    start: Ints
    step_at: Ints
    step_level: Ints
    step_once: Ints
    step_shared: Ints
    edge_at: Ints
    edge_source: Ints
    edge_whole: Ints
    output: Ints
    wave_of: Ints


@dataclass(frozen=True, slots=True)
class Events:
    """All events in their service order: the step, resource and place of each, and the events that each waits for.

    `place` numbers (micro-batch, layer, step inside the layer, chunk); the waits of event e are
    ``waits[wait_at[e]:wait_at[e + 1]]``.  `addresses` are those of the arrays.
    """

    step: Numbers
    resource: Numbers
    place: Numbers
    wait_at: Numbers
    waits: Numbers
    addresses: tuple[int, int, int, int]


def order_events(given: Structure, chunks: int, weight: int, spacing: int, shared: int, wave_steps: int) -> Events:
    """The events sorted by virtual time; see the module's text.

    An event's virtual time is start + level of its step + chunk * weight + micro-batch * spacing.  Of equal ones the
    earlier micro-batch, layer and step come first.
    """
    layers, micro_batches = len(given.kinds), len(given.wave_of)
    sizes = np.diff(given.step_at)
    most = int(sizes.max())
    times = np.where(given.step_once != 0, 1, chunks)
    own = np.add.reduceat(times, given.step_at[:-1])
    number = int(micro_batches * own[given.kinds].sum())
    edges = np.add.reduceat(times * np.diff(given.edge_at), given.step_at[:-1])
    highest = np.maximum.reduceat(given.step_level, given.step_at[:-1])
    latest = int((given.start + highest[given.kinds]).max()) + weight * (chunks - 1) + spacing * (micro_batches - 1) + 1
    place = np.empty(micro_batches * layers * most * chunks, np.int32)
    step, resource, where = np.empty(number, np.int32), np.empty(number, np.int32), np.empty(number, np.int32)
    wait_at = np.empty(number + 1, np.int32)
    waits = np.empty(int(micro_batches * edges[given.kinds].sum()), np.int32)
    count = np.zeros(latest + 1, np.int64)
    facts = np.array(
        [layers, micro_batches, chunks, most, weight, spacing, shared, wave_steps, latest, number], dtype=np.int64
    )
    arrays = (
        *(facts, given.kinds, given.start, given.step_at, given.step_level, given.step_once, given.step_shared),
        *(given.edge_at, given.edge_source, given.edge_whole, given.output, given.wave_of),
        *(place, step, resource, where, wait_at, waits, count),
    )
    _loop("order")(*(pointer(array) for array in arrays))
    return Events(
        step, resource, where, wait_at, waits, (pointer(step), pointer(resource), pointer(wait_at), pointer(waits))
    )


def play(events: Events, step_time: Floats, step_tail: Floats, resources: int) -> float:
    """Makespan of the events in their order."""
    return _play(events, step_time, step_tail, resources, _NOTHING, _NOTHING, False)


def play_out(events: Events, step_time: Floats, step_tail: Floats, resources: int) -> tuple[Floats, Floats]:
    """Begin and end of every event."""
    begin, end = np.zeros(len(events.step)), np.zeros(len(events.step))
    _play(events, step_time, step_tail, resources, begin, end, True)
    return begin, end


def _play(
    events: Events, step_time: Floats, step_tail: Floats, resources: int, begin: Floats, end: Floats, record: bool
) -> float:
    free, done, out = np.zeros(resources), np.empty(len(events.step)), np.zeros(1)
    _loop("play")(
        *events.addresses,
        *(pointer(array) for array in (step_time, step_tail, free, done, begin, end)),
        len(events.step),
        int(record),
        pointer(out),
    )
    return float(out[0])


@lru_cache(maxsize=2)
def _loop(name: str) -> Callable[..., int]:
    """A loop as a ctypes function."""
    address, word = ctypes.c_void_p, ctypes.c_int64
    arguments = {"order": (address,) * 19, "play": (*(address,) * 10, word, word, address)}[name]

    def source() -> tuple[Callable[..., int], str]:
        from tierform.simulation import schedule_loops

        return getattr(schedule_loops, name), schedule_loops.SIGNATURES[name]

    found: Callable[..., int] = load_loop(
        f"schedule-{name}", [Path(__file__).with_name("schedule_loops.py")], arguments, source
    )
    return found
