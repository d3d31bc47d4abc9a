"""OPT: decoders with ReLU and two reserved positions; the 350M model is post-normalized (Zhang et al., 2022)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.families.gpt2 import layer
from tierform.workload.layers import Pass, Section
from tierform.workload.models import Model

ACTIVATIONS = {"relu": "relu", "gelu": "gelu"}


def read(config: Config, name: str) -> Model:
    """OPTConfig's keys."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    before, bias = config.flag("do_layer_norm_before", True), config.flag("enable_bias", True)
    if not config.flag("layer_norm_elementwise_affine", True):
        config.problem("normalization without parameters is not supported", "layer_norm_elementwise_affine", False)
    width = config.integer("word_embed_proj_dim", default=hidden)
    return Model(
        name=name,
        family="opt",
        kind="decoder",
        layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("ffn_dim"),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice("activation_function", ACTIVATIONS, "relu"),
        norm_position="pre" if before else "post",
        positions="learned",
        max_positions=config.integer("max_position_embeddings"),
        position_offset=2,
        tied_embeddings=config.flag("tie_word_embeddings", True),
        attention_bias=bias,
        output_bias=bias,
        ffn_bias=bias,
        embedding_size=width if width != hidden else 0,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        final_norm=before and not config.flag("_remove_final_layer_norm", False),
        dropout=config.number("dropout", default=0.1),
        attention_dropout=config.number("attention_dropout", default=0.0),
    )


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    layers = Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0)
    return decoder_plan(model, p, (layers,))


OPT = Family("opt", read, plan, HEADS)
