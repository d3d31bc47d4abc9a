"""The parts that transformers are made of, laid out with the operators of :mod:`tierform.workload.ops`.

Attention (multi-head, grouped-query, cross, sliding window), feed-forward networks, embeddings and the passes that use
them.  Experts are in :mod:`tierform.workload.experts`, multi-head latent attention in :mod:`tierform.workload.latent`.
Activations have the shape (tokens, features): the new tokens of all sequences of a pass, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierform.workload.expert_store import ExpertStore
from tierform.workload.kv_policy import KVPolicy
from tierform.workload.operator import Attention, Role, Shard
from tierform.workload.ops import (
    activation,
    adapter,
    add,
    attention_core,
    dropout,
    enter,
    leave,
    linear,
    multiply,
    normalization,
    rotary,
    score_tokens,
)
from tierform.workload.ops.collective import gather_features
from tierform.workload.ops.ring import ring_attention
from tierform.workload.tape import Product, Tape, Value
from tierform.workload.task import SequenceGroup

if TYPE_CHECKING:
    from tierform.workload.models import Model

Streams = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Pass:
    """What goes through the model once: groups of equal sequences.

    `encoder_tokens` is the encoder's length in an encoder-decoder.  `cached` passes write their keys and values to the
    cache; groups with a past read earlier ones from it.  `every_logit`: not of the last tokens only.  `eager` counts
    what Hugging Face's eager code computes.  `split_experts` lays experts out in two groups even where one would do.
    `kv` and `experts` are the task's.
    """

    groups: tuple[SequenceGroup, ...]
    encoder_tokens: int = 0
    training: bool = False
    cached: bool = False
    every_logit: bool = False
    eager: bool = False
    split_experts: bool = False
    kv: KVPolicy | None = None
    experts: ExpertStore | None = None

    @property
    def sequences(self) -> int:
        """Sequences of all groups."""
        return sum(group.sequences for group in self.groups)

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return sum(group.sequences * group.new for group in self.groups)

    @property
    def positions(self) -> int:
        """Different places of new tokens; sequences of a group share theirs."""
        return sum(group.new for group in self.groups)

    @property
    def continues(self) -> bool:
        """Whether all sequences have a past: decode steps and their kin."""
        return all(group.past for group in self.groups)


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
    rotated: bool = False,
    window: int = 0,
) -> Value:
    """Multi-head attention of x on itself, or on `source` (cross-attention), through its output projection.

    `bias` is added to the scores (relative positions).  Result: (tokens, hidden).
    """
    hd, late = model.head_dim, rotated or model.qk_norm
    kv = max(1, model.kv_heads // tape.tensor)  # below the tensor degree each chip keeps one, which others have, too
    across = source is not None
    role, precision = (Role.KV_CACHE, tape.formats.kv_cache) if p.cached else (Role.ACTIVATION, None)
    inside = enter(tape, x, p.tokens, name)
    q = linear(
        tape,
        inside,
        f"{name}.q",
        model.heads * hd,
        "attention",
        bias=model.attention_bias,
        target="q",
        shard=Shard.OUTPUT,
    )

    def project(origin: Value, which: str, finished: bool) -> Value:
        return linear(
            tape,
            origin,
            f"{name}.{which}",
            model.kv_heads * hd,
            "attention",
            bias=model.attention_bias,
            target=which,
            shard=Shard.OUTPUT,
            held=kv * hd,
            role=role if finished else Role.ACTIVATION,
            precision=precision if finished else None,
        )

    if across and p.continues:
        for which in ("k", "v"):
            tape.parameter(
                f"{name}.{which}",
                (kv * hd, model.hidden_size),
                "attention",
                matrix=True,
                whole=model.kv_heads * hd * model.hidden_size,
            )
        k = v = tape.value(f"{name}.unused", (1,))
    else:
        origin = inside if source is None else enter(tape, source, p.sequences * p.encoder_tokens, f"{name}.source")
        k, v = project(origin, "k", not late), project(origin, "v", True)
    if model.qk_norm:
        over = (None, None) if model.qk_norm_whole else (hd, hd)  # all heads together, or each
        q = normed(tape, model, q, f"{name}.q_norm", size=over[0])
        k = normed(tape, model, k, f"{name}.k_norm", size=over[1])
    if rotated:
        q = rotary(tape, q, f"{name}.q_rotary")
        k = rotary(tape, k, f"{name}.k_rotary", role=role, precision=precision)
    masked = (model.kind == "decoder" if causal is None else causal) and not across
    results = []
    for group in p.groups:
        core = _core(tape, model, p, group, across=across, masked=masked, window=0 if p.eager else window)
        keys, values = (
            _cache(tape, f"{name}.{which}", core, value) if group.past else rows_of(p, value, group)
            for which, value in (("k", k), ("v", v))
        )
        if tape.context > 1:
            shape = (group.sequences * group.new, core.heads * hd)
            dropped = model.attention_dropout
            results.append(
                ring_attention(
                    tape, q, keys, values, core, name, shape=shape, masked=masked, dropout_probability=dropped
                )
            )
            continue
        results.append(
            attention_core(
                tape,
                rows_of(p, q, group),
                keys,
                values,
                core,
                name,
                shape=(group.sequences * group.new, core.heads * hd),
                bias=bias,
                dropout_probability=model.attention_dropout,
            )
        )
        if p.kv is not None and p.kv.heavy and group.past:
            results[-1] = score_tokens(tape, results[-1], core, f"{name}.heavy")
    mixed = joined(p, results, f"{name}.context")
    y = linear(
        tape, mixed, f"{name}.o", model.hidden_size, "attention", bias=model.output_bias, target="o", shard=Shard.INPUT
    )
    return leave(tape, y, p.tokens, f"{name}.o")


def _core(
    tape: Tape, model: Model, p: Pass, group: SequenceGroup, *, across: bool, masked: bool, window: int
) -> Attention:
    keys = p.encoder_tokens if across else group.past + group.new
    if p.kv is not None and not across and (group.past or p.kv.window):
        keys, masked = p.kv.kept(keys), masked and p.kv.kept(keys) == keys
    beyond = bool(window) and keys > window
    tape.cores += 1
    return Attention(
        number=tape.cores,
        sequences=group.sequences,
        queries=group.new,
        keys=window if beyond else keys,
        heads=tape.share(model.heads),
        kv_heads=max(1, model.kv_heads // tape.tensor),
        head_dim=model.head_dim,
        value_dim=model.head_dim,
        causal=masked and group.new > 1 and not beyond,
    )


def rows_of(p: Pass, x: Value, group: SequenceGroup) -> Value:
    """What of x belongs to a group's tokens."""
    if len(p.groups) == 1:
        return x
    return x.view((group.sequences * group.new, *x.shape[1:]))


