"""Qwen2 and Qwen3, dense and with experts: LLaMA's layers with query/key/value biases or normalized queries and keys.

Qwen2-MoE has a gated shared expert beside the routed ones (Qwen Team, 2024); Qwen3-MoE has none (Yang et al., 2025).
"""

from __future__ import annotations

from math import log

from tierform.workload.config import Config
from tierform.workload.families import Family, llama, mixtral
from tierform.workload.families.decoder import HEADS
from tierform.workload.models import Model


def _window(config: Config) -> int:
    """0: Qwen's configurations state a window and switch it off; a switched-on one is refused."""
    if config.flag("use_sliding_window", False):
        config.problem("sliding windows in some layers only are not supported", "use_sliding_window", True)
    config.ignore("sliding_window", "max_window_layers", "layer_types")
    return 0


def read_qwen2(config: Config, name: str) -> Model:
    """Qwen2Config's keys: biases on query, key and value."""
    return llama.read_gated_decoder(config, name, "qwen2", attention_bias=True, sliding_window=_window(config))


def read_qwen3(config: Config, name: str) -> Model:
    """Qwen3Config's keys: queries and keys normalized per head."""
    bias = config.flag("attention_bias", False)
    return llama.read_gated_decoder(
        config, name, "qwen3", attention_bias=bias, output_bias=bias, qk_norm=True, sliding_window=_window(config)
    )


# Nine tenths of Qwen3-30B-A3B's assignments go to 65 of its 128 experts on prose, code and mathematics (58 on code
# alone; median layer; source qwen3-experts).  The most popular one takes 4.3 per cent; an exponential law gives 3.5.
_NINE_TENTHS = 65 / 128
EXPERT_DECAY = log(10) / _NINE_TENTHS


def read_qwen2_moe(config: Config, name: str) -> Model:
    """Qwen2MoeConfig's keys."""
    shared = config.integer("shared_expert_intermediate_size", minimum=0)
    return _moe(
        config,
        name,
        "qwen2_moe",
        attention_bias=config.flag("qkv_bias", True),
        shared_experts=1,
        shared_ffn_size=shared,
        shared_gate=shared > 0,
    )


def read_qwen3_moe(config: Config, name: str) -> Model:
    """Qwen3MoeConfig's keys."""
    bias = config.flag("attention_bias", False)
    return _moe(
        config, name, "qwen3_moe", attention_bias=bias, output_bias=bias, qk_norm=True, expert_decay=EXPERT_DECAY
    )


def _moe(config: Config, name: str, family: str, **more: object) -> Model:
    key = "num_local_experts" if config.has("num_local_experts") and not config.has("num_experts") else "num_experts"
    experts, chosen = mixtral.read_experts(config, key)
    step, layers = config.integer("decoder_sparse_step", default=1), config.layers("num_hidden_layers")
    dense_only = config.integers("mlp_only_layers", default=(), minimum=0)
    config.ignore("norm_topk_prob", "router_aux_loss_coef", "output_router_logits")
    dense_set = set(dense_only)
    dense = tuple(index for index in range(layers) if index in dense_set or (index + 1) % step)
    return llama.read_gated_decoder(
        config,
        name,
        family,
        experts=experts,
        experts_per_token=chosen,
        dense_layers=dense,
        expert_ffn_size=config.integer("moe_intermediate_size"),
        sliding_window=_window(config),
        **more,
    )


QWEN2 = Family("qwen2", read_qwen2, llama.plan, HEADS)
QWEN3 = Family("qwen3", read_qwen3, llama.plan, HEADS)
QWEN2_MOE = Family("qwen2_moe", read_qwen2_moe, mixtral.plan, HEADS)
QWEN3_MOE = Family("qwen3_moe", read_qwen3_moe, mixtral.plan, HEADS)
