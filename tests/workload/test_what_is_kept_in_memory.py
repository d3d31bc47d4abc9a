"""Is the memory footprint what published formulas say?"""

from __future__ import annotations

import pytest

from tierform.workload import (
    FineTuning,
    Full,
    Inference,
    LoRA,
    PrecisionPlan,
    QLoRA,
    expand,
    load_model,
    model_from_config,
)


def activations_of_one_layer(recomputation: str, *, width: int = 256, heads: int = 8, s: int = 64, b: int = 2) -> int:
    """Bytes that one more layer of a GPT-2 adds."""
    sizes = {"model_type": "gpt2", "n_embd": width, "n_head": heads, "n_positions": 128, "vocab_size": 99}
    found = []
    for layers in (3, 4):
        model = model_from_config({**sizes, "n_layer": layers})
        task = FineTuning(batch=b, sequence=s, recomputation=recomputation)  # type: ignore[arg-type]
        found.append(expand(model, task).footprint.activations)
    return found[1] - found[0]


@pytest.mark.parametrize(("width", "heads", "s", "b"), [(256, 8, 64, 2), (96, 4, 30, 1), (512, 8, 128, 3)])
def test_stored_activations_follow_korthikanti(width: int, heads: int, s: int, b: int) -> None:
    """Korthikanti et al. (2022), 16-bit, with dropout: sbh (34 + 5 a s / h), 34 sbh selectively, 2 sbh fully."""
    sbh = s * b * width
    sizes = {"width": width, "heads": heads, "s": s, "b": b}
    assert activations_of_one_layer("none", **sizes) == 34 * sbh + 5 * heads * s * s * b
    assert activations_of_one_layer("selective", **sizes) == 34 * sbh
    assert activations_of_one_layer("full", **sizes) == 2 * sbh


def test_mixed_precision_adamw_takes_16_bytes_per_parameter() -> None:
    memory = expand(load_model("llama-3.1-8b"), FineTuning(Full(), sequence=16)).footprint
    states = memory.weights + memory.gradients + memory.optimizer_states + memory.master_weights
    assert states == 16 * 8_030_261_248


def test_single_precision_adamw_takes_16_bytes_without_a_master_copy() -> None:
    plan = PrecisionPlan(weights="fp32", activations="fp32", gradients="fp32")
    memory = expand(load_model("gpt2"), FineTuning(sequence=16, precision=plan)).footprint
    assert memory.master_weights == 0
    assert memory.weights + memory.gradients + memory.optimizer_states == 16 * 124_439_808


@pytest.mark.parametrize(("optimizer", "states"), [("adamw", 8), ("sgd-momentum", 4), ("sgd", 0)])
def test_optimizer_states(optimizer: str, states: int) -> None:
    task = FineTuning(sequence=16, optimizer=optimizer)  # type: ignore[arg-type]
    assert expand(load_model("gpt2"), task).footprint.optimizer_states == states * 124_439_808


def test_frozen_weights_have_no_gradients_or_states() -> None:
    memory = expand(load_model("gpt2-medium"), FineTuning(LoRA(32), sequence=16)).footprint
    adapters = 24 * 2 * 2 * 32 * 1024
    assert memory.weights == 2 * 354_823_168
    assert memory.adapters == memory.gradients == 2 * adapters
    assert memory.optimizer_states == 8 * adapters
    assert memory.master_weights == 4 * adapters


def test_4_bit_base_weights_of_qlora() -> None:
    """Attention and FFN matrices at 4 bits and 0.127 bit of block scales each; the rest stays at 16 bits."""
    model = load_model("llama-2-7b")
    memory = expand(model, FineTuning(QLoRA(8), sequence=16)).footprint
    quantized = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
    expected = quantized * 4.127 / 8 + 2 * (model.parameters - quantized)
    assert memory.weights == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "values"),
    [("llama-2-7b", 32 * 2 * 32 * 128), ("llama-3.1-8b", 32 * 2 * 8 * 128), ("deepseek-v3", 61 * (512 + 64))],
)
def test_cache_per_token(name: str, values: int) -> None:
    """Grouped queries keep the key/value heads only; latent attention its latent and rotary key."""
    task = Inference(batch=3, sequence=100, decode=28)
    assert expand(load_model(name), task).footprint.kv_cache == 2 * 3 * 128 * values


def test_cache_of_a_sliding_window_stops_growing() -> None:
    model = load_model("mistral-7b")
    sizes = [expand(model, Inference(sequence=s)).footprint.kv_cache for s in (4095, 4096, 4097, 20000)]
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]


def test_cache_format_is_its_own() -> None:
    wide, narrow = (
        expand(load_model("llama-3.1-8b"), Inference(sequence=64, precision=PrecisionPlan(kv_cache=name)))
        for name in ("bf16", "int4")
    )
    assert wide.footprint.kv_cache == 4 * narrow.footprint.kv_cache


def test_weight_bits_by_module() -> None:
    """M8F4 stores attention at 8 and FFN at 4 bits; norms and biases stay at the activations' 16."""
    plan = PrecisionPlan(master_weights=None).with_weights("M8F4")
    model = load_model("bert-large")
    weights = expand(model, Inference(sequence=16, precision=plan)).weights
    size = {module: sum(w.size_B for w in weights if w.part == module and w.matrix) for module in ("attention", "ffn")}
    assert size == {"attention": 24 * 4 * 1024**2, "ffn": 24 * 8 * 1024**2 // 2}
    assert {w.precision for w in weights if not w.matrix} == {"bf16"}
