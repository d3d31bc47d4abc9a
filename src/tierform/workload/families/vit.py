"""ViT: an encoder over image patches and a class token (Dosovitskiy et al., 2021).

The patch convolution is one matmul of every patch's pixels; the sequence is fixed by image and patch size.
"""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import ACTIVATIONS, finish, layer, pool
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model
from tierform.workload.ops import add_parameter, collect, dropout, linear, normalization
from tierform.workload.tape import Tape, Value

HEADS = ("image-classification", "none")
POOLED = {"none": True}


def read(config: Config, name: str) -> Model:
    """ViTConfig's keys."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    image, patch = config.integer("image_size", maximum=10**5), config.integer("patch_size", maximum=10**5)
    config.divides(image, patch, "patch_size", "image_size")
    if config.integer("pooler_output_size", default=hidden) != hidden:
        config.problem(f"only {hidden} (hidden_size) is supported", "pooler_output_size")
    head = config.head(HEADS, "none")
    dropout = config.number("hidden_dropout_prob", default=0.0)
    return Model(
        name=name,
        family="vit",
        kind="vision",
        layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("intermediate_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "gelu"),
        positions="learned",
        attention_bias=config.flag("qkv_bias", True),
        output_bias=True,
        ffn_bias=True,
        image_size=image,
        patch_size=patch,
        channels=config.integer("num_channels", default=3),
        fixed_tokens=(image // max(1, patch)) ** 2 + 1,
        labels=config.labels(),
        head=head,
        pooler=POOLED.get(head, False),
        dropout=dropout,
        embedding_dropout=dropout,
        attention_dropout=config.number("attention_probs_dropout_prob", default=0.0),
    )


def embeddings(tape: Tape, model: Model, p: Pass) -> Value:
    """Patches projected, a class token in front, positions added."""
    patches, d = model.fixed_tokens - 1, model.hidden_size
    pixels = tape.value("pixels", (tape.local(p.sequences * patches), model.channels * model.patch_size**2))
    x = linear(tape, pixels, "embedding.patch", d, "embedding", bias=True, quantizable=False)
    result = (tape.local(p.tokens), d)
    x = add_parameter(tape, x, "embedding.class_token", (1, d), result, copies=p.sequences)
    x = add_parameter(tape, x, "embedding.position", (patches + 1, d), result, copies=p.sequences)
    return dropout(tape, x, "embedding.dropout", "embedding", model.embedding_dropout)


def head(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """Final normalization; class logits from the class token, or hidden states and pooler."""
    x = normalization(tape, x, "head.norm", model.norm)
    if model.head == "none":
        return [x, pool(tape, model, p, x)] if model.pooler else [x]
    x = collect(tape, x, p.tokens, "head")
    rows, labels = p.sequences, model.labels
    name, shape = "head.classifier", (rows, labels)
    return [linear(tape, x, name, labels, "head", bias=True, rows=rows, shape=shape, quantizable=False)]


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    return (
        Section("embedding", 1, lambda tape, _: {"x": embeddings(tape, model, p)}),
        Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0),
        Section("head", 1, lambda tape, s: finish(tape, model, head(tape, model, p, s["x"]))),
    )


VIT = Family("vit", read, plan, HEADS, POOLED)
