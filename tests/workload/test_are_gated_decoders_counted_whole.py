"""Are the gated decoders that are LLaMA's kin counted to the number: the parameters that their checkpoints have?

Configurations and totals as published with the models on the Hugging Face Hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tierform import Inference
from tierform.workload import expand, load_model

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "phi-3-mini-4k": (
        {
            "model_type": "phi3",
            "architectures": ["Phi3ForCausalLM"],
            "hidden_size": 3072,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "intermediate_size": 8192,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "sliding_window": 2047,
            "tie_word_embeddings": False,
        },
        3_821_079_552,
    ),
    "granite-3.1-2b": (
        {
            "model_type": "granite",
            "architectures": ["GraniteForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
            "vocab_size": 49155,
            "logits_scaling": 8.0,
            "tie_word_embeddings": True,
        },
        2_533_531_648,
    ),
    "smollm3-3b": (
        {
            "model_type": "smollm3",
            "architectures": ["SmolLM3ForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "intermediate_size": 11008,
            "vocab_size": 128256,
            "no_rope_layer_interval": 4,
        },
        3_075_098_624,
    ),
    "gemma-2b": (
        {
            "model_type": "gemma",
            "architectures": ["GemmaForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 18,
            "num_attention_heads": 8,
            "num_key_value_heads": 1,
            "intermediate_size": 16384,
            "vocab_size": 256000,
            "hidden_act": "gelu",
        },
        2_506_172_416,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_parameter_is_counted(name: str, tmp_path: Path) -> None:
    content, total = PUBLISHED[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = load_model(tmp_path)
    assert model.parameters == total
    assert expand(model, Inference(sequence=16, decode=1)).parameters == total


def test_a_window_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED["phi-3-mini-4k"][0]))
    assert load_model(tmp_path).sliding_window == 2047
