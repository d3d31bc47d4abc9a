"""Records a layer's forward pass as operators, and what its backward pass will need.

A family describes a layer once, by calling the functions of :mod:`tierform.workload.ops` (``linear``,
``attention_core``, ``normalization``, ...) with a :class:`Tape`.  Each emits
:class:`~tierform.workload.operator.Operator` records with their dependencies and remembers, per step, the inputs that
need a gradient, the tensors kept for it and its backward rule; :mod:`tierform.workload.reverse` walks the steps in
reverse.  Tensors are shapes only: reshapes cost nothing, broadcasting repeats nothing.  All sizes are those of one
chip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from tierform.workload.operator import Attention, Kind, Operand, Operator, Origin, Phase, Role, Shard
from tierform.workload.spread import ONE_CHIP, Spread

if TYPE_CHECKING:
    from tierform.workload.reverse import Reverse

Shape = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of one block: shape, format, whether a gradient must reach it, which operators of the block make it.

    `cut`: each chip of a tensor group has its own part of the features.  `scores`: it has the shape of attention
    scores, which tiled attention never keeps whole.  `root` is the tensor whose memory this one shares, as a view does.
    """

    name: str
    shape: Shape
    precision: str
    role: Role = Role.ACTIVATION
    grad: bool = False
    after: tuple[str, ...] = ()
    cut: bool = False
    scores: bool = False
    root: Value | None = None
    _operand: Operand | None = field(default=None, init=False, repr=False)

    @property
    def elements(self) -> int:
        """Number of values."""
        return prod(self.shape)

    def operand(self, shape: Shape | None = None) -> Operand:
        """This tensor as an operand (in another shape of it, where given)."""
        if shape is not None and shape != self.shape:
            return Operand(self.name, shape, self.precision, self.role)
        made = self._operand
        if made is None or made.shape is not self.shape or made.role is not self.role:
            made = self._operand = Operand(self.name, self.shape, self.precision, self.role)
        return made

    def view(self, shape: Shape | None = None) -> Value:
        """The same memory under another shape or in another part of the network."""
        return Value(
            self.name,
            shape or self.shape,
            self.precision,
            self.role,
            grad=self.grad,
            after=self.after,
            cut=self.cut,
            scores=self.scores,
            root=self.memory,
        )

    @property
    def memory(self) -> Value:
        """The tensor that holds this one's values."""
        return self.root or self


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight of one layer on one chip: `groups` tensors of `shape` (experts), of which a token uses `active`.

    `whole` counts the numbers of one group before tensor parallelism cut it; `partial`: this chip computes only a part
    of the sum that is its gradient.  Each of `spread` copies of the model has other groups.
    """

    name: str
    shape: Shape
    part: str
    precision: str
    trainable: bool
    matrix: bool = False
    bias: bool = False
    groups: int = 1
    active: int = 1
    adapter: bool = False
    whole: int = 0
    partial: bool = False
    spread: int = 1

    @property
    def elements(self) -> int:
        """Numbers in one group."""
        return prod(self.shape)

    def operand(self, shape: Shape | None = None) -> Operand:
        """One group of it as an operand."""
        return Operand(self.name, shape or self.shape, self.precision, Role.WEIGHT, not self.trainable, self.trainable)


@dataclass(frozen=True, slots=True)
class Product:
    """Sizes of a matmul: `count` independent groups of `batch` products (m, k) by (k, n)."""

    m: int
    n: int
    k: int
    batch: int = 1
    count: int = 1


@dataclass(slots=True, eq=False)
class Entry:
    """One forward operator (None: a view) with its differentiable inputs, its output, what backward keeps of it.

    `again`: its result is never kept; where backward needs it, the operator runs once more.  Entries of one number
    `together` (not 0) run at once, as a grouped product does.
    """

    operator: Operator | None
    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Value, ...]
    backward: Callable[[Reverse, Value], None]
    again: bool = False
    together: int = 0


@dataclass(frozen=True, slots=True)
class Learning:
    """Which parameters of a block learn.  Decided by the task's method; see :mod:`tierform.workload.methods`."""

    matrices: bool = False
    biases: bool = False
    normalization: bool = False
    embeddings: bool = False
    head: bool = False
    lora_rank: int = 0
    lora_targets: frozenset[str] = frozenset()
    bottleneck: int = 0
    quantized: str | None = None
    recomputation: str = "none"
    variant: str = ""
    prompt: int = 0
    adapters: tuple[int, int] = (0, 0)  # different ones in a batch of inference, and those in memory


