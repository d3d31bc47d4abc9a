"""The attention core: what stands between the projections.

Forward   S = Q K^T (+ bias)      P = softmax(S)      O = dropout(P) V
Backward  dP = dO V^T, dV = P^T dO      dS = softmax'(P, dP)      dQ = dS K, dK = dS^T Q

Every operator of a core, its gradients and what is run again of it carry the core's one
:class:`~tierform.workload.operator.Attention` record.  Heads of one query group read the same keys and values.
"""

from __future__ import annotations

from tierform.workload.kv_policy import SCORE_OPERATIONS
from tierform.workload.operator import Attention, Kind, Operand, Role
from tierform.workload.ops.dropout import dropout
from tierform.workload.ops.elementwise import add
from tierform.workload.ops.matmul import matmul
from tierform.workload.ops.softmax import softmax
from tierform.workload.tape import Product, Shape, Tape, Value


def attention_core(
    tape: Tape,
    q: Value,
    k: Value,
    v: Value,
    core: Attention,
    name: str,
    *,
    shape: Shape,
    bias: Value | None = None,
    dropout_probability: float = 0.0,
    shared_latent: bool = False,
) -> Value:
    """The weighted values, of `shape`; `bias` is added to the scores.

    `shared_latent`: all heads read one latent, so that a sequence's heads are the rows of one product.
    """
    b, h = core.sequences, core.heads
    causal = core.causal and core.queries == core.keys
    batch, rows = (b, h * core.queries) if shared_latent else (b * h, core.queries)
    with tape.attention(core):
        scores = matmul(
            tape,
            q,
            k,
            f"{name}.scores",
            "attention",
            sizes=Product(rows, core.keys, core.head_dim, batch),
            shape=(b, h, core.queries, core.keys),
            causal=causal,
            scores=True,
        )
        if bias is not None:
            scores = add(tape, scores, bias, f"{name}.bias_add", "attention")
        weights = softmax(tape, scores, f"{name}.softmax", "attention", causal=causal)
        weights = dropout(tape, weights, f"{name}.dropout", "attention", dropout_probability)
        return matmul(
            tape,
            weights,
            v,
            f"{name}.context",
            "attention",
            sizes=Product(rows, core.value_dim, core.keys, batch),
            shape=shape,
            causal=causal,
        )


def score_tokens(tape: Tape, result: Value, core: Attention, name: str) -> Value:
    """Adds the new probabilities to every cached token's score and finds the least: what heavy hitters take.

    The kernel reads probabilities of all heads and the scores of all heads of keys, and writes the scores.
    """
    shape = (core.sequences, core.kv_heads, core.keys)
    scores = Operand(f"{name}.scores", shape, "fp32", Role.ACTIVATION)
    chances = (core.sequences, core.heads, core.queries, core.keys)
    read = Operand(f"{name}.probabilities", chances, tape.formats.activations, Role.ACTIVATION)
    made = tape.value(f"{name}.out", shape, precision="fp32", cut=True)
    tape.emit(
        name,
        Kind.ELEMENTWISE,
        "attention",
        (result,),
        made,
        operands=(read, scores),
        per_element=SCORE_OPERATIONS * core.heads * core.queries / core.kv_heads,
    )
    joined = result.view()
    joined.after = (*result.after, *made.after)
    return joined
