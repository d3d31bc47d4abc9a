"""An oracle from physics: tables made from ``simulate`` of single passes, for any model, chip, split and runtime.

On a board whose kernels run one after the other (a GPU) a pass is a sum of kernels, so its parts are read off the
ledger: what goes by tokens, attention of each group, the head and the choice of tokens by sampled rows.  The board's
power limit acts on the sum, as in `tierform.simulation.power_cap`.  On other chips a pass is a schedule; there the
table holds whole passes (a prompt of T tokens, n decodes at a context, a chunk after a past), and mixed steps are sums
of their differences.

Decodes of a step are one kernel at their mean context (``simulate`` of groups of unequal contexts would be a kernel for
each).  Tables are kept in the cache folder.  Limits: no pipeline parallelism, tokens of experts as ``simulate`` spreads
them; contexts beyond the memory are extended linearly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import fsum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.files import atomic_path, cache_folder, make_folder
from tierform.serving.kernel_oracle import BOARD, TABLES
from tierform.serving.oracle import StepCost, StepShape, line, packed_cost, plane
from tierform.simulation.job import Job
from tierform.simulation.ledger import Booked
from tierform.simulation.power_cap import ARITHMETIC
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.memory import BlockKind
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

Floats = NDArray[np.float64]
T = TypeVar("T")
VERSION = 2  # of the tables: raise it when what they hold changes
ROOMY = "1000 TB"
AT_ONCE = 4  # passes among which the groups of one number of sequences are shared
PASTS = (64, 256, 512, 1024, 2048, 4096, 8192, 16384)
STRAIGHT = 0.002  # a table's line is straight where its middle is off by no more than this share


@dataclass(frozen=True)
class Grid:
    """Where passes are simulated."""

    tokens: tuple[int, ...]
    sequences: tuple[int, ...]
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    pasts: tuple[int, ...]


def grid_for(most_tokens: int, most_sequences: int, longest: int) -> Grid:
    """Points for an engine; where tiles of 64 queries end, attention takes a step, so both sides are points."""
    doubled = [1 << power for power in range(40)]
    sequences = [
        part for one in doubled for part in ((one,) if one < 4 else (one, one * 5 // 4, one * 3 // 2, one * 7 // 4))
    ]
    contexts = [
        part
        for one in doubled
        if one >= 16
        for part in ((one, one * 5 // 4, one * 3 // 2, one * 7 // 4) if one < 1024 else (one, one * 3 // 2))
    ]
    edges = [one for one in range(64, most_tokens, 64) if one <= 512 or one % 128 == 0]
    tokens = [one for edge in range(64, most_tokens, 64 * max(1, most_tokens // 4096)) for one in (edge, edge + 1)]
    small = [one for one in (1, 2, 4, 8, 16, 32) if one < most_tokens]
    return Grid(
        tokens=tuple(sorted({*small, *tokens, most_tokens})),
        sequences=tuple(sorted({*(one for one in sequences if one < most_sequences), most_sequences})),
        contexts=tuple(sorted({1, *(one for one in contexts if one < longest), longest})),
        chunks=tuple(sorted({2, 16, *edges, *(one + 1 for one in edges), most_tokens})),
        pasts=tuple(sorted({0, *(one for one in PASTS if one < longest), longest})),
    )


@dataclass(frozen=True)
class _Parts:
    """What a pass is made of; each (seconds, of these at the clock, joules of arithmetic, other joules)."""

    tokens: Floats
    attention: Floats
    head: Floats
    seconds: float
    joules: dict[str, float]


@dataclass(frozen=True, eq=False)
class SimulatedOracle:
    """Step times and energies of a model on a chip; see the module's text.

    `grid` says where passes are simulated; `components` are known once the tables are built.
    """

    model: Model
    chip: Chip
    runtime: Runtime
    grid: Grid
    parallelism: Parallelism = field(default_factory=Parallelism)
    precision: PrecisionPlan | None = None
    progress: Callable[[float], None] | None = None
    _packed: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.parallelism.pipeline > 1:
            what = "serving knows no pipeline parallelism inside a replica yet"
            raise TierformError([Problem(what, key="pipeline", value=self.parallelism.pipeline, fix="Use tensor.")])

    @property
    def components(self) -> tuple[str, ...]:
        """Whose energy is told."""
        return ("board",) if self._on_board else self._names()

    @property
    def _on_board(self) -> bool:
        return len(self.chip.can.boards) == 1

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self._result((SequenceGroup(1, 1, 16),)).energy_J_by_component))

    def packed(self) -> Floats:
        """The tables for the compiled loop: from the cache folder, or built now."""
        if "tables" not in self._packed:
            kept = cache_folder("serving")
            path = kept / f"{self.key}.npy" if kept is not None else None
            if path is not None and path.is_file():
                self._packed["tables"] = np.load(path)
            else:
                self._packed["tables"] = self._board_tables() if self._on_board else self._pass_tables()
                if path is not None:
                    make_folder(path.parent, parents=True)
                    with atomic_path(path) as temporary, temporary.open("wb") as opened:
                        np.save(opened, self._packed["tables"])
        return self._packed["tables"]

    @property
    def key(self) -> str:
        """A hash of all that the tables depend on."""
        job = self._job((SequenceGroup(1, 1, 1),))
        return hashlib.sha256(json.dumps([VERSION, job.key, repr(self.grid)]).encode()).hexdigest()[:32]

    def cost(self, step: StepShape) -> StepCost:
        """Seconds and joules of a step."""
        return packed_cost(self.packed(), step)

    def _job(self, groups: Iterable[SequenceGroup]) -> Job:
        return Job(
            model=self.model,
            task=Step(tuple(groups), precision=self.precision),
            chip=self.chip,
            parallelism=self.parallelism,
            runtime=self.runtime,
            thermal="none",
            mapping="plain",
        )

    def _result(self, groups: Iterable[SequenceGroup]) -> Result:
        return self._job(groups).simulate()

    def _try(self, *group: int) -> Result | None:
        """The pass of one group, or None where it does not fit the memory."""
        try:
            return self._result([SequenceGroup(*group)])
        except TierformError:
            return None

    # -- a board: sums of kernels -----------------------------------------------------------------------------
    def _parts(self, result: Result) -> _Parts:
        run = result._run
        assert run is not None
        found = {"tokens": np.zeros(4), "attention": np.zeros(4), "head": np.zeros(4)}
        for booked in run.ledger.booked:
            column = "attention" if booked.execution.operator.attention is not None else "tokens"
            if booked.block.kind is BlockKind.HEAD:
                column = "head"
            found[column] += self._four(booked, run.timed[0].clock)
        return _Parts(
            found["tokens"], found["attention"], found["head"], result.latency_s, result.energy_J_by_component
        )

    def _board_tables(self) -> Floats:
        grid, board = self.grid, next(iter(self.chip.can.boards.values()))
        roomy = self._roomy()
        pairs = [(n, 1, context - 1) for n in grid.sequences for context in grid.contexts]
        chunks = [(1, chunk, past) for chunk in grid.chunks for past in grid.pasts]
        rows = sorted(
            {1, *(one for one in (16, 64, 65, 128, 129, 256, 257) if one < grid.sequences[-1]), grid.sequences[-1]}
        )
        done = _Progress(2 * len(grid.tokens) + len(rows) + AT_ONCE * (len(grid.sequences) + 1), self.progress)
        first = self._result([SequenceGroup(1, 1, 1)])
        run = first._run
        assert run is not None
        tokens, by_tokens = _refined(grid.tokens, lambda one: self._parts(done(roomy._needed(1, one, 0))).tokens)
        heads = [self._parts(done(roomy._needed(one, 1, 1))).head for one in rows]
        attention = roomy._attention(pairs, done) | roomy._attention(chunks, done)
        decode = np.array([attention[n, 1, past + 1] for n, _, past in pairs])
        prefill = np.array([attention[1, chunk, chunk + past] for _, chunk, past in chunks])
        scale, static_W = run.scale, fsum(run.static_J.values()) / run.pass_s
        sampling_s = self.runtime.sampling_s * self.model.vocabulary / self.parallelism.data
        sampling_W = board.active_W + board.headroom_W * self.runtime.sampling_power / self.parallelism.tensor
        floor_W = max(booked.execution.floor_W for booked in run.ledger.booked)
        prompt = self._result([SequenceGroup(1, 16, 0)])._run
        assert prompt is not None
        host = [self.runtime.step_s, scale, prompt.timed[0].issue_s, run.timed[0].issue_s]
        fixed = [board.headroom_W, floor_W, static_W * scale, sampling_s, sampling_W * scale, *host]
        return np.concatenate(
            [
                [BOARD, 1, *fixed],
                line(tokens, by_tokens),
                line(rows, np.stack(heads)),
                plane(grid.sequences, grid.contexts, decode),
                plane(grid.chunks, grid.pasts, prefill),
            ]
        )

    def _roomy(self) -> SimulatedOracle:
        """The same with a memory that holds every point of the tables: its size is no part of a kernel's time."""
        if self.chip.origin is None:
            return self
        (name,) = self.chip.can.boards
        try:
            chip = self.chip.vary({f"components.{name}.memory_capacity": ROOMY})
        except TierformError:
            return self
        return replace(self, chip=chip, _packed={})

    def _attention(self, groups: list[tuple[int, int, int]], done: _Progress) -> dict[tuple[int, int, int], Floats]:
        """What attention of each group takes, by (sequences, queries, keys); many groups in one pass."""
        found: dict[tuple[int, int, int], Floats] = {}
        # Groups of equal lengths would become one, so each pass has sequences of one number.
        passes = [
            [one for one in groups if one[0] == number][start::AT_ONCE]
            for number in sorted({one[0] for one in groups})
            for start in range(AT_ONCE)
        ]
        for some in passes:
            if not some:
                continue
            result = done(self._result([SequenceGroup(*group) for group in some]))
            run = result._run
            assert run is not None
            for booked in run.ledger.booked:
                record = booked.execution.operator.attention
                if record is not None:
                    key = (record.sequences, record.queries, record.keys)
                    found[key] = found.get(key, np.zeros(4)) + self._four(booked, run.timed[0].clock)
        return found

    def _four(self, booked: Booked, clock: float) -> Floats:
        """Of an execution at a clock: seconds at full clock, of these at the clock, joules of arithmetic, others."""
        ((name, board),) = self.chip.can.boards.items()
        cost, own = booked.execution.cost, booked.execution.component == name
        clock = clock if own else 1.0
        slow_s = max(0.0, cost.occupancy_s - board.memory_s(cost.memory_read_B + cost.memory_write_B)) if own else 0.0
        arithmetic = cost.energy_J.get(ARITHMETIC, 0.0) if own else 0.0
        full_s = cost.occupancy_s - slow_s * (1 - clock)
        other = cost.total_energy_J - arithmetic
        return np.array([full_s, slow_s * clock, arithmetic / clock**2, other]) * booked.times

    def _needed(self, *group: int) -> Result:
        return self._result([SequenceGroup(*group)])

    # -- any chip: whole passes -------------------------------------------------------------------------------
    def _pass_tables(self) -> Floats:
        grid, names = self.grid, self.components
        coarse = [one for place, one in enumerate(grid.tokens) if place % 4 == 0 or one == grid.tokens[-1]]
        sequences = list(grid.sequences[::2]) + ([grid.sequences[-1]] if len(grid.sequences) % 2 == 0 else [])
        contexts = list(grid.contexts[::3]) + ([grid.contexts[-1]] if (len(grid.contexts) - 1) % 3 else [])
        chunks, pasts = [grid.chunks[0], *grid.chunks[3::4], grid.chunks[-1]], list(grid.pasts[::3])
        chunks = sorted(set(chunks))
        passes = len(coarse) + len(sequences) * len(contexts) + len(chunks) * len(pasts)
        done = _Progress(passes, self.progress)

        def row(result: Result | None) -> Floats | None:
            if result is None:
                return None
            return np.array([result.latency_s, *(result.energy_J_by_component.get(name, 0.0) for name in names)])

        def known(result: Result | None) -> Floats:
            found = row(result)
            assert found is not None
            return found

        prompt = np.stack([known(done(self._needed(1, one, 0))) for one in coarse])

        def of_prompt(number: int) -> Floats:
            return np.array([np.interp(number, coarse, column) for column in prompt.T])

        decode = _complete([[row(done(self._try(n, 1, max(c - 1, 0)))) for c in contexts] for n in sequences], contexts)
        decode -= np.stack([of_prompt(n) for n in sequences])[:, None, :]
        after = _complete([[row(done(self._try(1, c, past))) for past in pasts] for c in chunks], pasts)
        after -= after[:, :1, :].copy()
        none = np.zeros((1, 1 + len(names)))
        return np.concatenate(
            [
                [TABLES, len(names)],
                line(coarse, prompt),
                line([0.0], none),
                line([0.0], none),
                plane(sequences, contexts, decode),
                plane(chunks, pasts, after),
            ]
        )


