"""What decoder-only families share: embeddings in front, final normalization and logits behind."""

from __future__ import annotations

from dataclasses import replace

from tierform.workload.families.bert import finish, places, words
from tierform.workload.layers import Pass, Section, normed, tied_or_own_head
from tierform.workload.models import Model
from tierform.workload.ops import add, add_parameter, dropout, linear, normalization
from tierform.workload.tape import Tape, Value

HEADS = ("causal-lm", "none", "sequence-classification")


def embeddings(tape: Tape, model: Model, p: Pass) -> Value:
    """Word embeddings, projected where their width differs from the model's; learned positions where it has them."""
    width = model.embedding_size or model.hidden_size
    prompt = tape.learning.prompt
    q = replace(p, groups=tuple(replace(group, new=group.new - prompt) for group in p.groups)) if prompt else p
    x = words(tape, model, q, width, shared=model.tied_embeddings and model.head == "causal-lm")
    if prompt:
        result = (tape.local(p.tokens), width)
        x = add_parameter(tape, x, "embedding.prompt", (prompt, width), result, copies=p.sequences, adapter=True)
    if width != model.hidden_size:
        x = linear(tape, x, "embedding.project_in", model.hidden_size, "embedding", quantizable=False)
    if model.positions == "learned":
        x = add(tape, x, places(tape, model, p), "embedding.position_add", "embedding")
    if model.embedding_norm:
        x = normalization(tape, x, "embedding.norm", model.norm)
    return dropout(tape, x, "embedding.dropout", "embedding", model.embedding_dropout)


def head(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """Final normalization, then logits or the hidden states themselves."""
    if model.final_norm:
        x = normed(tape, model, x, "head.norm")
    width = model.embedding_size or model.hidden_size
    if width != model.hidden_size:
        x = linear(tape, x, "head.project_out", width, "head", quantizable=False)
    if model.head == "none":
        return [x]
    if model.head == "sequence-classification":
        return [linear(tape, x, "head.score", model.labels, "head", quantizable=False)]
    return [tied_or_own_head(tape, model, p, x, width=width, bias=model.head_bias)]


def decoder_plan(model: Model, p: Pass, layers: tuple[Section, ...]) -> tuple[Section, ...]:
    """Embedding, the given layers, head."""
    return (
        Section("embedding", 1, lambda tape, _: {"x": embeddings(tape, model, p)}),
        *layers,
        Section("head", 1, lambda tape, s: finish(tape, model, head(tape, model, p, s["x"]))),
    )
