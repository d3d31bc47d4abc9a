"""The parts that transformers are made of, laid out on a :class:`~tierform.workload.tape.Tape`.

Attention (multi-head, grouped-query, cross, sliding window), feed-forward networks, embeddings and the passes that use
them.  Experts are in :mod:`tierform.workload.experts`, multi-head latent attention in :mod:`tierform.workload.latent`.
Attention is written as scores, softmax, weighted values; keys and values are shared by their query group, not repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierform.workload.operator import Role
from tierform.workload.tape import Shape, Tape, Value

if TYPE_CHECKING:
    from tierform.workload.models import Model

Streams = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Pass:
    """What goes through the model once: `batch` sequences of `queries` new tokens, each seeing `context` tokens.

    `encoder_tokens` is the encoder's length in an encoder-decoder.  `decode` passes take earlier keys and values from
    the cache; `cached` passes write theirs to it.  `eager` counts masked attention in full and every token's logits.
    """

    batch: int
    queries: int
    context: int
    encoder_tokens: int = 0
    training: bool = False
    cached: bool = False
    decode: bool = False
    eager: bool = False

    @property
    def tokens(self) -> int:
        """New tokens in all sequences."""
        return self.batch * self.queries


@dataclass(frozen=True, slots=True)
class Section:
    """A run of `count` identical layers (or one embedding or head) of a family's plan.

    `build` lays one of them out: it takes the tape and the streams that flow in and returns those that flow out.
    `start` is the index of its first layer among all layers, or None for a part that is no layer; `numbered_from` is
    the number that the first layer bears in block names, where it is not `start`.  Sections of one name have equal
    layers.
    """

    name: str
    count: int
    build: Callable[[Tape, Streams], Streams]
    start: int | None = None
    numbered_from: int | None = None


def attention(
    tape: Tape,
    model: Model,
    p: Pass,
    x: Value,
    *,
    name: str = "attention",
    source: Value | None = None,
    bias: Value | None = None,
    causal: bool | None = None,
    rotary: bool = False,
    window: int = 0,
) -> Value:
    """Multi-head attention of x on itself, or on `source` (cross-attention), through its output projection.

    `bias` is added to the scores (relative positions).  Result: (batch, queries, hidden).
    """
    b, h, kv, hd = p.batch, model.heads, model.kv_heads, model.head_dim
    keys = p.encoder_tokens if source is not None else p.context
    if window and not p.eager:
        keys = min(keys, window)
    if causal is None:
        causal = model.kind == "decoder"
    full = p.queries > 1 and p.queries == keys
    role, precision = (Role.KV_CACHE, tape.formats.kv_cache) if p.cached else (Role.ACTIVATION, None)
    late = rotary or model.qk_norm
    q = tape.linear(x, f"{name}.q", h * hd, "attention", bias=model.attention_bias, target="q")
    if source is not None and p.decode:
        k = _cache(tape, f"{name}.k", (b, kv, keys, hd), ())
        v = _cache(tape, f"{name}.v", (b, kv, keys, hd), ())
        _declare_unused(tape, name, model, source)
    else:
        origin = x if source is None else source
        k = tape.linear(
            origin,
            f"{name}.k",
            kv * hd,
            "attention",
            bias=key_bias(model),
            target="k",
            role=Role.ACTIVATION if late else role,
            precision=None if late else precision,
        )
        v = tape.linear(
            origin,
            f"{name}.v",
            kv * hd,
            "attention",
            bias=model.attention_bias,
            target="v",
            role=role,
            precision=precision,
        )
    if model.qk_norm:
        q = tape.normalization(q, f"{name}.q_norm", model.norm, size=hd)
        k = tape.normalization(k, f"{name}.k_norm", model.norm, size=hd)
    if rotary:
        q = tape.rotary(q, f"{name}.q_rotary")
        k = tape.rotary(k, f"{name}.k_rotary", role=role, precision=precision)
    if p.decode and source is None:
        k = _cache(tape, f"{name}.k", (b, kv, keys, hd), k.after)
        v = _cache(tape, f"{name}.v", (b, kv, keys, hd), v.after)
    mask = causal and full and source is None
    scores = tape.matmul(
        q,
        k,
        f"{name}.scores",
        "attention",
        batch=b * h,
        m=p.queries,
        n=keys,
        k=hd,
        shape=(b, h, p.queries, keys),
        causal=mask,
    )
    if bias is not None:
        scores = tape.add(scores, bias, f"{name}.bias_add", "attention")
    weights = tape.softmax(scores, f"{name}.softmax", "attention", causal=mask)
    weights = tape.dropout(weights, f"{name}.dropout", "attention", model.attention_dropout, attention_core=True)
    mixed = tape.matmul(
        weights,
        v,
        f"{name}.context",
        "attention",
        batch=b * h,
        m=p.queries,
        n=hd,
        k=keys,
        shape=(b, p.queries, h * hd),
        causal=mask,
    )
    return tape.linear(mixed, f"{name}.o", model.hidden_size, "attention", bias=model.output_bias, target="o")


def key_bias(model: Model) -> bool:
    """Whether the key projection has a bias (as the others do, in all families so far)."""
    return model.attention_bias


def _cache(tape: Tape, name: str, shape: Shape, after: tuple[str, ...]) -> Value:
    return Value(f"{name}.cache", shape, tape.formats.kv_cache, Role.KV_CACHE, False, after)


def _declare_unused(tape: Tape, name: str, model: Model, source: Value) -> None:
    width = model.kv_heads * model.head_dim
    for part in ("k", "v"):
        tape.parameter(f"{name}.{part}", (width, source.shape[-1]), "attention", matrix=True)


def feed_forward(
    tape: Tape,
    model: Model,
    x: Value,
    width: int,
    *,
    name: str = "ffn",
    gated: bool | None = None,
    bias: bool | None = None,
    inner_dropout: float = 0.0,
) -> Value:
    """down(f(up x)), or gated: down(f(gate x) * up x)."""
    bias = model.ffn_bias if bias is None else bias
    gated = model.gated if gated is None else gated
    if gated:
        gate = tape.linear(x, f"{name}.gate", width, "ffn", bias=bias, target="gate")
        up = tape.linear(x, f"{name}.up", width, "ffn", bias=bias, target="up")
        active = tape.activation(gate, f"{name}.activation", model.activation, "ffn")
        hidden = tape.multiply(active, up, f"{name}.multiply", "ffn")
    else:
        up = tape.linear(x, f"{name}.up", width, "ffn", bias=bias, target="up")
        hidden = tape.activation(up, f"{name}.activation", model.activation, "ffn")
    hidden = tape.dropout(hidden, f"{name}.inner_dropout", "ffn", inner_dropout)
    return tape.linear(hidden, f"{name}.down", model.hidden_size, "ffn", bias=bias, target="down")


def bottleneck(tape: Tape, model: Model, x: Value, name: str) -> Value:
    """A bottleneck adapter with its own residual, where the task trains them (Houlsby et al., 2019)."""
    size = tape.learning.bottleneck
    if not size:
        return x
    rows, d = x.operand().elements // model.hidden_size, model.hidden_size
    down = tape.adapter(x, f"{name}.down", rows, size, d, bias=True)
    hidden = tape.activation(down, f"{name}.activation", "gelu", "adapter")
    up = tape.adapter(hidden, f"{name}.up", rows, d, size, bias=True, shape=x.shape)
    return tape.add(x, up, f"{name}.add", "adapter")


def residual(
    tape: Tape, model: Model, x: Value, part: Callable[[Value], Value], name: str, *, norm_bias: bool | None = None
) -> Value:
    """A residual branch: x + part(norm(x)) for pre-normalization, norm(x + part(x)) for post-normalization."""
    norm = f"{name}_norm"
    inside = x if model.norm_position == "post" else tape.normalization(x, norm, model.norm, bias=norm_bias)
    y = tape.dropout(
        part(inside), f"{name}.output_dropout", "ffn" if name.startswith("ffn") else "attention", model.dropout
    )
    y = bottleneck(tape, model, y, f"{name}.adapter")
    total = tape.add(x, y, f"{name}.residual", "other")
    if model.norm_position == "post":
        return tape.normalization(total, norm, model.norm, bias=norm_bias)
    return total


def tied_or_own_head(tape: Tape, model: Model, p: Pass, x: Value, *, bias: bool = False, width: int = 0) -> Value:
    """Logits over the vocabulary: every token's in training, one per sequence (the last) in inference."""
    width = width or model.hidden_size
    every = p.training or p.eager or model.kind not in ("decoder", "encoder-decoder")
    rows = p.tokens if every else p.batch
    weight = None
    if model.tied_embeddings:
        weight = "embedding.word"
        tape.parameter(weight, (model.vocabulary, width), "embedding", matrix=True)
    return tape.linear(
        x,
        "head.logits",
        model.vocabulary,
        "head",
        bias=bias,
        rows=rows,
        weight=weight,
        shape=(p.batch, rows // p.batch, model.vocabulary),
        quantizable=False,
    )
