"""Operators: what is computed, with shapes, number formats, and whether each operand is static.

An operator is one tensor operation of one layer.  A matmul is ``batch`` products of (m, k) by (k, n).  Operands that do
not change during the task are *static* (frozen or inference weights); all others are *dynamic*: this distinction
decides what may sit in ReRAM.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from tierform.lazy import lazy
from tierform.workload.formats import packed_B
from tierform.workload.precision import bits


class Role(StrEnum):
    """What an operand is to the task."""

    WEIGHT = "weight"
    ACTIVATION = "activation"
    KV_CACHE = "kv_cache"
    GRADIENT = "gradient"
    OPTIMIZER_STATE = "optimizer_state"
    MASTER_WEIGHT = "master_weight"
    INDEX = "index"


class Kind(StrEnum):
    """Operator classes; energy and operations are reported by them."""

    MATMUL = "matmul"
    SOFTMAX = "softmax"
    NORMALIZATION = "normalization"
    ACTIVATION = "activation"
    ELEMENTWISE = "elementwise"
    ROTARY = "rotary"
    EMBEDDING = "embedding"
    ROUTING = "routing"
    LOSS = "loss"
    OPTIMIZER = "optimizer"
    COLLECTIVE = "collective"


class Phase(StrEnum):
    """When in a step an operator runs."""

    FORWARD = "forward"
    BACKWARD = "backward"
    UPDATE = "update"


class Origin(StrEnum):
    """How an operator came to be."""

    MODEL = "model"  # laid out by the model's family, or traced
    RECOMPUTED = "recomputed"  # a forward operator, run again in the backward pass
    INPUT_GRADIENT = "input_gradient"
    WEIGHT_GRADIENT = "weight_gradient"
    GRADIENT_SUM = "gradient_sum"  # gradients that meet are added
    DEQUANTIZE = "dequantize"  # unpacks a weight for the product that follows
    QUANTIZE = "quantize"  # turns a product's input into a narrower format
    UPDATE = "update"
    COLLECTIVE = "collective"


class Shard(StrEnum):
    """How tensor parallelism cuts an operator (Shoeybi et al., Megatron-LM, 2019)."""

    WHOLE = "whole"  # repeated on every chip; with sequence parallelism each chip has its part of the tokens
    OUTPUT = "output"  # a matmul by output features
    INPUT = "input"  # a matmul by input features: its result is a partial sum
    HEADS = "heads"  # attention by heads
    ELEMENTS = "elements"  # light operators on tensors that are cut


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention core to which an operator belongs: what a fused kernel needs to know of it.

    `number` tells the cores of one block apart.  Each of `queries` new tokens of a sequence may see `keys` tokens, its
    own and earlier new ones included; `causal`: the last query sees all keys, each one before it one key less.
    `heads` and `kv_heads` are those of one chip.
    """

    number: int
    sequences: int
    queries: int
    keys: int
    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    causal: bool = False

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that are used, of one head of one sequence."""
        hidden = self.queries * (self.queries - 1) // 2 if self.causal else 0
        return self.queries * self.keys - hidden


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor: name, shape, number format, role; `static` when its values do not change during the task.

    `trainable` marks a weight that learns, and its gradient.  `size_B` are its bytes, packed, with its format's scales.
    """

    name: str
    shape: tuple[int, ...]
    precision: str
    role: Role
    static: bool = False
    trainable: bool = False
    size_B: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        inputs = self.shape[-1] if self.shape else 0
        object.__setattr__(self, "size_B", packed_B(prod(self.shape), self.precision, inputs))

    @property
    def elements(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True)
