"""Step tables of a board, whose kernels run one after the other: each kind of kernel is costed by itself.

A step is a sum of kernels, and these depend on few numbers each:

- what goes by tokens: products by their rows (with teeth, where tiles and waves fill up), light kernels and collectives
  on nearly straight lines;
- attention of each group of sequences, by (sequences, context) or (queries, past);
- the head by sampled rows.

Whole passes are simulated only to learn which kernels there are (two sizes tell how a product grows with the tokens,
three more check it) and for what is no such product.  The products at other numbers of tokens and the attention of
other groups are costed alone, as `simulate` costs them.  Of every kernel four numbers are kept: seconds at the full
clock, those of them that follow the clock, joules of arithmetic, other joules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import Cost
from tierform.serving.grid import Grid
from tierform.serving.kernel_oracle import BOARD
from tierform.serving.oracle import line
from tierform.serving.refining import Place, RefinedPlane, refined_line
from tierform.simulation.choose import workload_of
from tierform.simulation.costing import Costing
from tierform.simulation.execution import Execution
from tierform.simulation.job import Job
from tierform.simulation.power_cap import ARITHMETIC
from tierform.simulation.result import Result
from tierform.simulation.run import Run
from tierform.simulation.software import joined
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operand, Operator
from tierform.workload.precision import bits
from tierform.workload.task import resolved_precision

Floats = NDArray[np.float64]
Group = tuple[int, int, int]  # sequences, new tokens, past
NUMBERS = 4
LEARNED, CHECKED = (16, 17), (1, 2, 256)  # tokens of the passes that tell how products grow, and of those that check
SAME = 1e-6  # share by which a product may differ from the simulated one
ROWS = (16, 64, 65, 128, 129, 256, 257, 512, 1024, 2048, 4096)  # through the head
AT_ONCE = 64  # groups of a step that is expanded to see their attention
SHARES = (0.05, 0.5, 0.75)  # of the work, done after the head, what goes by tokens, and decodes


@dataclass(frozen=True)
class GrowingProduct:
    """A product, or several that run as one, whose sizes grow evenly with the tokens of a step.

    `layer` is its place among the kinds of layers; `weights` are those of its members.
    """

    first: Operator
    second: Operator
    times: float
    layer: int
    weights: frozenset[str]

    def at(self, tokens: int) -> Operator:
        """The product in a step of so many tokens."""
        beyond, (one, two) = tokens - LEARNED[0], (self.first, self.second)

        def grown(here: Operand, there: Operand) -> Operand:
            if here.shape == there.shape:
                return here
            shape = tuple(a + (b - a) * beyond for a, b in zip(here.shape, there.shape, strict=True))
            return replace(here, shape=shape)

        return replace(
            one,
            m=one.m + (two.m - one.m) * beyond,
            inputs=tuple(map(grown, one.inputs, two.inputs)),
            outputs=tuple(map(grown, one.outputs, two.outputs)),
        )


def _one(operators: Sequence[Operator]) -> Operator:
    return joined(operators) if len(operators) > 1 else operators[0]


def _grows(one: Operator, two: Operator) -> bool:
    """Whether a product has other rows in a larger step, and is the same else."""
    same = (one.n, one.k, one.batch, one.count) == (two.n, two.k, two.batch, two.count)
    return same and one.m != two.m and len(one.inputs) == len(two.inputs)


@dataclass
class BoardKernels:
    """Costs of kernels on the board of a simulated pass."""

    first: Result
    run: Run = field(init=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        assert self.first._run is not None
        self.run = self.first._run
        (self.name,) = self.run.chip.can.boards

    @property
    def costing(self) -> Costing:
        """What costs operators of this chip under this runtime."""
        return self.run.stages.costing

    def numbers(self, cost: Cost, clock: float = 1.0, own: bool = True) -> Floats:
        """The four numbers of a kernel from its cost at a clock; `own`: it runs on the board, not between boards."""
        board = self.run.chip.can.boards[self.name]
        clock = clock if own else 1.0
        slow_s = max(0.0, cost.occupancy_s - board.memory_s(cost.memory_read_B + cost.memory_write_B)) if own else 0.0
        arithmetic = cost.energy_J.get(ARITHMETIC, 0.0) if own else 0.0
        full_s = cost.occupancy_s - slow_s * (1 - clock)
        return np.array([full_s, slow_s * clock, arithmetic / clock**2, cost.total_energy_J - arithmetic])

    def executions(self, result: Result) -> Iterator[tuple[BlockKind, float, Sequence[Execution], float]]:
        """Of a simulated pass, layer by layer: (kind, how often, executions, clock)."""
        run = result._run
        assert run is not None
        (made,) = run.timed
        for wave, segments in zip(made.stage.waves, made.waves, strict=True):
            for segment in segments:
                yield segment.block.kind, float(segment.count * wave.micro_batches), segment.executions, made.clock

    def parts(self, result: Result) -> tuple[Floats, Floats]:
        """(what goes by tokens, the head) of a simulated pass; attention is left out."""
        tokens, head = np.zeros(NUMBERS), np.zeros(NUMBERS)
        for kind, times, executions, clock in self.executions(result):
            for item in executions:
                if kind is BlockKind.HEAD:
                    head += times * self._of(item, clock)
                elif item.operator.attention is None:
                    tokens += times * self._of(item, clock)
        return tokens, head

    def _of(self, item: Execution, clock: float) -> Floats:
        return self.numbers(item.cost, clock, item.component == self.name)

    # -- products -----------------------------------------------------------------------------------------------
    def growing(self, passes: dict[int, Result]) -> list[GrowingProduct]:
        """The products that are the same at other numbers of tokens but for their rows, as `passes` show."""
        found: list[GrowingProduct] = []
        layers = [list(self.executions(passes[tokens])) for tokens in LEARNED]
        for layer, ((_, times, some, _), (_, _, others, _)) in enumerate(zip(*layers, strict=True)):
            here, there = self._products(some), self._products(others)
            growing = {weight: one for weight, one in here.items() if weight in there and _grows(one, there[weight])}
            weights, operators = list(growing), list(growing.values())
            together = self.costing.software.merged(operators)
            merged = {place for places in together for place in places}
            for places in (*together, *((place,) for place in range(len(weights)) if place not in merged)):
                members = [weights[place] for place in places]
                first, second = (_one([ops[weight] for weight in members]) for ops in (here, there))
                found.append(GrowingProduct(first, second, times, layer, frozenset(members)))
        return [made for made in found if all(self._holds(made, n, p) for n, p in passes.items())]

    def _products(self, executions: Sequence[Execution]) -> dict[str, Operator]:
        """The products of a layer with a weight that no other one of it has."""
        found: dict[str, list[Operator]] = {}
        for item in executions:
            operator = item.operator
            if operator.kind is Kind.MATMUL and operator.weight and item.component == self.name:
                found.setdefault(operator.weight, []).append(operator)
        return {weight: some[0] for weight, some in found.items() if len(some) == 1}

    def product(self, made: GrowingProduct, tokens: int) -> Floats:
        """What a product takes in a step of so many tokens."""
        operator = made.at(tokens)
        cost = self.costing.software.alone(operator, self.run.chip.components[self.name].cost(operator))
        return made.times * self.numbers(cost)

    def _holds(self, made: GrowingProduct, tokens: int, result: Result) -> bool:
        """Whether the product takes what the pass of so many tokens says."""
        kind, times, executions, clock = list(self.executions(result))[made.layer]
        members = [item for item in executions if item.operator.weight in made.weights]
        products = [item for item in members if item.operator.kind is Kind.MATMUL]
        if kind is BlockKind.HEAD or len(products) != len(made.weights):
            return False
        booked = sum((times * self._of(item, clock) for item in products), np.zeros(NUMBERS))
        return bool(np.allclose(self.product(made, tokens), booked, rtol=SAME, atol=0.0))

    # -- attention ----------------------------------------------------------------------------------------------
    def attention(self, job: Job, groups: int) -> Floats:
        """(groups, 4) what attention of each group of a step takes."""
        found = np.zeros((groups, NUMBERS))
        (stage,) = workload_of(job).stages
        for wave in stage.waves:
            for block in wave.blocks:
                cores: dict[int, list[Operator]] = {}
                for operator in block.operators:
                    if operator.attention is not None:
                        cores.setdefault(operator.attention.number, []).append(operator)
                for place, number in enumerate(sorted(cores)):
                    numbers = sum((self.numbers(cost) for cost in self._core(cores[number])), np.zeros(NUMBERS))
                    found[place % groups] += block.count * wave.micro_batches * numbers
        return found

    def _core(self, operators: Sequence[Operator]) -> Iterable[Cost]:
        """Costs of the operators of an attention core: fused where the board and the runtime do so."""
        costing, component = self.costing, self.run.chip.components[self.name]
        costs: dict[int, Cost] = {}
        fuser = self.run.chip.can.fusers.get(self.name) if costing.runtime.fuses_attention else None
        for kernel in fuser.fuse(operators) if fuser is not None else ():
            members = [operators[place] for place in kernel.members]
            costs |= zip(kernel.members, costing.software.fused(members, kernel.costs), strict=True)
        for place, operator in enumerate(operators):
            if place not in costs:
                costs[place] = costing.software.alone(operator, component.cost(operator))
        return costs.values()


@dataclass
class BoardTables:
    """Builds the tables of a board.

    `first` is a pass on the board as it is; `simulated` gives the pass of a group, and `asked` the job of several, on
    one whose memory holds them all.  `told` hears how much is done.  `verified`: new tokens of a sequence whose drafts
    are verified; 0: there are none.  `stages` of a pipeline hand on what a layer gives for every token.
    """

    first: Result
    simulated: Callable[[Group], Result]
    asked: Callable[[Sequence[Group]], Job]
    told: Callable[[float], None]
    verified: int = 0
    stages: int = 1
    kernels: BoardKernels = field(init=False)

    def __post_init__(self) -> None:
        self.kernels = BoardKernels(self.simulated((1, 1, 1)))

    def pack(self, grid: Grid) -> Floats:
        """The packed tables."""
        most = grid.sequences[-1] * max(1, self.verified)
        rows = sorted({1, most, *(one for one in ROWS if one < most)})
        heads = [self.kernels.parts(self.simulated((one, 1, 1)))[1] for one in rows]
        self.told(SHARES[0])
        tokens, by_tokens = self.tokens(grid.tokens)
        by_tokens = by_tokens + np.stack([self._sent(number) for number in tokens])
        self.told(SHARES[1])

        def tokens_s(number: int) -> float:
            return float(np.interp(number, tokens, by_tokens[:, 0]))

        decode = self._plane(lambda n, context: (n, 1, context - 1), tokens_s).build(grid.sequences, grid.contexts)
        self.told(SHARES[2])
        prefill = self._plane(lambda chunk, past: (1, chunk, past), tokens_s).build(grid.chunks, grid.pasts)
        verified = np.zeros(1)
        if self.verified:
            new = self.verified
            contexts = [one for one in grid.contexts if one > new]
            plane = self._plane(lambda n, c: (n, new, c - new), lambda n: tokens_s(n * new))
            verified = plane.build(grid.sequences, contexts).packed()
        self.told(1.0)
        return np.concatenate(
            [
                [BOARD, 1, *self._fixed()],
                line(tokens, by_tokens),
                line(rows, np.stack(heads)),
                decode.packed(),
                prefill.packed(),
                verified,
            ]
        )

    def _fixed(self) -> list[float]:
        """What holds for every step: power, the choice of tokens, the host."""
        run, prompt = self.first._run, self.simulated((1, 16, 0))._run
        assert run is not None and prompt is not None
        board, runtime, split = run.chip.can.boards[self.kernels.name], run.runtime, run.workload.parallelism
        floor_W = max(booked.execution.floor_W for booked in run.ledger.booked)
        static_W = fsum(run.static_J.values()) / run.pass_s * run.scale
        sampling_s = runtime.sampling_s * run.workload.model.vocabulary / split.data
        sampling_W = (board.active_W + board.headroom_W * runtime.sampling_power_of(split.tensor)) * run.scale
        host = [runtime.step_s, run.scale, prompt.timed[0].issue_s, run.timed[0].issue_s]
        return [board.headroom_W, floor_W, static_W, sampling_s, sampling_W, *host]

    def _sent(self, tokens: int) -> Floats:
        """What handing on takes between the stages of a pipeline: on a link, so it does not follow the clock."""
        if self.stages == 1:
            return np.zeros(NUMBERS)
        run = self.kernels.run
        hidden_B = tokens * run.workload.model.hidden_size * bits(resolved_precision(run.workload.task).activations) / 8
        link_s, latency_s, joules = self.kernels.costing.interconnect.send(hidden_B, run.workload.parallelism.tensor)
        return (self.stages - 1) * np.array([link_s + latency_s, 0.0, 0.0, joules])

    def _plane(self, group: Callable[[int, int], Group], tokens_s: Callable[[int], float]) -> RefinedPlane:
        def made(places: list[Place]) -> dict[Place, Floats]:
            groups = {place: group(*place) for place in places}
            found = self.attention(list(dict.fromkeys(groups.values())))
            return {place: found[asked] for place, asked in groups.items()}

        return RefinedPlane(made, tokens_s)

    def attention(self, groups: Sequence[Group]) -> dict[Group, Floats]:
        """What attention of each group takes; groups of equal lengths would become one, so they go to several steps."""
        steps: list[list[Group]] = []
        used: dict[tuple[int, int], int] = {}
        for group in groups:
            number = used[group[1:]] = used.get(group[1:], -1) + 1
            if number == len(steps):
                steps.append([])
            steps[number].append(group)
        found: dict[Group, Floats] = {}
        for step in steps:
            for start in range(0, len(step), AT_ONCE):
                some = step[start : start + AT_ONCE]
                found |= zip(some, self.kernels.attention(self.asked(some), len(some)), strict=True)
        return found

    def tokens(self, grid: Sequence[int]) -> tuple[list[int], Floats]:
        """What goes by tokens: (tokens, the four numbers)."""
        checked = {*LEARNED, *(one for one in CHECKED if one <= grid[-1]), grid[-1]}
        passes = {one: self.simulated((1, one, 0)) for one in sorted(checked)}
        products = self.kernels.growing(passes)

        def product(tokens: int) -> Floats:
            return sum((self.kernels.product(made, tokens) for made in products), np.zeros(NUMBERS))

        def rest(tokens: int) -> Floats:
            result = passes[tokens] if tokens in passes else self.simulated((1, tokens, 0))
            whole = self.kernels.parts(result)[0]
            return np.concatenate([whole - product(tokens), whole])

        if not products:
            places, values = refined_line(grid, rest)
            return places, values[:, NUMBERS:]
        doubled = [1 << power for power in range(grid[-1].bit_length()) if 1 << power < grid[-1]]
        light_at, light = refined_line([*doubled, grid[-1]], rest, beside=lambda found: found[NUMBERS])

        def lighter(tokens: int) -> Floats:
            return np.array([np.interp(tokens, light_at, column) for column in light[:, :NUMBERS].T])

        return refined_line(sorted({*grid, *light_at}), lambda one: product(one) + lighter(one))


__all__ = ["BoardKernels", "BoardTables", "GrowingProduct"]
