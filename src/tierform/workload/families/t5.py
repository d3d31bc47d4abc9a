"""T5: an encoder-decoder with relative position biases, RMS normalization and no linear biases (Raffel et al., 2020).

The task's sequence is the encoder's length.  In training the decoder has the same length; in inference it starts with
one token.  Position biases are computed once per stack and added to every layer's scores.
"""

from __future__ import annotations

from dataclasses import replace

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import finish
from tierform.workload.layers import Pass, Section, Streams, attention, feed_forward, residual, tied_or_own_head
from tierform.workload.models import Model
from tierform.workload.tape import Tape, Value

HEADS = ("seq2seq-lm", "none")
FEED_FORWARDS = {"relu": "relu", "gated-gelu": "gelu_new", "gated-silu": "silu", "gelu": "gelu"}


def read(config: Config, name: str) -> Model:
    """T5Config's keys."""
    heads, layers = config.integer("num_heads"), config.layers("num_layers")
    config.ignore("relative_attention_max_distance", "layer_norm_epsilon", "is_gated_act", "dense_act_fn")
    activation = config.choice("feed_forward_proj", FEED_FORWARDS, "relu")
    gated = str(config.values.get("feed_forward_proj", "relu")).startswith("gated-")
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


def _embed(tape: Tape, model: Model, p: Pass, stack: str, keys: int) -> tuple[Value, Value]:
    x = tape.embedding("embedding.word", model.vocabulary, model.hidden_size, (p.batch, p.queries), shared=True)
    x = tape.dropout(x, f"{stack}.embedding_dropout", "embedding", model.embedding_dropout)
    bias = tape.embedding(f"{stack}.relative_bias", model.relative_buckets, model.heads, (p.queries, keys))
    return x, bias


def _encoder_layer(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x, bias = s["encoder"], s["bias"]
    x = residual(tape, model, x, lambda y: attention(tape, model, p, y, bias=bias, causal=False), "attention")
    x = _ffn(tape, model, x)
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
    return {"x": _ffn(tape, model, x), "bias": bias, "encoder": encoder}


def _ffn(tape: Tape, model: Model, x: Value) -> Value:
    return residual(
        tape, model, x, lambda y: feed_forward(tape, model, y, model.ffn_size, inner_dropout=model.dropout), "ffn"
    )


def _end(tape: Tape, model: Model, x: Value, stack: str) -> Value:
    x = tape.normalization(x, f"{stack}.norm", model.norm)
    return tape.dropout(x, f"{stack}.output_dropout", "other", model.dropout)


def _head(tape: Tape, model: Model, p: Pass, s: Streams) -> Streams:
    x = _end(tape, model, s["x"], "decoder")
    outputs = [tied_or_own_head(tape, model, p, x)] if model.head == "seq2seq-lm" else [x]
    return finish(tape, model, outputs)


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Encoder (not in decode steps), decoder, head."""
    inner = replace(p, queries=p.encoder_tokens, context=p.encoder_tokens, cached=False, decode=False)

    def start_encoder(tape: Tape, _: Streams) -> Streams:
        x, bias = _embed(tape, model, inner, "encoder", inner.context)
        return {"encoder": x, "bias": bias}

    def start_decoder(tape: Tape, s: Streams) -> Streams:
        x, bias = _embed(tape, model, p, "decoder", p.context)
        encoder = s.get("encoder") or tape.value("encoder.out", (p.batch, p.encoder_tokens, model.hidden_size))
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
    return decoder if p.decode else (*encoder, *decoder)


T5 = Family("t5", read, plan, HEADS)