def joined(p: Pass, results: list[Value], name: str) -> Value:
    """The groups' results, one after the other: each kernel writes into its part of one tensor."""
    if len(results) == 1:
        return results[0]
    after = tuple(dict.fromkeys(source for value in results for source in value.after))
    first = results[0]
    return Value(name, (p.tokens, first.shape[-1]), first.precision, first.role, after=after, cut=first.cut)


def _cache(tape: Tape, name: str, core: Attention, new: Value) -> Value:
    shape = (core.sequences, core.kv_heads, core.keys, core.head_dim)
    return Value(f"{name}.cache", shape, tape.formats.kv_cache, Role.KV_CACHE, after=new.after, cut=True)


def feed_forward(
    tape: Tape,
    model: Model,
    p: Pass,
    x: Value,
    width: int,
    *,
    name: str = "ffn",
    gated: bool | None = None,
    bias: bool | None = None,
    inner_dropout: float = 0.0,
) -> Value:
    """down(f(up x)), or gated: down(f(gate x) * up x)."""
    inside = enter(tape, x, p.tokens, name)
    y = feed_forward_part(tape, model, inside, width, name=name, gated=gated, bias=bias, inner_dropout=inner_dropout)
    return leave(tape, y, p.tokens, f"{name}.down")


def feed_forward_part(
    tape: Tape,
    model: Model,
    x: Value,
    width: int,
    *,
    name: str,
    gated: bool | None = None,
    bias: bool | None = None,
    inner_dropout: float = 0.0,
) -> Value:
    """This chip's part of a feed-forward network: its sum over the chips is the result."""
    bias = model.ffn_bias if bias is None else bias
    gated = model.gated if gated is None else gated

    def widen(which: str) -> Value:
        return linear(tape, x, f"{name}.{which}", width, "ffn", bias=bias, target=which, shard=Shard.OUTPUT)

    if gated:
        gate, up = widen("gate"), widen("up")
        active = activation(tape, gate, f"{name}.activation", model.activation, "ffn")
        hidden = multiply(tape, active, up, f"{name}.multiply", "ffn")
    else:
        hidden = activation(tape, widen("up"), f"{name}.activation", model.activation, "ffn")
    hidden = dropout(tape, hidden, f"{name}.inner_dropout", "ffn", inner_dropout)
    down = f"{name}.down"
    return linear(tape, hidden, down, model.hidden_size, "ffn", bias=bias, target="down", shard=Shard.INPUT)


