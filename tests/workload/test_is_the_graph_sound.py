"""Do the operators of every model and method form a valid graph, and do its totals add up?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import reference_modules as reference
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tierform.workload import (
    Adapters,
    BitFit,
    FineTuning,
    Full,
    Inference,
    Kind,
    LastLayers,
    LoRA,
    MicroBatches,
    Operator,
    Phase,
    QLoRA,
    Role,
    Workload,
    expand,
    load_model,
    model_from_config,
)
from tierform.workload.contract import check_family, check_workload
from tierform.workload.experts import experts_touched, shares
from tierform.workload.graph import Wave

FAMILIES = [
    "bert-base",
    "roberta-base",
    "gpt2",
    "opt-350m",
    "bloom-560m",
    "llama-3.2-1b",
    "mistral-7b",
    "mixtral-8x7b",
    "vit-base-patch16-224",
    "hpt-swe",
    "qwen1.5-moe-a2.7b",
    "qwen3-30b-a3b",
    "deepseek-v2-lite",
    "t5-small",
]
METHODS = [Full(), LoRA(4), QLoRA(4, ("q", "up")), Adapters(16), LastLayers(2)]


def operators(workload: Workload, name: str) -> list[Operator]:
    return [o for _, _, o, _ in workload.occurrences() if o.name == name]


@pytest.mark.parametrize("name", FAMILIES)
def test_inference_graphs(name: str) -> None:
    model = load_model(name)
    check_workload(expand(model, Inference(batch=2, sequence=40, decode=21 if model.generative else 0)))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("name", FAMILIES)
def test_training_graphs(name: str, method: object) -> None:
    for recomputation in ("none", "selective", "full"):
        task = FineTuning(method, batch=2, sequence=40, recomputation=recomputation)  # type: ignore[arg-type]
        workload = expand(load_model(name), task)
        check_workload(workload)
        static = {o.weight for _, _, o, _ in workload.occurrences() if o.kind is Kind.MATMUL and o.static_operand}
        trained = {w.name for w in workload.weights if w.trainable}
        layered = {w.name for w in workload.weights if w.trainable and w.block not in ("embedding", "head")}
        updated = {o.weight for s, _, o, _ in workload.occurrences() if s.name == "update"}
        assert updated == trained
        if isinstance(method, LoRA | QLoRA | Adapters):
            assert not static & layered


@pytest.mark.parametrize("case", reference.CASES)
def test_every_family_meets_the_contract(case: str) -> None:
    module_class, config_class, sizes = reference.CASES[case]
    config = getattr(transformers, config_class)(**sizes).to_dict()
    check_family({**config, "architectures": [module_class]})


def test_dense_layers_between_expert_layers_are_blocks_of_their_own() -> None:
    sizes = {
        "model_type": "qwen2_moe",
        "num_hidden_layers": 7,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": 50,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 30,
        "mlp_only_layers": [2, 3],
    }
    check_family(sizes)
    blocks = expand(model_from_config(sizes), FineTuning(LoRA(4))).stages[0].blocks
    assert [b.name for b in blocks[1:-1]] == ["layer[0]", "layer[1]", "dense_layer", "layer[4..6]"]


def test_the_contract_can_fail() -> None:
    workload = expand(load_model("gpt2"), FineTuning())
    with pytest.raises(AssertionError, match="do not sum"):
        check_workload(replace(workload, parameters=1))
    forward = workload.stages[0]
    layer = forward.blocks[1]
    mixed = replace(layer, operators=layer.operators[::-1])
    stage = replace(forward, waves=(Wave((forward.blocks[0], mixed, forward.blocks[2])),))
    with pytest.raises(AssertionError, match="comes later"):
        check_workload(replace(workload, stages=(stage, *workload.stages[1:])))


def test_frozen_weights_get_only_an_input_gradient_and_learning_ones_two_products() -> None:
    model = load_model("gpt2")
    low_rank, full = expand(model, FineTuning(LoRA(8))), expand(model, FineTuning())
    assert operators(low_rank, "attention.o.grad_input") and not operators(low_rank, "attention.o.grad_weight")
    assert operators(full, "attention.o.grad_input") and operators(full, "attention.o.grad_weight")
    gradient = operators(low_rank, "ffn.up.grad_input")[0]
    assert gradient.transposed and gradient.static_operand is not None and gradient.weight == "ffn.up"
    assert (gradient.n, gradient.k) == (768, 3072)
    assert not operators(full, "ffn.up.grad_input")[0].static_operand


def test_queries_keys_values_and_the_low_rank_branch_run_in_parallel() -> None:
    forward = {o.name: o for o in expand(load_model("bert-large"), FineTuning(LoRA(32))).stages[0].blocks[1].operators}
    assert forward["attention.q"].after == forward["attention.k"].after == forward["attention.v"].after == ()
    assert forward["attention.q.lora_a"].after == ()
    assert forward["attention.q.lora_add"].after == ("attention.q", "attention.q.lora_b")
    assert set(forward["attention.scores"].after) == {"attention.q.lora_add", "attention.k"}


def test_attention_is_differentiated_with_four_products() -> None:
    names = {o.name for o in expand(load_model("gpt2"), FineTuning()).stages[1].blocks[1].operators}
    assert {f"attention.{a}.grad_{b}" for a in ("scores", "context") for b in ("left", "right")} <= names


def test_identical_layers_are_stored_once() -> None:
    workload = expand(load_model("llama-3.1-405b"), FineTuning())
    assert [(b.name, b.count) for b in workload.stages[0].blocks] == [("embedding", 1), ("layer", 126), ("head", 1)]


def test_atleus_share_of_operations_on_static_weights() -> None:
    """12 n d^2 static, n^2 d causal attention, 2 n d r LoRA as the paper counts them: 91.87 %."""
    forward = expand(load_model("gpt2-medium"), FineTuning(LoRA(32), sequence=1024)).stages[0]
    layer = next(b for b in forward.blocks if b.count == 23).operators
    static = sum(o.macs for o in layer if o.kind is Kind.MATMUL and o.static_operand)
    attention = sum(o.macs for o in layer if o.kind is Kind.MATMUL and o.causal) / 2
    adapters = sum(o.macs for o in layer if o.part == "adapter") / 2
    assert 100 * static / (static + attention + adapters) == pytest.approx(91.87, abs=0.01)


@settings(max_examples=25)
@given(steps=st.integers(1, 90), sequence=st.integers(1, 60), window=st.sampled_from([None, 20, 33]))
def test_runs_of_decode_steps_count_every_step_exactly(steps: int, sequence: int, window: int | None) -> None:
    sizes = {
        "model_type": "mistral",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 50,
        "sliding_window": window or 0,
    }
    model = model_from_config(sizes)
    whole = expand(model, Inference(batch=3, sequence=sequence, decode=steps, prefill=False))
    assert sum(stage.repeat for stage in whole.stages) == steps
    assert all(stage.repeat % 2 for stage in whole.stages)
    single = [expand(model, Inference(batch=3, sequence=sequence + i, decode=1, prefill=False)) for i in range(steps)]
    assert whole.macs == sum(one.macs for one in single)
    moved = [sum(o.input_B * t for _, _, o, t in w.occurrences()) for w in (whole, *single)]
    assert moved[0] == sum(moved[1:])


@given(batch=st.sampled_from([4, 6, 12]), parts=st.sampled_from([1, 2]), accumulation=st.integers(1, 3))
def test_micro_batches_share_the_work_out(batch: int, parts: int, accumulation: int) -> None:
    model = load_model("gpt2")
    one = expand(model, FineTuning(batch=batch, sequence=16))
    many = expand(
        model, FineTuning(batch=batch, sequence=16, gradient_accumulation=accumulation), MicroBatches(training=parts)
    )
    assert many.macs == accumulation * one.macs
    assert (many.stages[0].micro_batches, many.stages[0].repeat) == (parts, accumulation)
    assert many.stages[0].tokens == batch * 16
    assert many.footprint.activations <= one.footprint.activations  # all parts wait; workspace is that of one


@given(st.integers(1, 5000), st.integers(2, 256), st.integers(1, 8))
def test_tokens_are_shared_out_among_experts_exactly(tokens: int, experts: int, chosen: int) -> None:
    chosen = min(chosen, experts)
    parts = shares(tokens, experts, chosen)
    assert sum(count * rows for count, rows in parts) == tokens * chosen
    assert sum(count for count, _ in parts) == experts_touched(tokens, experts, chosen) <= experts


def test_expected_number_of_experts_against_drawing_them() -> None:
    import random

    draw = random.Random(7)
    for tokens, experts, chosen in ((1, 8, 2), (4, 8, 2), (16, 64, 6), (40, 128, 8)):
        found = [len({e for _ in range(tokens) for e in draw.sample(range(experts), chosen)}) for _ in range(1000)]
        assert experts_touched(tokens, experts, chosen) == pytest.approx(sum(found) / 1000, abs=0.7)


def test_decoding_with_latent_attention_reads_the_compressed_cache() -> None:
    workload = expand(load_model("deepseek-v3"), Inference(batch=2, sequence=100, decode=1))
    decode = workload.stages[1].blocks
    scores = next(o for b in decode for o in b.operators if o.name == "attention.scores")
    cache = next(o for o in scores.inputs if o.role is Role.KV_CACHE)
    assert cache.shape == (2, 101, 512 + 64)
    assert (scores.batch, scores.m, scores.n, scores.k) == (2, 128, 101, 576)


def test_recomputed_operators_belong_to_the_backward_phase() -> None:
    stage = expand(load_model("gpt2"), FineTuning(recomputation="full")).stages[1]
    again = [o for b in stage.blocks for o in b.operators if o.name.endswith(".recompute")]
    assert again and all(o.phase is Phase.BACKWARD for o in again)


def test_bitfit_needs_biases() -> None:
    assert expand(load_model("gpt2"), FineTuning(BitFit())).trainable_parameters == 12 * 11 * 768 + 768


def test_houlsby_adapters_and_normalizations_learn() -> None:
    workload = expand(load_model("bert-base"), FineTuning(Adapters(64)))
    adapters, norms = 12 * 2 * (2 * 64 * 768 + 64 + 768), 12 * 2 * 2 * 768
    assert workload.trainable_parameters == adapters + norms


def test_optimizer_reads_and_writes_what_mixed_precision_adamw_does() -> None:
    workload = expand(load_model("gpt2"), FineTuning())
    update = [(o, t) for s, _, o, t in workload.occurrences() if s.name == "update"]
    parameters = 124_439_808
    assert sum(o.input_B * t for o, t in update) == parameters * (2 + 4 + 8)
    assert sum(o.output_B * t for o, t in update) == parameters * (2 + 4 + 8)
    assert sum(o.operations * t for o, t in update) == pytest.approx(14 * parameters)


def test_do_bottleneck_adapters_take_every_token() -> None:
    """Two sequences of 8 tokens: 16 rows into 64 features and back, behind both branches of a layer."""
    workload = expand(load_model("bert-base"), FineTuning(Adapters(64), batch=2, sequence=8))
    layer = max(workload.stages[0].blocks, key=lambda block: block.count)
    products = [o for o in layer.operators if o.part == "adapter" and o.kind is Kind.MATMUL]
    assert [(o.m, o.n, o.k) for o in products] == [(16, 64, 768), (16, 768, 64)] * 2


@pytest.mark.parametrize("last", [1, 2, 5, 12])
def test_do_the_last_layers_learn_and_no_others(last: int) -> None:
    """A layer of GPT-2 has 7,087,872 parameters, its final normalization 1,536, the tied head the embedding's."""
    workload = expand(load_model("gpt2"), FineTuning(LastLayers(last), batch=1, sequence=8))
    learning = {w.block: w.layers for w in workload.weights if w.trainable and w.part in ("attention", "ffn")}
    assert sum(learning.values()) == last
    inside = sum(w.total for w in workload.weights if w.trainable and w.block in learning)
    assert inside == last * 7_087_872
