"""Products with a weight, and low-rank adapters beside them.

Forward   y = x W^T + b                 W (n, k), on the rows of x
Backward  dx = dy W                     where x needs a gradient
          dW = dy^T x, db = sum of dy   where they learn
LoRA      y + B (A x)                   A (rank, k), B (n, rank)  (Hu et al., 2021)
          a fused matrix has one A for all products of its input
QLoRA     W is unpacked before every product, in the backward pass too  (Dettmers et al., 2023)

Tensor parallelism cuts W by its outputs (OUTPUT: y is cut, dx a partial sum) or by its inputs (INPUT: x is cut, y a
partial sum).  Beside W cut by outputs A is whole and B cut; beside W cut by inputs A is cut and B whole, and their
result is a partial sum as well.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tierform.workload import arithmetic
from tierform.workload.operator import Kind, Operand, Origin, Role, Shard
from tierform.workload.ops.elementwise import add
from tierform.workload.ops.scaling import norms, scale
from tierform.workload.precision import NARROW_BITS, bits
from tierform.workload.reverse import Reverse
from tierform.workload.tape import Parameter, Product, Shape, Tape, Value
from tierform.workload.targets import FUSED


@dataclass(frozen=True, slots=True)
class Experts:
    """`stored` weights of one shape, of which a token uses `active`; a product uses `used` of them.

    As many are stored on each of `chips` chips, which are copies of the model or else share a layer (`copies`).
    """

    stored: int = 1
    active: int = 1
    used: int = 1
    chips: int = 1
    copies: bool = False


ONE = Experts()


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the backward pass of a product with a weight needs to know."""

    name: str
    x: Value
    w: Parameter
    biases: tuple[Parameter, ...]
    sizes: Product
    shard: Shard

    def backward(self, reverse: Reverse, dy: Value) -> None:
        """Dx = dy W, dW = dy^T x, db = the sum of dy's rows."""
        name, x, w, s = self.name, self.x, self.w, self.sizes
        if x.grad:
            dx = reverse.gradient_of(x)
            unpacked = _dequantize_again(reverse, f"{name}.grad_input", w, s.count)
            sizes = Product(s.m, s.k, s.n, count=s.count)
            shard = {Shard.OUTPUT: Shard.INPUT, Shard.INPUT: Shard.OUTPUT}.get(self.shard, self.shard)
            reverse.emit(
                f"{name}.grad_input",
                Kind.MATMUL,
                ((dy, (s.m, s.n)), w.operand()),
                dx,
                written=(s.m, s.k),
                sizes=sizes,
                waits=unpacked,
                weight=w.name,
                transposed=True,
                shard=shard,
            )
            reverse.arrive(x, dx)
        if w.trainable:
            dw, earlier = reverse.weight_gradient(w)
            shard = Shard.OUTPUT if self.shard is Shard.INPUT else self.shard
            reverse.emit(
                f"{name}.grad_weight",
                Kind.MATMUL,
                ((dy, (s.m, s.n)), (x, (s.m, s.k)), *earlier),
                dw,
                sizes=Product(s.n, s.k, s.m, count=s.count),
                weight=w.name,
                origin=Origin.WEIGHT_GRADIENT,
                shard=shard,
            )
        for bias in self.biases:
            if bias.trainable:
                db, earlier = reverse.weight_gradient(bias)
                reverse.emit(
                    f"{name}.grad_bias",
                    Kind.ELEMENTWISE,
                    ((dy, (s.m, s.n)), *earlier),
                    db,
                    count=s.count,
                    per_element=float(s.m),
                    weight=bias.name,
                    origin=Origin.WEIGHT_GRADIENT,
                    shard=Shard.ELEMENTS if self.shard is Shard.OUTPUT else Shard.WHOLE,
                )


