"""Attention cores for tests, backward and recomputed operators included, named as nobody would name them."""

from __future__ import annotations

from dataclasses import replace

from tierform.chip.sample_operators import attention_core
from tierform.workload.operator import Attention, Kind, Operand, Operator, Origin, Phase, Role

SIZES = {"sequences": 2, "queries": 512, "keys": 512, "heads": 16, "kv_heads": 4, "head_dim": 128, "value_dim": 128}


def record(number: int = 0, *, causal: bool = True, **changes: int) -> Attention:
    return Attention(number=number, causal=causal, **{**SIZES, **changes})


def recomputed(operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
    """Forward operators run again in the backward pass."""
    return tuple(
        replace(
            operator,
            name=f"again-{operator.name}",
            phase=Phase.BACKWARD,
            origin=Origin.RECOMPUTED,
            after=tuple(f"again-{name}" for name in operator.after),
        )
        for operator in operators
    )


def backward_core(a: Attention, form: str = "bf16", after: tuple[str, ...] = ()) -> tuple[Operator, ...]:
    """Gradients of probabilities, of values, of scores, of queries and of keys; `after` made the probabilities."""
    square = (a.sequences, a.heads, a.queries, a.keys)

    def made(
        name: str, given: tuple[Operand, ...], shape: tuple[int, ...], waits: tuple[str, ...], sizes: tuple[int, ...]
    ) -> Operator:
        m, n, k = sizes or (0, 0, 0)
        return Operator(
            name=name,
            kind=Kind.MATMUL if sizes else Kind.SOFTMAX,
            part="attention",
            phase=Phase.BACKWARD,
            inputs=given,
            outputs=(Operand(f"d{name}", shape, form, Role.GRADIENT),),
            batch=a.sequences * a.heads if sizes else 1,
            m=m,
            n=n,
            k=k,
            operations_per_element=4.0,
            after=waits,
            causal=a.causal,
            origin=Origin.INPUT_GRADIENT,
            attention=a,
        )

    forward = attention_core(a, form)
    q, k = forward[0].inputs
    v, p = forward[2].inputs[1], forward[1].outputs[0]
    result = Operand("do", forward[2].outputs[0].shape, form, Role.GRADIENT)
    dp = made("p", (result, v), square, after, (a.queries, a.keys, a.value_dim))
    dv = made("v", (result, p), v.shape, after, (a.keys, a.value_dim, a.queries))
    ds = made("s", (dp.outputs[0], p), square, ("p", *after), ())
    dq = made("q", (ds.outputs[0], k), q.shape, ("s",), (a.queries, a.head_dim, a.keys))
    dk = made("k", (ds.outputs[0], q), k.shape, ("s",), (a.keys, a.head_dim, a.queries))
    return (dp, dv, ds, dq, dk)
