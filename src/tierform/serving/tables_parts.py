"""Step tables of chips that are no single board: parts of passes, put together along several paths.

Every pass is simulated whole, and its executions are read off the ledger as parts: what goes by tokens, the head by
sampled rows, attention of each group.  A part has seconds in a chain (one operator after the other, with transfers),
seconds on the memory, seconds on each component, and joules of each.  Parts of several groups add up, and a step takes

    the longest of (chain of tokens and head + attention; memory) + what is left over,

where attention takes the longest of (the chain of one group; the sum of all groups on one component; the groups in
turn): groups work side by side on different components, so a group's products run in memory while another's softmax
runs on the GPU.  In turn means as the schedule does it where scores and weighted values are of one component and what
is between them of another: the scores of all groups, what is between of all, the weighted values of all, each as soon
as the group's own is there.  What is left over is what the simulated pass took beyond the longest path: that of as many
tokens, and of each group what it has beyond it, by its share of the tokens.

A chip that pipelines its layers works on several micro-batches at once, of which the first has a part of every group.
There prompts take what one prompt of all their tokens does, with what attention of their pasts adds, and decodes beside
them what decodes beside a prompt of two sizes were found to add.

Passes that do not fit the memory are left out, and their neighbours go on linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.errors import Problem, TierformError
from tierform.serving.kernel_oracle import MOST_BUSY, PARTS
from tierform.serving.oracle import line
from tierform.serving.refining import Place, RefinedPlane, refined_line
from tierform.simulation.execution import Execution
from tierform.simulation.ledger import LINKS, NETWORK, OFF_CHIP
from tierform.simulation.result import Result
from tierform.simulation.run import Run
from tierform.simulation.schedule_layers import ScheduledOperator
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind

Floats = NDArray[np.float64]
Groups = tuple[tuple[int, int, int], ...]
Simulated = Callable[[Groups], Result]
BESIDE = (32, 256)  # tokens of the prompt beside which decodes are simulated on a chip that pipelines its layers
COARSE, MOST_COARSE_ROWS, MOST_COARSE_POINTS = 0.002, 96, 16
TOKENS, HEAD, ATTENTION = range(3)
TURNS = 3  # of attention: scores, what is between, weighted values


@dataclass(frozen=True)
class PassGrid:
    """Where passes are simulated first."""

    tokens: Sequence[int]
    sequences: Sequence[int]
    contexts: Sequence[int]
    chunks: Sequence[int]
    pasts: Sequence[int]


@dataclass
class PartsOf:
    """Reads the parts of simulated passes: columns are chain, memory, busy components, joules of all components."""

    first: Result
    run: Run = field(init=False)
    names: tuple[str, ...] = field(init=False)
    busy: tuple[str, ...] = field(init=False)
    static_W: Floats = field(init=False)

    def __post_init__(self) -> None:
        found = self.first._run
        assert found is not None
        self.run = found
        self.names = tuple(sorted(self.first.energy_J_by_component))
        used = {item.execution.component: None for item in found.ledger.booked}
        self.busy = tuple(used)[:MOST_BUSY]
        self.static_W = np.array([found.scale * found.static_J.get(name, 0.0) / found.pass_s for name in self.names])

    @property
    def in_turn(self) -> bool:
        """Whether scores and weighted values of a group are of one component, and what is between them of another."""
        first, middle, last = self._turns(self.run)
        return first[0][0].component == last[0][0].component != middle[0][0].component if middle else False

    def turns(self, result: Result) -> Floats:
        """Of a pass of one group: (wait, seconds) of scores, of what is between, of weighted values."""
        assert result._run is not None
        found = np.zeros(2 * TURNS)
        for turn, some in enumerate(self._turns(result._run)):
            for _, step, times in some:
                waited = fsum(edge.head_s + edge.transfer_s for edge in step.after)
                found[2 * turn : 2 * turn + 2] += times * np.array([waited, step.occupancy_s + step.tail_s])
        return found

    def _turns(self, run: Run) -> list[list[tuple[Execution, ScheduledOperator, float]]]:
        """The operators of attention cores: up to the first product, from the last one on, and what is between."""
        found: list[list[tuple[Execution, ScheduledOperator, float]]] = [[], [], []]
        for made in run.timed:
            for wave, segments in zip(made.stage.waves, made.waves, strict=True):
                for segment in segments:
                    steps = zip(segment.executions, segment.layer.steps, strict=True)
                    times = float(segment.count * wave.micro_batches)
                    core = [(item, step, times) for item, step in steps if item.operator.attention is not None]
                    products = [at for at, one in enumerate(core) if one[0].operator.kind is Kind.MATMUL]
                    if len(products) == 2:
                        first, last = products[0] + 1, products[1]
                        for turn, some in enumerate((core[:first], core[first:last], core[last:])):
                            found[turn] += some
        return found

    @property
    def columns(self) -> int:
        """Numbers of a part."""
        return 2 + len(self.busy) + len(self.names)

    def read(self, result: Result) -> Floats:
        """(3, columns) of a pass."""
        run = result._run
        assert run is not None
        found = np.zeros((3, self.columns))
        for made in run.timed:
            for wave, segments in zip(made.stage.waves, made.waves, strict=True):
                for segment in segments:
                    times = segment.count * wave.micro_batches
                    head = segment.block.kind is BlockKind.HEAD
                    for item, step in zip(segment.executions, segment.layer.steps, strict=True):
                        core = item.operator.attention is not None
                        found[HEAD if head else ATTENTION if core else TOKENS] += times * self._part(run, item, step)
        return found

    def _part(self, run: Run, item: Execution, step: ScheduledOperator) -> Floats:
        part = np.zeros(self.columns)
        part[0] = step.occupancy_s + step.tail_s + fsum(edge.head_s + edge.transfer_s for edge in step.after)
        part[1] = step.fetch_s
        if item.component in self.busy:
            part[2 + self.busy.index(item.component)] = step.occupancy_s
        joules = {item.component: item.cost.total_energy_J + item.floor_J}
        if item.programming is not None:
            joules[item.component] += item.programming.total_energy_J
        joules[NETWORK] = fsum(move.size_B * move.route.energy_J_per_B for move in item.moves)
        joules[OFF_CHIP] = run.memory.energy_J(item.traffic)
        first = 2 + len(self.busy)
        for name, energy in joules.items():
            name = LINKS if name not in self.names and LINKS in self.names else name
            if name in self.names:
                part[first + self.names.index(name)] += energy * run.scale
        return part

    def path_s(self, parts: Floats) -> float:
        """Seconds of the longest path of a pass of one group."""
        summed = parts.sum(axis=0)
        busy = slice(2, 2 + len(self.busy))
        if self.run.chip.pipelined:
            return float(max(summed[1], summed[busy].max()))
        attention = max(parts[ATTENTION, 0], parts[ATTENTION, busy].max())
        return float(max(parts[TOKENS, 0] + parts[HEAD, 0] + attention, summed[1]))

    def row(self, result: Result) -> Floats:
        """Seconds, joules, parts (3 times), what is left over of time and joules, and turns of a pass of one group."""
        parts = self.read(result)
        left_s = result.latency_s - self.path_s(parts)
        joules = np.array([result.energy_J_by_component.get(name, 0.0) for name in self.names])
        left_J = joules - self.static_W * result.latency_s - parts.sum(axis=0)[2 + len(self.busy) :]
        return np.concatenate([[result.latency_s, joules.sum()], *parts, [left_s], left_J, self.turns(result)])


@dataclass
class PartsTables:
    """Builds the tables; `simulated` gives the pass of groups of (sequences, new tokens, past).

    `verified`: new tokens of a sequence whose drafts are verified; 0: there are none.
    """

    simulated: Simulated
    told: Callable[[Result], Result]
    verified: int = 0
    parts: PartsOf = field(init=False)

    def __post_init__(self) -> None:
        self.parts = PartsOf(self.simulated(((1, 1, 1),)))

    def pack(self, grid: PassGrid) -> Floats:
        """The packed tables."""
        parts, columns = self.parts, self.parts.columns
        tokens, by_tokens = refined_line(grid.tokens, lambda one: self._row(((1, one, 0),)), 2, COARSE)
        by_tokens = by_tokens[:, 2:]
        left_over = slice(3 * columns, 3 * columns + 1 + len(parts.names))
        lefts = by_tokens[:, left_over]
        most = grid.sequences[-1] * max(1, self.verified)
        rows = sorted({1, most} | {one for one in (4, 16, 64, 65, 128, 256, 512, 1024, 2048) if one < most})
        head = slice(2 + HEAD * columns, 2 + (HEAD + 1) * columns)
        heads = np.stack([self._row(((one, 1, 1),))[head] for one in rows])

        def group(groups: Groups) -> Floats:
            """Of a pass of one group: seconds, joules, attention, what is left beyond that of as many tokens, turns."""
            row = self._row(groups)
            new = groups[0][0] * groups[0][1]
            left = row[2:][left_over] - [np.interp(new, tokens, column) for column in lefts.T]
            attention = row[2 + ATTENTION * columns : 2 + (ATTENTION + 1) * columns]
            return np.concatenate([row[:2], attention, left, row[-2 * TURNS :]])

        decode = self._plane(grid.sequences, grid.contexts, lambda n, context: group(((n, 1, context - 1),)))
        prefill = self._plane(grid.chunks, grid.pasts, lambda chunk, past: group(((1, chunk, past),)))
        planes = [decode, prefill]
        verified: Floats = np.zeros(1)
        if self.verified:
            new = self.verified
            contexts = [one for one in grid.contexts if one > new]
            verified = self._plane(grid.sequences, contexts, lambda n, c: group(((n, new, c - new),))).packed()
        if parts.run.chip.pipelined:
            alone = [self.simulated(((1, chunk, 0),)).latency_s for chunk in BESIDE]

            def beside(n: int, context: int) -> Floats:
                passes = [(chunk, ((n, 1, context - 1), (1, chunk, 0))) for chunk in BESIDE]
                more = [self._row(groups)[0] - own for (_, groups), own in zip(passes, alone, strict=True)]
                return np.array([more[0] + alone[0], *more])

            planes.append(self._plane(grid.sequences, grid.contexts, beside, 1))
        return np.concatenate(
            [
                [PARTS, len(parts.names), len(parts.busy), parts.run.chip.pipelined, *BESIDE, parts.in_turn],
                parts.static_W,
                line(tokens, np.hstack([by_tokens[:, :columns], lefts])),
                line(rows, heads),
                *(plane.packed() for plane in planes),
                verified,
            ]
        )

    def _row(self, groups: Groups) -> Floats:
        return self.parts.row(self.told(self.simulated(groups)))

    def _plane(
        self, rows: Sequence[int], columns: Sequence[int], value: Callable[[int, int], Floats], watched: int = 2
    ) -> RefinedPlane:
        def made(places: list[Place]) -> dict[Place, Floats]:
            found = {}
            for place in places:
                try:
                    found[place] = value(*place)
                except TierformError:
                    continue  # it does not fit the memory
            return found

        plane = RefinedPlane(
            made,
            lambda _: 0.0,
            tolerance=COARSE,
            most_rows=MOST_COARSE_ROWS,
            most_points=MOST_COARSE_POINTS,
            watched=watched,
        ).build(rows, columns)
        if not plane.rows:
            raise TierformError([Problem("not even a short context fits the memory", key="chip")])
        return plane


__all__ = ["PartsOf", "PartsTables", "PassGrid"]
