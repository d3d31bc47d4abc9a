"""DeepSeek-V2 and V3: latent attention, many small routed experts and shared ones (DeepSeek-AI, 2024)."""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.experts import mixture
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS, decoder_plan
from tierform.workload.families.llama import ACTIVATIONS
from tierform.workload.families.mixtral import read_experts
from tierform.workload.latent import latent_attention
from tierform.workload.layers import Pass, Section, feed_forward, residual
from tierform.workload.models import Model
from tierform.workload.tape import Tape, Value


def read_v2(config: Config, name: str) -> Model:
    """DeepseekV2Config's keys."""
    return _read(config, name, "deepseek_v2")


def read_v3(config: Config, name: str) -> Model:
    """DeepseekV3Config's keys."""
    return _read(config, name, "deepseek_v3")


def _read(config: Config, name: str, family: str) -> Model:
    heads, layers = config.integer("num_attention_heads"), config.layers("num_hidden_layers")
    experts, chosen = read_experts(config, "n_routed_experts")
    width, shared = config.integer("moe_intermediate_size"), config.integer("n_shared_experts", default=0, minimum=0)
    first = config.integer("first_k_dense_replace", default=0, minimum=0)
    nope, rope = config.integer("qk_nope_head_dim"), config.integer("qk_rope_head_dim")
    values, bias = config.integer("v_head_dim"), config.flag("attention_bias", False)
    config.ignore(
        "num_key_value_heads",
        "head_dim",
        "n_group",
        "topk_group",
        "topk_method",
        "norm_topk_prob",
        "rope_theta",
        "routed_scaling_factor",
        "moe_layer_freq",
        "scoring_func",
        "rope_scaling",
        "rms_norm_eps",
    )
    return Model(
        name=name,
        family=family,
        kind="decoder",
        layers=layers,
        hidden_size=config.integer("hidden_size"),
        heads=heads,
        kv_heads=heads,
        head_dim=nope + rope,
        ffn_size=config.integer("intermediate_size"),
        vocabulary=config.integer("vocab_size"),
        activation=config.choice("hidden_act", ACTIVATIONS, "silu"),
        gated=True,
        norm="rmsnorm",
        positions="rotary",
        max_positions=config.integer("max_position_embeddings", default=2048),
        tied_embeddings=config.flag("tie_word_embeddings", False),
        attention_bias=bias,
        output_bias=bias,
        ffn_bias=config.flag("mlp_bias", False) if family == "deepseek_v2" else False,
        experts=experts,
        experts_per_token=chosen,
        shared_experts=shared,
        expert_ffn_size=width,
        shared_ffn_size=shared * width,
        dense_layers=tuple(range(min(first, layers))),
        q_lora_rank=config.integer("q_lora_rank", default=0),
        kv_lora_rank=config.integer("kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rope,
        v_head_dim=values,
        head=config.head(HEADS, "causal-lm"),
        labels=config.labels(),
        attention_dropout=config.number("attention_dropout", default=0.0),
    )


def layer(tape: Tape, model: Model, p: Pass, x: Value, *, dense: bool) -> Value:
    """Latent attention, then a dense FFN (first layers) or experts."""
    x = residual(tape, model, x, lambda inner: latent_attention(tape, model, p, inner), "attention")
    if dense:
        return residual(
            tape, model, x, lambda inner: feed_forward(tape, model, p, inner, model.ffn_size), "ffn", part="ffn"
        )
    return residual(tape, model, x, lambda inner: mixture(tape, model, p, inner), "ffn", part="ffn")


def plan(model: Model, p: Pass) -> tuple[Section, ...]:
    """Embedding, dense layers, expert layers, head."""
    first = len(model.dense_layers)
    layers = (
        Section("dense_layer", first, lambda tape, s: {"x": layer(tape, model, p, s["x"], dense=True)}, 0),
        Section(
            "layer", model.layers - first, lambda tape, s: {"x": layer(tape, model, p, s["x"], dense=False)}, first
        ),
    )
    return decoder_plan(model, p, tuple(section for section in layers if section.count))


DEEPSEEK_V2 = Family("deepseek_v2", read_v2, plan, HEADS)
DEEPSEEK_V3 = Family("deepseek_v3", read_v3, plan, HEADS)
