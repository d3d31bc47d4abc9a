"""BLOOM: decoders with ALiBi position biases and a normalized embedding (BigScience, 2022)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.families.gpt2 import layer
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model


def read(config: Config, name: str) -> Model:
    """BloomConfig's keys."""
    hidden, heads = config.integer("hidden_size", "n_embed"), config.integer("n_head", "num_attention_heads")
    config.divides(hidden, heads, "n_head", "hidden_size")
    config.ignore("apply_residual_connection_post_layernorm", "seq_length")
    return Model(
        name=name,
        family="bloom",
        kind="decoder",
        layers=config.layers("n_layer", "num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=4 * hidden,
        vocabulary=config.integer("vocab_size"),
        activation="gelu_tanh",
        positions="alibi",
        embedding_norm=True,
        tied_embeddings=config.flag("tie_word_embeddings", True),
        attention_bias=True,
        output_bias=True,
        ffn_bias=True,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        dropout=config.number("hidden_dropout", default=0.0),
        attention_dropout=config.number("attention_dropout", default=0.0),
    )


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head; the position bias is added inside the softmax."""
    layers = Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0)
    return decoder_plan(model, p, (layers,))


BLOOM = Family("bloom", read, plan, HEADS)
