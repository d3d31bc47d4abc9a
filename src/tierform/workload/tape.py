"""Records a layer's forward pass as operators, and what its backward pass will need.

A family describes a layer once, by calling a :class:`Tape` (``linear``, ``matmul``, ``normalization``, ...).  The tape
emits :class:`~tierform.workload.operator.Operator` records with their dependencies and remembers, per step, the inputs
that need a gradient and the tensors kept for it; :mod:`tierform.workload.backward` walks the steps in reverse.  Tensors
are shapes only: reshapes cost nothing, broadcasting repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Operator, Phase, Role

if TYPE_CHECKING:
    from tierform.workload.backward import Reverse

Shape = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of one block: shape, format, whether a gradient must reach it, which operators of the block make it."""

    name: str
    shape: Shape
    precision: str
    role: Role = Role.ACTIVATION
    grad: bool = False
    after: tuple[str, ...] = ()

    def operand(self, shape: Shape | None = None) -> Operand:
        """This tensor as an operand (in another shape of it, where given)."""
        return Operand(self.name, shape or self.shape, self.precision, self.role)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight of one layer: `groups` tensors of `shape` (experts), of which a token uses `active`."""

    name: str
    shape: Shape
    part: str
    precision: str
    trainable: bool
    matrix: bool = False
    groups: int = 1
    active: int = 1
    adapter: bool = False

    @property
    def elements(self) -> int:
        """Numbers in one group."""
        return prod(self.shape)

    @property
    def total(self) -> int:
        """Numbers in all groups."""
        return self.elements * self.groups

    def operand(self, shape: Shape | None = None) -> Operand:
        """One group of it as an operand."""
        return Operand(self.name, shape or self.shape, self.precision, Role.WEIGHT, not self.trainable, self.trainable)


@dataclass(slots=True, eq=False)
class Step:
    """One forward operator (None: a view) with its differentiable inputs, its output, what backward keeps of it."""

    operator: Operator | None
    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Value, ...]
    backward: Callable[[Reverse, Value], None]
    attention_core: bool = False


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


@dataclass(frozen=True, slots=True)
class Formats:
    """Number formats of a block's tensors."""

    activations: str
    gradients: str
    kv_cache: str
    adapters: str
    weights: str
    attention: str
    ffn: str
    vectors: str
    loss: str

    def of_weight(self, module: str) -> str:
        """Format of a matrix of a module."""
        return {"attention": self.attention, "ffn": self.ffn}.get(module, self.weights)


