"""LLaMA 1 to 3: pre-normalized decoders with RMSNorm, rotary positions, SwiGLU, grouped queries (Touvron, 2023)."""

from __future__ import annotations

from typing import Any

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.layers import Pass, Section, attention, feed_forward, residual
from tierform.workload.models import Model
from tierform.workload.tape import Tape, Value

ACTIVATIONS = {"silu": "silu", "gelu": "gelu", "relu": "relu", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def read(config: Config, name: str) -> Model:
    """LlamaConfig's keys."""
    bias = config.flag("attention_bias", False)
    return read_gated_decoder(
        config, name, "llama", attention_bias=bias, output_bias=bias, ffn_bias=config.flag("mlp_bias", False)
    )


def read_gated_decoder(config: Config, name: str, family: str, **more: Any) -> Model:
    """The keys that LLaMA and its descendants share; `more` sets what the family adds."""
    hidden, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    kv_heads = config.integer("num_key_value_heads", default=heads)
    config.divides(heads, kv_heads, "num_key_value_heads", "num_attention_heads")
    if not config.has("head_dim"):
        config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    config.ignore("rope_theta", "rms_norm_eps", "rope_scaling", "rope_parameters", "initializer_range")
    return Model(
        name=name,
        family=family,
        kind="decoder",
        layers=config.layers("num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=config.integer("head_dim", default=max(1, hidden // heads)),
        ffn_size=config.integer("intermediate_size"),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        gated=True,
        norm="rmsnorm",
        positions="rotary",
        max_positions=config.integer("max_position_embeddings", default=2048),
        tied_embeddings=config.flag("tie_word_embeddings", False),
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        attention_dropout=config.number("attention_dropout", default=0.0),
        **more,
    )


def layer(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Pre-normalized attention with rotary positions, gated FFN."""
    x = residual(
        tape,
        model,
        x,
        lambda inner: attention(tape, model, p, inner, rotated=True, window=model.sliding_window),
        "attention",
    )
    return residual(
        tape, model, x, lambda inner: feed_forward(tape, model, p, inner, model.ffn_size), "ffn", part="ffn"
    )


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    layers = Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0)
    return decoder_plan(model, p, (layers,))


LLAMA = Family("llama", read, plan, HEADS)