def linear(
    tape: Tape,
    x: Value,
    name: str,
    n: int,
    part: str,
    *,
    bias: bool = False,
    shard: Shard = Shard.WHOLE,
    held: int | None = None,
    rows: int | None = None,
    k: int | None = None,
    target: str | None = None,
    experts: Experts = ONE,
    shape: Shape | None = None,
    role: Role = Role.ACTIVATION,
    precision: str | None = None,
    weight: str | None = None,
    quantizable: bool = True,
) -> Value:
    """Y = x W^T + b with W (n, width of x) on `rows` rows of x (default: all), and LoRA beside adapted targets.

    `n` counts the outputs of all chips; `held` says how many a chip has where it is not its equal part.  `rows` are
    those of one of the experts that are used.  `weight` names a weight that another product has, too.
    """
    learning = tape.learning
    if learning.variant == "ia3" and target == "down" and target in learning.lora_targets:
        x = scale(tape, x, f"{name}.ia3", x.shape[-1] * (tape.tensor if shard is Shard.INPUT else 1))
    k = k or x.shape[-1]
    own = (tape.share(n) if held is None else held) if shard is Shard.OUTPUT else n
    m = rows if rows is not None else x.elements // k
    sizes = Product(m, own, k, count=experts.used)
    whole = n * (k * tape.tensor if shard is Shard.INPUT else k) * experts.chips
    w = tape.parameter(
        weight or name,
        (own, k),
        part,
        matrix=True,
        groups=experts.stored,
        active=experts.active,
        quantizable=quantizable,
        whole=whole,
        spread=experts.chips if experts.copies else 1,
        target=target,
    )
    x = _narrowed(tape, x, part, quantizable and bits(w.precision) <= NARROW_BITS)
    biases: tuple[Parameter, ...] = ()
    if bias:
        stored, active = experts.stored, experts.active
        made = tape.parameter(
            f"{name}.bias",
            (own,),
            part,
            bias=True,
            groups=stored,
            active=active,
            whole=n * experts.chips,
            spread=experts.chips if experts.copies else 1,
        )
        biases = (made,)
    unpacked = _dequantize(tape, name, part, w, experts.used)
    cut = shard is Shard.OUTPUT
    y = tape.value(f"{name}.out", shape or (*x.shape[:-1], own), role=role, precision=precision, cut=cut)
    rule = _Rule(name, x, w, biases, sizes, shard)
    tape.emit(
        name,
        Kind.MATMUL,
        part,
        (x, *unpacked),
        y,
        weights=(w, *biases),
        saved=(x,) if w.trainable else (),
        operands=(x.operand((m, k)),),
        outputs=(y.operand((m, own)),),
        sizes=sizes,
        weight=w.name,
        shard=shard,
        backward=rule.backward,
    )
    targets = learning.lora_targets
    if learning.variant == "ia3":
        return y if target not in targets or target == "down" else scale(tape, y, f"{name}.ia3", n)
    if learning.adapters[0] and experts is not ONE:
        return y  # experts have none in a batch of many adapters
    if target in targets:
        return _lora(tape, y, rule, n, experts)
    for fused, parts in FUSED.items():
        if fused in targets and target in parts:
            return _lora(tape, y, rule, n, experts, fused)
    return y


