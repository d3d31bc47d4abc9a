"""BERT: a post-normalized encoder with learned positions and segments (Devlin et al., 2019)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.layers import Pass, Section, Streams, attention, feed_forward, residual, tied_or_own_head
from tierform.workload.losses import cross_entropy, squared_error
from tierform.workload.models import Model
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
    x = tape.embedding(
        "embedding.word",
        model.vocabulary,
        model.hidden_size,
        (p.batch, p.queries),
        shared=model.tied_embeddings and model.head == "masked-lm",
    )
    if model.type_vocabulary:
        kinds = tape.embedding("embedding.type", model.type_vocabulary, model.hidden_size, (p.batch, p.queries))
        x = tape.add(x, kinds, "embedding.type_add", "embedding")
    places = tape.embedding(
        "embedding.position", model.max_positions + model.position_offset, model.hidden_size, (1, p.queries)
    )
    x = tape.add(x, places, "embedding.position_add", "embedding")
    x = tape.normalization(x, "embedding.norm", model.norm)
    return tape.dropout(x, "embedding.dropout", "embedding", model.embedding_dropout)


def layer(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Attention and FFN, each followed by residual and normalization."""
    x = residual(tape, model, x, lambda inner: attention(tape, model, p, inner), "attention")
    return residual(tape, model, x, lambda inner: feed_forward(tape, model, inner, model.ffn_size), "ffn")


def pool(tape: Tape, model: Model, p: Pass, x: Value, *, name: str = "head.pooler") -> Value:
    """The tanh of a dense layer on each sequence's first token."""
    d = model.hidden_size
    dense = tape.linear(x, name, d, "head", bias=True, rows=p.batch, shape=(p.batch, d), quantizable=False)
    return tape.activation(dense, f"{name}.tanh", "tanh", "head")


def head(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """The outputs under the model's head."""
    d, labels = model.hidden_size, model.labels
    if model.head == "masked-lm":
        dense = tape.linear(x, "head.transform", d, "head", bias=True, quantizable=False)
        active = tape.activation(dense, "head.transform.activation", model.activation, "head")
        active = tape.normalization(active, "head.transform.norm", model.norm)
        return [tied_or_own_head(tape, model, p, active, bias=True)]
    if model.head == "none":
        return [x, pool(tape, model, p, x)] if model.pooler else [x]
    if model.head == "sequence-classification":
        pooled = pool(tape, model, p, x)
        pooled = tape.dropout(pooled, "head.dropout", "head", model.dropout)
        return [tape.linear(pooled, "head.classifier", labels, "head", bias=True, quantizable=False)]
    if model.head == "question-answering":
        return [tape.linear(x, "head.spans", 2, "head", bias=True, quantizable=False)]
    x = tape.dropout(x, "head.dropout", "head", model.dropout)
    return [tape.linear(x, "head.classifier", labels, "head", bias=True, quantizable=False)]


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
