"""What does eager PyTorch keep beside the tensors that gradients need?  Counted by hand for LLaMA's layer.

16 layers of width h = 2,048 with 32 heads of 64, 8 of keys, and an FFN of 8,192: per token and layer, bytes in bf16.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tierform.workload import FineTuning, Full, LoRA, PrecisionPlan, QLoRA, Training, expand, load_model
from tierform.workload.autograd import HABITS, Habits

MODEL, TOKENS, LAYERS = load_model("llama-3.2-1b"), 128, 16
H, KV, FFN = 2048, 512, 8192


def more_B(task: FineTuning, *habits: str) -> float:
    """Bytes per token of one layer (not the lowest) that the habits add."""
    found: Habits = frozenset(habit for habit in HABITS if habit in habits)
    before, after = (
        expand(MODEL, task, attention="fused", habits=own).saved_B("layer[1..15]" if lora(task) else "layer")[0]
        for own in (frozenset(), found)
    )
    return (after - before) / TOKENS


def lora(task: FineTuning) -> bool:
    return not isinstance(task.method, Full)


ADAPTED = FineTuning(LoRA(8, ("q", "v")), batch=1, sequence=TOKENS)


def test_norms_keep_a_wide_copy() -> None:
    """Two norms a layer read the residual, which nothing else keeps: 4 bytes instead of 2.  A gain that learns keeps
    the normalized result as well: 2 bytes."""
    assert more_B(ADAPTED, "wide-norms") == 2 * 2 * H
    assert more_B(Training(batch=1, sequence=TOKENS), "wide-norms") == 2 * (2 + 2) * H


def test_values_are_a_view_of_the_joined_projection() -> None:
    """Queries and keys as they were before their rotation stay with the values; two of three have adapters, whose
    results are kept where they are copied into their places."""
    assert more_B(ADAPTED, "joined-projections") == 2 * (H + KV) + 2 * (H + KV)
    every = FineTuning(LoRA(8, ("q", "k", "v")), batch=1, sequence=TOKENS)
    assert more_B(every, "joined-projections") == 2 * (H + KV)


def test_dropout_before_adapters_has_a_mask() -> None:
    """Query and value have one input."""
    assert more_B(ADAPTED, "adapter-dropout") == H


def test_products_with_quantized_weights_keep_their_inputs() -> None:
    """Attention's result is kept in any case; the input of gate and up (h) and that of down (FFN) come on top.  That of
    query, key and value is kept for the adapters: with dropout they have another one, and it comes on top, too."""
    task = FineTuning(QLoRA(8, ("q", "v")), batch=1, sequence=TOKENS)
    assert more_B(task, "quantized-inputs") == 2 * (H + FFN)
    assert more_B(task, "quantized-inputs", "adapter-dropout") == 2 * (H + FFN) + 2 * H + H
    assert more_B(ADAPTED, "quantized-inputs") == 0


def test_recomputed_layers_keep_nothing_more() -> None:
    task = replace(ADAPTED, recomputation="full")
    assert more_B(task, *HABITS) == 0


def test_main_gradients_are_in_fp32() -> None:
    """18 bytes of each parameter under AdamW, not 16; no gradient that is given otherwise changes."""
    plan = PrecisionPlan(weights="fp16", activations="fp16", gradients="fp16", adapters="fp16", kv_cache="fp16")
    task = Training(batch=1, sequence=TOKENS, precision=plan)

    def per_parameter(own: FineTuning) -> float:
        footprint = expand(MODEL, own, habits=frozenset({"main-gradients"})).footprint
        return (footprint.total - footprint.activations) / MODEL.parameters

    assert per_parameter(task) == pytest.approx(18)
    assert per_parameter(replace(task, precision=replace(plan, main_gradients="fp16"))) == pytest.approx(16)
