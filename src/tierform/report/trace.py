"""The timeline in the trace-event format (JSON) that Perfetto and chrome://tracing open.

A process for each component, the network, the memory and the stages; a thread (lane) for each single resource: the
crossbars of a weight are one of each layer.  A stage that is repeated is drawn once, with one marker for the rest.
Counters have the mean power and bandwidths of each stage and the temperature of each die; flows lead from each step
to those that waited for it.

Perfetto drops a slice that overlaps another one of its lane without lying inside it, and keeps whole nanoseconds.  So
all times here are whole nanoseconds, ordered as in the schedule, and steps of one lane that overlap (transfers of one
name over paths of their own) are put in further lanes.  Numbers are written so that both of the ways in which readers
make nanoseconds of microseconds, rounding and cutting, give the same.

Format: "Trace Event Format", Google, 2016 (``X``, ``M``, ``C``, ``s`` and ``f`` events).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tierform.errors import fail
from tierform.files import write_text
from tierform.simulation.records import Slot
from tierform.simulation.result import Result

Event = dict[str, object]
STAGES, COUNTERS = "stages", "counters"
_PART_OF_NS = 0.0002  # of a microsecond, so that 0.2 ns: neither cut nor rounded away from the whole nanosecond


@dataclass(slots=True)
class _Lanes:
    """Processes and threads by their names, in the order in which they are met."""

    processes: dict[str, int]
    threads: dict[tuple[str, str], int]

    def process(self, name: str) -> int:
        return self.processes.setdefault(name, len(self.processes) + 1)

    def thread(self, process: str, name: str) -> tuple[int, int]:
        return self.process(process), self.threads.setdefault((process, name), len(self.threads) + 1)

    def names(self) -> Iterator[Event]:
        for place, (name, pid) in enumerate(self.processes.items()):
            yield {"name": "process_name", "ph": "M", "pid": pid, "args": {"name": name}}
            yield {"name": "process_sort_index", "ph": "M", "pid": pid, "args": {"sort_index": place}}
        for (process, name), tid in self.threads.items():
            pid = self.processes[process]
            yield {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
            yield {"name": "thread_sort_index", "ph": "M", "pid": pid, "tid": tid, "args": {"sort_index": tid}}


def events(result: Result) -> list[Event]:
    """The timeline as trace events; TierformError when the Result was made without a timeline."""
    if not result.slots:
        if result.parallelism["pipeline"] > 1:
            fail("a pipeline of chips has no timeline", fix="Simulate one chip, or tensor and data parallelism.")
        fail("this result has no timeline", fix="Simulate with timeline=True.")
    lanes = _Lanes({}, {})
    rows = [*_stages(result, lanes), *_counters(result, lanes), *_slots(result, lanes)]
    return [*lanes.names(), *rows]


def _slice(where: tuple[int, int], name: str, category: str, start: int, end: int, args: Event) -> Event:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": _us(start),
        "dur": _us(end - start),
        "pid": where[0],
        "tid": where[1],
        "args": args,
    }


def _us(ns: int) -> float:
    """Microseconds of whole nanoseconds; see the module's text."""
    return round(ns / 1000 + _PART_OF_NS, 4)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


