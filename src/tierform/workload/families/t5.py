"""T5: an encoder-decoder with relative position biases, RMS normalization and no linear biases (Raffel et al., 2020).

The task's sequence is the encoder's length.  In training the decoder has the same length; in inference it starts with
one token.  Position biases are computed once per stack and added to every layer's scores.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import finish, words
from tierform.workload.layers import Pass, Section, Streams, attention, feed_forward, residual, tied_or_own_head
from tierform.workload.models import Model
from tierform.workload.operator import Shard
from tierform.workload.ops import dropout, embedding, normalization
from tierform.workload.tape import Tape, Value
from tierform.workload.task import SequenceGroup

HEADS = ("seq2seq-lm", "none")
FEED_FORWARDS = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu", "gelu": "gelu"}
GATED = ("gated-gelu", "gated-silu")


def read(config: Config, name: str) -> Model:
    """T5Config's keys."""
    heads, layers = config.integer("num_heads"), config.layers("num_layers")
    config.ignore("relative_attention_max_distance", "layer_norm_epsilon", "is_gated_act", "dense_act_fn")
    activation = config.choice("feed_forward_proj", FEED_FORWARDS, "relu")
    gated = config.values.get("feed_forward_proj", "relu") in GATED
    dropout = config.number("dropout_rate", default=0.1)
    return Model(
        name=name,
        family="t5",
        kind="encoder-decoder",
        layers=layers,
        hidden_size=config.integer("d_model"),
        heads=heads,
        kv_heads=heads,
        head_dim=config.integer("d_kv"),
        ffn_size=config.integer("d_ff"),
        vocabulary=config.integer("vocab_size"),
        activation=activation,
        gated=gated,
        norm="rmsnorm",
        positions="relative",
        tied_embeddings=config.flag("tie_word_embeddings", True),
        decoder_layers=config.layers("num_decoder_layers", default=layers),
        relative_buckets=config.integer("relative_attention_num_buckets", default=32),
        head=config.head(HEADS, "seq2seq-lm"),
        dropout=dropout,
        embedding_dropout=dropout,
        attention_dropout=dropout,
    )


def _embed(tape: Tape, model: Model, p: Pass, stack: str) -> tuple[Value, Value]:
    group = p.groups[0]
    x = words(tape, model, p, model.hidden_size, shared=True)
    x = dropout(tape, x, f"{stack}.embedding_dropout", "embedding", model.embedding_dropout)
    lead = (group.new, group.past + group.new)
    bias = embedding(tape, f"{stack}.relative_bias", model.relative_buckets, model.heads, lead, shard=Shard.HEADS)
    return x, bias


def _encoder_layer(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x, bias = s["encoder"], s["bias"]
    x = residual(tape, model, x, lambda y: attention(tape, model, p, y, bias=bias, causal=False), "attention")
    x = _ffn(tape, model, p, x)
    return {"encoder": x, "bias": bias}


def _decoder_layer(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x, bias, encoder = s["x"], s["bias"], s["encoder"]
    x = residual(tape, model, x, lambda y: attention(tape, model, p, y, bias=bias, causal=True), "attention")
    x = residual(
        tape,
        model,
        x,
        lambda y: attention(tape, model, p, y, name="cross_attention", source=encoder),
        "cross_attention",
    )
    return {"x": _ffn(tape, model, p, x), "bias": bias, "encoder": encoder}


def _ffn(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    def branch(y: Value) -> Value:
        return feed_forward(tape, model, p, y, model.ffn_size, inner_dropout=model.dropout)

    return residual(tape, model, x, branch, "ffn", part="ffn")


def _end(tape: Tape, model: Model, x: Value, stack: str) -> Value:
    x = normalization(tape, x, f"{stack}.norm", model.norm)
    return dropout(tape, x, f"{stack}.output_dropout", "other", model.dropout)


def _head(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x = _end(tape, model, s["x"], "decoder")
    outputs = [tied_or_own_head(tape, model, p, x)] if model.head == "seq2seq-lm" else [x]
    return finish(tape, model, outputs)


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Encoder (not in decode steps), decoder, head."""
    inner = replace(p, groups=(SequenceGroup(p.sequences, p.encoder_tokens),), cached=False)

    def start_encoder(tape: Tape, _: Streams) -> Streams:
        x, bias = _embed(tape, model, inner, "encoder")
        return {"encoder": x, "bias": bias}

    def start_decoder(tape: Tape, s: Streams) -> Streams:
        x, bias = _embed(tape, model, p, "decoder")
        encoder = s.get("encoder") or tape.value("encoder.out", (tape.local(inner.tokens), model.hidden_size))
        return {"x": x, "bias": bias, "encoder": encoder}

    encoder = (
        Section("embedding", 1, start_encoder),
        Section("encoder.layer", model.layers, lambda tape, s: _encoder_layer(tape, model, inner, s), 0),
        Section("encoder.end", 1, lambda tape, s: {"encoder": _end(tape, model, s["encoder"], "encoder")}),
    )
    decoder = (
        Section("decoder.embedding", 1, start_decoder),
        Section(
            "decoder.layer",
            model.decoder_layers,
            lambda tape, s: _decoder_layer(tape, model, p, s),
            model.layers,
            numbered_from=0,
        ),
        Section("head", 1, lambda tape, s: _head(tape, model, p, s)),
    )
    return decoder if p.continues else (*encoder, *decoder)


T5 = Family("t5", read, plan, HEADS)
