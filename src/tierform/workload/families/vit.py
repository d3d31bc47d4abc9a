"""ViT: an encoder over image patches and a class token (Dosovitskiy et al., 2021).

The patch convolution is one matmul of every patch's pixels; the sequence is fixed by image and patch size.
"""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.bert import ACTIVATIONS, finish, layer, pool
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model
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
    pixels = tape.value("pixels", (p.batch, patches, model.channels * model.patch_size**2))
    x = tape.linear(pixels, "embedding.patch", d, "embedding", bias=True, quantizable=False)
    x = tape.add_parameter(x, "embedding.class_token", (1, d), (p.batch, patches + 1, d), copies=p.batch)
    x = tape.add_parameter(x, "embedding.position", (patches + 1, d), x.shape, copies=p.batch)
    return tape.dropout(x, "embedding.dropout", "embedding", model.embedding_dropout)


def head(tape: Tape, model: Model, p: Pass, x: Value) -> list[Value]:
    """Final normalization; class logits from the class token, or hidden states and pooler."""
    x = tape.normalization(x, "head.norm", model.norm)
    if model.head == "none":
        return [x, pool(tape, model, p, x)] if model.pooler else [x]
    return [
        tape.linear(
            x,
            "head.classifier",
            model.labels,
            "head",
            bias=True,
            rows=p.batch,
            shape=(p.batch, model.labels),
            quantizable=False,
        )
    ]


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    return (
        Section("embedding", 1, lambda tape, _: {"x": embeddings(tape, model, p)}),
        Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0),
        Section("head", 1, lambda tape, s: finish(tape, model, head(tape, model, p, s["x"]))),
    )


VIT = Family("vit", read, plan, HEADS, POOLED)