# -- slices ------------------------------------------------------------------------------------------------------
def _stages(result: Result, lanes: _Lanes) -> Iterator[Event]:
    """Each stage whole, and inside it the pass that is drawn and the marker of those that are not."""
    where = lanes.thread(STAGES, STAGES)
    steps, clock_s = int(result.task.get("steps", 1)), 0.0
    for stage in result.stages:
        seconds = stage.latency_s / steps
        start, end = _ns(clock_s), _ns(clock_s + seconds)
        args: Event = {"passes": stage.repeat, "tokens": stage.tokens // steps, "energy_J": stage.energy_J / steps}
        yield _slice(where, stage.name, STAGES, start, end, args)
        if stage.repeat > 1:
            first = _ns(clock_s + seconds / stage.repeat)
            yield _slice(where, "one pass", STAGES, start, first, {})
            skipped = stage.repeat - 1
            yield _slice(where, f"x {skipped}, equal", STAGES, first, end, {"skipped": skipped})
        clock_s += seconds


def _slots(result: Result, lanes: _Lanes) -> Iterator[Event]:
    """The slots of every lane, none over another, and the flows between them."""
    slots = result.slots
    by_lane: dict[tuple[str, str], list[int]] = {}
    for number, slot in enumerate(slots):
        by_lane.setdefault((slot.owner, slot.lane), []).append(number)
    drawn: dict[int, tuple[tuple[int, int], int, int]] = {}
    for (owner, lane), members in by_lane.items():
        members.sort(key=lambda number: (slots[number].start_s, slots[number].end_s))
        ends: list[int] = []
        for number in members:
            start, end = _ns(slots[number].start_s), _ns(slots[number].end_s)
            free = next((place for place, last in enumerate(ends) if last <= start + 1), len(ends))
            start = max(start, ends[free]) if free < len(ends) else start
            end = max(start, end)
            ends[free : free + 1] = [end]
            where = lanes.thread(owner, lane if free == 0 else f"{lane} ({free + 1})")
            drawn[number] = (where, start, end)
            yield _slice(where, slots[number].name, slots[number].stage, start, end, _facts(slots[number]))
    yield from _flows(slots, drawn)


def _facts(slot: Slot) -> Event:
    return {"layer": slot.layer, "micro_batch": slot.micro_batch}


def _flows(slots: tuple[Slot, ...], drawn: dict[int, tuple[tuple[int, int], int, int]]) -> Iterator[Event]:
    """An arrow from each slot to every one that waited for it; slots below a nanosecond have no place for one."""
    number = 0
    for taker, slot in enumerate(slots):
        there, arrives, end = drawn[taker]
        for giver in slot.after:
            here, leaves, done = drawn[giver]
            if leaves == done or arrives == end or leaves > arrives:
                continue
            number += 1
            common = {"name": "waits for", "cat": "flow", "id": number}
            yield {**common, "ph": "s", "ts": _us(leaves), "pid": here[0], "tid": here[1]}
            yield {**common, "ph": "f", "bp": "e", "ts": _us(arrives), "pid": there[0], "tid": there[1]}


# -- counters ----------------------------------------------------------------------------------------------------
def _counters(result: Result, lanes: _Lanes) -> Iterator[Event]:
    """Mean power and bandwidths of each stage, and temperatures; zero after the end."""
    pid, clock_s = lanes.process(COUNTERS), 0.0
    steps = int(result.task.get("steps", 1))
    for stage in result.stages:
        for name, unit, amount in (
            ("power (mean of the stage)", "W", stage.energy_J),
            ("memory traffic (mean of the stage)", "GB/s", stage.memory_B / 1e9),
            ("network traffic (mean of the stage)", "GB/s", stage.network_B / 1e9),
        ):
            value = amount / stage.latency_s if stage.latency_s else 0.0
            yield _count(pid, name, unit, clock_s, value)
        clock_s += stage.latency_s / steps
    for name, unit in (
        ("power (mean of the stage)", "W"),
        ("memory traffic (mean of the stage)", "GB/s"),
        ("network traffic (mean of the stage)", "GB/s"),
    ):
        yield _count(pid, name, unit, clock_s, 0.0)
    yield from _temperatures(result, pid, clock_s)


def _temperatures(result: Result, pid: int, end_s: float) -> Iterator[Event]:
    """The hottest tile of each die over time, or its steady value where no transient was asked for."""
    if result.thermal is None:
        return
    moving = result.thermal.get("transient")
    for die in result.thermal["dies"]:
        name = f"hottest tile of {die['name']}"
        values = moving["peak_K_by_die"][die["name"]] if moving else [die["peak_K"]] * 2
        times = moving["time_s"] if moving else [0.0, end_s]
        for seconds, kelvin in zip(times, values, strict=True):
            yield _count(pid, name if moving else f"{name} (steady)", "degC", seconds, kelvin - 273.15)


def _count(pid: int, name: str, unit: str, seconds: float, value: float) -> Event:
    return {"name": f"{name}, {unit}", "ph": "C", "pid": pid, "ts": _us(_ns(seconds)), "args": {unit: value}}


def write(path: Path | str, result: Result) -> None:
    """Write the trace file, an event a line."""
    head = {"model": result.model, "chip": result.chip, "program": f"tierform {result.versions['tierform']}"}
    steps = int(result.task.get("steps", 1))
    if steps > 1:
        head["steps"] = f"one of {steps}"
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), allow_nan=False) for event in events(result))
    write_text(path, f'{{"displayTimeUnit":"ns","otherData":{json.dumps(head)},"traceEvents":[\n{lines}\n]}}\n')
