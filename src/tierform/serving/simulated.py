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
from math import fsum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.files import atomic_path, cache_folder, make_folder
from tierform.serving.kernel_oracle import BOARD
from tierform.serving.oracle import StepCost, StepShape, line, packed_cost
from tierform.serving.refining import Place, RefinedPlane, refined_line
from tierform.serving.tables_parts import PartsTables, PassGrid
from tierform.simulation.job import Job
from tierform.simulation.ledger import Booked
from tierform.simulation.power_cap import ARITHMETIC
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.adapter_methods import AdapterBatch
from tierform.workload.memory import BlockKind
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

Floats = NDArray[np.float64]
T = TypeVar("T")
VERSION = 7  # of the tables: raise it when what they hold changes
ROOMY = "1000 TB"
AT_ONCE = 4  # passes among which the groups of one number of sequences are shared
PASTS = (64, 256, 512, 1024, 2048, 4096, 8192, 16384)


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
    adapters: AdapterBatch | None = None
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
        return len(self.chip.can.boards) == 1 == len(self.chip.components)

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
        asked = tuple(groups)
        adapters = self.adapters
        if adapters is not None:  # as many different ones as there are sequences to use them
            adapters = replace(adapters, used=min(adapters.in_memory, sum(one.sequences for one in asked)))
        model, farthest = self.model, max(one.new + one.past for one in asked)
        if model.positions == "learned" and farthest > model.max_positions:  # points between which a table is filled
            model = replace(model, max_positions=farthest)
        return Job(
            model=model,
            task=Step(asked, precision=self.precision, adapters=adapters),
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
        rows = sorted(
            {1, *(one for one in (16, 64, 65, 128, 129, 256, 257) if one < grid.sequences[-1]), grid.sequences[-1]}
        )
        done = _Progress(2 * len(grid.tokens) + len(rows) + AT_ONCE * (len(grid.sequences) + 1), self.progress)
        first = self._result([SequenceGroup(1, 1, 1)])
        run = first._run
        assert run is not None
        tokens, by_tokens = refined_line(grid.tokens, lambda one: self._parts(done(roomy._needed(1, one, 0))).tokens)
        heads = [self._parts(done(roomy._needed(one, 1, 1))).head for one in rows]
        decode = RefinedPlane(
            lambda places: roomy._kernels([(n, 1, context - 1) for n, context in places], places, done),
            lambda n: float(np.interp(n, tokens, by_tokens[:, 0])),
        ).build(grid.sequences, grid.contexts)
        prefill = RefinedPlane(
            lambda places: roomy._kernels([(1, chunk, past) for chunk, past in places], places, done),
            lambda chunk: float(np.interp(chunk, tokens, by_tokens[:, 0])),
        ).build(grid.chunks, grid.pasts)
        scale, static_W = run.scale, fsum(run.static_J.values()) / run.pass_s
        sampling_s = self.runtime.sampling_s * self.model.vocabulary / self.parallelism.data
        sampling_W = board.active_W + board.headroom_W * self.runtime.sampling_power_of(self.parallelism.tensor)
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
                decode.packed(),
                prefill.packed(),
            ]
        )

    def _kernels(self, groups: list[tuple[int, int, int]], places: list[Place], done: _Progress) -> dict[Place, Floats]:
        """What attention of each group takes, by the place of a table that asks for it."""
        found = self._attention(groups, done)
        return {
            place: found[number, new, past + new] for place, (number, new, past) in zip(places, groups, strict=True)
        }

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

    # -- any chip: parts of passes ----------------------------------------------------------------------------
    def _pass_tables(self) -> Floats:
        grid = self.grid
        tokens = [one for place, one in enumerate(grid.tokens) if place % 4 == 0 or one == grid.tokens[-1]]
        contexts = sorted({*grid.contexts[::4], grid.contexts[-1]})
        chunks = sorted({*grid.chunks[::4], grid.chunks[-1]})
        sequences = sorted({*grid.sequences[::2], grid.sequences[-1]})
        pasts = sorted({*grid.pasts[::3], grid.pasts[-1]})
        passes = 2 * len(tokens) + 2 * len(sequences) * len(contexts) + 2 * len(chunks) * len(pasts)
        done = _Progress(passes, self.progress)
        return PartsTables(lambda groups: self._result([SequenceGroup(*one) for one in groups]), done).pack(
            PassGrid(tokens, sequences, contexts, chunks, pasts)
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


__all__ = ["Grid", "SimulatedOracle", "grid_for"]
