"""Multi-head latent attention: keys and values rebuilt from one small latent per token (DeepSeek-V2, 2024).

A pass over many tokens expands the latent to keys and values per head, as published code does.  A decode step keeps
only the latent and the shared rotary key in its cache and absorbs the up-projections into query and output (the
paper's section 2.1): the query is multiplied with the key up-projection, scores and weighted sums run on the latent,
and the value up-projection follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierform.workload import arithmetic
from tierform.workload.layers import Pass
from tierform.workload.operator import Kind, Operand, Role
from tierform.workload.tape import Parameter, Tape, Value

if TYPE_CHECKING:
    from tierform.workload.models import Model


def latent_attention(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Attention of x on itself through the latent, with its output projection."""
    b, s, h = p.batch, p.queries, model.heads
    nope, rope, vd, rank = model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim, model.kv_lora_rank
    role, precision = (Role.KV_CACHE, tape.formats.kv_cache) if p.cached else (Role.ACTIVATION, None)
    width = h * (nope + rope)
    if model.q_lora_rank:
        low = tape.linear(x, "attention.q_a", model.q_lora_rank, "attention", bias=model.attention_bias)
        low = tape.normalization(low, "attention.q_a_norm", model.norm)
        q = tape.linear(low, "attention.q", width, "attention", target="q")
    else:
        q = tape.linear(x, "attention.q", width, "attention", target="q")
    q = tape.rotary(q, "attention.q_rotary", size=b * s * h * rope)
    latent = tape.linear(x, "attention.kv_a", rank, "attention", bias=model.attention_bias)
    latent = tape.normalization(latent, "attention.kv_a_norm", model.norm, role=role, precision=precision)
    turned = tape.linear(x, "attention.k_rope", rope, "attention", bias=model.attention_bias)
    turned = tape.rotary(turned, "attention.k_rotary", role=role, precision=precision)
    if p.decode:
        mixed = _absorbed(tape, model, p, q, latent, turned)
    else:
        keys = tape.linear(latent, "attention.k_b", h * nope, "attention", target="k")
        values = tape.linear(latent, "attention.v_b", h * vd, "attention", target="v")
        whole = tape.value("attention.keys", (b, s, h, nope + rope))
        tape.emit(
            "attention.k_concat",
            Kind.ELEMENTWISE,
            "attention",
            (keys, turned),
            whole,
            per_element=arithmetic.GATHER,
            backward=lambda reverse, gradient: reverse.add((keys, turned), gradient),
        )
        causal = s > 1 and s == p.context
        scores = tape.matmul(
            q,
            whole,
            "attention.scores",
            "attention",
            batch=b * h,
            m=s,
            n=p.context,
            k=nope + rope,
            shape=(b, h, s, p.context),
            causal=causal,
        )
        weights = tape.softmax(scores, "attention.softmax", "attention", causal=causal)
        weights = tape.dropout(weights, "attention.dropout", "attention", model.attention_dropout, attention_core=True)
        mixed = tape.matmul(
            weights,
            values,
            "attention.context",
            "attention",
            batch=b * h,
            m=s,
            n=vd,
            k=p.context,
            shape=(b, s, h * vd),
            causal=causal,
        )
    return tape.linear(mixed, "attention.o", model.hidden_size, "attention", bias=model.attention_bias, target="o")


def _absorbed(tape: Tape, model: Model, p: Pass, q: Value, latent: Value, turned: Value) -> Value:
    """One decode step on the cached latents: (batch, 1, heads * v_head_dim)."""
    b, h, c = p.batch, model.heads, p.context
    nope, rope, vd, rank = model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim, model.kv_lora_rank
    k_b = tape.parameter("attention.k_b", (h * nope, rank), "attention", matrix=True)
    v_b = tape.parameter("attention.v_b", (h * vd, rank), "attention", matrix=True)
    absorbed = tape.value("attention.q_absorbed", (b, h, rank + rope))
    _per_head(tape, "attention.k_b", q, absorbed, k_b, (nope, rank), b, rank, nope, h, transposed=True)
    kept = Value(
        "attention.latent.cache",
        (b, c, rank + rope),
        tape.formats.kv_cache,
        Role.KV_CACHE,
        False,
        (*latent.after, *turned.after),
    )
    scores = tape.matmul(
        absorbed, kept, "attention.scores", "attention", batch=b, m=h, n=c, k=rank + rope, shape=(b, h, 1, c)
    )
    weights = tape.softmax(scores, "attention.softmax", "attention")
    values = Value("attention.latent.cache", (b, c, rank), tape.formats.kv_cache, Role.KV_CACHE, False, latent.after)
    mixed = tape.matmul(
        weights, values, "attention.context", "attention", batch=b, m=h, n=rank, k=c, shape=(b, h, rank)
    )
    out = tape.value("attention.values", (b, 1, h * vd))
    return _per_head(tape, "attention.v_b", mixed, out, v_b, (vd, rank), b, vd, rank, h, transposed=False)


def _per_head(
    tape: Tape,
    name: str,
    x: Value,
    y: Value,
    w: Parameter,
    slice_shape: tuple[int, int],
    m: int,
    n: int,
    k: int,
    heads: int,
    *,
    transposed: bool,
) -> Value:
    """One product per head with that head's rows of a weight."""
    weight = Operand(w.name, slice_shape, w.precision, Role.WEIGHT, not w.trainable, w.trainable)
    return tape.emit(
        name,
        Kind.MATMUL,
        "attention",
        (x,),
        y,
        operands=(x.operand((m, k)), weight),
        outputs=(y.operand((m, n)),),
        m=m,
        n=n,
        k=k,
        count=heads,
        weight=w.name,
        transposed=transposed,
    )
