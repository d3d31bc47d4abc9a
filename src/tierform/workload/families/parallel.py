"""Falcon (TII, 2023) and GPT-J (Wang and Komatsuzaki, 2021): attention and FFN side by side on the same input.

Falcon-7B has one head of keys and one norm before both branches; 40B and 180B (`new_decoder_architecture`) have groups
of heads and a norm before each.  The first ones (`parallel_attn: false`) run one branch after the other; with `alibi`
positions are a bias inside the softmax.  GPT-J's branches share one norm; its FFN and its logits have biases.
Limits: as of :mod:`tierform.workload.families.current`.
"""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.current import layer
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.layers import Pass, Section, Streams
from tierform.workload.models import Model
from tierform.workload.tape import Tape

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_new", "relu": "relu", "silu": "silu"}


def read_falcon(config: Config, name: str) -> Model:
    """The configuration as the model's sizes; missing keys take the defaults of transformers."""
    hidden, heads = config.integer("hidden_size", default=4544), config.integer("num_attention_heads", default=71)
    config.divides(hidden, heads, "num_attention_heads", "hidden_size")
    grouped = config.flag("new_decoder_architecture", False)
    shared, beside = config.flag("multi_query", True), config.flag("parallel_attn", True) or grouped
    kv_heads = config.integer("num_kv_heads", default=heads)
    if not grouped:
        kv_heads = 1 if shared else heads
    config.divides(heads, kv_heads, "num_kv_heads", "num_attention_heads")
    norms = config.integer("num_ln_in_parallel_attn", default=2 if grouped else 1, maximum=2)
    bias, alibi = config.flag("bias", False), config.flag("alibi", False)
    config.ignore("rope_theta", "rope_scaling", "rope_parameters", "initializer_range", "layer_norm_epsilon")
    return Model(
        name=name,
        family="falcon",
        kind="decoder",
        layers=config.layers("num_hidden_layers", default=32),
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("ffn_hidden_size", default=4 * hidden),
        vocabulary=config.integer("vocab_size", default=65024),
        activation=config.choice("activation", ACTIVATIONS, "gelu"),
        norm_position="pre" if not beside else "parallel-two" if norms == 2 else "parallel",
        positions="alibi" if alibi else "rotary",
        max_positions=config.integer("max_position_embeddings", default=2048),
        tied_embeddings=config.flag("tie_word_embeddings", True),
        attention_bias=bias,
        output_bias=bias,
        ffn_bias=bias,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        dropout=config.number("hidden_dropout", default=0.0),
        attention_dropout=config.number("attention_dropout", default=0.0),
    )


def read_gptj(config: Config, name: str) -> Model:
    """The configuration as the model's sizes; missing keys take the defaults of transformers."""
    hidden = config.integer("n_embd", "hidden_size", default=4096)
    heads = config.integer("n_head", "num_attention_heads", default=16)
    config.divides(hidden, heads, "n_head", "n_embd")
    config.ignore("rotary_dim", "initializer_range", "layer_norm_epsilon", "scale_attn_weights")
    return Model(
        name=name,
        family="gptj",
        kind="decoder",
        layers=config.layers("n_layer", "num_hidden_layers", default=28),
        hidden_size=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=max(1, hidden // heads),
        ffn_size=config.integer("n_inner", default=4 * hidden),
        vocabulary=config.integer("vocab_size", default=50400),
        activation=config.choice("activation_function", ACTIVATIONS, "gelu_new"),
        norm_position="parallel",
        positions="rotary",
        max_positions=config.integer("n_positions", "max_position_embeddings", default=2048),
        tied_embeddings=config.flag("tie_word_embeddings", False),
        attention_bias=False,
        output_bias=False,
        ffn_bias=True,
        head_bias=True,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        embedding_dropout=config.number("embd_pdrop", default=0.0),
        dropout=config.number("resid_pdrop", default=0.0),
        attention_dropout=config.number("attn_pdrop", default=0.0),
    )


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, equal layers, head."""
    rotated = model.positions == "rotary"

    def build(tape: Tape, streams: Streams) -> Streams:
        return {"x": layer(tape, model, p, streams["x"], window=0, rotated=rotated)}

    return decoder_plan(model, p, (Section("layer", model.layers, build, 0),))


FALCON = Family("falcon", read_falcon, plan, HEADS)
GPTJ = Family("gptj", read_gptj, plan, HEADS)
