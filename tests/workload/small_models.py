"""Small models of every kind of family, and tasks for them, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from tierform.workload import (
    Adapters,
    BitFit,
    FineTuning,
    Full,
    LastLayers,
    LoRA,
    Model,
    QLoRA,
    Workload,
    model_from_config,
)
from tierform.workload.task import Method

HEADS = 8
_LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 80,
}
CONFIGS: dict[str, dict[str, object]] = {
    "bert": {
        "model_type": "bert",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": HEADS,
        "intermediate_size": 128,
        "vocab_size": 80,
        "max_position_embeddings": 512,
        "architectures": ["BertForMaskedLM"],
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_head": HEADS,
        "n_layer": 4,
        "n_positions": 512,
        "vocab_size": 80,
    },
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "model_type": "mistral", "sliding_window": 24},
    "qwen3": {**_LLAMA, "model_type": "qwen3", "head_dim": 16},
    "mixtral": {**_LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen2_moe": {
        **_LLAMA,
        "model_type": "qwen2_moe",
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 32,
        "mlp_only_layers": [1],
    },
    "deepseek_v3": {
        **_LLAMA,
        "model_type": "deepseek_v3",
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "n_shared_experts": 1,
        "kv_lora_rank": 16,
        "q_lora_rank": 24,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 1,
    },
    "t5": {
        "model_type": "t5",
        "d_model": 64,
        "d_kv": 8,
        "d_ff": 96,
        "num_heads": HEADS,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "vocab_size": 80,
    },
    "vit": {
        "model_type": "vit",
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": HEADS,
        "intermediate_size": 96,
        "image_size": 32,
        "patch_size": 8,
    },
}
METHODS: tuple[Method, ...] = (
    Full(),
    LoRA(4),
    LoRA(2, ("q", "k", "v", "o", "up", "down")),
    QLoRA(4, ("q", "up")),
    Adapters(8),
    LastLayers(1),
    BitFit(),
)
RECOMPUTATIONS = ("none", "selective", "full")

families = st.sampled_from(sorted(CONFIGS))
decoders = st.sampled_from(["gpt2", "llama", "mistral", "qwen3", "mixtral", "qwen2_moe", "deepseek_v3"])
methods = st.sampled_from(METHODS)
recomputations = st.sampled_from(RECOMPUTATIONS)
attentions = st.sampled_from(["fused", "tiled", "eager"])


def small(family: str, **changes: object) -> Model:
    """The small model of a family, with other sizes where given."""
    return model_from_config({**CONFIGS[family], **changes})


def tuning(method: Method, recomputation: str = "none", *, batch: int = 2, sequence: int = 16) -> FineTuning:
    """A fine-tuning task on small inputs."""
    return FineTuning(method, batch=batch, sequence=sequence, recomputation=recomputation)  # type: ignore[arg-type]


def has_biases(family: str) -> bool:
    """Whether BitFit finds something to train."""
    return family in ("bert", "gpt2", "vit", "qwen2_moe")


def by_name(workload: Workload) -> dict[tuple[str, str, str], object]:
    """(stage, block, operator) -> operator, of the first wave."""
    return {
        (stage.name, block.name, operator.name): operator
        for stage in workload.stages
        for block in stage.waves[0].blocks
        for operator in block.operators
    }
