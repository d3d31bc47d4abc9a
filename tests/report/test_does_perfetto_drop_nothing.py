"""Is every slice of a trace kept by Perfetto's nesting rule, and does the trace hold the schedule?

Perfetto (its slice tracker) goes through the complete events of a thread by time, takes those off the stack that end
at or before the new one's start, and drops the new one if it ends after the one below it.  It counts whole
nanoseconds; by version it cuts or rounds microseconds to them.  Flow events belong to the slice that is open at their
time.  Both rules are written out here.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tierform
from tierform import Result, library
from tierform.report import trace

Event = dict[str, Any]
TASKS: dict[str, tuple[str, Any]] = {
    "inference": ("gpt2", tierform.Inference(batch=2, sequence=32, decode=24)),
    "finetune": ("bert-base", tierform.FineTuning(tierform.LoRA(8), batch=2, sequence=32)),
    "training": ("gpt2", tierform.Training(batch=1, sequence=32)),
}
# Of a chip that cannot hold a weight of the models above.
OTHERS: dict[tuple[str, str], tuple[str, Any]] = {
    ("x-former", "inference"): ("bert-base", tierform.Inference(batch=2, sequence=32)),
    ("x-former", "training"): ("bert-base", tierform.Training(batch=1, sequence=32)),
}
MANY_TILES = {"isaac", "pipelayer", "retransformer", "atleus-2.5d", "hpt"}
CHIPS = [pytest.param(chip, marks=pytest.mark.slow if chip in MANY_TILES else ()) for chip in library.names("chips")]
READINGS: tuple[Callable[[float], int], ...] = (lambda us: int(us * 1000.0), lambda us: math.floor(us * 1000.0 + 0.5))


def kept(events: list[Event], ns: Callable[[float], int]) -> tuple[int, dict[tuple[int, int], list[tuple[int, int]]]]:
    """How many slices the rule drops, and those that it keeps by thread."""
    by_thread: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            start = ns(event["ts"])
            by_thread[event["pid"], event["tid"]].append((start, start + ns(event["dur"])))
    dropped, found = 0, {}
    for thread, slices in by_thread.items():
        stack: list[int] = []
        left = []
        for start, end in sorted(slices, key=lambda one: one[0]):  # stable: as written where equal
            while stack and stack[-1] <= start:
                stack.pop()
            if stack and end > stack[-1]:
                dropped += 1
                continue
            stack.append(end)
            left.append((start, end))
        found[thread] = left
    return dropped, found


def lost_flows(events: list[Event], slices: dict[tuple[int, int], list[tuple[int, int]]], ns: Any) -> int:
    """Flows of which an end is in no slice, or that arrive before they leave."""
    ends: dict[int, dict[str, Event]] = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            assert event["ph"] not in ends[event["id"]]
            ends[event["id"]][event["ph"]] = event
    lost = 0
    starts = {thread: dict(found) for thread, found in slices.items()}
    for flow in ends.values():
        times = {}
        for side, event in flow.items():
            time = times[side] = ns(event["ts"])
            lost += not starts[event["pid"], event["tid"]].get(time, time) > time
        lost += times["f"] < times["s"]
    return lost


def result(chip: str, task: str) -> Result:
    model, what = OTHERS.get((chip, task), TASKS[task])
    return tierform.simulate(model, what, chip, timeline=True)


def check(events: list[Event]) -> None:
    for ns in READINGS:
        dropped, slices = kept(events, ns)
        assert dropped == 0
        assert lost_flows(events, slices, ns) == 0


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("chip", CHIPS)
def test_is_no_slice_of_any_shipped_chip_dropped(chip: str, task: str) -> None:
    check(trace.events(result(chip, task)))


def test_does_the_rule_drop_what_overlaps() -> None:
    """The rule itself: touching and nested slices stay, a slice that reaches beyond the one below it goes."""

    def one(start: float, length: float) -> Event:
        return {"ph": "X", "ts": start, "dur": length, "pid": 1, "tid": 1}

    assert kept([one(0, 10), one(10, 5), one(11, 4), one(11, 2)], READINGS[0])[0] == 0
    assert kept([one(0, 10), one(9, 5)], READINGS[0])[0] == 1
    assert kept([one(0, 10), one(9.9994, 5)], READINGS[1])[0] == 1


@pytest.fixture(scope="module")
def tuned() -> Result:
    return tierform.simulate(*TASKS["finetune"], "atleus", timeline=True, thermal="transient")


def test_does_every_lane_hold_what_its_resource_did(tuned: Result) -> None:
    """The slices of a component's lanes sum to the time in which it works, and a crossbar lane is of one layer."""
    made = trace.events(tuned)
    names = {event["tid"]: event["args"]["name"] for event in made if event["name"] == "thread_name"}
    owners = {event["pid"]: event["args"]["name"] for event in made if event["name"] == "process_name"}
    busy: dict[str, float] = defaultdict(float)
    layers: dict[str, set[str]] = defaultdict(set)
    for event in made:
        if event["ph"] == "X" and owners[event["pid"]] != trace.STAGES:
            busy[owners[event["pid"]]] += event["dur"] * 1e-6
            layers[names[event["tid"]]].add(event["args"]["layer"])
    number = sum(slot.owner == "systolic" for slot in tuned.slots)
    assert busy["systolic"] == pytest.approx(tuned.busy_s_by_resource["systolic"], abs=1e-9 * number)
    crossbars = [name for name in layers if name.startswith("reram: ")]
    assert len(crossbars) >= 12 * 6  # six matrices in each of twelve layers
    assert all(len(layers[name]) == 1 for name in crossbars)


