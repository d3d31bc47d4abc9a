"""Hugging Face modules on the meta device, and PyTorch's own count of their matmul operations."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from tierform.workload import Kind, Model, Workload, model_from_config

transformers.logging.set_verbosity_error()
BATCH, SEQUENCE = 2, 24
_SMALL = {
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "hidden_size": 128,
    "intermediate_size": 200,
    "num_attention_heads": 8,
    "vocab_size": 199,
}
_LATENT = {
    **_SMALL,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 40,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_BERT = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 300,
    "vocab_size": 99,
}
_OPT = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "ffn_dim": 300, "vocab_size": 99}
_T5 = {
    "num_layers": 2,
    "num_decoder_layers": 3,
    "d_model": 96,
    "d_kv": 20,
    "d_ff": 200,
    "num_heads": 4,
    "vocab_size": 99,
}
_VIT = {"num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 4, "intermediate_size": 200, "image_size": 64}

# name -> (module class, configuration class, sizes)
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertModel", "BertConfig", _BERT),
    "bert masked": ("BertForMaskedLM", "BertConfig", _BERT),
    "bert classifier": ("BertForSequenceClassification", "BertConfig", _BERT),
    "bert tokens": ("BertForTokenClassification", "BertConfig", {**_BERT, "num_labels": 5}),
    "bert spans": ("BertForQuestionAnswering", "BertConfig", _BERT),
    "roberta": ("RobertaModel", "RobertaConfig", {**_BERT, "max_position_embeddings": 130, "type_vocab_size": 1}),
    "roberta masked": ("RobertaForMaskedLM", "RobertaConfig", {**_BERT, "type_vocab_size": 1}),
    "roberta classifier": ("RobertaForSequenceClassification", "RobertaConfig", _BERT),
    "gpt2": ("GPT2LMHeadModel", "GPT2Config", {"n_layer": 2, "n_embd": 96, "n_head": 4, "vocab_size": 99}),
    "gpt2 body": ("GPT2Model", "GPT2Config", {"n_layer": 2, "n_embd": 96, "n_head": 4, "n_inner": 70}),
    "opt": ("OPTForCausalLM", "OPTConfig", {**_OPT, "word_embed_proj_dim": 128}),
    "opt post-norm": (
        "OPTForCausalLM",
        "OPTConfig",
        {**_OPT, "word_embed_proj_dim": 64, "do_layer_norm_before": False},
    ),
    "bloom": ("BloomForCausalLM", "BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 99}),
    "llama": ("LlamaForCausalLM", "LlamaConfig", _SMALL),
    "llama biased, tied": (
        "LlamaForCausalLM",
        "LlamaConfig",
        {**_SMALL, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 24},
    ),
    "mistral": ("MistralForCausalLM", "MistralConfig", {**_SMALL, "sliding_window": 8}),
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", {**_SMALL, "num_local_experts": 5}),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _SMALL),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", {**_SMALL, "head_dim": 24}),
    "qwen2-moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {
            **_SMALL,
            "num_hidden_layers": 3,
            "mlp_only_layers": [1],
            "num_experts": 7,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 50,
        },
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**_SMALL, "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 40},
    ),
    "deepseek-v2": (
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {**_LATENT, "q_lora_rank": None, "n_shared_experts": 2, "topk_method": "greedy"},
    ),
    "deepseek-v3": ("DeepseekV3ForCausalLM", "DeepseekV3Config", {**_LATENT, "q_lora_rank": 48, "n_shared_experts": 1}),
    "t5": ("T5ForConditionalGeneration", "T5Config", {**_T5, "tie_word_embeddings": True}),
    "t5 gated, untied": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "vit": ("ViTModel", "ViTConfig", _VIT),
    "vit classifier": ("ViTForImageClassification", "ViTConfig", {**_VIT, "num_labels": 7}),
}


def build(case: str) -> tuple[Any, Model]:
    """(the module on the meta device in training mode, our model of the same configuration)."""
    module_class, config_class, sizes = CASES[case]
    config = getattr(transformers, config_class)(**sizes)
    return from_config(module_class, config), ours_of(module_class, config)


def from_config(module_class: str, config: Any) -> Any:
    """The module with eager attention and experts that need no routing values."""
    config._attn_implementation = "eager"
    config._experts_implementation = "batched_mm"
    with torch.device("meta"):
        return getattr(transformers, module_class)(config).train()


def ours_of(module_class: str, config: Any) -> Model:
    """Our model of a Hugging Face configuration object."""
    return model_from_config({**config.to_dict(), "architectures": [module_class]}, module_class)


def inputs_of(module: Any) -> dict[str, Any]:
    """Inputs on the meta device; masks are given, since deriving them would need values."""
    name = type(module.get_base_model() if hasattr(module, "get_base_model") else module).__name__
    if name.startswith("ViT"):
        size = module.config.image_size
        return {"pixel_values": torch.zeros(BATCH, 3, size, size, device="meta")}
    tokens = torch.zeros(BATCH, SEQUENCE, dtype=torch.long, device="meta")
    if name.startswith("T5"):
        return {"input_ids": tokens, "decoder_input_ids": tokens, "use_cache": False}
    if name.startswith(("Bert", "Roberta")):
        return {"input_ids": tokens}
    if name.startswith("Bloom"):
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "use_cache": False}
    mask = torch.zeros(BATCH, 1, SEQUENCE, SEQUENCE, device="meta")
    extra = {"position_ids": tokens} if name.startswith("OPT") else {}
    return {"input_ids": tokens, "attention_mask": mask, "use_cache": False, **extra}


def counted_flops(module: Any) -> tuple[int, int]:
    """(forward, backward) matmul operations that PyTorch's flop counter sees."""
    counter = FlopCounterMode(display=False)
    with counter:
        output = module(**inputs_of(module))
        forward = counter.get_total_flops()
        names = ("logits", "last_hidden_state", "pooler_output", "start_logits", "end_logits")
        found = [value for name in names if (value := output.get(name)) is not None]
        sum(value.sum() for value in found).backward()
    return forward, counter.get_total_flops() - forward


def our_flops(workload: Workload) -> tuple[int, int]:
    """(forward, backward) matmul operations of a workload."""
    forward = backward = 0
    for stage, _, operator, times in workload.occurrences():
        if operator.kind is Kind.MATMUL:
            if stage.name in ("forward", "prefill"):
                forward += 2 * operator.macs * times
            else:
                backward += 2 * operator.macs * times
    return forward, backward
