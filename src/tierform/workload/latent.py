"""Multi-head latent attention: keys and values rebuilt from one small latent per token (DeepSeek-V2, 2024).

A prompt's pass expands the latent to keys and values per head, as published code does.  Sequences with a past keep only
the latent and the shared rotary key in their cache, and absorb the up-projections into query and output (the
paper's section 2.1): the query is multiplied with the key up-projection, scores and weighted sums run on the latent,
and the value up-projection follows.  All heads then read one latent.  Tensor parallelism cuts heads; the latent is the
same on every chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierform.workload.layers import Pass, joined, rows_of
from tierform.workload.operator import Attention, Kind, Operand, Role, Shard
from tierform.workload.ops import attention_core, concatenate, enter, leave, linear, normalization, rotary
from tierform.workload.tape import Parameter, Product, Tape, Value
from tierform.workload.task import SequenceGroup

if TYPE_CHECKING:
    from tierform.workload.models import Model


@dataclass(frozen=True, slots=True)
class _Latent:
    """What the cores of one layer share."""

    tape: Tape
    model: Model
    p: Pass
    q: Value
    latent: Value
    turned: Value

    @property
    def heads(self) -> int:
        return self.tape.share(self.model.heads)


def latent_attention(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Attention of x on itself through the latent, with its output projection."""
    nope, rope, bias = model.qk_nope_head_dim, model.qk_rope_head_dim, model.attention_bias
    role, precision = (Role.KV_CACHE, tape.formats.kv_cache) if p.cached else (Role.ACTIVATION, None)
    low = x
    if model.q_lora_rank:
        low = linear(tape, x, "attention.q_a", model.q_lora_rank, "attention", bias=bias)
        low = normalization(tape, low, "attention.q_a_norm", model.norm)
    low = enter(tape, low, p.tokens, "attention.q_a")
    width = model.heads * (nope + rope)
    q = linear(tape, low, "attention.q", width, "attention", target="q", shard=Shard.OUTPUT)
    q = rotary(tape, q, "attention.q_rotary", size=p.tokens * tape.share(model.heads) * rope)
    latent = linear(tape, x, "attention.kv_a", model.kv_lora_rank, "attention", bias=bias)
    latent = normalization(tape, latent, "attention.kv_a_norm", model.norm, role=role, precision=precision)
    latent = enter(tape, latent, p.tokens, "attention.kv_a")
    turned = linear(tape, x, "attention.k_rope", rope, "attention", bias=bias)
    turned = rotary(tape, turned, "attention.k_rotary", role=role, precision=precision)
    turned = enter(tape, turned, p.tokens, "attention.k_rope")
    parts = _Latent(tape, model, p, q, latent, turned)
    results = [_absorbed(parts, group) if group.past else _expanded(parts, group) for group in p.groups]
    mixed = joined(p, results, "attention.context")
    y = linear(tape, mixed, "attention.o", model.hidden_size, "attention", bias=bias, target="o", shard=Shard.INPUT)
    return leave(tape, y, p.tokens, "attention.o")


def _core(parts: _Latent, group: SequenceGroup, kv_heads: int, head_dim: int, value_dim: int) -> Attention:
    parts.tape.cores += 1
    return Attention(
        number=parts.tape.cores,
        sequences=group.sequences,
        queries=group.new,
        keys=group.past + group.new,
        heads=parts.heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=value_dim,
        causal=group.new > 1,
    )


def _expanded(parts: _Latent, group: SequenceGroup) -> Value:
    """A prompt: keys and values of every head, rebuilt from the latent of its own tokens."""
    tape, model, p, h = parts.tape, parts.model, parts.p, parts.heads
    nope, rope, vd = model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim
    latent, turned = rows_of(p, parts.latent, group), rows_of(p, parts.turned, group)
    rows = group.sequences * group.new
    keys = linear(tape, latent, "attention.k_b", model.heads * nope, "attention", target="k", shard=Shard.OUTPUT)
    values = linear(tape, latent, "attention.v_b", model.heads * vd, "attention", target="v", shard=Shard.OUTPUT)
    shape = (rows, h * (nope + rope))
    whole = concatenate(tape, keys, turned, "attention.k_concat", "attention", shape, result="attention.keys")
    return attention_core(
        tape,
        rows_of(p, parts.q, group),
        whole,
        values,
        _core(parts, group, h, nope + rope, vd),
        "attention",
        shape=(rows, h * vd),
        dropout_probability=model.attention_dropout,
    )


def _absorbed(parts: _Latent, group: SequenceGroup) -> Value:
    """New tokens on the cached latents of their past: (tokens, heads * v_head_dim)."""
    tape, model, p, h = parts.tape, parts.model, parts.p, parts.heads
    nope, rope, vd, rank = model.qk_nope_head_dim, model.qk_rope_head_dim, model.v_head_dim, model.kv_lora_rank
    b, rows, c = group.sequences, group.sequences * group.new, group.past + group.new
    k_b = _up_projection(parts, "attention.k_b", nope)
    v_b = _up_projection(parts, "attention.v_b", vd)
    absorbed = tape.value("attention.q_absorbed", (b, h, group.new * (rank + rope)), cut=True)
    q = rows_of(p, parts.q, group)
    _per_head(parts, "attention.k_b", q, absorbed, k_b, Product(rows, rank, nope, count=h), transposed=True)
    form, after = tape.formats.kv_cache, (*parts.latent.after, *parts.turned.after)
    kept = Value("attention.latent.cache", (b, c, rank + rope), form, Role.KV_CACHE, after=after)
    values = Value("attention.latent.cache", (b, c, rank), form, Role.KV_CACHE, after=parts.latent.after)
    mixed = attention_core(
        tape,
        absorbed,
        kept,
        values,
        _core(parts, group, 1, rank + rope, rank),
        "attention",
        shape=(b, h, group.new * rank),
        shared_latent=True,
    )
    out = tape.value("attention.values", (rows, h * vd), cut=True)
    return _per_head(parts, "attention.v_b", mixed, out, v_b, Product(rows, vd, rank, count=h), transposed=False)


def _up_projection(parts: _Latent, name: str, per_head: int) -> Parameter:
    rank, whole = parts.model.kv_lora_rank, parts.model.heads * per_head * parts.model.kv_lora_rank
    return parts.tape.parameter(name, (parts.heads * per_head, rank), "attention", matrix=True, whole=whole)


def _per_head(
    parts: _Latent, name: str, x: Value, y: Value, w: Parameter, sizes: Product, *, transposed: bool
) -> Value:
    """One product per head with that head's rows of a weight."""
    shape = (w.shape[0] // sizes.count, w.shape[1])
    weight = Operand(w.name, shape, w.precision, Role.WEIGHT, static=not w.trainable, trainable=w.trainable)
    return parts.tape.emit(
        name,
        Kind.MATMUL,
        "attention",
        (x,),
        y,
        operands=(x.operand((sizes.m, sizes.k)), weight),
        outputs=(y.operand((sizes.m, sizes.n)),),
        sizes=sizes,
        weight=w.name,
        transposed=transposed,
        shard=Shard.HEADS,
    )