class _Progress:
    """Counts passes, and hands each on."""

    def __init__(self, total: int, told: Callable[[float], None] | None) -> None:
        self.total, self.told, self.done = max(total, 1), told, 0

    def __call__(self, result: T) -> T:
        self.done += 1
        if self.told is not None:
            self.told(self.done / self.total)
        return result


def _refined(grid: tuple[int, ...], made: Callable[[int], Floats]) -> tuple[list[int], Floats]:
    """A table with points added where the middle of two lies off their line."""
    points = {one: made(one) for one in grid}
    open_ = list(pairwise(grid))
    while open_:
        low, high = open_.pop()
        if high - low < 2:
            continue
        middle = (low + high) // 2
        points[middle] = made(middle)
        straight = points[low] + (points[high] - points[low]) * (middle - low) / (high - low)
        if abs(points[middle][0] - straight[0]) > STRAIGHT * points[middle][0]:
            open_ += [(low, middle), (middle, high)]
    places = sorted(points)
    return places, np.stack([points[one] for one in places])


def _complete(rows: list[list[Floats | None]], grid: Iterable[int]) -> Floats:
    """A table without gaps: what did not fit the memory goes on as the two points before it."""
    places = list(grid)
    made = []
    for row in rows:
        full: list[Floats] = []
        for place, value in enumerate(row):
            if value is None:
                if len(full) < 2:
                    raise TierformError([Problem("not even two short contexts fit the memory", key="chip")])
                slope = (full[-1] - full[-2]) / (places[place - 1] - places[place - 2])
                value = full[-1] + slope * (places[place] - places[place - 1])
            full.append(value)
        made.append(full)
    return np.array(made)


__all__ = ["Grid", "SimulatedOracle", "grid_for"]
