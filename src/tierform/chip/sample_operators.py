"""Operators to try components with: products, light operators, an attention core, of several sizes and formats."""

from __future__ import annotations

from dataclasses import replace

from tierform.workload.operator import Attention, Kind, Operand, Operator, Phase, Role

_SOFTMAX = 7.0  # operations per value


def product(
    m: int,
    n: int,
    k: int,
    *,
    held: bool = True,
    precision: str = "int8",
    weight_precision: str | None = None,
    batch: int = 1,
    count: int = 1,
    transposed: bool = False,
) -> Operator:
    """A matmul of (m, k) by (k, n); `held` makes the second operand a static weight."""
    role = Role.WEIGHT if held else Role.ACTIVATION
    second = Operand("w", (n, k) if transposed else (k, n), weight_precision or precision, role, static=held)
    return Operator(
        name="product",
        kind=Kind.MATMUL,
        part="ffn",
        phase=Phase.FORWARD,
        inputs=(_activation("x", (batch * m, k), precision), second),
        outputs=(_activation("y", (batch * m, n), precision),),
        batch=batch,
        m=m,
        n=n,
        k=k,
        count=count,
        weight="w" if held else None,
        transposed=transposed,
    )


def elementwise(kind: Kind, elements: int, *, precision: str = "int8", operations: float = 4.0) -> Operator:
    """An operator of another kind over so many values."""
    return Operator(
        name=kind.value,
        kind=kind,
        part="other",
        phase=Phase.FORWARD,
        inputs=(_activation("x", (elements,), precision),),
        outputs=(_activation("y", (elements,), precision),),
        operations_per_element=operations,
    )


def attention_core(record: Attention, form: str, *, cached: bool = False) -> tuple[Operator, ...]:
    """The forward operators of an attention core in one number format; `cached`: keys and values are in a cache."""
    a, role = record, Role.KV_CACHE if cached else Role.ACTIVATION
    square = (a.sequences, a.heads, a.queries, a.keys)
    q = _activation("q", (a.sequences, a.heads, a.queries, a.head_dim), form)
    k = Operand("k", (a.sequences, a.kv_heads, a.keys, a.head_dim), form, role)
    v = Operand("v", (a.sequences, a.kv_heads, a.keys, a.value_dim), form, role)
    scores, weights = _activation("s", square, form), _activation("p", square, form)
    mixed = _activation("o", (a.sequences, a.queries, a.heads * a.value_dim), form)

    def made(name: str, kind: Kind, given: tuple[Operand, ...], result: Operand, after: tuple[str, ...]) -> Operator:
        return Operator(
            name=name,
            kind=kind,
            part="attention",
            phase=Phase.FORWARD,
            inputs=given,
            outputs=(result,),
            operations_per_element=_SOFTMAX,
            after=after,
            causal=a.causal,
            attention=a,
        )

    many = a.sequences * a.heads
    return (
        replace(made("scores", Kind.MATMUL, (q, k), scores, ()), batch=many, m=a.queries, n=a.keys, k=a.head_dim),
        made("softmax", Kind.SOFTMAX, (scores,), weights, ("scores",)),
        replace(
            made("values", Kind.MATMUL, (weights, v), mixed, ("softmax",)),
            batch=many,
            m=a.queries,
            n=a.value_dim,
            k=a.keys,
        ),
    )


def _activation(name: str, shape: tuple[int, ...], form: str) -> Operand:
    return Operand(name, shape, form, Role.ACTIVATION)


def samples() -> list[Operator]:
    """Operators of every kind, of several sizes and number formats."""
    found = [
        product(m, n, k, held=held, precision=precision)
        for m, n, k in ((1, 64, 64), (512, 768, 768), (100, 257, 130))
        for held in (True, False)
        for precision in ("int4", "int8", "bf16")
    ]
    found += [product(64, 96, 128, transposed=True), product(64, 96, 128, batch=3, count=2)]
    found += [product(64, 128, 128, weight_precision=f"int{width}") for width in (1, 2, 6, 16)]
    found += [elementwise(kind, 4096, precision="bf16") for kind in Kind if kind is not Kind.MATMUL]
    return found
