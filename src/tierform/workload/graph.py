"""The operator graph of a task: stages of blocks of operators, identical layers stored once with a count.

A :class:`Stage` is one pass that must end before the next begins (forward, backward, update, prefill, a run of decode
steps) and is repeated `repeat` times.  Its micro-batches follow each other in :class:`Wave` s of equal ones.  A
:class:`Block` is a run of `count` identical layers, one after the other.
Decode steps are grouped in runs of odd length, each represented by its middle step, so that everything linear in the
context length is counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from typing import TYPE_CHECKING

from tierform.workload.operator import Operator
from tierform.workload.precision import bits

if TYPE_CHECKING:
    from tierform.workload.models import Model
    from tierform.workload.task import Task


class StageKind(StrEnum):
    """What a stage is to the task."""

    PREFILL = "prefill"
    DECODE = "decode"
    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


class BlockKind(StrEnum):
    """Which part of a model a block is."""

    EMBEDDING = "embedding"
    LAYER = "layer"
    HEAD = "head"
    GRADIENTS = "gradients"


@dataclass(frozen=True, slots=True)
class Block:
    """`count` identical consecutive layers with these operators, in a valid order of execution.

    `kind` says which part of the model it is; `output` is the operator (by its place) whose result the next block
    takes.
    """

    name: str
    count: int
    operators: tuple[Operator, ...]
    kind: BlockKind = BlockKind.LAYER
    output: int = -1


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
class Footprint:
    """Bytes that the task keeps in memory, by part; `activations` is the peak of what backward (or a layer) needs."""

    weights: int = 0
    adapters: int = 0
    gradients: int = 0
    optimizer_states: int = 0
    master_weights: int = 0
    activations: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Part name -> bytes."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter of each of `layers` identical layers of the blocks named `block`.

    It stands `groups` times in a layer (experts), of which a token uses `active`.  `matrix` tells matrices and tables
    from vectors (biases, normalization).  Its operators carry `name` as their `weight`; a weight that several blocks
    use (a head tied to the embedding) is listed once, under the block that comes first.
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

    @property
    def elements(self) -> int:
        """Numbers in one group of one layer."""
        return prod(self.shape)

    @property
    def total(self) -> int:
        """Numbers in all groups of all layers."""
        return self.elements * self.groups * self.layers

    @property
    def size_B(self) -> int:
        """Bytes of all groups of all layers, packed."""
        return -(-self.total * bits(self.precision) // 8)


@dataclass(frozen=True)
class Workload:
    """A model's task as operators.  `parameters` and `trainable_parameters` include adapters."""

    model: Model
    task: Task
    stages: tuple[Stage, ...]
    parameters: int
    trainable_parameters: int
    footprint: Footprint
    weights: tuple[Weight, ...] = ()
    notes: tuple[str, ...] = field(default=())

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
        return sum(operator.operations * times for _, _, operator, times in self.occurrences())
