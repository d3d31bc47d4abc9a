"""An oracle from physics: tables made from ``simulate`` of single passes, for any model, chip, split and runtime.

On a board whose kernels run one after the other (a GPU) a pass is a sum of kernels: what goes by tokens, attention of
each group, the head and the choice of tokens by sampled rows (:mod:`tierform.serving.board_tables`).  The board's power
limit acts on the sum, as in `tierform.simulation.power_cap`.  On other chips a pass is a schedule, whose parts are read
off whole passes (:mod:`tierform.serving.tables_parts`).

Decodes of a step are one kernel at their mean context (``simulate`` of groups of unequal contexts would be a kernel for
each).  Of a pipeline the table holds a step's way through all stages, with what these send.  Tables are kept in the
cache folder.  Limits: pipelines on boards alone; tokens of experts as ``simulate`` spreads them; contexts beyond the
memory are extended linearly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tierform.chip.description import Chip
from tierform.errors import Problem, TierformError
from tierform.files import atomic_path, cache_folder, make_folder
from tierform.serving.board_tables import BoardTables
from tierform.serving.grid import Grid
from tierform.serving.oracle import StepCost, StepShape, packed_cost
from tierform.serving.tables_parts import PartsTables, PassGrid
from tierform.simulation.job import Job
from tierform.simulation.result import Result
from tierform.simulation.runtime import Runtime
from tierform.workload import Model
from tierform.workload.adapter_methods import AdapterBatch
from tierform.workload.parallel import Parallelism
from tierform.workload.precision import PrecisionPlan
from tierform.workload.task import SequenceGroup, Step

Floats = NDArray[np.float64]
T = TypeVar("T")
VERSION = 19  # of the tables: raise it when what they hold changes
ROOMY = "1000 TB"


@dataclass(frozen=True, eq=False)
class SimulatedOracle:
    """Step times and energies of a model on a chip; see the module's text.

    `grid` says where passes are simulated; `components` are known once the tables are built.  `verified`: new tokens of
    a sequence whose drafts are verified, if any are.
    """

    model: Model
    chip: Chip
    runtime: Runtime
    grid: Grid
    parallelism: Parallelism = field(default_factory=Parallelism)
    precision: PrecisionPlan | None = None
    adapters: AdapterBatch | None = None
    verified: int = 0
    progress: Callable[[float], None] | None = None
    _packed: dict[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if self.parallelism.pipeline > 1 and not self._on_board:
            what = "pipelines inside a replica are for boards; this chip has several components"
            problems.append(Problem(what, key="pipeline", value=self.parallelism.pipeline, fix="Use tensor."))
        if self.parallelism.data > 1:
            what = "copies of the model plan steps of their own: they are replicas"
            problems.append(Problem(what, key="data", value=self.parallelism.data, fix="Use replicas."))
        if problems:
            raise TierformError(problems)

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
        asked = [VERSION, job.key, repr(self.grid), self.verified, self.parallelism.pipeline]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]

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
            parallelism=replace(self.parallelism, pipeline=1),  # a step goes through all stages, one after the other
            runtime=self.runtime,
            thermal="none",
            mapping="plain",
        )

    def _result(self, groups: Iterable[SequenceGroup]) -> Result:
        return self._job(groups).simulate()

    def _board_tables(self) -> Floats:
        roomy = self._roomy()
        return BoardTables(
            (self if self.parallelism.pipeline == 1 else roomy)._result([SequenceGroup(1, 1, 1)]),
            lambda group: roomy._result([SequenceGroup(*group)]),
            lambda groups: roomy._job(SequenceGroup(*group) for group in groups),
            self.progress or (lambda _: None),
            self.verified,
            self.parallelism.pipeline,
        ).pack(self.grid)

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

    def _pass_tables(self) -> Floats:
        grid = self.grid
        tokens = [one for place, one in enumerate(grid.tokens) if place % 4 == 0 or one == grid.tokens[-1]]
        contexts = sorted({*grid.contexts[::4], grid.contexts[-1]})
        chunks = sorted({*grid.chunks[::4], grid.chunks[-1]})
        sequences = sorted({*grid.sequences[::2], grid.sequences[-1]})
        pasts = sorted({*grid.pasts[::3], grid.pasts[-1]})
        passes = 2 * len(tokens) + 2 * len(sequences) * len(contexts) + 2 * len(chunks) * len(pasts)
        done = _Progress(passes, self.progress)
        return PartsTables(
            lambda groups: self._result([SequenceGroup(*one) for one in groups]), done, self.verified
        ).pack(PassGrid(tokens, sequences, contexts, chunks, pasts))


class _Progress:
    """Counts passes, and hands each on."""

    def __init__(self, total: int, told: Callable[[float], None] | None) -> None:
        self.total, self.told, self.done = max(total, 1), told, 0

    def __call__(self, result: T) -> T:
        self.done += 1
        if self.told is not None:
            self.told(self.done / self.total)
        return result


__all__ = ["SimulatedOracle"]
