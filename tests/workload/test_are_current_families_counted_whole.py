"""Has every current family the parameters of its module, do windows keep what they say, and is any other model traced?

The modules are those of `transformers`, made on the meta device from the same configuration.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tierform
from tierform.errors import TierformError
from tierform.workload import FineTuning, Inference, expand, load_model
from tierform.workload.families.current import STYLES
from tierform.workload.models import Model, model_from_config

SMALL: dict[str, Any] = {
    "num_hidden_layers": 7,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
MORE: dict[str, dict[str, Any]] = {
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "granitemoe": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "glm4_moe": {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "use_qk_norm": True},
    "glm": {"pad_token_id": 0, "head_dim": 16, "attention_bias": True},
    "glm4": {"pad_token_id": 0, "head_dim": 16, "attention_bias": True},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "nemotron": {"head_dim": 16},
    "hunyuan_v1_dense": {"head_dim": 16},
    "seed_oss": {"head_dim": 16, "mlp_bias": True},
    "starcoder2": {"use_bias": True},
    "ernie4_5": {"use_bias": True},
    "stablelm": {"use_qkv_bias": True},
}


def made(family: str) -> tuple[dict[str, Any], int]:
    sizes = SMALL | MORE.get(family, {})
    if family == "gpt_neox":  # each head has its own keys
        del sizes["num_key_value_heads"]
    config = transformers.AutoConfig.for_model(family, **sizes)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    return config.to_dict(), sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("family", STYLES)
def test_a_small_module_of_each_family(family: str) -> None:
    config, count = made(family)
    model = model_from_config(config, family)
    assert model.parameters == count
    trained = expand(model, FineTuning(batch=1, sequence=8))
    assert trained.trainable_parameters == count


FALCON = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "vocab_size": 512}


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("falcon", FALCON),  # as the one of 7 billion
        ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),  # of 40 and 180
        ("falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}),
        ("falcon", {**FALCON, "parallel_attn": False, "multi_query": False, "bias": True, "alibi": True}),  # the first
        ("falcon", {**FALCON, "ffn_hidden_size": 96, "tie_word_embeddings": False}),
        ("gptj", {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 512, "rotary_dim": 8}),
        ("gptj", {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 512, "rotary_dim": 8, "n_inner": 96}),
    ],
)
def test_branches_side_by_side(family: str, sizes: dict[str, Any]) -> None:
    config = transformers.AutoConfig.for_model(family, **sizes)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config)
    count = sum(parameter.numel() for parameter in module.parameters())
    model = model_from_config(config.to_dict(), family)
    assert model.parameters == count
    assert expand(model, FineTuning(batch=1, sequence=8)).trainable_parameters == count
    # A cache of its own heads of keys: 2 tensors, 2 layers, 2 bytes.
    kept = tierform.simulate(model, Inference(batch=3, sequence=16, decode=4), "h100", thermal="none")
    assert kept.memory_footprint_B["kv_cache"] == 2 * 2 * 2 * 3 * 20 * model.kv_heads * 16
    rotary = {
        o.name for _, _, o, _ in expand(model, Inference(batch=1, sequence=8)).occurrences() if "rotary" in o.name
    }
    assert bool(rotary) == (not sizes.get("alibi", False))


def test_how_many_parameters_have_falcon_180b_and_gpt_j_6b() -> None:
    """As published: 179.5 and 6.05 billion."""
    falcon = {
        "hidden_size": 14848,
        "num_hidden_layers": 80,
        "num_attention_heads": 232,
        "num_kv_heads": 8,
        "vocab_size": 65024,
        "new_decoder_architecture": True,
        "tie_word_embeddings": False,
    }
    assert model_from_config({"model_type": "falcon", **falcon}, "falcon-180b").parameters == pytest.approx(
        179.5e9, rel=2e-3
    )
    assert model_from_config({"model_type": "gptj"}, "gpt-j").parameters == pytest.approx(6.05e9, rel=2e-3)


def gemma(**more: Any) -> Model:
    sizes = {**SMALL, "head_dim": 16, "sliding_window": 64, "max_position_embeddings": 1024, "num_hidden_layers": 6}
    return model_from_config({"model_type": "gemma2", **sizes, **more})


def test_mixed_windows_keep_and_read_what_they_say() -> None:
    task = Inference(batch=1, sequence=256, decode=1)
    # 2 kv heads of 16, keys and values in 2 bytes: 128 bytes a token; three layers keep 64 tokens, three all 257.
    kept = tierform.simulate(gemma(), task, "h100", thermal="none").memory_footprint_B["kv_cache"]
    assert kept == pytest.approx(128 * 3 * (64 + 257), rel=0.01)
    whole = tierform.simulate(gemma(sliding_window=1024), task, "h100", thermal="none")
    assert whole.memory_footprint_B["kv_cache"] == 128 * 6 * 257
    steps = [wave for stage in expand(gemma(), task).stages[1:] for wave in stage.waves]
    cores = [one.attention for wave in steps for block in wave.blocks for one in block.operators if one.attention]
    assert {core.keys for core in cores} == {64, 257}
    stated = gemma(layer_types=["full_attention"] * 5 + ["sliding_attention"])
    assert stated.local_layers == (5,)


def folder(path: Path, config: dict[str, Any]) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    return path


TRACED: dict[str, dict[str, Any]] = {
    "electra": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
    "deberta-v2": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128},
    "mamba": {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 512},
    "dinov2": {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
    "whisper": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
    },
}


SIZES = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
COUNTED: dict[str, dict[str, Any]] = {
    "albert": {**SIZES, "embedding_size": 32, "vocab_size": 512},
    "bart": {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "vocab_size": 512,
    },
    "beit": SIZES,
    "clip_vision_model": SIZES,
    "distilbert": {"n_layers": 2, "dim": 64, "n_heads": 4, "hidden_dim": 128, "vocab_size": 512},
    "mamba2": {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_heads": 8,
        "head_dim": 16,
        "vocab_size": 512,
        "state_size": 16,
        "n_groups": 1,
    },
    "modernbert": {**SIZES, "vocab_size": 512, "pad_token_id": 0},
    "mpt": {"n_layers": 2, "d_model": 64, "n_heads": 4, "vocab_size": 512},
    "siglip_vision_model": SIZES,
}


@pytest.mark.parametrize("family", COUNTED)
def test_a_traced_pass_has_every_parameter_of_its_module(family: str, tmp_path: Path) -> None:
    """With those of the test below sixteen traced families: attention, convolutions, state spaces, two stacks."""
    config = transformers.AutoConfig.for_model(family, **COUNTED[family])
    with torch.device("meta"):
        module = transformers.AutoModel.from_config(config)
    count = sum(parameter.numel() for parameter in module.parameters())
    model = load_model(folder(tmp_path / family, config.to_dict()))
    assert model.folder and model.parameters == count
    traced = expand(model, Inference(batch=1, sequence=16, decode=0))
    assert traced.parameters == count and any(operator.macs for _, _, operator, _ in traced.occurrences())


@pytest.mark.parametrize("family", TRACED)
def test_any_other_model_is_traced(family: str, tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model(family, **TRACED[family])
    path = folder(tmp_path / family, config.to_dict())
    with torch.device("meta"):
        module = transformers.AutoModel.from_config(config)
    model = load_model(path)
    assert model.folder and model.parameters == sum(parameter.numel() for parameter in module.parameters())
    found = tierform.simulate(str(path), Inference(batch=1, sequence=16, decode=0), "a100", thermal="none")
    assert found.operations > 0 and found.latency_s > 0
    with pytest.raises(TierformError, match="only the prompt's pass"):
        tierform.simulate(model, Inference(batch=1, sequence=16, decode=4), "a100", thermal="none")


def test_what_is_not_known_says_how_to_trace(tmp_path: Path) -> None:
    with pytest.raises(TierformError, match="transformers` knows is traced"):
        load_model(folder(tmp_path / "x", {"model_type": "no-such-model"}))


LLAMA = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
    "vocab_size": 512,
}
QUANTIZED: dict[str, tuple[dict[str, Any], str, str]] = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4-g128", ""),
    "gptq": ({"quant_method": "gptq", "bits": 3, "group_size": 64}, "int3-g64", ""),
    "whole columns": ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8-channel", ""),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "nf4-64", ""),
    "llm.int8": ({"load_in_8bit": True}, "int8-channel", "int8"),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8"),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4", ""),
    "w4a16": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
        },
        "int4-g32",
        "",
    ),
    "w8a8": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "group_0": {
                    "weights": {"num_bits": 8, "type": "int"},
                    "input_activations": {"num_bits": 8, "type": "int"},
                }
            },
        },
        "int8-channel",
        "int8",
    ),
}


@pytest.mark.parametrize("case", QUANTIZED)
def test_a_quantized_checkpoint_is_simulated_in_its_formats(case: str) -> None:
    stated, weights, inputs = QUANTIZED[case]
    model = model_from_config({**LLAMA, "quantization_config": stated})
    assert (model.weights_format, model.inputs_format) == (weights, inputs)
    task = Inference(batch=1, sequence=16, decode=1)
    plain = tierform.simulate(model_from_config(LLAMA), task, "h100", thermal="none")
    found = tierform.simulate(model, task, "h100", thermal="none")
    ends = 2 * 512 * 1024 * 2 + 9 * 1024 * 2  # embedding and head stay, so do the norms
    width = tierform.workload.formats.format_of(weights).bits_per_number(1024) / 16
    layers = plain.memory_footprint_B["weights"] - ends
    assert found.memory_footprint_B["weights"] == pytest.approx(ends + layers * width, rel=0.01)


def listed(*names: str, layers: int = 4) -> list[str]:
    return ["lm_head", *(f"model.layers.{layer}.{name}" for layer in range(layers) for name in names)]


@pytest.mark.parametrize(
    ("key", "exempt", "wide"),
    [
        ("modules_to_not_convert", listed("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj"), ("attention",)),
        ("modules_to_not_convert", listed("self_attn.o_proj", layers=3), ()),  # one layer is quantized
        ("modules_to_not_convert", listed("mlp.gate"), ()),  # a router
        ("modules_to_not_convert", ["self_attn", "lm_head"], ("attention",)),
        ("ignored_layers", listed("mlp.down_proj"), ("ffn",)),
        ("ignore", ["lm_head", "re:.*self_attn.*"], ("attention",)),
        ("ignore", ["lm_head", 7, "x" * 2000], ()),
        ("modules_to_not_convert", "self_attn", ()),
    ],
)
def test_is_what_a_quantized_checkpoint_exempts_in_all_layers_kept_wide(
    key: str, exempt: Any, wide: tuple[str, ...]
) -> None:
    stated = {"quant_method": "fbgemm_fp8" if key != "ignore" else "fp8", key: exempt}
    model = model_from_config({**LLAMA, "quantization_config": stated})
    assert model.wide_parts == wide
    plain, all_fp8 = (
        model_from_config(LLAMA),
        model_from_config({**LLAMA, "quantization_config": {"quant_method": "fp8"}}),
    )
    task = Inference(batch=1, sequence=16, decode=1)
    weights = [
        tierform.simulate(m, task, "h100", thermal="none").memory_footprint_B["weights"]
        for m in (plain, model, all_fp8)
    ]
    matrices = {"attention": 4 * 4 * 1024 * 1024, "ffn": 4 * 3 * 1024 * 2048}  # numbers, a byte more each where wide
    assert weights[0] - weights[2] == sum(matrices.values())
    assert weights[1] - weights[2] == sum(matrices[part] for part in wide)


def test_an_unknown_quantization_is_refused_with_the_nearest() -> None:
    for stated, told in (
        ({"quant_method": "gptk"}, "did you mean 'gptq'"),
        ({"quant_method": "awq", "bits": 40}, "from 2 to 8"),
        ({"quant_method": "compressed-tensors"}, "a group with `weights`"),
        ("awq", "an object is needed"),
    ):
        with pytest.raises(TierformError) as refused:
            model_from_config({**LLAMA, "quantization_config": stated})
        assert told in str(refused.value)
