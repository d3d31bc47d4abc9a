"""RoBERTa: BERT's layers with two reserved positions and its own heads (Liu et al., 2019)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import HEADS, embeddings, finish, head, layer, pool, read_encoder
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model
from tierform.workload.ops import linear
from tierform.workload.tape import Tape, Value

POOLED = {"none": True}


def read(config: Config, name: str) -> Model:
    """RobertaConfig's keys; positions count from padding_idx + 1 = 2."""
    return read_encoder(config, name, "roberta", offset=2, pooled=POOLED)


def outputs(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """BERT's heads, but classification has its own dense layer in place of the pooler."""
    if model.head != "sequence-classification":
        return head(tape, model, p, x)
    dense = pool(tape, model, p, x, name="head.dense")
    return [linear(tape, dense, "head.classifier", model.labels, "head", bias=True, quantizable=False)]


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    return (
        Section("embedding", 1, lambda tape, _: {"x": embeddings(tape, model, p)}),
        Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0),
        Section("head", 1, lambda tape, s: finish(tape, model, outputs(tape, model, p, s["x"]))),
    )


ROBERTA = Family("roberta", read, plan, HEADS, POOLED)
