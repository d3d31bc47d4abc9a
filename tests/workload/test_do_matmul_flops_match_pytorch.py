"""Are the matmul operations, forward and backward, exactly those that PyTorch's flop counter sees?"""

from __future__ import annotations

import pytest
import reference_modules as reference
import torch
import transformers
from reference_modules import BATCH, SEQUENCE, counted_flops, our_flops

from tierform.workload import BitFit, FineTuning, Inference, LastLayers, LoRA, expand, load_model


def task(method: object = None, **more: object) -> FineTuning:
    return FineTuning(*([method] if method else []), batch=BATCH, sequence=SEQUENCE, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", reference.CASES)
def test_full_training(case: str) -> None:
    module, model = reference.build(case)
    assert our_flops(expand(model, task(), eager=True)) == counted_flops(module)


@pytest.mark.parametrize("case", ["bert", "gpt2", "llama", "mixtral", "deepseek-v3", "t5", "vit classifier"])
def test_inference_forward(case: str) -> None:
    module, model = reference.build(case)
    workload = expand(model, Inference(batch=BATCH, sequence=SEQUENCE), eager=True)
    assert our_flops(workload)[0] == counted_flops(module)[0]


@pytest.mark.parametrize(
    ("case", "modules", "targets"),
    [
        ("bert", ["query", "value"], ("q", "v")),
        ("llama", ["q_proj", "v_proj"], ("q", "v")),
        (
            "llama",
            ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"],
            ("q", "k", "v", "o", "up", "gate", "down"),
        ),
        ("llama", ["down_proj"], ("down",)),
        ("opt post-norm", ["q_proj", "v_proj"], ("q", "v")),
        ("t5", ["q", "v"], ("q", "v")),
        ("vit", ["q_proj", "o_proj"], ("q", "o")),
    ],
)
def test_low_rank_adapters_as_peft_puts_them(case: str, modules: list[str], targets: tuple[str, ...]) -> None:
    from peft import LoraConfig, get_peft_model

    module, model = reference.build(case)
    adapted = get_peft_model(module, LoraConfig(r=5, target_modules=modules, lora_dropout=0.0)).to("meta")
    workload = expand(model, task(LoRA(5, targets)), eager=True)
    assert workload.trainable_parameters == sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert our_flops(workload) == counted_flops(adapted)


@pytest.mark.parametrize(("case", "layer"), [("llama", "layers.1."), ("bert", "layer.1.")])
def test_nothing_propagates_below_the_last_layers(case: str, layer: str) -> None:
    module, model = reference.build(case)
    for name, parameter in module.named_parameters():
        parameter.requires_grad = layer in name or name.startswith(("lm_head", "pooler", "model.norm"))
    workload = expand(model, task(LastLayers(1)), eager=True)
    assert workload.trainable_parameters == sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert our_flops(workload) == counted_flops(module)
    assert [block.name for block in workload.stages[1].blocks] == ["head", "layer[1]"]


def test_biases_alone() -> None:
    module, model = reference.build("bert")
    for name, parameter in module.named_parameters():
        parameter.requires_grad = name.endswith("bias")
    workload = expand(model, task(BitFit()), eager=True)
    assert workload.trainable_parameters == sum(p.numel() for p in module.parameters() if p.requires_grad)
    assert our_flops(workload) == counted_flops(module)


@pytest.mark.parametrize("case", ["llama", "bert"])
def test_recomputation_runs_what_gradient_checkpointing_runs(case: str) -> None:
    module, model = reference.build(case)
    module.gradient_checkpointing_enable({"use_reentrant": False})
    assert our_flops(expand(model, task(recomputation="full"), eager=True)) == counted_flops(module)


def test_the_counter_is_not_blind_here() -> None:
    """The counter sees nothing of CPU scaled-dot-product attention, so eager attention must be what it saw."""
    module, _ = reference.build("bert")
    eager = counted_flops(module)[0]
    scores = 2 * 2 * BATCH * 2 * SEQUENCE * SEQUENCE * 128  # two products, two layers
    config = transformers.BertConfig(**reference.CASES["bert"][2])
    plain = reference.from_config("BertModel", config)
    linear = sum(
        2 * m.weight.numel() * (BATCH if "pooler" in name else BATCH * SEQUENCE)
        for name, m in plain.named_modules()
        if isinstance(m, torch.nn.Linear)
    )
    assert eager == linear + scores


def test_logits_of_the_last_token_only_unless_all_are_asked_for() -> None:
    model = load_model("gpt2")
    lean, full = (our_flops(expand(model, Inference(batch=2, sequence=100), eager=e))[0] for e in (False, True))
    assert full - lean == 2 * 2 * 99 * 768 * 50257


def test_a_sliding_window_bounds_the_keys() -> None:
    model = load_model("mistral-7b")
    lean = expand(model, Inference(sequence=8192))
    scores = next(o for _, b, o, _ in lean.occurrences() if o.name == "attention.scores")
    assert (scores.m, scores.n) == (8192, 4096)
    full = expand(model, Inference(sequence=8192), eager=True)
    assert next(o for _, b, o, _ in full.occurrences() if o.name == "attention.scores").n == 8192