def test_is_a_repeated_stage_one_pass_and_one_marker() -> None:
    made = trace.events(result("a100", "inference"))
    stages = [event for event in made if event.get("cat") == trace.STAGES]
    markers = [event for event in stages if "skipped" in event["args"]]
    passes = [event["args"]["passes"] for event in stages if "passes" in event["args"]]
    assert sum(passes) == 1 + 24
    assert [event["args"]["skipped"] + 1 for event in markers] == [number for number in passes if number > 1]
    last = max(event["ts"] + event["dur"] for event in made if event["ph"] == "X")
    assert last * 1e-6 == pytest.approx(result("a100", "inference").latency_s, rel=1e-6)


def test_do_counters_give_back_energy_and_bytes(tuned: Result) -> None:
    """A counter's value times its stage's seconds, summed: the task's energy, and its bytes."""
    made = trace.events(tuned)
    for name, unit, total in (
        ("power", "W", tuned.energy_J),
        ("memory traffic", "GB/s", (tuned.memory_read_B + tuned.memory_write_B) / 1e9),
        ("network traffic", "GB/s", tuned.network_B / 1e9),
    ):
        series = [event for event in made if event["ph"] == "C" and event["name"].startswith(name)]
        assert series[-1]["args"][unit] == 0
        summed = sum(one["args"][unit] * (other["ts"] - one["ts"]) * 1e-6 for one, other in itertools.pairwise(series))
        assert summed == pytest.approx(total, rel=1e-4)
    hot = [event for event in made if event["ph"] == "C" and event["name"].startswith("hottest tile of reram-1")]
    assert tuned.thermal is not None
    assert len(hot) == len(tuned.thermal["transient"]["time_s"])


def test_do_flows_join_steps_that_wait_for_each_other(tuned: Result) -> None:
    """Of one layer: the scores wait for the query, the softmax for the scores."""
    slots = tuned.slots
    first = next(slot for slot in slots if slot.name == "attention.softmax" and slot.after)
    givers = {slots[number].name for number in first.after}
    through = {slots[deeper].name for number in first.after for deeper in slots[number].after}
    assert "attention.scores" in givers | through
    for slot in slots:
        for number in slot.after:
            assert slots[number].start_s < slot.start_s
            assert slots[number].stage == slot.stage


def test_is_the_file_json_that_a_reader_takes(tuned: Result, tmp_path: Path) -> None:
    tuned.trace(tmp_path / "trace.json")
    content = json.loads((tmp_path / "trace.json").read_text())
    assert content["traceEvents"] == json.loads(json.dumps(trace.events(tuned)))
    assert content["otherData"]["chip"] == "atleus"


def test_is_a_result_without_a_timeline_refused_with_the_reason() -> None:
    task = tierform.Inference(batch=2, sequence=16)
    with pytest.raises(tierform.TierformError, match="timeline=True"):
        trace.events(tierform.simulate("bert-base", task, "a100"))
    split = tierform.Parallelism(pipeline=2)
    with pytest.raises(tierform.TierformError, match="pipeline of chips"):
        trace.events(tierform.simulate("bert-base", task, "a100", parallelism=split, timeline=True))
