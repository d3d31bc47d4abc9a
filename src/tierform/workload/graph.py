"""The operator graph of a task: stages of blocks of operators, identical layers stored once with a count.

A :class:`Stage` is one pass that must end before the next begins (forward, backward, update, prefill, a run of decode
steps) and is repeated `repeat` times.  Its micro-batches follow each other in :class:`Wave` s of equal ones.  A
:class:`Block` is a run of `count` identical layers, one after the other.
Decode steps are grouped in runs of odd length, each represented by its middle step, so that everything linear in the
context length is counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from math import fsum, prod
from typing import TYPE_CHECKING

from tierform.workload.formats import packed_B
from tierform.workload.memory import BlockKind, BlockMemory, Cut, Footprint, even_cut, footprints
from tierform.workload.operator import Operator
from tierform.workload.parallel import ALONE, Parallelism
from tierform.workload.workload_card import workload_card, workload_line

if TYPE_CHECKING:
    from tierform.workload.models import Model
    from tierform.workload.task import Task


class StageKind(StrEnum):
    """What a stage is to the task."""

    PREFILL = "prefill"
    DECODE = "decode"
    DRAFT = "draft"
    VERIFY = "verify"
    TEACHER = "teacher"
    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Block:
    """`count` identical consecutive layers with these operators, in a valid order of execution.

    `kind` says which part of the model it is; `output` is the operator (by its place) whose result the next block
    takes.  `saved` holds (place, bytes) of the tensors that one layer keeps for its backward pass: the operator that
    makes each of them, in a block of the backward pass the first that reads it; -1 stands for the layer's input.
    """

    name: str
    count: int
    operators: tuple[Operator, ...]
    kind: BlockKind = BlockKind.LAYER
    output: int = -1
    saved: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Wave:
    """`micro_batches` equal micro-batches of a stage, one after the other; `tokens` new tokens in each of them."""

    blocks: tuple[Block, ...]
    micro_batches: int = 1
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One pass, repeated.  Its waves have the same blocks and operators, of different sizes where parts are uneven."""

    name: str
    kind: StageKind
    waves: tuple[Wave, ...]
    repeat: int = 1

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the first wave."""
        return self.waves[0].blocks

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one pass."""
        return sum(wave.micro_batches for wave in self.waves)

    @property
    def tokens(self) -> int:
        """New tokens of one pass, all micro-batches together (for rates)."""
        return sum(wave.micro_batches * wave.tokens for wave in self.waves)


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter of each of `layers` identical layers of the blocks named `block`, as one chip holds it.

    It stands `groups` times in a layer (experts), of which a token uses `active`.  `matrix` tells matrices and tables
    from vectors (biases, normalization).  Its operators carry `name` as their `weight`; a weight that several blocks
    use (a head tied to the embedding) is listed once, under the block that comes first.  `whole` counts the numbers
    of one group before tensor parallelism cut it; `partial`: the chips of a tensor group each compute a part of the sum
    that is its gradient.  Each of `spread` copies of the model has other groups (experts).
    """

    name: str
    block: str
    shape: tuple[int, ...]
    layers: int
    groups: int
    active: int
    part: str
    precision: str
    trainable: bool
    matrix: bool
    adapter: bool = False
    whole: int = 0
    partial: bool = False
    spread: int = 1

    @property
    def elements(self) -> int:
        """Numbers in one group of one layer on one chip."""
        return prod(self.shape)

    @property
    def total(self) -> int:
        """Numbers in all groups of all layers on one chip."""
        return self.elements * self.groups * self.layers

    @property
    def whole_total(self) -> int:
        """Numbers in all groups of all layers, over all chips of a tensor group."""
        return (self.whole or self.elements) * self.groups * self.layers

    @property
    def size_B(self) -> int:
        """Bytes of all groups of all layers on one chip, packed."""
        return packed_B(self.total, self.precision, self.shape[-1])


@dataclass(frozen=True)
class Workload:
    """A model's task as the operators of one chip.

    The chip has its part of each layer (tensor parallelism) and of the batch (data parallelism); its blocks are those
    of all pipeline groups, because where the layers are cut is decided later.  `parameters` and
    `trainable_parameters` are the whole model's, adapters included.  `memory` says what each block keeps.
    """

    model: Model
    task: Task
    stages: tuple[Stage, ...]
    parameters: int
    trainable_parameters: int
    weights: tuple[Weight, ...] = ()
    memory: tuple[BlockMemory, ...] = ()
    parallelism: Parallelism = ALONE
    notes: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        return workload_line(self)

    def _repr_html_(self) -> str:
        return workload_card(self)

    @property
    def whole(self) -> str:
        """Everything that it is, as one text: what is hashed."""
        return repr([(item.name, getattr(self, item.name)) for item in fields(self)])

    def occurrences(self) -> Iterator[tuple[Stage, Block, Operator, int]]:
        """Every distinct operator with how often it runs in the whole task (all micro-batches)."""
        for stage in self.stages:
            for wave in stage.waves:
                for block in wave.blocks:
                    times = stage.repeat * block.count * wave.micro_batches
                    for operator in block.operators:
                        yield stage, block, operator, times

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the whole task."""
        return sum(operator.macs * times for _, _, operator, times in self.occurrences())

    @property
    def operations(self) -> float:
        """Arithmetic operations of the whole task (2 per MAC)."""
        return fsum(operator.operations * times for _, _, operator, times in self.occurrences())

    @property
    def footprint(self) -> Footprint:
        """Memory of the fullest chip when the layers are shared evenly among the pipeline groups."""
        groups = self.group_footprints(even_cut(self.memory, self.parallelism.parts))
        return max(groups, key=lambda footprint: footprint.total)

    def group_footprints(self, cut: Cut) -> tuple[Footprint, ...]:
        """Memory of one chip of each pipeline group.

        `cut` names for each part of the pipeline (one or, interleaved, several for each group) its blocks and how many
        of each block's layers it has, in the forward order.
        """
        return footprints(self.memory, cut, self._passes(), self.parallelism.interleave)

    def saved_B(self, block: str) -> tuple[int, ...]:
        """Bytes that one layer of a block keeps for its backward pass, for one micro-batch of each wave."""
        return next((memory.saved_B for memory in self.memory if memory.block == block), ())

    def _passes(self) -> Sequence[int]:
        """Micro-batches of each wave of the first stage."""
        return tuple(wave.micro_batches for wave in self.stages[0].waves)