def bottleneck(tape: Tape, model: Model, x: Value, name: str) -> Value:
    """A bottleneck adapter with its own residual, where the task trains them (Houlsby et al., 2019)."""
    size = tape.learning.bottleneck
    if not size:
        return x
    rows, d = x.elements // model.hidden_size, model.hidden_size
    down = adapter(tape, x, f"{name}.down", Product(rows, size, d), bias=True)
    hidden = activation(tape, down, f"{name}.activation", "gelu", "adapter")
    up = adapter(tape, hidden, f"{name}.up", Product(rows, d, size), bias=True, shape=x.shape)
    return add(tape, x, up, f"{name}.add", "adapter")


def normed(tape: Tape, model: Model, x: Value, name: str, size: int | None = None) -> Value:
    """The model's own normalization, with the gain and the bias that it has."""
    shifted = None if model.norm_bias else False
    return normalization(tape, x, name, model.norm, bias=shifted, gain=model.norm_gain, size=size)


def residual(
    tape: Tape, model: Model, x: Value, branch: Callable[[Value], Value], name: str, *, part: str = "attention"
) -> Value:
    """A residual branch: x + branch(norm(x)) for pre-normalization, norm(x + branch(x)) for post-normalization.

    ``after``: x + norm(branch(x)); ``sandwich``: x + norm(branch(norm(x))).
    A sublayer that the model does without is not there: x passes by.
    """
    if part in tape.left_out:
        return x
    norm, place = f"{name}_norm", model.norm_position
    after = place == "post"
    y = branch(normed(tape, model, x, norm) if place in ("pre", "sandwich") else x)
    if place in ("after", "sandwich"):
        y = normed(tape, model, y, f"{name}_post_norm")
    y = dropout(tape, y, f"{name}.output_dropout", part, model.dropout)
    y = bottleneck(tape, model, y, f"{name}.adapter")
    total = add(tape, x, y, f"{name}.residual", "other")
    return normed(tape, model, total, norm) if after else total


def tied_or_own_head(tape: Tape, model: Model, p: Pass, x: Value, *, bias: bool = False, width: int = 0) -> Value:
    """Logits over the vocabulary: every token's in training, one per sequence (the last) in inference."""
    width = width or model.hidden_size
    every = p.training or p.eager or p.every_logit or model.kind not in ("decoder", "encoder-decoder")
    rows = p.tokens if every else p.sequences
    weight = None
    if model.tied_embeddings:
        weight = "embedding.word"
        held, whole = (tape.share(model.vocabulary), width), model.vocabulary * width
        tape.parameter(weight, held, "embedding", matrix=True, whole=whole)
    logits = linear(
        tape,
        enter(tape, x, p.tokens, "head"),
        "head.logits",
        model.vocabulary,
        "head",
        bias=bias,
        rows=rows,
        weight=weight,
        shape=(rows, tape.share(model.vocabulary)),
        quantizable=False,
        shard=Shard.OUTPUT,
    )
    return logits if p.training else gather_features(tape, logits, model.vocabulary, "head.logits")