def _lora(tape: Tape, y: Value, beside: _Rule, n: int, experts: Experts, fused: str = "") -> Value:
    """The result y with the low-rank pair beside its product; `n` counts the outputs of all chips.

    An adapter of a `fused` matrix has one A for all products of one input, and a part of its B for each.
    """
    rank, name, weight, sizes = tape.learning.lora_rank, beside.name, beside.w.name, beside.sizes
    variant, (used, loaded) = tape.learning.variant, tape.learning.adapters
    if used:
        sizes = replace(sizes, m=-(-sizes.m // used), count=used)
        experts = Experts(loaded, 1, used)
    frozen = variant == "vera" or used > 0
    if variant == "vera":  # one pair for all layers, which no layer counts
        experts = replace(experts, stored=0)
    by_input, by_output = beside.shard is Shard.INPUT, beside.shard is Shard.OUTPUT
    shared = (fused, beside.x.name)
    inner = tape.low.get(shared) or adapter(
        tape,
        beside.x,
        f"{name}.lora_a",
        replace(sizes, n=rank),
        weight=f"{weight}.lora_a",
        experts=experts,
        shard=Shard.INPUT if by_input else Shard.WHOLE,
        whole=rank * sizes.k * (tape.tensor if by_input else 1) * experts.chips,
        partial=by_output,
        frozen=frozen or variant == "lora-fa",
    )
    if variant == "vera":
        inner = scale(tape, inner, f"{name}.vera_d", rank)
    if fused:
        tape.low[shared] = inner
    low = adapter(
        tape,
        inner,
        f"{name}.lora_b",
        replace(sizes, k=rank),
        weight=f"{weight}.lora_b",
        experts=experts,
        shard=Shard.OUTPUT if by_output else Shard.WHOLE,
        shape=y.shape,
        whole=n * rank * experts.chips,
        partial=by_input,
        frozen=frozen,
    )
    if variant == "vera":
        low = scale(tape, low, f"{name}.vera_b", n)
    adapted = add(
        tape,
        y,
        low,
        f"{name}.lora_add",
        "adapter",
        result=f"{name}.adapted",
        role=y.role,
        precision=y.precision,
        per_element=2.0,  # scaled and added
    )
    if variant != "dora":
        return adapted
    a, b = tape.parameters[f"{weight}.lora_a"], tape.parameters[f"{weight}.lora_b"]
    norm = norms(tape, f"{name}.dora", beside.w, a, b)
    return scale(tape, adapted, f"{name}.dora_magnitude", n, waits=(norm,))


def adapter(
    tape: Tape,
    x: Value,
    name: str,
    sizes: Product,
    *,
    bias: bool = False,
    experts: Experts = ONE,
    shape: Shape | None = None,
    weight: str | None = None,
    shard: Shard = Shard.WHOLE,
    whole: int = 0,
    partial: bool = False,
    frozen: bool = False,
) -> Value:
    """A small matrix (n, k) beside the model's own, which learns unless `frozen`; `partial`: its gradients are partial.

    `whole` counts the matrix's numbers on all chips of a tensor group, where it is cut.
    """
    m, n, k = sizes.m, sizes.n, sizes.k
    form = tape.formats.adapters
    w = tape.parameter(
        weight or name,
        (n, k),
        "adapter",
        matrix=True,
        groups=experts.stored,
        active=experts.active,
        trainable=not frozen,
        adapter=True,
        precision=form,
        whole=whole,
        partial=partial,
        spread=experts.chips if experts.copies else 1,
    )
    biases: tuple[Parameter, ...] = ()
    if bias:
        made = tape.parameter(f"{name}.bias", (n,), "adapter", bias=True, trainable=True, adapter=True, precision=form)
        biases = (made,)
    y = tape.value(f"{name}.out", shape or (m * sizes.count, n), cut=shard is Shard.OUTPUT)
    rule = _Rule(name, x, w, biases, sizes, shard)
    return tape.emit(
        name,
        Kind.MATMUL,
        "adapter",
        (x,),
        y,
        weights=(w, *biases),
        saved=(x,) if w.trainable else (),
        operands=(x.operand((m, k)),),
        outputs=(y.operand((m, n)),),
        sizes=sizes,
        weight=w.name,
        shard=shard,
        backward=rule.backward,
    )


# -- quantized weights -------------------------------------------------------------------------------------------
def _dequantize(tape: Tape, name: str, part: str, w: Parameter, count: int) -> tuple[Value, ...]:
    """The weight of a quantized method in the activations' format, unpacked for one product."""
    quantized = tape.training and tape.learning.quantized and w.precision == tape.learning.quantized
    alone = tape.formats.unpack is not None and bits(w.precision) < bits(tape.formats.unpack)
    if not (quantized or alone):
        return ()
    unpacked = _unpacked(tape, w)
    made = tape.emit(
        f"{name}.dequantize",
        Kind.ELEMENTWISE,
        part,
        (),
        unpacked,
        weights=(w,),
        count=count,
        per_element=arithmetic.DEQUANTIZE,
        weight=w.name,
        origin=Origin.DEQUANTIZE,
        shard=Shard.ELEMENTS,
        backward=lambda reverse, gradient: None,
    )
    return (made,)


def _narrowed(tape: Tape, x: Value, part: str, quantizable: bool) -> Value:
    """The input in the format of the products of layers, made once for all that read it."""
    form = tape.formats.inputs
    if form is None or part not in ("attention", "ffn") or not quantizable or bits(x.precision) <= bits(form):
        return x
    if x.name not in tape.narrowed:
        y = Value(f"{x.name}.narrow", x.shape, form, x.role, cut=x.cut)
        tape.narrowed[x.name] = tape.emit(
            f"{x.name}.quantize",
            Kind.ELEMENTWISE,
            part,
            (x,),
            y,
            per_element=arithmetic.QUANTIZE,
            origin=Origin.QUANTIZE,
        )
    return tape.narrowed[x.name].view(x.shape)


def _dequantize_again(reverse: Reverse, name: str, w: Parameter, count: int) -> tuple[Value, ...]:
    tape = reverse.tape
    if not tape.learning.quantized or w.precision != tape.learning.quantized:
        return ()
    unpacked = _unpacked(tape, w)
    unpacked.role = Role.GRADIENT  # made in the backward pass, as what waits for it is
    reverse.emit(
        f"{name}.dequantize",
        Kind.ELEMENTWISE,
        (w.operand(),),
        Operand(unpacked.name, w.shape, unpacked.precision, Role.WEIGHT),
        count=count,
        per_element=arithmetic.DEQUANTIZE,
        weight=w.name,
        origin=Origin.DEQUANTIZE,
        shard=Shard.ELEMENTS,
    )
    unpacked.after = (reverse.operators[-1].name,)
    return (unpacked,)


def _unpacked(tape: Tape, w: Parameter) -> Value:
    return Value(f"{w.name}.unpacked", w.shape, tape.formats.unpack or tape.formats.activations, Role.WEIGHT)
