"""Gated decoders whose layers are LLaMA's: Phi-3, Granite, SmolLM3 and Gemma.

Phi-3 (Abdin et al., 2024) stores query, key and value, and gate and up, as one matrix each: the numbers and the
products are the same.  Granite 3 (IBM, 2024) scales embeddings, residuals and logits by constants; SmolLM3 (Hugging
Face, 2025) leaves rotary positions out of every fourth layer, which are counted as in the others.  Gemma (Gemma Team,
2024) has heads of 256 and a tied head.

Limits: scales by constants are not counted.
"""

from __future__ import annotations

from tierform.workload.config import Config
from tierform.workload.families import Family
from tierform.workload.families.decoder import HEADS
from tierform.workload.families.llama import plan, read_gated_decoder
from tierform.workload.models import Model


def read_phi3(config: Config, name: str) -> Model:
    """Phi3Config's keys."""
    window = config.integer("sliding_window", default=0, minimum=0)
    config.ignore("original_max_position_embeddings", "partial_rotary_factor")
    return read_gated_decoder(config, name, "phi3", sliding_window=window)


def read_granite(config: Config, name: str) -> Model:
    """GraniteConfig's keys."""
    config.ignore("embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier")
    bias = config.flag("attention_bias", False)
    return read_gated_decoder(
        config, name, "granite", attention_bias=bias, output_bias=bias, ffn_bias=config.flag("mlp_bias", False)
    )


def read_smollm3(config: Config, name: str) -> Model:
    """SmolLM3Config's keys; the head is tied unless it says otherwise."""
    config.ignore("no_rope_layers", "no_rope_layer_interval", "use_sliding_window", "sliding_window", "layer_types")
    bias = config.flag("attention_bias", False)
    tied = _tied(config)
    return read_gated_decoder(
        tied, name, "smollm3", attention_bias=bias, output_bias=bias, ffn_bias=config.flag("mlp_bias", False)
    )


def read_gemma(config: Config, name: str) -> Model:
    """GemmaConfig's keys: heads of 256 and a tied head unless it says otherwise; GELU by tanh in any case."""
    config.ignore("hidden_activation")
    bias = config.flag("attention_bias", False)
    made = _tied(config)
    made.values.setdefault("head_dim", 256)
    made.values["hidden_act"] = "gelu_pytorch_tanh"
    return read_gated_decoder(made, name, "gemma", attention_bias=bias, output_bias=bias)


def _tied(config: Config) -> Config:
    """The configuration with the default of its family for a tied head."""
    config.values.setdefault("tie_word_embeddings", True)
    return config


PHI3 = Family("phi3", read_phi3, plan, HEADS)
GRANITE = Family("granite", read_granite, plan, HEADS)
SMOLLM3 = Family("smollm3", read_smollm3, plan, HEADS)
GEMMA = Family("gemma", read_gemma, plan, HEADS)
