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
from dataclasses import dataclass, field
from math import fsum

import numpy as np
from numpy.typing import NDArray

from tierform.chip.component import Cost
from tierform.serving.board_products import LEARNED, ExpertProduct, GrowingProduct, as_one, grows
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
from tierform.workload.expert_store import store_of
from tierform.workload.experts import shares_of_chip
from tierform.workload.memory import BlockKind
from tierform.workload.operator import Kind, Operator
from tierform.workload.precision import bits
from tierform.workload.spread import Spread
from tierform.workload.task import Inference, Step, resolved_precision

Floats = NDArray[np.float64]
Group = tuple[int, int, int]  # sequences, new tokens, past
NUMBERS = 4
CHECKED = (1, 2, 256)  # tokens of the passes that check how products grow
SAME = 1e-6  # share by which a product may differ from the simulated one
ROWS = (16, 64, 65, 128, 129, 256, 257, 512, 1024, 2048, 4096)  # through the head
AT_ONCE = 64  # groups of a step that is expanded to see their attention
SHARES = (0.05, 0.5, 0.75)  # of the work, done after the head, what goes by tokens, and decodes


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
    def growing(self, passes: dict[int, Result]) -> list[GrowingProduct | ExpertProduct]:
        """The products that are the same at other numbers of tokens but for their rows, as `passes` show."""
        found: list[GrowingProduct | ExpertProduct] = []
        layers = [list(self.executions(passes[tokens])) for tokens in LEARNED]
        for layer, ((_, times, some, _), (_, _, others, _)) in enumerate(zip(*layers, strict=True)):
            here, there = self._products(some), self._products(others)
            alike = {weight for weight in here.keys() & there.keys() if len(here[weight]) == len(there[weight]) == 1}
            growing = {one for one in alike if grows(here[one][0], there[one][0])}
            for members in self._together({weight: here[weight][0] for weight in here if weight in growing}):
                first, second = (as_one([ops[weight][0] for weight in members]) for ops in (here, there))
                found.append(GrowingProduct(first, second, times, layer, frozenset(members)))
            if self.mixture:
                for members in self._together(
                    {weight: some[0] for weight, some in here.items() if weight not in alike}
                ):
                    product = as_one([here[weight][0] for weight in members])
                    found.append(ExpertProduct(product, times, layer, frozenset(members), self.experts))
        return [made for made in found if all(self._holds(made, n, p) for n, p in passes.items())]

    def _together(self, products: dict[str, Operator]) -> list[list[str]]:
        """Weights of the products that run as one, and of each other one."""
        weights, together = list(products), self.costing.software.merged(list(products.values()))
        merged = {place for places in together for place in places}
        alone = [(place,) for place in range(len(weights)) if place not in merged]
        return [[weights[place] for place in places] for places in (*together, *alone)]

    def _products(self, executions: Sequence[Execution]) -> dict[str, list[Operator]]:
        """The products of a layer by their weight, of which experts have several."""
        found: dict[str, list[Operator]] = {}
        for item in executions:
            operator = item.operator
            if operator.kind is Kind.MATMUL and operator.weight and item.component == self.name:
                found.setdefault(operator.weight, []).append(operator)
        return found

    @property
    def mixture(self) -> bool:
        """Whether the model has experts."""
        return bool(self.run.workload.model.experts)

    def experts(self, tokens: int) -> list[tuple[int, int]]:
        """Groups of experts in a step of so many tokens: how many, and rows of each."""
        workload = self.run.workload
        assert isinstance(workload.task, Inference | Step)
        store = store_of(workload.task.experts, workload.model)
        return shares_of_chip(tokens, workload.model, Spread.of(workload.parallelism), store)

    def product(self, made: GrowingProduct | ExpertProduct, tokens: int) -> Floats:
        """What a product takes in a step of so many tokens."""
        found, operators = np.zeros(NUMBERS), made.at(tokens)
        total = sum(operator.count for operator in operators)
        for operator in operators:
            found += self.numbers(self.costing.grouped(self.name, operator, total))
        return made.times * found

    def _holds(self, made: GrowingProduct | ExpertProduct, tokens: int, result: Result) -> bool:
        """Whether the product takes what the pass of so many tokens says."""
        kind, times, executions, clock = list(self.executions(result))[made.layer]
        members = [item for item in executions if item.operator.weight in made.weights]
        products = [item for item in members if item.operator.kind is Kind.MATMUL]
        if kind is BlockKind.HEAD or {item.operator.weight for item in products} != made.weights:
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
            fused = costing.software.fused(members, kernel.costs, kernel.generation)
            costs |= zip(kernel.members, fused, strict=True)
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
        light_at, lighter = self._light([*doubled, grid[-1]], rest, products)
        if any(isinstance(made, ExpertProduct) for made in products):  # groups of experts come and go with each token
            grid = range(1, grid[-1] + 1)
        return refined_line(sorted({*grid, *light_at}), lambda one: product(one) + lighter(one))

    def _light(
        self,
        grid: Sequence[int],
        rest: Callable[[int], Floats],
        products: Sequence[GrowingProduct | ExpertProduct],
    ) -> tuple[list[int], Callable[[int], Floats]]:
        """What goes by tokens beside products: where it was seen, and a line through it.

        Experts are one group or two, which is as many light kernels: each number of groups has a line of its own.
        """
        if not any(isinstance(made, ExpertProduct) for made in products):
            return _lined(grid, rest, np.arange(1, grid[-1] + 1))
        groups = np.array([len(self.kernels.experts(tokens)) for tokens in range(1, grid[-1] + 1)])
        lines: dict[int, Callable[[int], Floats]] = {}
        seen: set[int] = set()
        for number in {*groups.tolist()}:
            places, lines[number] = _lined(grid, rest, 1 + np.flatnonzero(groups == number))
            seen |= {*places}
        return sorted(seen), lambda tokens: lines[int(groups[tokens - 1])](tokens)


def _lined(
    grid: Sequence[int], rest: Callable[[int], Floats], known: NDArray[np.int64]
) -> tuple[list[int], Callable[[int], Floats]]:
    """Where a line through what light kernels take, at `known` numbers of tokens, got its points, and the line."""
    first = sorted({int(np.abs(known - one).argmin()) for one in grid})
    found, values = refined_line(first, lambda one: rest(int(known[one])), beside=lambda value: value[NUMBERS])
    places, columns = known[found], values[:, :NUMBERS].T
    return places.tolist(), lambda tokens: np.array([np.interp(tokens, places, column) for column in columns])


__all__ = ["BoardKernels", "BoardTables"]