class Operator:
    """One tensor operation of one layer.

    Matmuls: `count` independent groups (for example experts) of `batch` products (m, k) x (k, n).  Other kinds have
    m = n = k = 0 and are sized by their operands; `operations_per_element` counts scalar operations per output value.
    `after` names the operators of the same block that must end first; an empty tuple means the block's input.
    `part` is one of embedding, attention, ffn, normalization, adapter, head, optimizer, other.
    `weight` names the parameter the operator uses, so that forward and backward share its place in crossbars;
    a collective names its `collective` (all_reduce, all_gather, reduce_scatter, all_to_all, ring) among so many
    `participants`, which are the chips of a tensor group, with `copies` those of the model's copies that do the same,
    or with a `weight` the pipeline groups that hold copies of it; one that is `ahead` takes nothing from its layer or
    the one before: it may begin with the layer before, and what uses weights waits for it.
    `origin` says how the operator came to be, `shard` how tensor parallelism cuts it, `attention` to which attention
    core it belongs (scores, what is light on them, softmax, weighted values, and their gradients).
    `composed`: how much more its kernels move where eager code composes it of several operations.
    Operators of one number `together` (not 0) in a block are one grouped kernel, as experts of unequal rows are.
    `transposed` marks a product with the transposed weight (input gradient); `causal` marks products and softmaxes on
    square scores of which only the lower triangle is useful (`attention.pairs` counts what is useful of any shape).
    Sizes are those of one chip.
    """

    name: str
    kind: Kind
    part: str
    phase: Phase
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    batch: int = 1
    m: int = 0
    n: int = 0
    k: int = 0
    count: int = 1
    operations_per_element: float = 1.0
    after: tuple[str, ...] = ()
    weight: str | None = None
    transposed: bool = False
    causal: bool = False
    collective: str = ""
    participants: int = 1
    copies: bool = False
    ahead: bool = False
    origin: Origin = Origin.MODEL
    shard: Shard = Shard.WHOLE
    attention: Attention | None = None
    together: int = field(default=0, compare=False)
    composed: float = field(default=1.0, compare=False)

    @lazy
    def macs(self) -> int:
        """Multiply-accumulates of all groups; 0 unless a matmul."""
        return self.count * self.batch * self.m * self.n * self.k

    @lazy
    def widest(self) -> str:
        """The number format of its inputs with the most bits; of a matmul its factors', not that of what is added."""
        factors = self.inputs[:2] if self.kind is Kind.MATMUL else self.inputs
        return max((operand.precision for operand in factors), key=bits)

    @lazy
    def operations(self) -> float:
        """Arithmetic operations: 2 per MAC for matmuls, otherwise `operations_per_element` per output value."""
        if self.kind is Kind.MATMUL:
            return 2.0 * self.macs
        return self.operations_per_element * sum(operand.elements for operand in self.outputs) * self.count

    @lazy
    def static_operand(self) -> Operand | None:
        """The operand that does not change during the task, if there is one."""
        return next((operand for operand in self.inputs if operand.static and operand.role is Role.WEIGHT), None)

    @lazy
    def input_B(self) -> int:
        """Bytes of all inputs of all groups."""
        return self.count * sum(operand.size_B for operand in self.inputs)

    @lazy
    def output_B(self) -> int:
        """Bytes of all outputs of all groups."""
        return self.count * sum(operand.size_B for operand in self.outputs)

    @lazy
    def weight_B(self) -> int:
        """Bytes of the weight operands of all groups."""
        return self.count * sum(operand.size_B for operand in self.inputs if operand.role is Role.WEIGHT)

    @property
    def looks_up(self) -> bool:
        """Whether it takes rows out of a table."""
        return self.kind is Kind.EMBEDDING and self.phase is Phase.FORWARD

    @property
    def read_B(self) -> int:
        """Bytes that it reads: all inputs; of a table only the rows that this chip has and that come out."""
        return min(self.weight_B, self.output_B) if self.looks_up else self.input_B

    @lazy
    def shape_key(self) -> tuple[object, ...]:
        """What its cost depends on: two operators with equal keys cost the same on the same component."""
        operands = tuple((o.shape, o.precision, o.role, o.static) for o in (*self.inputs, *self.outputs))
        return (
            self.kind,
            self.phase,
            self.count,
            self.batch,
            self.m,
            self.n,
            self.k,
            self.operations_per_element,
            self.transposed,
            self.causal,
            self.collective,
            self.participants,
            len(self.inputs),
            operands,
        )
