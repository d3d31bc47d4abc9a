"""The rows of a Result: stages, operators, wear, bars of the timeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage: its repetitions, time and energy in all, tokens processed, bytes with memory and over the network.

    `kind` says what it is to the task (forward, backward, update, prefill, decode, ...), whatever its name.
    """

    name: str
    repeat: int
    latency_s: float
    energy_J: float
    tokens: int
    memory_B: float = 0.0
    network_B: float = 0.0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class OperatorResult:
    """A distinct operator: where it ran, how often, and what it took in all (its own time, not the schedule's).

    `kernel` names the fused kernel of which it is a part, if there is one.
    """

    stage: str
    block: str
    name: str
    kind: str
    component: str
    times: int
    busy_s: float
    energy_J: float
    operations: float
    memory_B: float
    network_B: float
    utilization: float
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class Wear:
    """What the task writes to non-volatile cells, and how long they last at that rate.

    `writes_per_cell` is the most that any cell is written; lifetimes are None when nothing is written.
    """

    cell_writes: int
    writes_per_cell: float
    endurance_writes: float
    lifetime_tasks: float | None
    lifetime_s: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the timeline, in the whole task's time; `repeats` > 1 stands for so many equal ones in a row."""

    stage: str
    resource: str
    name: str
    layer: int
    micro_batch: int
    start_s: float
    end_s: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A time in which one resource works on one step of a stage's first pass, in the task's time.

    `owner` is the component, ``network``, or what is fetched (``memory``, ``programming``); `lane` the resource itself:
    crossbars of a weight are one of each layer.  `kind` is operator, transfer or fetch; `layer` the block and its
    number; `after` the slots (by number) for which the step waited.
    """

    stage: str
    owner: str
    lane: str
    kind: str
    name: str
    layer: str
    micro_batch: int
    start_s: float
    end_s: float
    after: tuple[int, ...] = ()