@dataclass(frozen=True, slots=True)
class Formats:
    """Number formats of a block's tensors."""

    activations: str
    gradients: str
    weight_gradients: str
    kv_cache: str
    adapters: str
    weights: str
    attention: str
    ffn: str
    vectors: str
    loss: str
    embedding: str = ""
    head: str = ""
    inputs: str | None = None
    unpack: str | None = None
    mixed: Callable[[str, str, str | None], str] | None = None  # (format, part, target) -> format, for mixtures

    def of_weight(self, part: str, target: str | None = None) -> str:
        """Format of a matrix of a part of the model."""
        own = {"attention": self.attention, "ffn": self.ffn, "embedding": self.embedding, "head": self.head}
        name = own.get(part) or self.weights
        return self.mixed(name, part, target) if self.mixed is not None else name


@dataclass(slots=True)
class Tape:
    """The forward pass of one block on one of `tensor` chips, being recorded."""

    formats: Formats
    learning: Learning
    training: bool = False
    tensor: int = 1
    sequence: bool = False
    context: int = 1  # chips that share the tokens of each sequence
    spread: Spread = ONE_CHIP
    left_out: frozenset[str] = frozenset()  # sublayers (attention, ffn) that this layer does not have
    operators: list[Operator] = field(default_factory=list)
    steps: list[Entry] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    scores: set[str] = field(default_factory=set)
    pieces: dict[str, int] = field(default_factory=dict)  # what a fused loss makes by pieces -> bytes of one piece
    together: list[int] = field(default_factory=list)  # for each operator, see Entry
    low: dict[tuple[str, str], Value] = field(default_factory=dict)  # (fused target, input) -> A's result
    narrowed: dict[str, Value] = field(default_factory=dict)  # input of products -> it in their format
    cores: int = 0
    merged: dict[int, Value] = field(default_factory=dict)  # number of a core -> of what its result is a part
    _group: int = 0
    _groups: int = 0
    _core: Attention | None = None
    _names: dict[str, int] = field(default_factory=dict)

    # -- several chips ------------------------------------------------------------------------------------------
    def share(self, size: int) -> int:
        """This chip's part of `size` features, heads or rows; the fullest chip's where they do not divide."""
        return -(-size // self.tensor)

    def local(self, tokens: int) -> int:
        """Tokens on this chip outside the cut parts of a layer."""
        return -(-tokens // self.tensor) if self.sequence else tokens

    @contextmanager
    def attention(self, core: Attention) -> Iterator[None]:
        """Operators emitted inside belong to this attention core."""
        self._core = core
        yield
        self._core = None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Operators emitted inside run at once: what any of them needs is alive for all."""
        self._groups += 1
        self._group = self._groups
        yield
        self._group = 0

    # -- parameters ---------------------------------------------------------------------------------------------
    def parameter(
        self,
        name: str,
        shape: Shape,
        part: str,
        *,
        matrix: bool = False,
        bias: bool = False,
        groups: int = 1,
        active: int = 1,
        trainable: bool | None = None,
        adapter: bool = False,
        precision: str | None = None,
        quantizable: bool = True,
        whole: int = 0,
        partial: bool = False,
        spread: int = 1,
        target: str | None = None,
    ) -> Parameter:
        """Declare a weight of this block; the same name again returns the same weight (tied)."""
        if name in self.parameters:
            return self.parameters[name]
        if trainable is None:
            trainable = self._learns(part, bias)
        if precision is None:
            precision = self.formats.of_weight(part, target) if matrix else self.formats.vectors
            if matrix and quantizable and self.learning.quantized and part in ("attention", "ffn"):
                precision = self.learning.quantized
        repeated = not whole or whole == prod(shape)
        made = Parameter(
            name,
            shape,
            part,
            precision,
            trainable,
            matrix=matrix,
            bias=bias,
            groups=groups,
            active=active,
            adapter=adapter,
            whole=whole or prod(shape),
            partial=self.tensor > 1 and (partial or (self.sequence and repeated)),
            spread=spread,
        )
        self.parameters[name] = made
        return made

    def _learns(self, part: str, bias: bool) -> bool:
        learning = self.learning
        match part:
            case "embedding":
                return learning.embeddings
            case "head":
                return learning.head or (learning.biases and bias)
            case "normalization":
                return learning.normalization or (learning.biases and bias)
        return learning.biases if bias else learning.matrices

    # -- recording ----------------------------------------------------------------------------------------------
    def unique(self, name: str) -> str:
        """`name`, or `name.2`, ... where it is taken in this block."""
        seen = self._names.get(name, 0) + 1
        self._names[name] = seen
        return name if seen == 1 else f"{name}.{seen}"

    def value(
        self, name: str, shape: Shape, *, role: Role = Role.ACTIVATION, precision: str | None = None, cut: bool = False
    ) -> Value:
        """A new tensor in the activations' format."""
        return Value(name, shape, precision or self.formats.activations, role, cut=cut)

    def emit(
        self,
        name: str,
        kind: Kind,
        part: str,
        inputs: tuple[Value, ...],
        output: Value,
        *,
        weights: tuple[Parameter, ...] = (),
        learners: tuple[Parameter, ...] = (),
        backward: Callable[[Reverse, Value], None] | None = None,
        saved: tuple[Value, ...] = (),
        waits: tuple[Value, ...] = (),
        indices: tuple[Operand, ...] = (),
        operands: tuple[Operand, ...] | None = None,
        outputs: tuple[Operand, ...] | None = None,
        sizes: Product | None = None,
        count: int = 1,
        per_element: float = 1.0,
        weight: str | None = None,
        transposed: bool = False,
        causal: bool = False,
        origin: Origin = Origin.MODEL,
        shard: Shard | None = None,
        collective: str = "",
        members: int = 0,
        again: bool = False,
        composed: float = 1.0,
    ) -> Value:
        """Append one operator; `output.grad` and `output.after` are set here.  Returns `output`.

        A collective is one of the tensor group, or of `members` copies of the model.
        """
        name = self.unique(name)
        given = operands if operands is not None else tuple(value.operand() for value in inputs)
        work = sizes or Product(0, 0, 0, count=count)
        operator = Operator(
            name,
            kind,
            part,
            Phase.FORWARD,
            (*given, *(p.operand() for p in weights), *indices),
            outputs or (output.operand(),),
            batch=work.batch,
            m=work.m,
            n=work.n,
            k=work.k,
            count=work.count,
            operations_per_element=per_element,
            after=dependencies(*inputs, *waits),
            weight=weight,
            transposed=transposed,
            causal=causal,
            collective=collective,
            participants=(members or self.tensor) if collective else 1,
            copies=members > 0,
            origin=origin,
            shard=shard or self._shard(inputs, output),
            attention=self._core,
            together=self._group,
            composed=composed,
        )
        if output.scores:
            self.scores |= {operand.name for operand in operator.outputs}
        output.after = (name,)
        output.grad = any(value.grad for value in inputs) or any(p.trainable for p in (*weights, *learners))
        self.operators.append(operator)
        self.together.append(self._group)
        if self.training and backward is not None:
            kept = saved if output.grad else ()
            self.steps.append(Entry(operator, inputs, output, kept, backward, again=again, together=self._group))
        return output

    def _shard(self, inputs: tuple[Value, ...], output: Value) -> Shard:
        if self._core is not None:
            return Shard.HEADS
        return Shard.ELEMENTS if output.cut or any(value.cut for value in inputs) else Shard.WHOLE

    def view(self, x: Value, y: Value, backward: Callable[[Reverse, Value], None]) -> Value:
        """Record that y is x seen differently: nothing forward, `backward` on its gradient."""
        if self.training:
            self.steps.append(Entry(None, (x,), y, (), backward))
        return y


def dependencies(*values: Value) -> tuple[str, ...]:
    """Names of the operators that make these tensors, each once, in order."""
    return tuple(dict.fromkeys(name for value in values for name in value.after))