@dataclass(slots=True)
class Tape:
    """The forward pass of one block, being recorded."""

    formats: Formats
    learning: Learning
    training: bool = False
    operators: list[Operator] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    parameters: dict[str, Parameter] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)

    # -- parameters ---------------------------------------------------------------------------------------------
    def parameter(
        self,
        name: str,
        shape: Shape,
        module: str,
        *,
        matrix: bool = False,
        groups: int = 1,
        active: int = 1,
        trainable: bool | None = None,
        adapter: bool = False,
        precision: str | None = None,
        quantizable: bool = True,
    ) -> Parameter:
        """Declare a weight of this block; the same name again returns the same weight (tied)."""
        if name in self.parameters:
            return self.parameters[name]
        if trainable is None:
            trainable = self._learns(module, matrix, name)
        if precision is None:
            precision = self.formats.of_weight(module) if matrix else self.formats.vectors
            if matrix and quantizable and self.learning.quantized and module in ("attention", "ffn"):
                precision = self.learning.quantized
        made = Parameter(name, shape, module, precision, trainable, matrix, groups, active, adapter)
        self.parameters[name] = made
        return made

    def _learns(self, module: str, matrix: bool, name: str) -> bool:
        learning = self.learning
        if module == "embedding":
            return learning.embeddings
        if module == "head":
            return learning.head or (learning.biases and name.endswith("bias"))
        if name.endswith("bias"):
            return learning.biases or (module == "normalization" and learning.normalization)
        if module == "normalization":
            return learning.normalization
        return learning.matrices

    # -- recording ----------------------------------------------------------------------------------------------
    def unique(self, name: str) -> str:
        """`name`, or `name.2`, ... where it is taken in this block."""
        seen = self._names.get(name, 0) + 1
        self._names[name] = seen
        return name if seen == 1 else f"{name}.{seen}"

    def emit(
        self,
        name: str,
        kind: Kind,
        module: str,
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
        batch: int = 1,
        m: int = 0,
        n: int = 0,
        k: int = 0,
        count: int = 1,
        per_element: float = 1.0,
        weight: str | None = None,
        transposed: bool = False,
        causal: bool = False,
        attention_core: bool = False,
    ) -> Value:
        """Append one operator; `output.grad` and `output.after` are set here.  Returns `output`."""
        name = self.unique(name)
        given = operands if operands is not None else tuple(value.operand() for value in inputs)
        operator = Operator(
            name,
            kind,
            module,
            Phase.FORWARD,
            (*given, *(p.operand() for p in weights), *indices),
            outputs or (output.operand(),),
            batch,
            m,
            n,
            k,
            count,
            per_element,
            dependencies(*inputs, *waits),
            weight,
            transposed,
            causal,
        )
        output.after = (name,)
        output.grad = any(value.grad for value in inputs) or any(p.trainable for p in (*weights, *learners))
        self.operators.append(operator)
        if self.training and backward is not None:
            kept = saved if output.grad else ()
            self.steps.append(Step(operator, inputs, output, kept, backward, attention_core))
        return output

    def value(self, name: str, shape: Shape, role: Role = Role.ACTIVATION, precision: str | None = None) -> Value:
        """A new tensor in the activations' format."""
        return Value(name, shape, precision or self.formats.activations, role)

    # -- operators ----------------------------------------------------------------------------------------------
    def linear(
        self,
        x: Value,
        name: str,
        n: int,
        module: str,
        *,
        bias: bool = False,
        k: int | None = None,
        rows: int | None = None,
        target: str | None = None,
        groups: int = 1,
        active: int = 1,
        count: int | None = None,
        shape: Shape | None = None,
        role: Role = Role.ACTIVATION,
        precision: str | None = None,
        weight: str | None = None,
        quantizable: bool = True,
    ) -> Value:
        """The product y = x W^T + b with W (n, k) on `rows` rows of x (default: all), and LoRA beside adapted targets.

        `groups` weights exist (experts), `count` of them are used, on `rows` rows each.  Backward: the input gradient
        where x needs one, the weight gradient where W learns.
        """
        k = k or x.shape[-1]
        count = groups if count is None else count
        m = rows if rows is not None else prod(x.shape) // k
        w = self.parameter(
            weight or name, (n, k), module, matrix=True, groups=groups, active=active, quantizable=quantizable
        )
        used: tuple[Parameter, ...] = (w,)
        if bias:
            b = self.parameter(f"{name}.bias", (n,), module, groups=groups, active=active)
            used = (w, b)
        if self.learning.quantized and w.precision == self.learning.quantized and self.training:
            unpacked = Value(f"{w.name}.unpacked", (n, k), self.formats.activations, Role.WEIGHT)
            self.emit(
                f"{name}.dequantize",
                Kind.ELEMENTWISE,
                module,
                (),
                unpacked,
                weights=(w,),
                count=count,
                per_element=arithmetic.DEQUANTIZE,
                weight=w.name,
            )
        y = self.value(f"{name}.out", shape or (*x.shape[:-1], n), role, precision)
        saved = (x,) if w.trainable else ()

        def backward(reverse: Reverse, gradient: Value) -> None:
            reverse.linear(name, module, x, w, used[1:], gradient, m, n, k, count)

        self.emit(
            name,
            Kind.MATMUL,
            module,
            (x,),
            y,
            weights=used,
            backward=backward,
            saved=saved,
            operands=(x.operand((m, k)),),
            outputs=(y.operand((m, n)),),
            m=m,
            n=n,
            k=k,
            count=count,
            weight=w.name,
        )
        if target is not None and target in self.learning.lora_targets:
            return self._lora(x, y, name, w.name, m, n, k, groups, active, count)
        return y

    def _lora(
        self, x: Value, y: Value, name: str, weight: str, m: int, n: int, k: int, groups: int, active: int, count: int
    ) -> Value:
        rank = self.learning.lora_rank
        inner = self.adapter(
            x, f"{name}.lora_a", m, rank, k, groups=groups, active=active, count=count, weight=f"{weight}.lora_a"
        )
        low = self.adapter(
            inner,
            f"{name}.lora_b",
            m,
            n,
            rank,
            groups=groups,
            active=active,
            count=count,
            shape=y.shape,
            weight=f"{weight}.lora_b",
        )
        total = self.value(f"{name}.adapted", y.shape, y.role, y.precision)
        return self.emit(
            f"{name}.lora_add",
            Kind.ELEMENTWISE,
            "adapter",
            (y, low),
            total,
            count=1,
            per_element=2.0,
            backward=lambda reverse, gradient: reverse.add((y, low), gradient),
        )

    def adapter(
        self,
        x: Value,
        name: str,
        m: int,
        n: int,
        k: int,
        *,
        bias: bool = False,
        groups: int = 1,
        active: int = 1,
        count: int = 1,
        shape: Shape | None = None,
        weight: str | None = None,
    ) -> Value:
        """A small trainable matrix beside the model's own: y = x A^T (+ b), `count` groups of `m` rows."""
        w = self.parameter(
            weight or name,
            (n, k),
            "adapter",
            matrix=True,
            groups=groups,
            active=active,
            trainable=True,
            adapter=True,
            precision=self.formats.adapters,
        )
        biases: tuple[Parameter, ...] = ()
        if bias:
            biases = (
                self.parameter(
                    f"{name}.bias", (n,), "adapter", trainable=True, adapter=True, precision=self.formats.adapters
                ),
            )
        y = self.value(f"{name}.out", shape or (m * count, n))
        return self.emit(
            name,
            Kind.MATMUL,
            "adapter",
            (x,),
            y,
            weights=(w, *biases),
            saved=(x,),
            operands=(x.operand((m, k)),),
            outputs=(y.operand((m, n)),),
            m=m,
            n=n,
            k=k,
            count=count,
            weight=w.name,
            backward=lambda reverse, gradient: reverse.linear(name, "adapter", x, w, biases, gradient, m, n, k, count),
        )

    def matmul(
        self,
        a: Value,
        b: Value,
        name: str,
        module: str,
        *,
        batch: int,
        m: int,
        n: int,
        k: int,
        shape: Shape,
        causal: bool = False,
        attention_core: bool = True,
    ) -> Value:
        """A product of two dynamic tensors: `batch` times (m, k) by (k, n)."""
        y = self.value(f"{name}.out", shape)
        saved = tuple(value for value, other in ((b, a), (a, b)) if other.grad)
        return self.emit(
            name,
            Kind.MATMUL,
            module,
            (a, b),
            y,
            saved=saved,
            batch=batch,
            m=m,
            n=n,
            k=k,
            causal=causal,
            attention_core=attention_core,
            backward=lambda reverse, gradient: reverse.matmul(name, module, a, b, gradient, batch, m, n, k, causal),
        )

    def softmax(self, x: Value, name: str, module: str, causal: bool = False) -> Value:
        """Softmax over the last axis with scale and mask; keeps its output."""
        y = self.value(f"{name}.out", x.shape)
        return self.emit(
            name,
            Kind.SOFTMAX,
            module,
            (x,),
            y,
            saved=(y,),
            per_element=arithmetic.SOFTMAX,
            causal=causal,
            attention_core=True,
            backward=lambda reverse, gradient: reverse.unary(
                f"{name}.grad_input", Kind.SOFTMAX, module, x, (y,), gradient, arithmetic.SOFTMAX_BACKWARD, causal
            ),
        )

    def normalization(
        self,
        x: Value,
        name: str,
        kind: str,
        *,
        bias: bool | None = None,
        gain: bool = True,
        size: int | None = None,
        role: Role = Role.ACTIVATION,
        precision: str | None = None,
    ) -> Value:
        """LayerNorm or RMSNorm over the last axis (or groups of `size` of it); keeps its input."""
        width = size or x.shape[-1]
        weights = []
        if gain:
            weights.append(self.parameter(f"{name}.weight", (width,), "normalization"))
        if bias if bias is not None else kind == "layernorm":
            weights.append(self.parameter(f"{name}.bias", (width,), "normalization"))
        used = tuple(weights)
        y = self.value(f"{name}.out", x.shape, role, precision)
        return self.emit(
            name,
            Kind.NORMALIZATION,
            "normalization",
            (x,),
            y,
            weights=used,
            saved=(x,),
            per_element=arithmetic.NORMALIZATION[kind],
            backward=lambda reverse, gradient: reverse.normalization(name, kind, x, used, gradient),
        )

    def activation(self, x: Value, name: str, function: str, module: str, count: int = 1) -> Value:
        """An activation function, value by value; keeps its input (tanh, relu: its output)."""
        y = self.value(f"{name}.out", x.shape)
        kept = (y,) if function in ("relu", "tanh") else (x,)
        return self.emit(
            name,
            Kind.ACTIVATION,
            module,
            (x,),
            y,
            saved=kept,
            per_element=arithmetic.ACTIVATION[function],
            backward=lambda reverse, gradient: reverse.unary(
                f"{name}.grad_input",
                Kind.ACTIVATION,
                module,
                x,
                kept,
                gradient,
                arithmetic.ACTIVATION_BACKWARD[function],
            ),
        )

    def add(self, a: Value, b: Value, name: str, module: str) -> Value:
        """The sum a + b; the smaller is broadcast, its gradient summed."""
        shape = a.shape if a.operand().elements >= b.operand().elements else b.shape
        y = self.value(f"{name}.out", shape)
        return self.emit(
            name,
            Kind.ELEMENTWISE,
            module,
            (a, b),
            y,
            per_element=arithmetic.ADD,
            backward=lambda reverse, gradient: reverse.add((a, b), gradient),
        )

    def add_parameter(self, x: Value, name: str, shape: Shape, result: Shape, *, copies: int) -> Value:
        """The tensor x with a learned one added (or put in front) `copies` times; that one's gradient is their sum."""
        w = self.parameter(name, shape, "embedding")
        y = self.value(f"{name}.out", result)
        return self.emit(
            f"{name}.add",
            Kind.ELEMENTWISE,
            "embedding",
            (x,),
            y,
            weights=(w,),
            per_element=arithmetic.ADD,
            weight=name,
            backward=lambda reverse, gradient: reverse.add_parameter(name, x, w, gradient, copies),
        )

    def multiply(self, a: Value, b: Value, name: str, module: str) -> Value:
        """The product a * b, value by value; keeps both where both learn."""
        y = self.value(f"{name}.out", a.shape)
        saved = tuple(value for value, other in ((b, a), (a, b)) if other.grad)
        return self.emit(
            name,
            Kind.ELEMENTWISE,
            module,
            (a, b),
            y,
            saved=saved,
            per_element=arithmetic.MULTIPLY,
            backward=lambda reverse, gradient: reverse.multiply(name, module, a, b, gradient),
        )

    def rotary(
        self,
        x: Value,
        name: str,
        *,
        size: int | None = None,
        role: Role = Role.ACTIVATION,
        precision: str | None = None,
    ) -> Value:
        """Rotary position embedding of x, on `size` values of it (default: all)."""
        y = self.value(f"{name}.out", x.shape, role, precision)
        share = size / x.operand().elements if size else 1.0
        cost = arithmetic.ROTARY * share
        return self.emit(
            name,
            Kind.ROTARY,
            "attention",
            (x,),
            y,
            per_element=cost,
            backward=lambda reverse, gradient: reverse.unary(
                f"{name}.grad_input", Kind.ROTARY, "attention", x, (), gradient, cost
            ),
        )

    def dropout(self, x: Value, name: str, module: str, probability: float, *, attention_core: bool = False) -> Value:
        """Dropout while training (nothing otherwise); keeps a mask of one byte per value."""
        if not self.training or probability <= 0:
            return x
        y = self.value(f"{name}.out", x.shape)
        mask = self.value(f"{name}.mask", x.shape, precision="int8")
        return self.emit(
            name,
            Kind.ELEMENTWISE,
            module,
            (x,),
            y,
            saved=(mask,),
            per_element=arithmetic.DROPOUT / 2,
            outputs=(y.operand(), mask.operand()),
            attention_core=attention_core,
            backward=lambda reverse, gradient: reverse.unary(
                f"{name}.grad_input", Kind.ELEMENTWISE, module, x, (mask,), gradient, arithmetic.MULTIPLY
            ),
        )

    def part(self, x: Value, name: str, shape: Shape) -> Value:
        """A part of x (a slice): nothing forward; backward writes its gradient into one of x's size."""
        y = Value(f"{name}.out", shape, x.precision, x.role, x.grad, x.after)

        def backward(reverse: Reverse, gradient: Value) -> None:
            reverse.unary(f"{name}.grad_input", Kind.ELEMENTWISE, "other", x, (), gradient, arithmetic.GATHER)

        if self.training:
            self.steps.append(Step(None, (x,), y, (), backward))
        return y

    def embedding(self, name: str, rows: int, width: int, lead: Shape, *, shared: bool = False) -> Value:
        """Rows of a table by index, one for each of `lead`; `shared`: the table's gradient already holds the head's."""
        table = self.parameter(name, (rows, width), "embedding", matrix=True)
        number = prod(lead)
        index = Operand(f"{name}.index", (number,), "int32", Role.INDEX, static=True)
        y = self.value(f"{name}.out", (*lead, width))
        return self.emit(
            f"{name}.lookup",
            Kind.EMBEDDING,
            "embedding",
            (),
            y,
            operands=(index, table.operand((number, width))),
            learners=(table,),
            per_element=arithmetic.GATHER,
            weight=name,
            backward=lambda reverse, gradient: reverse.embedding(name, table, gradient, shared),
        )


def dependencies(*values: Value) -> tuple[str, ...]:
    """Names of the operators that make these tensors, each once, in order."""
    return tuple(dict.fromkeys(name for value in values for name in value.after))
