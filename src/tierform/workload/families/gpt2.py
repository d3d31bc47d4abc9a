"""GPT-2 and GPT-3: pre-normalized decoders with learned positions (Radford et al., 2019; Brown et al., 2020)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.layers import Pass, Section, attention, feed_forward, residual
from tierform.workload.models import Model
from tierform.workload.tape import Tape, Value

ACTIVATIONS = {"gelu_new": "gelu_new", "gelu": "gelu", "relu": "relu", "gelu_pytorch_tanh": "gelu_tanh"}


def read(config: Config, name: str) -> Model:
    """GPT2Config's keys."""
    hidden, heads = config.integer("n_embd", "hidden_size"), config.integer("n_head", "num_attention_heads")
    config.divides(hidden, heads, "n_head", "n_embd")
    config.ignore("n_ctx")
    return Model(
        name=name,
        family="gpt2",
        kind="decoder",
        layers=config.layers("n_layer", "num_hidden_layers"),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("n_inner", default=4 * hidden),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        positions="learned",
        max_positions=config.integer("n_positions", "max_position_embeddings"),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        attention_bias=True,
        output_bias=True,
        ffn_bias=True,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        dropout=config.number("resid_pdrop", default=0.1),
        attention_dropout=config.number("attn_pdrop", default=0.1),
        embedding_dropout=config.number("embd_pdrop", default=0.1),
    )


def layer(tape: Tape, model: Model, p: Pass, x: Value) -> Value:
    """Pre-normalized attention and FFN."""
    x = residual(tape, model, x, lambda inner: attention(tape, model, p, inner), "attention")
    return residual(
        tape, model, x, lambda inner: feed_forward(tape, model, p, inner, model.ffn_size), "ffn", part="ffn"
    )


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, layers, head."""
    layers = Section("layer", model.layers, lambda tape, s: {"x": layer(tape, model, p, s["x"])}, 0)
    return decoder_plan(model, p, (layers,))


GPT2 = Family("gpt2", read, plan, HEADS)
