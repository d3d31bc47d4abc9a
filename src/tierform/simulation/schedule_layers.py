"""What is scheduled: layers of steps on resources, and what each step waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK_INPUT = -1


@dataclass(frozen=True, slots=True)
class Edge:
    """What a step waits for: the step `source` of its layer, BLOCK_INPUT, or PREVIOUS_INPUT: that of the layer before.

    `whole` waits for all chunks.  A transfer over `path` takes `head_s` for its head and holds the path for
    `transfer_s`; an empty path is no transfer.  `own` gives every layer a path of its own.
    """

    source: int
    whole: bool = False
    path: str = ""
    head_s: float = 0.0
    transfer_s: float = 0.0
    own: bool = False


@dataclass(frozen=True, slots=True)
class ScheduledOperator:
    """One operator of a layer on a resource.

    `own` gives every layer a resource of its own (weights in its own crossbars).  `occupancy_s` is for all chunks,
    `tail_s` what the result needs beyond that.  `fetch_s` of the resource `fetch` (memory) is spent first, prefetched
    while the step that feeds it waits for its turn or works, or already from the end of the step `freed_by` on.  The
    step begins with the first of `pieces` of its operands, ends after the last (:mod:`tierform.simulation.prefetch`).
    `once`: it takes all chunks together, when the last one is there.
    """

    name: str
    resource: str
    occupancy_s: float
    tail_s: float = 0.0
    own: bool = False
    after: tuple[Edge, ...] = (Edge(BLOCK_INPUT),)
    fetch: str = ""
    fetch_s: float = 0.0
    freed_by: int | None = None
    pieces: int = 1
    once: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """The steps of one layer; `output` is the step whose result the next layer takes."""

    name: str
    steps: tuple[ScheduledOperator, ...]
    output: int = -1


Run = Sequence[tuple[Layer, int]]
