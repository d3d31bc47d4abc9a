"""BERT: a post-normalized encoder with learned positions and segments (Devlin et al., 2019)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.layers import Pass, Section, Streams, attention, feed_forward, residual, tied_or_own_head
from tierform.workload.models import Model
from tierform.workload.operator import Shard
from tierform.workload.ops import (
    activation,
    add,
    collect,
    cross_entropy,
    dropout,
    embedding,
    linear,
    normalization,
    squared_error,
)
from tierform.workload.tape import Tape, Value

HEADS = ("none", "masked-lm", "sequence-classification", "token-classification", "question-answering")
POOLED = {"none": True, "sequence-classification": True}
ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu", "silu": "silu"}


def read(config: Config, name: str) -> Model:
    """BertConfig's keys."""
    return read_encoder(config, name, "bert", offset=0, pooled=POOLED)


def read_encoder(config: Config, name: str, family: str, offset: int, pooled: dict[str, bool]) -> Model:
    """The keys that BERT and RoBERTa share; `offset` positions of the table are reserved."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    config.ignore(
        "pad_token_id", "layer_norm_eps", "initializer_range", "position_embedding_type", "bos_token_id", "eos_token_id"
    )
    head = config.head(HEADS, "none")
    dropout = config.number("hidden_dropout_prob", default=0.1)
    return Model(
        name=name,
        family=family,
        kind="encoder",
        layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("intermediate_size"),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        norm_position="post",
        positions="learned",
        max_positions=config.integer("max_position_embeddings", minimum=1 + offset) - offset,
        position_offset=offset,
        type_vocabulary=config.integer("type_vocab_size", default=2, minimum=0),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        attention_bias=True,
        output_bias=True,
        ffn_bias=True,
        head=head,
        pooler=pooled.get(head, False),
        labels=config.labels(),
        dropout=dropout,
        embedding_dropout=dropout,
        attention_dropout=config.number("attention_probs_dropout_prob", default=0.1),
    )


def embeddings(tape: Tape, model: Model, p: Pass) -> Value:
    """Word, segment and position embeddings, added and normalized."""
    x = words(tape, model, p, model.hidden_size, shared=model.tied_embeddings and model.head == "masked-lm")
    if model.type_vocabulary:
        kinds = embedding(tape, "embedding.type", model.type_vocabulary, model.hidden_size, (tape.local(p.tokens),))
        x = add(tape, x, kinds, "embedding.type_add", "embedding")
    x = add(tape, x, places(tape, model, p), "embedding.position_add", "embedding")
    x = normalization(tape, x, "embedding.norm", model.norm)
    return dropout(tape, x, "embedding.dropout", "embedding", model.embedding_dropout)


def words(tape: Tape, model: Model, p: Pass, width: int, *, shared: bool) -> Value:
    """A row of the word table for each token; `shared` with the head."""
    return embedding(tape, "embedding.word", model.vocabulary, width, (p.tokens,), shared=shared, shard=Shard.INPUT)


def places(tape: Tape, model: Model, p: Pass) -> Value:
    """A row of the learned positions for each different place."""
    rows = model.max_positions + model.position_offset
    return embedding(tape, "embedding.position", rows, model.hidden_size, (tape.local(p.positions),))


def layer(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Attention and FFN, each followed by residual and normalization."""
    x = residual(tape, model, x, lambda inner: attention(tape, model, p, inner), "attention")
    return residual(
        tape, model, x, lambda inner: feed_forward(tape, model, p, inner, model.ffn_size), "ffn", part="ffn"
    )


def pool(tape: Tape, model: Model, p: Pass, x: Value, *, name: str = "head.pooler") -> Value:
    """The tanh of a dense layer on each sequence's first token."""
    d, rows = model.hidden_size, p.sequences
    x = collect(tape, x, p.tokens, name)
    dense = linear(tape, x, name, d, "head", bias=True, rows=rows, shape=(rows, d), quantizable=False)
    return activation(tape, dense, f"{name}.tanh", "tanh", "head")


def head(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """The outputs under the model's head."""
    d, labels = model.hidden_size, model.labels

    def dense(source: Value, name: str, width: int) -> Value:
        return linear(tape, source, name, width, "head", bias=True, quantizable=False)

    match model.head:
        case "masked-lm":
            y = activation(tape, dense(x, "head.transform", d), "head.transform.activation", model.activation, "head")
            y = normalization(tape, y, "head.transform.norm", model.norm)
            return [tied_or_own_head(tape, model, p, y, bias=True)]
        case "none":
            return [x, pool(tape, model, p, x)] if model.pooler else [x]
        case "sequence-classification":
            pooled = dropout(tape, pool(tape, model, p, x), "head.dropout", "head", model.dropout)
            return [dense(pooled, "head.classifier", labels)]
        case "question-answering":
            return [dense(x, "head.spans", 2)]
    return [dense(dropout(tape, x, "head.dropout", "head", model.dropout), "head.classifier", labels)]


def finish(tape: Tape, model: Model, outputs: list[Value]) -> Streams:
    """Losses on the outputs while training."""
    if not tape.training:
        return {"output": outputs[-1]}
    loss = squared_error if model.head in ("none", "regression") else cross_entropy
    names = ["loss", *(f"loss{index}" for index in range(2, len(outputs) + 1))]
    return {name: loss(tape, value, name) for name, value in zip(names, outputs, strict=True)}


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    return (
        Section("embedding", 1, lambda tape, _: {"x": embeddings(tape, model, p)}),
        Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0),
        Section("head", 1, lambda tape, s: finish(tape, model, head(tape, model, p, s["x"]))),
    )


BERT = Family("bert", read, plan, HEADS, POOLED)
